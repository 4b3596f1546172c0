-- Why and when an event died. All nullable without default: no rewrite, a lock of milliseconds.
alter table :"outbox_schema".:"outbox_table"
    add column if not exists last_error    text,
    add column if not exists last_error_at timestamptz,
    add column if not exists dead_at       timestamptz;

create table if not exists :"outbox_schema".:"archive_table" (
    id             bigint      primary key,
    aggregate_type text        not null,
    aggregate_id   text        not null,
    event_type     text        not null,
    payload        jsonb       not null,
    status         text        not null,
    attempts       integer     not null,
    next_run_at    timestamptz not null,
    created_at     timestamptz not null,
    archived_at    timestamptz default now()
);

alter table :"outbox_schema".:"archive_table"
    add column if not exists last_error    text,
    add column if not exists last_error_at timestamptz,
    add column if not exists dead_at       timestamptz;
