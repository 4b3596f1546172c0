-- Lists and counts of dead events. A filter that is null folds away before the statement is
-- planned.

-- name: check_ids
-- Fails if an id cannot be one of this outbox.
select cardinality(:"dlq_schema".event_ids(%(event_ids)s::text[])) as ids

-- name: check_where
-- Fails if the filter of payloads is no predicate.
select :"dlq_schema".payload_predicate(%(where)s) as predicate

-- name: look
-- A batch of selected deaths, the latest first, in keyset order: it reads at most so many rows,
-- however few match. Driven by the causes, by the ids, or by everything that is dead. `lateral`
-- looks rows up one by one, because after a storm the statistics know nothing of the dead events.
with page as materialized (
    select * from (
        (select n.died_at, n.death_id from unnest(%(causes)s::text[]) as member (cause_id)
         cross join lateral (
            select n.died_at, n.death_id from :"dlq_schema".dead n
            where n.cause_id = member.cause_id
                and (%(detail)s::text is null or n.detail = %(detail)s)
                and (n.died_at, n.death_id) < (%(before_time)s::timestamptz, %(before_id)s)
                and (%(since)s::timestamptz is null or n.died_at >= %(since)s)
                and (%(until)s::timestamptz is null or n.died_at < %(until)s)
            order by n.died_at desc, n.death_id desc limit %(rows)s) n
         where %(event_ids)s::text[] is null)
        union all
        (select n.died_at, n.death_id from :"dlq_schema".dead_now n
         where n.event_id = any(:"dlq_schema".event_ids(%(event_ids)s::text[]))
            and (n.died_at, n.death_id) < (%(before_time)s::timestamptz, %(before_id)s)
         order by n.died_at desc, n.death_id desc limit %(rows)s)
        union all
        (select n.died_at, n.death_id from :"dlq_schema".dead_now n
         where (n.died_at, n.death_id) < (%(before_time)s::timestamptz, %(before_id)s)
            and (%(detail)s::text is null or n.detail = %(detail)s)
            and (%(event_type)s::text is null or n.event_type = %(event_type)s)
            and (%(aggregate_type)s::text is null or n.aggregate_type = %(aggregate_type)s)
            and (%(since)s::timestamptz is null or n.died_at >= %(since)s)
            and (%(until)s::timestamptz is null or n.died_at < %(until)s)
            and %(causes)s::text[] is null and %(event_ids)s::text[] is null
         order by n.died_at desc, n.death_id desc limit %(rows)s offset %(offset)s)
    ) drive
    order by died_at desc, death_id desc limit %(rows)s
), found as (
    select page.died_at, page.death_id
    from page
    cross join lateral (
        select d.* from :"dlq_schema".death d where d.id = page.death_id limit 1) d
    left join :"dlq_schema".cause c on c.id = d.cause_id
    cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
    where :"dlq_schema".selects(f, d:::"dlq_schema".death, coalesce(c.merged_into, d.cause_id))
)
select coalesce((
        select array_agg(death_id order by died_at desc, death_id desc)
        from found), '{}') as deaths,
    count(*) as rows,
    min(died_at) as last_time,
    (array_agg(death_id order by died_at, death_id))[1] as last_id
from page

-- name: events
-- The events of these deaths, with the cause that they are shown as. The columns of one that is no
-- longer dead, although no trigger saw it, are null. Payloads
-- are returned as text, because some JSON is too deep or has too many digits for parsers, and are
-- cut to the length that may be shown.
select d.id as death_id,
    o.id,
    o.aggregate_type,
    o.aggregate_id,
    o.event_type,
    left(o.payload, %(longest)s) as payload,
    length(o.payload) > %(longest)s as payload_cut,
    o.status,
    o.attempts,
    o.due_at as next_run_at,
    o.created_at,
    left(o.error, %(longest)s) as last_error,
    coalesce(length(o.error) > %(longest)s, false) as last_error_cut,
    o.error_at as last_error_at,
    d.died_at as dead_at,
    coalesce(c.merged_into, d.cause_id) as cause_id,
    d.detail
