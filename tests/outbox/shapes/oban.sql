-- create
create type oban_job_state as enum (
    'available', 'suspended', 'scheduled', 'executing', 'retryable', 'completed', 'discarded',
    'cancelled'
);
create table oban_jobs (
    id bigserial primary key,
    state oban_job_state not null default 'available',
    queue text not null default 'default',
    worker text not null,
    args jsonb not null default '{}',
    errors jsonb[] not null default '{}',
    attempt integer not null default 0,
    max_attempts integer not null default 20,
    inserted_at timestamp not null default timezone('utc', now()),
    scheduled_at timestamp not null default timezone('utc', now()),
    attempted_at timestamp,
    completed_at timestamp,
    discarded_at timestamp
);
-- write
insert into oban_jobs (worker, args) values ('order.placed', '{"total": 3}');
-- give up
update oban_jobs
set state = 'discarded', attempt = 20, discarded_at = timezone('utc', now()),
    errors = array['{"attempt": 1, "error": "first"}', '{"attempt": 20, "error": "KeyError: x"}']
             ::jsonb[];
-- take
update oban_jobs
set state = 'executing', attempt = attempt + 1, attempted_at = timezone('utc', now())
where state in ('available', 'scheduled', 'retryable') and attempt < max_attempts
    and scheduled_at <= timezone('utc', now());
-- deliver
update oban_jobs set state = 'completed', completed_at = timezone('utc', now())
where state = 'executing';
