-- create
create type river_job_state as enum (
    'available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running',
    'scheduled'
);
create table river_job (
    id bigserial primary key,
    state river_job_state not null default 'available',
    attempt smallint not null default 0,
    max_attempts smallint not null default 25,
    attempted_at timestamptz,
    created_at timestamptz not null default now(),
    finalized_at timestamptz,
    scheduled_at timestamptz not null default now(),
    priority smallint not null default 1,
    args jsonb not null,
    attempted_by text[],
    errors jsonb[],
    kind text not null,
    metadata jsonb not null default '{}',
    queue text not null default 'default',
    tags varchar(255)[] not null default '{}',
    check ((finalized_at is null) = (state not in ('cancelled', 'completed', 'discarded')))
);
-- write
insert into river_job (args, kind) values ('{"total": 3}', 'order.placed');
-- give up
update river_job
set state = 'discarded', attempt = 25, finalized_at = now(),
    errors = array['{"at": "", "attempt": 25, "error": "KeyError: x", "trace": ""}']::jsonb[];
-- take
update river_job
set state = 'running', attempt = attempt + 1, attempted_at = now(),
    attempted_by = array_append(attempted_by, 'worker')
where state = 'available' and scheduled_at <= now();
-- deliver
update river_job set state = 'completed', finalized_at = now() where state = 'running';
