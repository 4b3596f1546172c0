-- create
create table outboxevent (
    id uuid primary key default gen_random_uuid(),
    "timestamp" timestamp not null default now(),
    aggregatetype varchar(255) not null,
    aggregateid varchar(255) not null,
    type varchar(255) not null,
    payload jsonb not null
);
-- write
insert into outboxevent (aggregatetype, aggregateid, type, payload)
values ('order', '7', 'order.placed', '{"total": 3}');
