-- Is all there that the work needs?

-- name: triggers
-- The triggers that record deaths, and of one that does not fire the statement that mends it: one that is gone is made
-- again by its migration, once that counts as not applied.
select wanted.name, coalesce(t.tgenabled in ('O', 'A'), false) as fires, t.oid is null as gone, case
    when t.oid is null then format('delete from %%I.migration where name = ''0003_record_deaths''', :'dlq_schema')
    else format('alter table %%I.%%I enable trigger %%I', :'outbox_schema', :'outbox_table', wanted.name) end as mend
from unnest(array['dlq_death_update', 'dlq_death_insert', 'dlq_death_inserted']) as wanted (name)
left join pg_catalog.pg_trigger t
    on t.tgname = wanted.name and t.tgrelid = format('%%I.%%I', :'outbox_schema', :'outbox_table')::regclass
order by 1

-- name: rights
-- What this role lacks, as the grants that would give it.
select format('grant %%s on %%s to %%I', string_agg(need.privilege, ', ' order by need.privilege), need.relation,
    current_user) as lacking
from (
    select format('%%I.%%I', n.nspname, c.relname) as relation, c.oid, p.privilege
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    cross join unnest(array['select', 'insert', 'update', 'delete']) as p (privilege)
    where (n.nspname = :'dlq_schema' and c.relkind = 'r' and c.relname <> 'migration')
        or (n.nspname = :'outbox_schema' and c.relname in (:'outbox_table', :'archive_table'))
) need
where not has_table_privilege(need.oid, need.privilege)
group by need.relation
order by need.relation

-- name: unclassified
-- Deaths that wait for their cause.
select count(*) as deaths, extract(epoch from %(now)s::timestamptz - min(died_at))::float8 as seconds
from :"dlq_schema".death where cause_id is null

-- name: daemons
-- Dagster's own table: when each of its daemons was last alive, in its database.
select daemon_type as daemon, extract(epoch from now() at time zone 'UTC' - timestamp)::float8 as seconds
from daemon_heartbeats where daemon_type in ('SCHEDULER', 'SENSOR', 'QUEUED_RUN_COORDINATOR') order by 1
