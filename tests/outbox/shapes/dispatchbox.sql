-- create
create table outbox_event (
    id bigserial primary key,
    aggregate_type text not null,
    aggregate_id text not null,
    event_type text not null,
    payload jsonb not null,
    status text not null default 'pending',
    attempts integer not null default 0,
    next_run_at timestamptz not null default now(),
    created_at timestamptz not null default now()
);
-- write
insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)
values ('order', '7', 'order.placed', '{"total": 3}');
-- give up
update outbox_event set status = 'dead', attempts = 5;
-- take
select from outbox_event
where status in ('pending', 'retry') and next_run_at <= now() for update skip locked;
-- deliver
update outbox_event set status = 'done', attempts = attempts + 1
where status in ('pending', 'retry') and next_run_at <= now();
