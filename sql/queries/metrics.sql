-- What a scrape reads: counters from the small tables that classification and settlement write, what is dead now from
-- an index, and nothing that grows with the ledger. All in one snapshot.

-- name: bound
-- For the rest of the transaction. Compiling a plan would cost more than it saves here.
select set_config('statement_timeout', '5s', true), set_config('jit', 'off', true)

-- name: deaths
select event_type, aggregate_type, attempts_up_to, deaths, attempts from :"dlq_schema".death_count

-- name: unclassified
-- Deaths that are not in death_count yet, by the names that they will have there; null: a name that finds no place,
-- which counts once it is classified.
with raw as materialized (
    select event_type, aggregate_type, attempts, count(*) as deaths
    from :"dlq_schema".death where cause_id is null and attempts >= 0 group by 1, 2, 3
), tally as (
    select left(event_type, 100) as event_type, left(aggregate_type, 100) as aggregate_type,
        :"dlq_schema".attempts_bucket(attempts) as attempts_up_to, deaths, deaths * attempts as attempts
    from raw
), placeless as (
    select name, value, row_number() over (partition by name order by deaths desc, value collate "C") as place
    from (
        select 'event_type' as name, event_type as value, sum(deaths) as deaths from tally group by 2
        union all
        select 'aggregate_type', aggregate_type, sum(deaths) from tally group by 2
    ) met
    where not exists (select from :"dlq_schema".metric_label l where l.name = met.name and l.value = met.value)
), label as (
    select name, value from :"dlq_schema".metric_label
    union all
    select name, value from placeless p
    where p.place + (select count(*) from :"dlq_schema".metric_label l where l.name = p.name) <= %(labels)s
)
select e.value as event_type, a.value as aggregate_type, tally.attempts_up_to, sum(tally.deaths)::bigint as deaths,
    sum(tally.attempts)::bigint as attempts
from tally
left join label e on e.name = 'event_type' and e.value = tally.event_type
left join label a on a.name = 'aggregate_type' and a.value = tally.aggregate_type
group by 1, 2, 3

-- name: dead
-- What is dead now, by the names that have a place; the rest is `other`. From one kind to the next in the index, each
-- counted by its place there: half the work of grouping, which compares each row. After 500 kinds the rest is one
-- number.
with recursive kind as (
    (select event_type, aggregate_type, 1 as n from :"outbox_schema".:"outbox_table"
     where status = 'dead' order by event_type, aggregate_type limit 1)
    union all
    select next.event_type, next.aggregate_type, kind.n + 1
    from kind
    cross join lateral (
        select e.event_type, e.aggregate_type from :"outbox_schema".:"outbox_table" e
        where e.status = 'dead' and (e.event_type, e.aggregate_type) > (kind.event_type, kind.aggregate_type)
        order by e.event_type, e.aggregate_type limit 1) next
    where kind.n < 500
), counted as materialized (
    select kind.event_type, kind.aggregate_type, c.events
    from kind
    cross join lateral (
        select count(*) as events from :"outbox_schema".:"outbox_table" e
        where e.status = 'dead' and e.event_type = kind.event_type and e.aggregate_type = kind.aggregate_type) c
), raw as (
    select event_type, aggregate_type, events from counted
    union all
    select 'other', 'other', (select count(*) from :"outbox_schema".:"outbox_table" where status = 'dead')
        - (select sum(events)::bigint from counted)
    where (select count(*) from kind) = 500
), tally as (
    select left(event_type, 100) as event_type, left(aggregate_type, 100) as aggregate_type, events from raw
), placeless as (
    select name, value, row_number() over (partition by name order by events desc, value collate "C") as place
    from (
        select 'event_type' as name, event_type as value, sum(events) as events from tally group by 2
        union all
        select 'aggregate_type', aggregate_type, sum(events) from tally group by 2
    ) met
    where not exists (select from :"dlq_schema".metric_label l where l.name = met.name and l.value = met.value)
), label as (
    select name, value from :"dlq_schema".metric_label
    union all
    select name, value from placeless p
    where p.place + (select count(*) from :"dlq_schema".metric_label l where l.name = p.name) <= %(labels)s
)
select coalesce(e.value, 'other') as event_type, coalesce(a.value, 'other') as aggregate_type,
    sum(tally.events)::bigint as events
from tally
left join label e on e.name = 'event_type' and e.value = tally.event_type
left join label a on a.name = 'aggregate_type' and a.value = tally.aggregate_type
group by 1, 2

-- name: causes
-- The shown causes and `other`; `shown_as` is what a cause was merged into.
select t.cause_id, t.deaths, left(c.exception_type, 100) as exception_type, coalesce(c.merged_into, c.id) as shown_as
from :"dlq_schema".cause_count t left join :"dlq_schema".cause c on c.id = t.cause_id
where t.shown order by t.cause_id

-- name: retries
-- Outcomes of all retries, whether a fix released them or a person.
select outcome, sum(retries)::bigint as retries
from (
    select outcome, retries from :"dlq_schema".retry_count
    union all
    select outcome, events from :"dlq_schema".fix_outcome
) both_kinds
group by 1

-- name: fixes
select status, count(*) as fixes from :"dlq_schema".fix group by 1

-- name: acts
-- How many events each kind of act has moved or deleted, ever, from the audit, which is never purged.
select kind, coalesce(sum(events), 0)::bigint as events
from :"dlq_schema".audit
where kind in ('archive.move', 'archive.discard', 'archive.restore', 'archive.purge', 'ledger.purge')
group by 1

-- name: state
select
    extract(epoch from clock_timestamp() - (
        select min(dead_at) from :"outbox_schema".:"outbox_table" where status = 'dead'))::float8 as oldest_dead_seconds,
    extract(epoch from (
        select min(archived_at) from :"outbox_schema".:"archive_table"
        where status = 'dead' and dead_at is not null))::float8 as oldest_archived,
    (select count(*) from :"dlq_schema".retry where outcome is null) as outstanding,
    (select count(*) from :"dlq_schema".death_notice) as unannounced,
    (select extract(epoch from min(created_at)) from :"dlq_schema".installation)::float8 as installed,
    (select count(*) from (
        select r.event_id from :"dlq_schema".retry r where r.outcome in ('died_again', 'timed_out', 'deleted')
        group by r.event_id having count(*) >= %(max_retries)s) tried
     cross join lateral (
        select from :"outbox_schema".:"outbox_table" e where e.id = tried.event_id and e.status = 'dead' limit 1) e
    ) as parked

-- name: checks
select name, passed, checked_at, figures from :"dlq_schema".check_result order by name

-- name: jobs
-- `failing`: how many of its days, or whether the job itself, failed and have not succeeded since.
select job, max(succeeded_at) as succeeded_at, max(failed_at) as failed_at,
    count(*) filter (where failed_at > coalesce(succeeded_at, '-infinity')) as failing
from :"dlq_schema".job_run group by job order by job

-- name: alerts
select severity, count(*) filter (where silenced_until is null or silenced_until <= clock_timestamp()) as firing,
    count(*) filter (where silenced_until > clock_timestamp()) as silenced
from :"dlq_schema".alert where resolved_at is null group by 1

-- name: channels
-- The channels of the last weeks; one that is no longer configured falls silent.
select c.id, c.sent, c.failed, c.failures,
    (select count(*) from :"dlq_schema".alert_delivery d
     where d.channel = c.id and d.sent_at is null and d.given_up_at is null) as waiting
from :"dlq_schema".alert_channel c order by c.id limit 50
