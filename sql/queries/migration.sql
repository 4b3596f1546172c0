-- name: exists
-- Whether any migration was ever applied.
select exists (
    select from pg_catalog.pg_tables where schemaname = :'dlq_schema' and tablename = 'migration'
) as found

-- name: host_exists
select exists (
    select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = :'outbox_schema' and c.relname = :'outbox_table'
) as found

-- name: applied
select line, number, name, checksum from :"dlq_schema".migration order by number, line

-- name: record
insert into :"dlq_schema".migration (line, number, name, checksum)
values (%(line)s, %(number)s, %(name)s, %(checksum)s)

-- name: try_lock
select pg_try_advisory_lock(%(key)s) as locked

-- name: unlock
select pg_advisory_unlock(%(key)s)

-- name: timeouts
select current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock

-- name: set_timeouts
select set_config('statement_timeout', %(statement)s, false), set_config('lock_timeout', %(lock)s, false)

-- name: long_transactions
-- Sessions of this database in transactions that an index that is built concurrently has to see end. Of other roles'
-- sessions only pg_read_all_stats sees since when.
select pid, usename as role, application_name as program, xact_start as since
from pg_catalog.pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and xact_start < now() - interval '1 second'
    and (backend_xid is not null or backend_xmin is not null)
order by xact_start limit 3
