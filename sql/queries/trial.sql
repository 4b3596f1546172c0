-- A look at a table that has no ledger yet. `:outbox_columns` stands for the columns of the table
-- in the words of this project, as in the view `outbox` of `sql/outbox`. Nothing is written.

-- name: tables
-- Tables whose names say that they may be an outbox, the likeliest first.
select n.nspname as schema, c.relname as table
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p')
    and not c.relispartition
    and n.nspname !~ '^pg_'
    and n.nspname not in ('information_schema', %(dlq_schema)s)
    and c.relname ~*
        '(out_?box|dead|dlq|poison|failed|event|message|job|task|queue|publication|published)'
    and pg_catalog.has_schema_privilege(n.oid, 'usage')
    and pg_catalog.has_table_privilege(c.oid, 'select')
order by c.relname ~* 'out_?box' desc,
    c.relname ~* '(dead_?letter|dlq|failed|publication)' desc,
    n.nspname,
    c.relname
limit %(limit)s

-- name: count
-- Of the last `scanned` rows by key.
select count(*) as events,
    count(*) filter (where e.dead) as dead,
    count(*) filter (where e.delivered) as delivered,
    count(*) filter (where e.dead and e.delivered) as both
from (
    select o.dead, o.delivered
    from (
        select :outbox_columns
        from :"outbox_schema".:"outbox_table" o
    ) o
    order by o.id desc
    limit %(scanned)s
) e

-- name: dead
-- The dead events among the last `scanned` rows by key, at most `limit`, the last ones first. The
-- time of a death is that of the error if the table has it, otherwise that of the event. Of a long
-- error both ends are read.
with recent as materialized (
    select o.id, o.created_at, o.dead
    from (
        select :outbox_columns
        from :"outbox_schema".:"outbox_table" o
    ) o
    order by o.id desc
    limit %(scanned)s
), chosen as materialized (
    select id, created_at from recent where dead order by id desc limit %(limit)s
)
select c.id::text as event_id,
    coalesce(e.event_type, '') as event_type,
    case when length(e.error) > 2 * %(half)s
        then left(e.error, %(half)s) || E'\n' || right(e.error, %(half)s)
        else e.error end as error,
    coalesce(e.died_at, e.error_at, e.created_at) as died_at
from chosen c
cross join lateral (
    select o.* from (
        select :outbox_columns
        from :"outbox_schema".:"outbox_table" o
    ) o
    where o.id = c.id and o.created_at is not distinct from c.created_at
    limit 1
) e
order by c.id desc

-- name: payloads
-- The payloads of these events. One that is longer than `max_length` is null.
select o.id::text as event_id,
    case when length(o.payload) <= %(max_length)s then o.payload end as payload,
    coalesce(o.event_type, '') as event_type,
    coalesce(o.aggregate_type, '') as aggregate_type,
    coalesce(o.aggregate_id, '') as aggregate_id,
    case when o.created_at between '1900-01-01Z' and '9000-01-01Z'
        then o.created_at end as created_at
from (
    select :outbox_columns
    from :"outbox_schema".:"outbox_table" o
) o
where o.id = any(%(ids)s::text[]:::event_id_type[])

-- name: delivered
-- The keys of the last delivered events of each of these types, among the last `scanned` rows.
with recent as materialized (
    select o.id, coalesce(o.event_type, '') as event_type, o.delivered
    from (
        select :outbox_columns
        from :"outbox_schema".:"outbox_table" o
    ) o
    order by o.id desc
    limit %(scanned)s
)
select ranked.id::text as event_id, ranked.event_type
from (
    select id, event_type, row_number() over (partition by event_type order by id desc) as rank
    from recent
    where delivered and event_type = any(%(types)s::text[])
) ranked
where ranked.rank <= %(limit)s
