-- create
create schema outbox;
create table outbox.outbox (
    id uuid primary key,
    aggregate_type text not null,
    aggregate_id text not null,
    message_type text not null,
    segment text,
    concurrency text not null default 'sequential',
    payload jsonb not null,
    metadata jsonb,
    locked_until timestamptz not null default to_timestamp(0),
    created_at timestamptz not null default clock_timestamp(),
    processed_at timestamptz,
    abandoned_at timestamptz,
    started_attempts smallint not null default 0,
    finished_attempts smallint not null default 0
);
-- write
insert into outbox.outbox (id, aggregate_type, aggregate_id, message_type, payload)
values (gen_random_uuid(), 'order', '7', 'order.placed', '{"total": 3}');
-- give up
update outbox.outbox
set abandoned_at = clock_timestamp(), started_attempts = 5, finished_attempts = 5;
-- take
update outbox.outbox
set locked_until = clock_timestamp() + interval '5 seconds',
    started_attempts = started_attempts + 1
where processed_at is null and abandoned_at is null and locked_until <= now()
    and started_attempts < 5;
-- deliver
update outbox.outbox
set processed_at = clock_timestamp(), finished_attempts = finished_attempts + 1
where processed_at is null and abandoned_at is null and started_attempts > finished_attempts;
