-- A report's figures counted a second time, by statements that share nothing with those of report.sql: PostgreSQL
-- computes when the day begins and ends, rows are counted where the report reads sums, and events are followed
-- forward from their deaths where the report counts back from now.

-- name: totals
select count(*) as deaths, count(distinct (d.event_id, d.event_created_at)) as events, count(*) - count(d.cause_id) as unclassified,
    count(distinct d.cause_id) as causes
from :"dlq_schema".shown_death d
where d.died_at >= (%(day)s::date)::timestamp at time zone %(zone)s
    and d.died_at < (%(day)s::date + 1)::timestamp at time zone %(zone)s

-- name: causes
select d.cause_id, count(*) as deaths, count(distinct (
        case when d.aggregate_id = '' then 'event' else d.aggregate_type end,
        coalesce(nullif(d.aggregate_id, ''), d.event_id::text))) as aggregates,
   
    count(distinct d.event_type) as event_types, max(d.died_at) as last_seen, min(d.attempts) as fewest,
    max(d.attempts) as most
from :"dlq_schema".shown_death d
where d.died_at >= (%(day)s::date)::timestamp at time zone %(zone)s
    and d.died_at < (%(day)s::date + 1)::timestamp at time zone %(zone)s
group by d.cause_id

-- name: event_types
select d.cause_id, d.event_type, count(*) as deaths
from :"dlq_schema".shown_death d
where d.died_at >= (%(day)s::date)::timestamp at time zone %(zone)s
    and d.died_at < (%(day)s::date + 1)::timestamp at time zone %(zone)s
group by d.cause_id, d.event_type

-- name: hours
-- By whole hours since the day began: so a clock that is put back has two of one name.
select begins + width * interval '1 hour' as hour, deaths
from (
    select b.begins, floor(extract(epoch from d.died_at - b.begins) / 3600)::integer as width, count(*) as deaths
    from :"dlq_schema".death d,
        (select (%(day)s::date)::timestamp at time zone %(zone)s as begins) b
    where d.died_at >= (%(day)s::date)::timestamp at time zone %(zone)s
        and d.died_at < (%(day)s::date + 1)::timestamp at time zone %(zone)s
    group by 1, 2
) counted

-- name: days
-- The rollup's days, and what waits for its cause.
select day, sum(deaths)::bigint as deaths
from (
    select day, deaths from :"dlq_schema".cause_day
    union all
    select (died_at at time zone %(zone)s)::date, 1 from :"dlq_schema".death
    where cause_id is null and died_at < (%(day)s::date)::timestamp at time zone %(zone)s
) counted
where day >= %(day)s::date - 14 and day < %(day)s::date
group by day

-- name: open
-- The last death of each event before the end of the day, unless the event was retried or archived before. An event
-- that is neither dead now nor recorded as moved is not counted: the report calls it unexplained.
with bounds as (
    select (%(day)s::date)::timestamp at time zone %(zone)s as start,
        (%(day)s::date + 1)::timestamp at time zone %(zone)s as until
), last as (
    select b.moment, d.id, d.event_id, d.event_created_at, d.died_at
    from (select start as moment from bounds union all select until from bounds) b
    cross join lateral (
        select distinct on (d.event_id, d.event_created_at) d.id, d.event_id, d.event_created_at, d.died_at
        from :"dlq_schema".death d
        where d.died_at < b.moment order by d.event_id, d.event_created_at, d.died_at desc
    ) d
), dead as (
    select last.* from last
    left join :"dlq_schema".retry r on r.event_id = last.event_id and r.death_id = last.id
    left join :"dlq_schema".outbox e
        on e.id = last.event_id and e.dead and e.created_at is not distinct from last.event_created_at
            and not exists (
                select from :"dlq_schema".death later where later.event_id = e.id
                    and later.event_created_at = e.created_at and later.id > last.id)
    left join :"dlq_schema".archived a on a.dlq_death_id = last.id
    left join :"dlq_schema".purged p on p.death_id = last.id
    where (r.retried_at is null or r.retried_at >= last.moment)
        and (a.dlq_archived_at is null or a.dlq_archived_at >= last.moment)
        and (p.archived_at is null or p.archived_at >= last.moment)
        and (r.death_id is not null or e.id is not null or a.dlq_death_id is not null or p.event_id is not null)
        and not exists (
            select from :"dlq_schema".restored s where s.death_id = last.id
                and s.archived_at < last.moment and s.restored_at >= last.moment)
        and not exists (
            select from :"dlq_schema".recalled s where s.death_id = last.id
                and s.retried_at < last.moment and s.recalled_at >= last.moment)
)
select count(*) filter (where moment = start) as dead_at_start, count(*) filter (where moment = until) as dead_at_end,
    min(died_at) filter (where moment = until) as oldest,
    count(*) filter (where moment = until and (
        select count(*) from :"dlq_schema".retry r
        where r.event_id = dead.event_id and r.event_created_at = dead.event_created_at and r.retried_at < until
    ) >= %(max_retries)s) as parked
