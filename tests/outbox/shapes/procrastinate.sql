-- create
create type procrastinate_job_status as enum (
    'todo', 'doing', 'succeeded', 'failed', 'cancelled', 'aborting', 'aborted'
);
create table procrastinate_workers (id bigint generated always as identity primary key);
create table procrastinate_jobs (
    id bigserial primary key,
    queue_name varchar(128) not null,
    task_name varchar(128) not null,
    priority integer not null default 0,
    lock text,
    queueing_lock text,
    args jsonb not null default '{}',
    status procrastinate_job_status not null default 'todo',
    scheduled_at timestamptz,
    attempts integer not null default 0,
    abort_requested boolean not null default false,
    worker_id bigint references procrastinate_workers (id) on delete set null,
    check (not (status = 'todo' and abort_requested))
);
-- write
insert into procrastinate_jobs (queue_name, task_name, lock, args)
values ('order', 'order.placed', '7', '{"total": 3}');
-- give up
update procrastinate_jobs set status = 'failed', attempts = 5;
-- take
update procrastinate_jobs set status = 'doing'
where status = 'todo' and (scheduled_at is null or scheduled_at <= now());
-- deliver
update procrastinate_jobs
set status = 'succeeded', abort_requested = false, attempts = attempts + 1
where status = 'doing';
