-- What a scrape reads, in one snapshot: counters from the small tables that classification and
-- settlement write, dead events from dlq.dead, and nothing that grows with the ledger.

-- name: bound
-- Until the end of the transaction. Compilation (JIT) costs more than it saves. A table that has an
-- index for the condition is never scanned whole, even if the statistics know nothing of a storm.
select
    set_config('statement_timeout', '5s', true),
    set_config('jit', 'off', true),
    set_config('enable_seqscan', 'off', true)

-- name: deaths
select event_type, aggregate_type, attempts_up_to, deaths, attempts
from :"dlq_schema".death_count

-- name: unclassified
-- Deaths that are not in death_count yet, by the labels that they will have there. Null: a type
-- without a label, which is counted once it is classified.
with tally as materialized (
    select event_type, aggregate_type, attempts, count(*) as deaths
    from :"dlq_schema".death
    where cause_id is null
    group by 1, 2, 3
), label as (
    select name, value
    from :"dlq_schema".choose_metric_labels((select json_agg(tally) from tally), %(labels)s)
)
select e.value as event_type,
    a.value as aggregate_type,
    :"dlq_schema".attempts_bucket(tally.attempts) as attempts_up_to,
    sum(tally.deaths)::bigint as deaths,
    sum(tally.deaths * tally.attempts)::bigint as attempts
from tally
left join label e on e.name = 'event_type' and e.value = left(tally.event_type, 100)
left join label a on a.name = 'aggregate_type' and a.value = left(tally.aggregate_type, 100)
group by 1, 2, 3

-- name: dead
-- Events that are dead now by their labels; types without a label are `other`. Reads dlq.dead once
-- and groups it by the stored texts, which takes half the time of an index of their first 100
-- characters. The 500 pairs of types with most dead events are considered, and the rest is one
-- number. The few unclassified deaths are grouped too.
with counted as materialized (
    select event_type, aggregate_type, count(*) as deaths from :"dlq_schema".dead group by 1, 2
), frequent as materialized (
    select event_type, aggregate_type, deaths from counted order by deaths desc limit 500
), tally as materialized (
    select left(event_type, 100) as event_type,
        left(aggregate_type, 100) as aggregate_type,
        sum(deaths)::bigint as deaths
    from frequent
    group by 1, 2
    union all
    select left(event_type, 100), left(aggregate_type, 100), count(*)
    from :"dlq_schema".death
    where cause_id is null and ended_at is null
    group by 1, 2
    union all
    select 'other', 'other', (sum(deaths) - (select sum(deaths) from frequent))::bigint
    from counted
    having count(*) > 500
), label as (
    select name, value
    from :"dlq_schema".choose_metric_labels((select json_agg(tally) from tally), %(labels)s)
)
select coalesce(e.value, 'other') as event_type,
    coalesce(a.value, 'other') as aggregate_type,
    sum(tally.deaths)::bigint as events
from tally
left join label e on e.name = 'event_type' and e.value = left(tally.event_type, 100)
left join label a on a.name = 'aggregate_type' and a.value = left(tally.aggregate_type, 100)
group by 1, 2

-- name: causes
-- The shown causes and `other`. `shown_as` is the cause that a cause was merged into.
select t.cause_id,
    t.deaths,
    left(c.exception_type, 100) as exception_type,
    coalesce(c.merged_into, c.id) as shown_as
from :"dlq_schema".cause_count t
left join :"dlq_schema".cause c on c.id = t.cause_id
where t.shown
order by t.cause_id

-- name: retries
-- Outcomes of all retries, with and without a fix.
select outcome, sum(retries)::bigint as retries
from (
    select outcome, retries from :"dlq_schema".retry_count
    union all
    select outcome, events from :"dlq_schema".fix_outcome
) retry
group by 1

-- name: probes
-- Outcomes of the events that probes released.
select outcome, retries from :"dlq_schema".retry_count where by_probe

-- name: healed
-- Events that were delivered without a person: by probes, and by the fixes that they flagged.
select (
        select coalesce(sum(retries), 0)
        from :"dlq_schema".retry_count
        where by_probe and outcome = 'delivered'
    ) + (
        select coalesce(sum(o.events), 0)
        from :"dlq_schema".fix f
        join :"dlq_schema".fix_outcome o on o.fix_id = f.id
        where f.flagged_by = 'probe' and o.outcome = 'delivered'
    ) as events

-- name: fixes
select status, count(*) as fixes from :"dlq_schema".fix group by 1

-- name: open_fixes
-- The last open fixes. The caller redacts and shortens details.
select id, status, coalesce(cause_id, '') as cause_id, coalesce(detail, '') as detail
from :"dlq_schema".fix
where closed_at is null
order by id desc
limit 50

-- name: moved_events
-- Events by the operation that archived, restored or deleted them, from the audit log, which is
-- never purged.
select kind, coalesce(sum(events), 0)::bigint as events
from :"dlq_schema".audit
where kind in (
    'archive.move', 'archive.discard', 'archive.restore', 'archive.purge', 'ledger.purge')
group by 1

-- name: state
select
    extract(epoch from clock_timestamp() - (
        select min(died_at) from :"dlq_schema".dead_now
    ))::float8 as oldest_dead_seconds,
    extract(epoch from (
        select min(archived_at) from :"dlq_schema".archive
    ))::float8 as oldest_archived,
    (select count(*) from :"dlq_schema".retry where outcome is null) as outstanding,
    (select count(*) from :"dlq_schema".death_notice) as unannounced,
    (select coalesce(sum(missed), 0)::bigint from :"dlq_schema".reconciliation) as missed,
    (
        select extract(epoch from min(created_at)) from :"dlq_schema".installation
    )::float8 as installed,
    (
        select count(*)
        from (
            select r.event_id, r.event_created_at
            from :"dlq_schema".retry r
            where r.outcome in ('died_again', 'timed_out', 'deleted')
            group by 1, 2
            having count(*) >= %(max_retries)s
        ) retried
        cross join lateral (
            select
            from :"dlq_schema".dead_now n
            where n.event_id = retried.event_id
                and n.event_created_at is not distinct from retried.event_created_at
            limit 1
        ) n
    ) as parked

-- name: checks
select name, passed, checked_at, figures from :"dlq_schema".check_result order by name

-- name: jobs
-- `failing`: days of the job, or the job itself, that failed and have not succeeded since.
select job,
    max(succeeded_at) as succeeded_at,
    max(failed_at) as failed_at,
    count(*) filter (where failed_at > coalesce(succeeded_at, '-infinity')) as failing
from :"dlq_schema".job_run
group by job
order by job

-- name: alerts
select severity,
    count(*) filter (
        where silenced_until is null or silenced_until <= clock_timestamp()) as firing,
    count(*) filter (where silenced_until > clock_timestamp()) as silenced
from :"dlq_schema".alert
where resolved_at is null
group by 1

-- name: channels
select c.id,
    c.sent,
    c.failed,
    c.failures,
    (
        select count(*)
        from :"dlq_schema".alert_delivery d
        where d.channel = c.id and d.sent_at is null and d.given_up_at is null
    ) as waiting
from :"dlq_schema".alert_channel c
order by c.id
limit 50
