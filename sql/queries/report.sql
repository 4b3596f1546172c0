-- The figures of one day's failure report, all from the ledger. `start` and `end` are the instants between which the
-- day lies in its time zone; nothing at or after `end` is read, so a past day changes only when people merge its causes.

-- name: snapshot
-- First in the report's transaction: all figures are of one moment, so the totals agree with the rows.
set transaction isolation level repeatable read, read only

-- name: totals
select
    count(*) as deaths,
    count(distinct event_id) as events,
    count(*) filter (where cause_id is null) as unclassified,
    count(distinct cause_id) as causes,
    (select min(died_at) from :"dlq_schema".death where died_at < %(end)s) as ledger_begin
from :"dlq_schema".shown_death
where died_at >= %(start)s and died_at < %(end)s

-- name: causes
-- The day's causes, most deaths first, at most `limit`; the row without cause_id counts what is not classified yet and
-- is never cut off. Grouping by aggregate first lets the server hash instead of sort for the distinct count.
with aggregate as (
    select cause_id, aggregate_type, aggregate_id, count(*) as deaths, min(died_at) as first, max(died_at) as last
    from :"dlq_schema".shown_death
    where died_at >= %(start)s and died_at < %(end)s
    group by cause_id, aggregate_type, aggregate_id
), ranked as (
    select cause_id, sum(deaths)::bigint as deaths, count(*) as aggregates, min(first) as first, max(last) as last_seen,
        row_number() over (order by sum(deaths) desc, cause_id collate "C" nulls last) as position
    from aggregate
    group by cause_id
)
select r.cause_id, left(c.exception_type, 200) as exception_type, left(c.template, 500) as template, c.name, r.deaths,
    r.aggregates, coalesce(earlier.died_at, r.first) as first_seen, earlier.died_at is null as is_new, r.last_seen
from ranked r
left join :"dlq_schema".cause c on c.id = r.cause_id
left join lateral (
    select min(first.died_at) as died_at
    from :"dlq_schema".cause m
    cross join lateral (
        select d.died_at from :"dlq_schema".death d
        where d.cause_id = m.id and d.died_at < %(start)s
        order by d.died_at
        limit 1
    ) first
    where m.id = r.cause_id or m.merged_into = r.cause_id
) earlier on true
where r.position <= %(limit)s or r.cause_id is null
order by r.position

-- name: new_causes
-- How many of the day's causes had never been seen before it.
select count(*) as causes
from (
    select distinct cause_id from :"dlq_schema".shown_death
    where died_at >= %(start)s and died_at < %(end)s and cause_id is not null
) today
where not exists (
    select from :"dlq_schema".cause m
    join :"dlq_schema".death d on d.cause_id = m.id and d.died_at < %(start)s
    where m.id = today.cause_id or m.merged_into = today.cause_id
)

-- name: event_types
-- The most frequent event types of each of these causes (and of the unclassified) on the day, and how many there are.
select cause_id, event_type, kinds
from (
    select cause_id, left(event_type, 200) as event_type, count(*) over (partition by cause_id) as kinds,
        row_number() over (partition by cause_id order by count(*) desc, event_type collate "C") as position
    from :"dlq_schema".shown_death
    where died_at >= %(start)s and died_at < %(end)s and (cause_id = any(%(causes)s) or cause_id is null)
    group by cause_id, event_type
) ranked
where position <= %(limit)s
order by cause_id collate "C" nulls last, position

-- name: days
-- Deaths by day: `bounds` are the instants at which the days begin and, last, where the final one ends. Of causes
-- that are not asked for only the sum is told (cause_id null, classified).
select width_bucket(died_at, %(bounds)s::timestamptz[]) - 1 as position,
    cause_id is not null as classified,
    case when cause_id = any(%(causes)s) then cause_id end as cause_id,
    count(*) as deaths
from :"dlq_schema".shown_death
where died_at >= (%(bounds)s::timestamptz[])[1] and died_at < %(end)s
group by 1, 2, 3
order by 1, 2, 3

-- name: hours
-- Deaths by hour of the day, the same way; a day has 23 to 25 of them.
select width_bucket(died_at, %(bounds)s::timestamptz[]) - 1 as position, count(*) as deaths
from :"dlq_schema".death
where died_at >= %(start)s and died_at < %(end)s
group by 1
order by 1

-- name: samples
-- The last error of the day of each of these causes (and of the unclassified), cut to `length` characters. Two
-- branches, because `is not distinct from` uses no index.
select wanted.cause_id, last.event_id, left(last.error, %(length)s) as sample, char_length(last.error) as characters
from unnest(%(causes)s::text[] || null::text) as wanted (cause_id)
cross join lateral (
    (
        select latest.event_id, latest.error
        from :"dlq_schema".cause m
        cross join lateral (
            select d.id, d.event_id, d.error, d.died_at from :"dlq_schema".death d
            where d.cause_id = m.id and d.died_at >= %(start)s and d.died_at < %(end)s
            order by d.died_at desc, d.id desc
            limit 1
        ) latest
        where m.id = wanted.cause_id or m.merged_into = wanted.cause_id
        order by latest.died_at desc, latest.id desc
        limit 1
    )
    union all
    (
        select d.event_id, d.error from :"dlq_schema".death d
        where wanted.cause_id is null and d.cause_id is null and d.died_at >= %(start)s and d.died_at < %(end)s
        order by d.died_at desc, d.id desc
        limit 1
    )
) last
order by wanted.cause_id collate "C" nulls last
