-- The application's own table, as applications with a transactional outbox have it: the reference
-- for tests and the demo. A real installation already has its table and never runs this file.
-- To try it: psql -v outbox_schema=public -v outbox_table=outbox_event -f sql/host/outbox_event.sql
create schema if not exists :"outbox_schema";

create table :"outbox_schema".:"outbox_table" (
    id             bigserial   primary key,
    aggregate_type text        not null,
    aggregate_id   text        not null,
    event_type     text        not null,
    payload        jsonb       not null,
    status         text        not null default 'pending',  -- pending | retry | done | dead
    attempts       integer     not null default 0,
    next_run_at    timestamptz not null default now(),
    created_at     timestamptz not null default now()
);

-- What a worker polls.
create index on :"outbox_schema".:"outbox_table" (next_run_at) where status in ('pending', 'retry');