from bounds left join dead on true

-- name: flows
-- From the rows that were written of each event, where the report adds up the audit. An event that was purged and
-- came back from a backup does not count.
with bounds as (
    select (%(day)s::date)::timestamp at time zone %(zone)s as start,
        (%(day)s::date + 1)::timestamp at time zone %(zone)s as until
)
select
    (select count(*) from :"dlq_schema".death d, bounds b where d.died_at >= b.start and d.died_at < b.until) as died,
    (select count(*) from :"dlq_schema".retry r, bounds b where r.retried_at >= b.start and r.retried_at < b.until)
    + (select count(*) from :"dlq_schema".recalled s, bounds b where s.retried_at >= b.start and s.retried_at < b.until)
        as retried,
    (select count(*) from :"dlq_schema".recalled s, bounds b
        where s.recalled_at >= b.start and s.recalled_at < b.until) as recalled,
    (select count(*) from :"dlq_schema".retry r, bounds b
        where r.outcome = 'delivered' and r.settled_at >= b.start and r.settled_at < b.until) as delivered,
    (select count(*) from :"dlq_schema".retry r, bounds b
        where r.outcome = 'died_again' and r.settled_at >= b.start and r.settled_at < b.until) as died_again,
    (select count(*) from :"dlq_schema".restored s, bounds b where s.restored_at >= b.start and s.restored_at < b.until)
        as restored,
    (select count(*) from :"dlq_schema".archived a, bounds b
        where a.dlq_archived_at >= b.start and a.dlq_archived_at < b.until)
    + (select count(*) from :"dlq_schema".purged p, bounds b
        where p.archived_at >= b.start and p.archived_at < b.until)
    + (select count(*) from :"dlq_schema".restored s, bounds b where s.archived_at >= b.start and s.archived_at < b.until)
        as archived

-- name: ahead
with bounds as (
    select (%(day)s::date + 1)::timestamp at time zone %(zone)s as until
), archived as (
    select a.dlq_archived_at as archived_at from :"dlq_schema".archived a
    union all
    select p.archived_at from :"dlq_schema".purged p, bounds b where p.purged_at >= b.until
    union all
    select s.archived_at from :"dlq_schema".restored s, bounds b where s.restored_at >= b.until
)
select (
        select count(*) from :"dlq_schema".dead_at((select until from bounds)) d, bounds b
        where d.died_at < b.until + make_interval(days => 7 - %(dead)s)) as archived,
    (select count(*) from archived a, bounds b
        where a.archived_at < b.until and a.archived_at < b.until + make_interval(days => 7 - %(archived)s)) as purged

-- name: fixes
select f.id as fix_id, coalesce(f.closed_at < b.until, false) as ended, count(r.death_id) + (
        select count(*) from :"dlq_schema".recalled s
        where s.fix_id = f.id and s.retried_at < b.until and s.recalled_at >= b.until) as released,
    count(r.death_id) filter (where r.outcome = 'delivered' and r.settled_at < b.until) as delivered,
    count(r.death_id) filter (where r.outcome = 'died_again' and r.settled_at < b.until) as died_again
from :"dlq_schema".fix f
cross join (
    select (%(day)s::date)::timestamp at time zone %(zone)s as start,
        (%(day)s::date + 1)::timestamp at time zone %(zone)s as until) b
left join :"dlq_schema".retry r on r.fix_id = f.id and r.retried_at < b.until
where f.flagged_at < b.until and (f.closed_at is null or f.closed_at >= b.start)
group by f.id, b.until

-- name: healed
with by_probe as (
    select r.death_id, r.settled_at
    from :"dlq_schema".retry r
    where r.outcome = 'delivered' and r.fix_id is null and r.actor = 'probe'
    union all
    select r.death_id, r.settled_at
    from :"dlq_schema".fix f
    join :"dlq_schema".retry r on r.fix_id = f.id
    where f.flagged_by = 'probe' and r.outcome = 'delivered'
)
select count(*) as n
from by_probe
where (settled_at at time zone %(zone)s)::date = %(day)s
