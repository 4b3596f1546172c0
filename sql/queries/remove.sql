-- What `dlq migrate --remove` removes. Only what exists is listed, so it works after a migration that
-- stopped half-way, after the table was renamed or dropped, and running it again lists nothing.

-- name: blockers
-- Views and foreign keys of the application or of other people that need what would be dropped.
with recursive ours as (
    select c.oid from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = :'dlq_schema' and c.relkind in ('r', 'p', 'v', 'm')
        and (not %(keep_ledger)s or c.relname = any(%(views)s::text[]))
)
select distinct v.oid::regclass::text as name, d.refobjid::regclass::text as needs
from pg_catalog.pg_depend d
join pg_catalog.pg_rewrite r on r.oid = d.objid and d.classid = 'pg_catalog.pg_rewrite'::regclass
join pg_catalog.pg_class v on v.oid = r.ev_class
where d.refclassid = 'pg_catalog.pg_class'::regclass
    and d.refobjid in (select oid from ours) and v.oid not in (select oid from ours)
union
select k.conrelid::regclass::text, k.confrelid::regclass::text
from pg_catalog.pg_constraint k
join pg_catalog.pg_class c on c.oid = k.conrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname <> :'dlq_schema'
where k.contype = 'f' and k.confrelid in (select oid from ours)
order by 1, 2

-- name: objects
-- Tables, views and functions in our schema, to find those that are not part of the installation.
select c.relname::text as name from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = :'dlq_schema' and c.relkind in ('r', 'p', 'v', 'm', 'f')
union
select p.proname::text from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = :'dlq_schema'
order by 1

-- name: triggers
-- Our triggers on any table that has them. A role that does not own the table drops them with their
-- function instead.
select pg_catalog.format(
    'drop trigger if exists %%I on %%I.%%I', t.tgname, n.nspname, c.relname) as statement
from pg_catalog.pg_trigger t
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join pg_catalog.pg_namespace f on f.oid = p.pronamespace
where f.nspname = :'dlq_schema' and p.proname = 'record_change' and t.tgparentid = 0
    and not t.tgisinternal
    and pg_catalog.pg_has_role(current_user, c.relowner, 'usage')
order by n.nspname, c.relname, t.tgname

-- name: added
-- Columns that the attachment added and that still exist: of the table with our triggers, or else of
-- the table with the configured name.
with attached as (
    select distinct t.tgrelid as oid
    from pg_catalog.pg_trigger t
    join pg_catalog.pg_proc p on p.oid = t.tgfoid
    join pg_catalog.pg_namespace f on f.oid = p.pronamespace
    where f.nspname = :'dlq_schema' and p.proname = 'record_change' and t.tgparentid = 0
)
select n.nspname::text as schema_name,
    c.relname::text as table_name,
    array_agg(a.attname::text order by a.attnum) as columns
from (
    select oid from attached
    union all
    select pg_catalog.to_regclass(
        pg_catalog.format('%%I.%%I', :'outbox_schema', :'outbox_table'))
    where not exists (select from attached)
) host
join pg_catalog.pg_class c on c.oid = host.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and not a.attisdropped
where a.attname in (select unnest(x.added) from :"dlq_schema".attachment x)
group by n.nspname, c.relname
order by 1, 2

-- name: readers
-- Views and functions that know the table, if the ledger is kept.
select object.statement
from pg_catalog.pg_namespace n
cross join lateral (
    select 0 as place,
        pg_catalog.format('drop view if exists %%I.%%I', n.nspname, c.relname) as statement
    from pg_catalog.pg_class c
    where c.relnamespace = n.oid and c.relkind = 'v' and c.relname = any(%(views)s::text[])
    union all
    select 1,
        pg_catalog.format('drop function if exists %%s', p.oid::regprocedure)
            || case when p.proname = 'record_change' then ' cascade' else '' end
    from pg_catalog.pg_proc p
    where p.pronamespace = n.oid and p.proname = any(%(functions)s::text[])
) object
where n.nspname = :'dlq_schema'
order by object.place, object.statement

-- name: attachment
-- Forgets the attachment, so that the next `dlq migrate` attaches again.
select pg_catalog.format('delete from %%I.attachment', :'dlq_schema') as statement
where exists (select from :"dlq_schema".attachment)

-- name: schema
-- The schema with all that is in it.
select pg_catalog.format('drop schema if exists %%I cascade', :'dlq_schema') as statement

-- name: has_archive
-- Whether there is an archive table.
select pg_catalog.to_regclass(
    pg_catalog.format('%%I.archived', :'dlq_schema')) is not null as found

-- name: count_archived
select count(*) as events from :"dlq_schema".archived

-- name: lock_archive
lock table :"dlq_schema".archived in access exclusive mode

-- name: has_audit
select pg_catalog.to_regclass(
    pg_catalog.format('%%I.audit', :'dlq_schema')) is not null as found