from unnest(%(deaths)s::bigint[]) as given (death_id)
cross join lateral (
    select d.* from :"dlq_schema".death d where d.id = given.death_id limit 1) d
left join lateral (
    select o.* from :"dlq_schema".outbox o
    where o.id = d.event_id and o.created_at is not distinct from d.event_created_at and o.dead
    limit 1) o on true
left join :"dlq_schema".cause c on c.id = d.cause_id
order by d.died_at desc, d.id desc

-- name: types
-- Dead events by type.
select event_type, aggregate_type, count(*) as events
from :"dlq_schema".dead_now
where (%(event_type)s::text is null or event_type = %(event_type)s)
    and (%(aggregate_type)s::text is null or aggregate_type = %(aggregate_type)s)
    and (%(since)s::timestamptz is null or died_at >= %(since)s)
    and (%(until)s::timestamptz is null or died_at < %(until)s)
group by 1, 2

-- name: ages
-- Dead events by age: how many died after each time and not after the one before it; a null bound:
-- older ones. Each is a range of the index, so every entry is read once.
with dead as not materialized (
    select died_at from :"dlq_schema".dead_now
    where (%(event_type)s::text is null or event_type = %(event_type)s)
        and (%(aggregate_type)s::text is null or aggregate_type = %(aggregate_type)s)
        and (%(since)s::timestamptz is null or died_at >= %(since)s)
        and (%(until)s::timestamptz is null or died_at < %(until)s)
)
select unnest(%(bounds)s::float8[] || null::float8) as bound, unnest(array[
    (select count(*) from dead where died_at > %(hour)s::timestamptz),
    (select count(*) from dead
     where died_at <= %(hour)s::timestamptz and died_at > %(day)s::timestamptz),
    (select count(*) from dead
     where died_at <= %(day)s::timestamptz and died_at > %(week)s::timestamptz),
    (select count(*) from dead
     where died_at <= %(week)s::timestamptz and died_at > %(month)s::timestamptz),
    (select count(*) from dead where died_at <= %(month)s::timestamptz)
]) as events

-- name: causes
-- Dead events by the cause that they are shown as; null: not classified yet.
select coalesce(c.merged_into, own.cause_id) as cause_id, sum(own.events)::bigint as events
from (
    select n.cause_id, count(*) as events
    from :"dlq_schema".dead_now n
    where (%(event_type)s::text is null or n.event_type = %(event_type)s)
        and (%(aggregate_type)s::text is null or n.aggregate_type = %(aggregate_type)s)
        and (%(since)s::timestamptz is null or n.died_at >= %(since)s)
        and (%(until)s::timestamptz is null or n.died_at < %(until)s)
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
        and (%(detail)s::text is null or e.detail = %(detail)s)
        and (%(event_ids)s::text[] is null
            or e.event_id = any(:"dlq_schema".event_ids(%(event_ids)s::text[])))
        and :"dlq_schema".selects(f, e)
)
select grouping(event_type, aggregate_type, cause_id, age) as side,
    event_type,
    aggregate_type,
    cause_id,
    age as bound,
    count(*) as events
from target group by grouping sets ((event_type), (aggregate_type), (cause_id), (age))

-- name: others
-- The named events that are not dead, and what they are instead, in the order given. An id that
-- began again names its last event.
select given.id as event_id, case
    when o.delivered then 'delivered'
    when o.working then 'with a worker'
    when o.id is not null then 'waiting for a worker'
    when exists (select from :"dlq_schema".archive a where a.id = event.id) then 'archived'
    when exists (select from :"dlq_schema".death d where d.event_id = event.id) then 'deleted'
    else 'unknown' end as state
from unnest(%(event_ids)s::text[]) with ordinality as given (id, place)
cross join lateral (
    select (:"dlq_schema".event_ids(array[given.id]))[1] as id offset 0) event
left join lateral (
    select o.id,
        coalesce(o.dead, false) as dead,
        coalesce(o.delivered, false) as delivered,
        coalesce(o.working, false) as working
    from :"dlq_schema".outbox o
    where o.id = event.id
    order by o.created_at desc nulls last limit 1) o on true
where o.dead is not true
order by given.place
