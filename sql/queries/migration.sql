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

-- name: hidden_from
-- Roles from which row level security hides rows of the outbox: this role, if it reads the table
-- itself, and the owner of the view through which it reads.
select coalesce(string_agg(r.rolname, ', ' order by r.rolname), '') as roles
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_class v on v.oid = to_regclass(format('%%I.outbox', :'dlq_schema'))
join pg_catalog.pg_roles r
    on r.oid = v.relowner
    or r.rolname = current_user and has_table_privilege(c.oid, 'select')
where n.nspname = :'outbox_schema'
    and c.relname = :'outbox_table'
    and c.relrowsecurity
    and not r.rolsuper
    and not r.rolbypassrls
    and (c.relforcerowsecurity or not pg_has_role(r.oid, c.relowner, 'usage'))

-- name: applied
select number, name, checksum from :"dlq_schema".migration order by number

-- name: record
insert into :"dlq_schema".migration (number, name, checksum)
values (%(number)s, %(name)s, %(checksum)s)

-- name: other_table
-- The table whose deaths are recorded here, if it is not the one of the settings. It is the text of
-- a function, because a name that does not exist cannot be cast.
select attached from (
    select replace(substring(p.prosrc from $$'(.*)'::regclass$$), $$''$$, $$'$$) as attached
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = :'dlq_schema' and p.proname = 'outbox_table'
) recorded
where attached <> :'outbox_regclass'

-- name: attached
select checksum, shape, recorded_at from :"dlq_schema".attachment

-- name: record_attachment
with old as (
    delete from :"dlq_schema".attachment
)
insert into :"dlq_schema".attachment (checksum, shape) values (%(checksum)s, %(shape)s::jsonb)

-- name: record_existing
update :"dlq_schema".attachment set recorded_at = clock_timestamp()

-- name: try_lock
select pg_try_advisory_lock(%(key)s) as locked

-- name: unlock
select pg_advisory_unlock(%(key)s)

-- name: timeouts
select current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock

-- name: lock_wait
-- How long a statement waits for a lock: by lock_timeout, which 0 disables, and at most a second.
select coalesce(least(nullif(setting::integer, 0), 1000), 1000) as milliseconds
from pg_settings
where name = 'lock_timeout'

-- name: set_timeouts
select set_config('statement_timeout', %(statement)s, false), set_config('lock_timeout', %(lock)s, false)
