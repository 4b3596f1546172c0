-- The error of the last attempt, where the application's table has no column for it. Nullable and
-- without default: PostgreSQL rewrites nothing and holds its lock for milliseconds.
alter table :"outbox_schema".:"outbox_table"
    add column if not exists last_error    text,
    add column if not exists last_error_at timestamptz;
