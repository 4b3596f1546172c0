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

-- name: statement_timeout
select current_setting('statement_timeout') as value

-- name: set_statement_timeout
select set_config('statement_timeout', %(value)s, false)
