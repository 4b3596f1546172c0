-- create
create schema graphile_worker;
create table graphile_worker._private_jobs (
    id bigint generated always as identity primary key,
    job_queue_id integer,
    task_id integer not null,
    payload json not null default '{}',
    priority smallint not null default 0,
    run_at timestamptz not null default now(),
    attempts smallint not null default 0,
    max_attempts smallint not null default 25,
    last_error text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    key text unique,
    locked_at timestamptz,
    locked_by text,
    revision integer not null default 0,
    flags jsonb,
    is_available boolean generated always as (locked_at is null and attempts < max_attempts) stored
);
-- write
insert into graphile_worker._private_jobs (task_id, payload) values (1, '{"total": 3}');
-- give up
update graphile_worker._private_jobs
set attempts = 25, last_error = 'KeyError: x', locked_by = null, locked_at = null;
-- take
update graphile_worker._private_jobs
set attempts = attempts + 1, locked_by = 'worker', locked_at = now()
where is_available and run_at <= now();
-- deliver
delete from graphile_worker._private_jobs where locked_by = 'worker';
