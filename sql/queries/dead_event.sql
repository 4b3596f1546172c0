-- Lists and counts of dead events. Types and times of a selection are compared in the outbox table,
-- so that an index serves them. A filter that is null folds away before the statement is planned.

-- name: look
-- A batch of selected events, the latest death first, in keyset order: it reads at most so many
-- rows, however few match. Driven by the causes, by the ids, or by the index dlq_dead read
-- backwards. `lateral` looks rows up one by one, because the planner expects a join on two columns
-- to find a single row.
with page as materialized (
    select * from (
        (select d.died_at, d.event_id from unnest(%(causes)s::text[]) as member (cause_id)
         cross join lateral (
            select d.died_at, d.event_id from :"dlq_schema".death d
            where d.cause_id = member.cause_id
                and (d.died_at, d.event_id) < (%(before_time)s::timestamptz, %(before_id)s)
                and (%(since)s::timestamptz is null or d.died_at >= %(since)s)
                and (%(until)s::timestamptz is null or d.died_at < %(until)s)
            order by d.died_at desc, d.event_id desc limit %(rows)s) d
         where %(event_ids)s::bigint[] is null)
        union all
        (select e.dead_at, e.id from :"outbox_schema".:"outbox_table" e
         where e.id = any(%(event_ids)s::bigint[]) and e.status = 'dead'
            and (e.dead_at, e.id) < (%(before_time)s::timestamptz, %(before_id)s)
         order by e.dead_at desc, e.id desc limit %(rows)s)
        union all
        (select e.dead_at, e.id from :"outbox_schema".:"outbox_table" e
         where e.status = 'dead'
            and (e.dead_at, e.id) < (%(before_time)s::timestamptz, %(before_id)s)
            and (%(event_type)s::text is null or e.event_type = %(event_type)s)
            and (%(aggregate_type)s::text is null or e.aggregate_type = %(aggregate_type)s)
            and (%(since)s::timestamptz is null or e.dead_at >= %(since)s)
            and (%(until)s::timestamptz is null or e.dead_at < %(until)s)
            and %(causes)s::text[] is null and %(event_ids)s::bigint[] is null
         order by e.dead_at desc, e.id desc limit %(rows)s offset %(offset)s)
    ) drive
    order by died_at desc, event_id desc limit %(rows)s
), found as (
    select page.died_at, page.event_id
    from page
    cross join lateral (
        select from :"outbox_schema".:"outbox_table" e
        where e.id = page.event_id and e.dead_at = page.died_at and e.status = 'dead' limit 1) e
    cross join lateral (
        select d.* from :"dlq_schema".death d
        where d.event_id = page.event_id and d.died_at = page.died_at limit 1) d
    left join :"dlq_schema".cause c on c.id = d.cause_id
    cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
    where :"dlq_schema".selects(f, d:::"dlq_schema".death, coalesce(c.merged_into, d.cause_id))
)
select coalesce((
        select array_agg(event_id order by died_at desc, event_id desc) from found), '{}') as ids,
    count(*) as rows,
    min(died_at) as last_time,
    (array_agg(event_id order by died_at, event_id))[1] as last_id
from page

-- name: events
-- Those of these events that are still dead, with the cause that they are shown as. Payloads are
-- returned as text, because some JSON is too deep or has too many digits for parsers, and are cut
-- to the length that may be shown.
select e.id,
    e.aggregate_type,
    e.aggregate_id,
    e.event_type,
    left(p.whole, %(longest)s) as payload,
    length(p.whole) > %(longest)s as payload_cut,
    e.status,
    e.attempts,
    e.next_run_at,
    e.created_at,
    left(e.last_error, %(longest)s) as last_error,
    coalesce(length(e.last_error) > %(longest)s, false) as last_error_cut,
    e.last_error_at,
    e.dead_at,
    coalesce(c.merged_into, d.cause_id) as cause_id
from :"outbox_schema".:"outbox_table" e
cross join lateral (
    select d.cause_id from :"dlq_schema".death d
    where d.event_id = e.id and d.died_at = e.dead_at limit 1) d
