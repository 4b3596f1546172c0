-- name: exists
-- Whether the table of migrations exists.
select exists (
    select from pg_catalog.pg_tables where schemaname = :'dlq_schema' and tablename = 'migration'
) as found

-- name: host_exists
select exists (
    select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = :'outbox_schema' and c.relname = :'outbox_table'
) as found

-- name: applied
select series, number, name, checksum from :"dlq_schema".migration order by number, series

-- name: record
insert into :"dlq_schema".migration (series, number, name, checksum)
values (%(series)s, %(number)s, %(name)s, %(checksum)s)

-- name: try_lock
select pg_try_advisory_lock(%(key)s) as locked

-- name: unlock
select pg_advisory_unlock(%(key)s)

-- name: timeouts
select current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock

-- name: set_timeouts
select set_config('statement_timeout', %(statement)s, false), set_config('lock_timeout', %(lock)s, false)

-- name: long_transactions
-- Sessions whose transactions a concurrent index build waits for. When the transaction of another role began is visible
-- to members of pg_read_all_stats only.
select pid, usename as role, application_name as program, xact_start as since
from pg_catalog.pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and xact_start < now() - interval '1 second'
    and (backend_xid is not null or backend_xmin is not null)
order by xact_start limit 3
