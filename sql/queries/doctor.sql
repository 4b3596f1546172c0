-- The checks of `dlq doctor`.

-- name: triggers
-- The triggers that record deaths. For one that does not fire: the statement that remedies it. A
-- missing trigger is created by `dlq migrate`, once the attachment is no longer recorded.
select
    wanted.name,
    coalesce(t.tgenabled in ('O', 'A'), false) as fires,
    t.oid is null as is_missing,
    case
        when t.oid is null then format('delete from %%I.attachment', :'dlq_schema')
        else format(
            'alter table %%I.%%I enable trigger %%I',
            :'outbox_schema', :'outbox_table', wanted.name
        )
    end as remedy
from unnest(array['dlq_insert', 'dlq_update', 'dlq_delete', 'dlq_truncate']) as wanted (name)
left join pg_catalog.pg_trigger t
    on t.tgname = wanted.name
    and t.tgrelid = format('%%I.%%I', :'outbox_schema', :'outbox_table')::regclass
order by 1

-- name: outbox_tables
-- The tables that have the triggers of this project.
select n.nspname as schema, c.relname as name
from pg_catalog.pg_trigger t
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where t.tgname = 'dlq_update'
order by 1, 2

-- name: operator
-- Whether the role exists and the connected role is a member of it, and the grant of a membership.
select
    exists (select from pg_catalog.pg_roles where rolname = %(role)s) as is_found,
    exists (
        select from pg_catalog.pg_roles
        where rolname = %(role)s and pg_has_role(current_user, oid, 'usage')
    ) as is_member,
    format('grant %%I to %%I', %(role)s::text, current_user) as grant_statement

-- name: rights
-- The grants that this role lacks, compared with what sql/roles.sql grants to the operator. The
-- operator lacks some rights on purpose: an audit log must not be rewritten by its readers.
with narrower (relation, privilege, columns) as (  -- these columns only; null: not granted at all
    select format('%%I.%%I', :'dlq_schema', name), privilege, null::text[]
    from (values
        ('audit', 'update'),
        ('audit', 'delete'),
        ('attachment', 'insert'),
        ('attachment', 'update'),
        ('attachment', 'delete'),
        ('migration', 'insert'),
        ('migration', 'update'),
        ('migration', 'delete'),
        ('cause', 'delete'),
        ('cause_alias', 'delete'),
        ('cause_day', 'delete'),
        ('fix', 'delete'),
        ('fix_stage', 'delete'),
        ('fix_outcome', 'delete'),
        ('export_day', 'delete'),
        ('deployment', 'delete')
    ) revoked (name, privilege)
    union all values
        (format('%%I.%%I', :'dlq_schema', 'death'), 'update',
            array['cause_id', 'detail', 'ended_at']),
        (format('%%I.%%I', :'dlq_schema', 'outbox'), 'update', array['dead']),
        (format('%%I.%%I', :'dlq_schema', 'archive'), 'update', array['dead'])
    union all
    -- From the text of the function: a role without rights may not call it.
    select format('%%I.%%I', :'outbox_schema', :'outbox_table'), 'update',
        substring(p.prosrc from '\{.*\}')::text[]
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace and n.nspname = :'dlq_schema'
    where p.proname = 'written_columns'
), known as (
    select
        c.oid,
        format('%%I.%%I', n.nspname, c.relname) as relation,
        c.relkind in ('r', 'p') as is_table
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where (n.nspname = :'dlq_schema' and c.relkind in ('r', 'p', 'v', 'm'))
        or (n.nspname = :'outbox_schema' and c.relname = :'outbox_table')
), need as (
    select
        known.oid,
        known.relation,
        p.privilege,
        narrower.columns
    from known
    cross join unnest(array['select', 'insert', 'update', 'delete']) as p (privilege)
    left join narrower on narrower.relation = known.relation and narrower.privilege = p.privilege
    where (known.is_table or p.privilege = 'select' or narrower.columns is not null)
        and (narrower.relation is null or narrower.columns is not null)
)
select
    format(
        'grant %%s on %%s to %%I',
        string_agg(
            need.privilege || coalesce(' (' || (
                select string_agg(quote_ident(name), ', ') from unnest(need.columns) as c (name)
            ) || ')', ''),
            ', ' order by need.privilege
        ),
        need.relation,
        current_user
    ) as grant_statement
from need
where case
    when need.columns is null then not has_table_privilege(need.oid, need.privilege)
    else exists (
        select from unnest(need.columns) as c (name)
        where not has_column_privilege(need.oid, c.name, need.privilege)
    )
end
group by need.relation
union all
select format('grant usage on schema %%I to %%I', nspname, current_user)
from pg_catalog.pg_namespace
where nspname in (:'dlq_schema', :'outbox_schema') and not has_schema_privilege(oid, 'usage')
order by 1

-- name: unclassified
-- Deaths without a cause, and the age of the oldest.
select
    count(*) as deaths,
    extract(epoch from %(now)s::timestamptz - min(died_at))::float8 as seconds
from :"dlq_schema".death where cause_id is null

-- name: reconciled
-- The last reconciliation, and the installation.
select r.checked_at,
    r.missing,
    r.duplicated,
    r.missed,
    (select created_at from :"dlq_schema".installation) as installed_at
from (select) as always
left join lateral (
    select * from :"dlq_schema".reconciliation order by checked_at desc limit 1) r on true

-- name: unexported
-- Dead events from before a time whose day has no export with every death, which the archive
-- requires.
select
    count(*) as events,
    min(n.died_at) as first,
    max(n.died_at) as last
from :"dlq_schema".dead_now n
where n.died_at < %(before)s
    and not n.died_at <@ (select :"dlq_schema".exported_times(%(before)s))

-- name: daemons
-- The age of each daemon's last heartbeat, from Dagster's table in Dagster's database.
select
    daemon_type as daemon,
    extract(epoch from now() at time zone 'UTC' - timestamp)::float8 as seconds
from daemon_heartbeats
where daemon_type in ('SCHEDULER', 'SENSOR', 'QUEUED_RUN_COORDINATOR')
order by 1

-- name: other_tables
-- Tables of another name that have our triggers: the outbox was renamed, and another took its name.
select distinct t.tgrelid::regclass::text as name
from pg_catalog.pg_trigger t
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = :'dlq_schema' and p.proname = 'record_change' and t.tgparentid = 0
    and t.tgrelid is distinct from pg_catalog.to_regclass(
        pg_catalog.format('%%I.%%I', :'outbox_schema', :'outbox_table'))
order by 1

-- name: error_texts
-- Deaths of what is dead now, and how many of them have no error text.
select count(*) as deaths, count(*) filter (where coalesce(d.error, '') = '') as without_text
from (
    select death_id from :"dlq_schema".dead_now order by died_at desc limit 10000
) n
join :"dlq_schema".death d on d.id = n.death_id