left join :"dlq_schema".cause c on c.id = d.cause_id
cross join lateral (select e.payload::text as whole offset 0) p
where e.id = any(%(ids)s::bigint[]) and e.status = 'dead'
order by e.dead_at desc, e.id desc

-- name: types
-- Dead events by type. Without filters of time, an index-only scan of dlq_dead_types, parallel for
-- large tables.
select event_type, aggregate_type, count(*) as events
from :"outbox_schema".:"outbox_table"
where status = 'dead'
    and (%(event_type)s::text is null or event_type = %(event_type)s)
    and (%(aggregate_type)s::text is null or aggregate_type = %(aggregate_type)s)
    and (%(since)s::timestamptz is null or dead_at >= %(since)s)
    and (%(until)s::timestamptz is null or dead_at < %(until)s)
group by 1, 2

-- name: ages
-- Dead events by age: how many died after each time and not after the one before it; a null bound:
-- older ones. Each is a range of the index, so every entry is read once.
with dead as not materialized (
    select dead_at from :"outbox_schema".:"outbox_table"
    where status = 'dead'
        and (%(event_type)s::text is null or event_type = %(event_type)s)
        and (%(aggregate_type)s::text is null or aggregate_type = %(aggregate_type)s)
        and (%(since)s::timestamptz is null or dead_at >= %(since)s)
        and (%(until)s::timestamptz is null or dead_at < %(until)s)
)
select unnest(%(bounds)s::float8[] || null::float8) as bound, unnest(array[
    (select count(*) from dead where dead_at > %(hour)s::timestamptz),
    (select count(*) from dead
     where dead_at <= %(hour)s::timestamptz and dead_at > %(day)s::timestamptz),
    (select count(*) from dead
     where dead_at <= %(day)s::timestamptz and dead_at > %(week)s::timestamptz),
    (select count(*) from dead
     where dead_at <= %(week)s::timestamptz and dead_at > %(month)s::timestamptz),
    (select count(*) from dead where dead_at <= %(month)s::timestamptz)
]) as events

-- name: causes
-- Dead events by the cause that they are shown as; null: not classified yet. The time is compared
-- with two inequalities: for an equality the planner expects a single row, and one process would
-- sort a million rows to count them.
select coalesce(c.merged_into, own.cause_id) as cause_id, sum(own.events)::bigint as events
from (
    select d.cause_id, count(*) as events
    from :"outbox_schema".:"outbox_table" e
    join :"dlq_schema".death d
        on d.event_id = e.id and d.died_at >= e.dead_at and d.died_at <= e.dead_at
    where e.status = 'dead'
        and (%(event_type)s::text is null or e.event_type = %(event_type)s)
        and (%(aggregate_type)s::text is null or e.aggregate_type = %(aggregate_type)s)
        and (%(since)s::timestamptz is null or e.dead_at >= %(since)s)
        and (%(until)s::timestamptz is null or e.dead_at < %(until)s)
    group by 1) own
left join :"dlq_schema".cause c on c.id = own.cause_id
group by 1

-- name: selected
-- Counts of any selection by each dimension. A row has a value for its dimension; the others are
-- null.
with target as (
    select e.event_type, e.aggregate_type, e.cause_id, (
        select min(bound) from unnest(%(bounds)s::float8[]) as given (bound)
        where e.died_at > %(now)s::timestamptz - make_interval(secs => bound)) as age
    from :"dlq_schema".dead_event e
    cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
    where (%(causes)s::text[] is null or e.own_cause_id = any(%(causes)s::text[]))
        and (%(event_ids)s::bigint[] is null or e.event_id = any(%(event_ids)s::bigint[]))
        and :"dlq_schema".selects(f, e)
)
select grouping(event_type, aggregate_type, cause_id, age) as side,
    event_type,
    aggregate_type,
    cause_id,
    age as bound,
    count(*) as events
from target group by grouping sets ((event_type), (aggregate_type), (cause_id), (age))
