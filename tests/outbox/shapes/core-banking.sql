-- create
create table outbox_message (
    id bigserial primary key,
    aggregate_type varchar(255) not null,
    aggregate_id bigint not null,
    event_type varchar(255) not null,
    payload jsonb not null,
    status varchar(20) not null default 'PENDING',
    error_message text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
-- write
insert into outbox_message (aggregate_type, aggregate_id, event_type, payload)
values ('order', 7, 'order.placed', '{"total": 3}');
-- give up
update outbox_message set status = 'FAILED', error_message = 'KeyError: x';
-- take
select from outbox_message where status = 'PENDING' for update skip locked;
-- deliver
update outbox_message set status = 'SENT', error_message = null where status = 'PENDING';
