-- Facts about a table of the application, about the session, and about the server. Reads only.

-- name: table
-- One table, with the rights of the current role.
select c.oid::bigint as oid,
    case c.relkind
        when 'r' then case
            when c.relispartition then 'partition'
            when c.relpersistence = 't' then 'temporary table'
            else 'table' end
        when 'p' then 'partitioned table'
        when 'v' then 'view'
        when 'm' then 'materialized view'
        when 'f' then 'foreign table'
        when 'S' then 'sequence'
        when 'i' then 'index'
        else 'composite type'
    end as kind,
    pg_catalog.pg_get_userbyid(c.relowner) as owner,
    c.relrowsecurity as row_security_enabled,
    c.relforcerowsecurity as row_security_forced,
    pg_catalog.row_security_active(c.oid) as row_security_applies,
    array(
        select i.inhparent::regclass::text from pg_catalog.pg_inherits i
        where i.inhrelid = c.oid and not c.relispartition order by 1
    ) as parents,
    array(
        select i.inhrelid::regclass::text from pg_catalog.pg_inherits i
        where i.inhparent = c.oid and c.relkind <> 'p' order by 1
    ) as children,
    array(
        select i.inhrelid::regclass::text from pg_catalog.pg_inherits i
        where i.inhparent = c.oid and c.relkind = 'p' order by 1
    ) as partitions,
    current_user::text as role,
    r.rolsuper as is_superuser,
    pg_catalog.pg_has_role(current_user, c.relowner, 'usage') as is_owner,
    pg_catalog.has_table_privilege(c.oid, 'select') as may_select,
    pg_catalog.has_any_column_privilege(c.oid, 'update') as may_update,
    pg_catalog.has_table_privilege(c.oid, 'trigger') as may_trigger,
    pg_catalog.has_schema_privilege(n.oid, 'usage') as may_use_schema
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_roles r on r.rolname = current_user
where n.nspname = %(schema)s and c.relname = %(table)s

-- name: columns
-- The columns of a table in their order. A domain has the type and the category of its base.
with recursive base as (
    select a.attnum, a.atttypid as type_id, a.atttypmod as modifier, false as is_domain
    from pg_catalog.pg_attribute a
    where a.attrelid = %(oid)s::bigint::oid and a.attnum > 0 and not a.attisdropped
    union all
    select base.attnum, t.typbasetype, t.typtypmod, true
    from base join pg_catalog.pg_type t on t.oid = base.type_id and t.typtype = 'd'
)
select a.attname as name,
    pg_catalog.format_type(a.atttypid, a.atttypmod) as type,
    pg_catalog.format_type(base.type_id, null) as base_type,
    case
        when t.typtype = 'e' then 'enum'
        when t.typtype = 'c' then 'composite'
        when t.typcategory = 'A' then 'array'
        when t.typtype in ('r', 'm') then 'range'
        else 'base'
    end as category,
    base.is_domain,
    case when t.typname in ('varchar', 'bpchar') and base.modifier > 4
        then base.modifier - 4 end as max_length,
    not a.attnotnull as nullable,
    a.attgenerated <> '' as generated,
    a.atthasdef or a.attidentity <> '' as has_default,
    -- Of a default such as `'pending'::text` or `0`, the value.
    substring(
        pg_catalog.pg_get_expr(d.adbin, d.adrelid) from '^\(?''([^'']*)''::|^(\d+)$'
    ) as default_text,
    array(
        select e.enumlabel::text from pg_catalog.pg_enum e
        where e.enumtypid = t.oid order by e.enumsortorder
    ) as labels
from base
join pg_catalog.pg_type t on t.oid = base.type_id and t.typtype <> 'd'
join pg_catalog.pg_attribute a on a.attrelid = %(oid)s::bigint::oid and a.attnum = base.attnum
left join pg_catalog.pg_attrdef d
    on d.adrelid = a.attrelid and d.adnum = a.attnum and a.attgenerated = ''
order by a.attnum

-- name: keys
-- Unique keys over columns: the primary key first. Partial and expression indexes are no keys.
select i.indisprimary as is_primary,
    array(
        select a.attname::text
        from unnest(i.indkey::smallint[]) with ordinality as k (number, place)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
        where k.place <= i.indnkeyatts order by k.place
    ) as columns
