-- create
create table outbox_events (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid,
    aggregate_type varchar(100) not null,
    aggregate_id uuid not null,
    event_type varchar(150) not null,
    payload jsonb not null,
    status varchar(20) not null default 'pending',
    attempts integer not null default 0,
    error varchar(2000),
    occurred_at timestamp not null default now(),
    processed_at timestamp
);
-- write
insert into outbox_events (aggregate_type, aggregate_id, event_type, payload)
values ('order', gen_random_uuid(), 'order.placed', '{"total": 3}');
-- give up
update outbox_events set status = 'dead', attempts = 5, error = 'KeyError: x';
-- take
select from outbox_events where status = 'pending' for update skip locked;
-- deliver
update outbox_events set status = 'processed', processed_at = now() where status = 'pending';