from pg_catalog.pg_index i
where i.indrelid = %(oid)s::bigint::oid and i.indisunique and i.indisvalid
    and i.indpred is null and i.indexprs is null
order by i.indisprimary desc, i.indexrelid

-- name: foreign_keys
-- Foreign keys of other tables that reference this table.
select k.conname as name,
    k.conrelid::regclass::text as table,
    array(
        select a.attname::text
        from unnest(k.conkey) with ordinality as c (number, place)
        join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = c.number
        order by c.place
    ) as columns,
    case k.confdeltype
        when 'r' then 'restrict'
        when 'c' then 'cascade'
        when 'n' then 'set null'
        when 'd' then 'set default'
        else 'no action'
    end as on_delete
from pg_catalog.pg_constraint k
where k.contype = 'f' and k.confrelid = %(oid)s::bigint::oid and k.conparentid = 0
order by k.conrelid::regclass::text, k.conname

-- name: triggers
-- The application's own triggers: those whose functions are not in our schema.
select t.tgname as name,
    case
        when (t.tgtype & 64) <> 0 then 'instead of'
        when (t.tgtype & 2) <> 0 then 'before'
        else 'after'
    end as timing,
    array_remove(array[
        case when (t.tgtype & 4) <> 0 then 'insert' end,
        case when (t.tgtype & 16) <> 0 then 'update' end,
        case when (t.tgtype & 8) <> 0 then 'delete' end,
        case when (t.tgtype & 32) <> 0 then 'truncate' end
    ], null) as events,
    (t.tgtype & 1) <> 0 as for_each_row,
    t.tgenabled <> 'D' as enabled
from pg_catalog.pg_trigger t
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where t.tgrelid = %(oid)s::bigint::oid and not t.tgisinternal and n.nspname <> :'dlq_schema'
order by t.tgname

-- name: session
-- Settings as the session began with them: our own connection sets some of them.
select current_setting('server_version_num')::integer as server_version,
    (select pg_catalog.pg_encoding_to_char(d.encoding) from pg_catalog.pg_database d
        where d.datname = current_database()) as server_encoding,
    (select s.reset_val from pg_catalog.pg_settings s where s.name = 'DateStyle') as date_style,
    (select s.reset_val from pg_catalog.pg_settings s
        where s.name = 'default_transaction_isolation') as default_isolation,
    pg_catalog.pg_is_in_recovery() as is_standby,
    current_database()::text as database,
    pg_catalog.has_database_privilege(current_database(), 'create') as may_create_in_database,
    (select pg_catalog.has_schema_privilege(n.oid, 'create') from pg_catalog.pg_namespace n
        where n.nspname = :'dlq_schema') as may_create_in_dlq_schema

-- name: time_zone
-- The zone that sessions of the application have unless they set one.
select case when s.reset_val in ('Etc/UTC', 'GMT') then 'UTC' else s.reset_val end as time_zone
from pg_catalog.pg_settings s where s.name = 'TimeZone'

-- name: server_process
-- The server process that answers. Behind a transaction pooler it is any of the pool.
select pg_catalog.pg_backend_pid() as pid

-- name: pattern
-- Fails if the text is no regular expression.
select pg_catalog.substring('', %(pattern)s::text)

-- name: states
-- The values of a column of the outbox with their counts.
select to_jsonb(o) ->> %(column)s as state, count(*) as events
from :"outbox_schema".:"outbox_table" o
group by 1 order by 2 desc, 1 limit 20

-- name: sampled_states
-- The same from a sample of the table's pages.
select to_jsonb(o) ->> %(column)s as state, count(*) as events
from :"outbox_schema".:"outbox_table" o
    tablesample system (%(percent)s) repeatable (1)
group by 1 order by 2 desc, 1 limit 20

-- name: estimated_rows
-- The planner's estimate of the outbox's rows.
select greatest(c.reltuples, 0)::bigint as rows
from pg_catalog.pg_class c
where c.oid = pg_catalog.format('%%I.%%I', :'outbox_schema', :'outbox_table')::regclass
