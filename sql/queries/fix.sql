-- Flagged fixes.

-- name: place
select :"dlq_schema".place_fix(
    jsonb_populate_record(null:::"dlq_schema".fix, %(fix)s::jsonb), %(run_id)s) as id

-- name: members
-- A cause and the causes that are merged into it.
select id, merged_into from :"dlq_schema".cause
where id = %(cause_id)s or merged_into = %(cause_id)s
order by id

-- name: preview
-- Counts the events that a fix would target, by the same function that releases them. Held back is,
-- in the order of aggregates, what follows a dead event that the fix does not release.
with selected as materialized (
    select e.event_id, e.event_created_at, e.death_id, e.aggregate_type, e.aggregate_id,
        %(max_retries)s <= (
            select count(*) from :"dlq_schema".retry r
            where r.event_id = e.event_id
                and r.event_created_at is not distinct from e.event_created_at) as parked
    from :"dlq_schema".dead_event e
    cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
    where (%(causes)s::text[] is null or e.own_cause_id = any(%(causes)s::text[]))
        and (%(detail)s::text is null or e.detail = %(detail)s)
        and (%(event_ids)s::text[] is null
            or e.event_id = any(:"dlq_schema".event_ids(%(event_ids)s::text[])))
        and :"dlq_schema".selects(f, e)
), dead as (
    select n.death_id,
        n.event_id,
        n.event_created_at,
        n.aggregate_type,
        n.aggregate_id,
        false as is_selected,
        false as parked
    from :"dlq_schema".dead_now n
    where %(ordered)s
        and n.aggregate_id <> ''
        -- `is true`: a hash table. A join with rows that the planner takes for few took minutes for
        -- a million events.
        and ((n.aggregate_type, n.aggregate_id) in (
            select aggregate_type, aggregate_id from selected where not parked)) is true
    union all
    select death_id, event_id, event_created_at, aggregate_type, aggregate_id, true, parked
    from selected
), target as materialized (
    select judged.*
    from (
        -- A selected event is in both lists: one row of each.
        select death_id,
            event_id,
            aggregate_type,
            aggregate_id,
            bool_or(is_selected) as is_selected,
            bool_or(parked) as parked,
            %(ordered)s
                and aggregate_id <> ''
                and not bool_or(parked)
                and coalesce(
                    bool_or(not bool_or(is_selected) or bool_or(parked)) over (
                        partition by aggregate_type, aggregate_id
                        order by coalesce(event_created_at, '-infinity'), event_id
                        rows between unbounded preceding and 1 preceding),
                    false) as held
        from dead
        group by death_id, event_id, event_created_at, aggregate_type, aggregate_id
    ) judged
    where is_selected
), one_aggregate as materialized (
    -- An event without an aggregate stands for itself.
    select count(*) as events,
        count(*) filter (where not parked and not held) as length,
        min(death_id) filter (where not parked and not held) as first_death
    from target
    group by aggregate_type, aggregate_id, case when aggregate_id = '' then event_id end
)
select count(*) as events,
    (select count(*) from one_aggregate) as aggregates,
    count(*) filter (where parked) as parked,
    count(*) filter (where held) as held,
    -- How many aggregates have so many events, which are released one after the other.
    coalesce((
        select jsonb_object_agg(length, aggregates)
        from (
            select length, count(*) as aggregates from one_aggregate
            where length > 0
            group by length) one_length
    ), '{}') as lengths,
    -- Aggregates of one event that died before those of more events.
    (
        select count(*) from one_aggregate
        where length = 1
            and first_death < (select min(first_death) from one_aggregate where length > 1)
    ) as singles_first
from target

-- name: deletion_is_loss
select :"dlq_schema".deletion_is_loss() as is_loss

-- name: overtaken
-- Counts targets after which a newer event of their aggregate was delivered: retried now, they
-- arrive out of order. The application's table need not have an index by aggregate, so this may
-- read all of it.
select count(*) as events
from :"dlq_schema".dead_event e
cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
where (%(causes)s::text[] is null or e.own_cause_id = any(%(causes)s::text[]))
    and (%(detail)s::text is null or e.detail = %(detail)s)
    and (%(event_ids)s::text[] is null
            or e.event_id = any(:"dlq_schema".event_ids(%(event_ids)s::text[])))
    and :"dlq_schema".selects(f, e)
    and e.aggregate_id <> ''
    and exists (
        select from :"dlq_schema".outbox newer
        where newer.aggregate_type = e.aggregate_type
            and newer.aggregate_id = e.aggregate_id
            and (newer.created_at, newer.id) > (e.event_created_at, e.event_id)
            and newer.delivered)

-- name: get
select * from :"dlq_schema".fix where id = %(fix_id)s

-- name: list
select * from :"dlq_schema".fix
where (not %(only_open)s or closed_at is null) and (%(after)s::bigint is null or id < %(after)s)
order by id desc limit %(limit)s

-- name: list_of_causes
-- Fixes of these causes, the latest first.
select *
from :"dlq_schema".fix
where cause_id = any(%(causes)s::text[])
order by id desc
limit %(limit)s

-- name: lock
-- Locks a fix. No row: another run holds it and does the work.
select * from :"dlq_schema".fix where id = %(fix_id)s for update skip locked

-- name: lock_waiting
-- Locks a fix for a person's change. Waits for a run that holds it.
select * from :"dlq_schema".fix where id = %(fix_id)s for update

-- name: due
-- Open fixes that need a step, the one advanced longest ago first. A fix needs a step if
-- - it has expired, or has no expiry yet, paused or not;
-- - no retry lacks an outcome (none was released, or all are recorded), or if its stage only waits
--   for the pace, the events that it released last are due soon; unless the worker is congested;
-- - a due retry has an outcome that no run has recorded, or has timed out. The step itself finds
--   out whether dead events are left. Only the 20 retries that were due first are checked: workers
--   take them first, so their outcomes arrive first. Measured: a thousand fixes take 30 ms with 20
--   retries each, and 250 ms with 200. If those 20 are stuck, the rest waits until they time out at
--   most.
-- A fix that is paused, or ended within the longest look-ahead, needs one if events that it
-- released are due later: a crash interrupted their recall.
with candidate as (
    select f.* from :"dlq_schema".fix f
    where f.closed_at is null
    union all
    select f.* from :"dlq_schema".fix f
    where f.status in ('halted', 'withdrawn', 'expired', 'rejected')
        and f.closed_at > %(now)s::timestamptz - interval '1 day'
)
select f.* from candidate f
where f.closed_at is null and (
    f.expires_at is null or f.expires_at <= %(now)s
    or f.status = 'active' and coalesce(f.not_before, '-infinity') <= %(now)s
        and (
        not %(congested)s and case
            when f.refill_at is null then not exists (
                select from :"dlq_schema".retry r where r.fix_id = f.id and r.outcome is null)
            else f.refill_at <= %(now)s end
        or exists (
            select from (
                select r.death_id, r.event_id, r.event_created_at, r.due_at
                from :"dlq_schema".retry r
                where r.fix_id = f.id and r.outcome is null and r.due_at <= %(now)s
                order by r.due_at limit 20) r
            left join :"dlq_schema".outbox o
                on o.id = r.event_id and o.created_at is not distinct from r.event_created_at
            where o.id is null or o.delivered or o.dead
                or r.due_at + make_interval(secs => f.settle_seconds) <= %(now)s)))
    or f.status <> 'active' and :"dlq_schema".can_recall() and exists (
        select from (
            select r.event_id, r.event_created_at from :"dlq_schema".retry r
            where r.fix_id = f.id
                and r.outcome is null
                and r.due_at > greatest(%(now)s, statement_timestamp())
            order by r.due_at desc limit 20) r
        join :"dlq_schema".outbox o
            on o.id = r.event_id and o.created_at is not distinct from r.event_created_at
            and o.waiting)
order by f.stepped_at nulls first, f.id limit %(limit)s

-- name: adopt
-- Stores the installation's values in a fix that was flagged without them. Once, so that one policy
-- decides the verdict. The time until it expires begins when the first stage may begin, or in the
-- year 9000: a later time, written by hand, could not be added to.
update :"dlq_schema".fix
set canary = coalesce(canary, %(canary)s),
    growth = coalesce(growth, %(growth)s),
    rate = coalesce(rate, %(rate)s),
    min_success = coalesce(min_success, %(min_success)s),
    settle_seconds = coalesce(settle_seconds, %(settle_seconds)s),
    max_retries = coalesce(max_retries, %(max_retries)s),
    "order" = coalesce("order", %(order)s),
    expires_at = coalesce(
        expires_at, least(greatest(flagged_at, not_before), '9000-01-01Z'::timestamptz) + %(expiry)s
    )
where id = %(fix_id)s
returning *

-- name: explain_expiry
-- Why the fix cannot end before it expires, by the number of events that it targeted when it was
-- flagged, which its audit entry has. Times that were written by hand may be infinite: such a fix
-- expires at once or never, or never begins.
select :"dlq_schema".explain_expiry(f, flagged.events) as reason
from :"dlq_schema".fix f
cross join lateral (
    select a.events
    from :"dlq_schema".audit a
    where a.kind = 'fix.flag' and a.at = f.flagged_at and a.filter ->> 'fix' = f.id::text
    limit 1) flagged
where f.id = %(fix_id)s
    and coalesce(isfinite(f.expires_at), true)
    and coalesce(isfinite(f.not_before), true)
    and isfinite(f.flagged_at)

-- name: unclassified
-- Counts unclassified deaths that the fix would select if they had its cause and detail. Driven by
-- the index of unclassified deaths.
select count(*) as deaths
from :"dlq_schema".fix f
cross join lateral jsonb_populate_record(f, '{"detail": null}') wider
join :"dlq_schema".death d on d.cause_id is null
    and :"dlq_schema".selects(wider, d, f.cause_id)
where f.id = %(fix_id)s and num_nonnulls(f.cause_id, f.detail) > 0

-- name: pace
-- How fast a fix releases events, and the rates of the other fixes that release events: one of
-- theirs fell due within the last minute, or is due later.
--
-- A rate that was written by hand may be no number. It must not decide those of others.
select f.last_due_at, f.current_rate, f.rate_state, others.rates, others.in_force
from :"dlq_schema".fix f
cross join (
    select coalesce(
            array_agg(case when o.current_rate < 'infinity' then o.current_rate else o.rate end),
            '{}') as rates,
        coalesce(sum(o.release_rate) filter (where o.release_rate < 'infinity'), 0) as in_force
    from :"dlq_schema".fix o
    where o.closed_at is null
        and o.status = 'active'
        and o.id <> %(fix_id)s
        and o.rate is not null
        and o.last_due_at > %(now)s::timestamptz - interval '1 minute') others
where f.id = %(fix_id)s

-- name: lock_pace
-- Until the transaction ends, no other fix of the outbox releases events: each sees the rates at
-- which the others release theirs. A batch of 5,000 events takes a tenth of a second.
select pg_advisory_xact_lock(hashtextextended(:'dlq_schema' || ' pace', 0))

-- name: set_rate
update :"dlq_schema".fix set current_rate = %(rate)s, rate_state = %(state)s::jsonb
where id = %(fix_id)s

-- name: is_behind
-- Whether released events wait for longer than they may: ten events or more that no worker has
-- taken. Fewer may be events that no worker can take. An event that was tried is due later than it
-- was released for. Reads the hundred that fell due first.
select count(*) >= 10 as is_behind
from (
    select r.event_id, r.event_created_at, r.due_at from :"dlq_schema".retry r
    where r.fix_id = %(fix_id)s and r.outcome is null and r.due_at < %(due_before)s
    order by r.fix_id, r.due_at limit 100) r
cross join lateral (
    select from :"dlq_schema".outbox o
    where o.id = r.event_id and o.created_at is not distinct from r.event_created_at
        and o.waiting and o.due_at < r.due_at + interval '1 s'
    limit 1) o

-- name: begin_stage
with stage as (
    insert into :"dlq_schema".fix_stage (fix_id, stage, size, begun_at)
    values (%(fix_id)s, %(stage)s, %(size)s, %(now)s)
)
update :"dlq_schema".fix set stage = %(stage)s where id = %(fix_id)s

-- name: count_released
-- Counts released events, the first of them due at `due`.
with paced as (
    update :"dlq_schema".fix
    set last_due_at =
            %(due)s::timestamptz + make_interval(secs => (%(events)s - 1) * %(seconds_each)s),
        release_rate = 1 / %(seconds_each)s
    where id = %(fix_id)s
)
update :"dlq_schema".fix_stage set released = released + %(events)s
where fix_id = %(fix_id)s and stage = %(stage)s

-- name: stages
-- The stages of a fix, each with its outcomes as an object: {outcome: events}.
select s.stage,
    s.size,
    s.released,
    coalesce(jsonb_object_agg(o.outcome, o.events) filter (where o.events > 0), '{}') as outcomes
from :"dlq_schema".fix_stage s
left join :"dlq_schema".fix_outcome o using (fix_id, stage)
where s.fix_id = %(fix_id)s
group by s.fix_id, s.stage
order by s.stage

-- name: timeline
-- Events of these fixes by the time at which they fell due, and at which their outcome was found,
-- before `until`: in at most `most` intervals of equal length, the shortest of `lengths` (seconds)
-- that is enough. Intervals are counted from 1970. Recalled events are in another table, and never
-- fell due.
--
-- Driven by the index of the times of retries. Both bounds have an hour to spare, because the
-- clocks of the machines that release events and end fixes may differ.
with moment as materialized (
    -- By second: a million events at 50 a second are 20,000 rows.
    select r.fix_id,
        floor(extract(epoch from m.at))::bigint as second,
        m.kind,
        count(*) as events
    from :"dlq_schema".retry r
    cross join lateral (values (r.due_at, 'released'), (r.settled_at, r.outcome)) as m (at, kind)
    where r.fix_id = any(%(fixes)s)
        and r.retried_at < %(until)s
        and r.retried_at >= (
            select min(f.flagged_at) - interval '1 hour'
            from :"dlq_schema".fix f
            where f.id = any(%(fixes)s))
        and r.retried_at <= (
            select max(coalesce(f.closed_at + interval '1 hour', 'infinity'))
            from :"dlq_schema".fix f
            where f.id = any(%(fixes)s))
        and m.at < %(until)s
    group by 1, 2, 3
), span as (
    select fix_id, min(second) as first, max(second) as last from moment group by fix_id
), chosen as (
    select span.fix_id, (
        select min(seconds)
        from unnest(%(lengths)s::bigint[]) as seconds
        where last / seconds - first / seconds < %(most)s) as seconds
    from span
)
select fix_id,
    chosen.seconds,
    moment.second / chosen.seconds as number,
    moment.kind,
    sum(moment.events)::bigint as events
from moment
join chosen using (fix_id)
group by fix_id, chosen.seconds, number, moment.kind
order by fix_id, number

-- name: stepped
update :"dlq_schema".fix set stepped_at = %(now)s, refill_at = %(refill_at)s
where id = %(fix_id)s

-- name: close
-- Ends a fix. A fix of a whole cause, or of one of its details, sets the state of that. Verified:
-- it is fixed since the flag, with a cause its details that were seen before. Halted: it is open.
-- Any other end proves nothing, so its earlier state returns.
with closed as (
    update :"dlq_schema".fix
    set status = %(status)s,
        verdict = %(verdict)s,
        evidence = %(evidence)s::jsonb,
        closed_at = %(now)s
    where id = %(fix_id)s and closed_at is null
    returning *
), outcome as (
    select cause_id,
        detail,
        flagged_at,
        status = 'verified' as is_verified,
        case status
            when 'verified' then 'fixed'
            when 'halted' then 'open'
            else status_before end as status,
        case status
            when 'verified' then flagged_at
            when 'halted' then null
            else fixed_at_before end as fixed_at
    from closed
    where status_before is not null
), cause as (
    update :"dlq_schema".cause c
    set status = o.status, fixed_at = o.fixed_at
    from outcome o
    where c.id = o.cause_id and o.detail is null
), detail as (
    select k.cause_id, k.detail
    from :"dlq_schema".cause_detail k
    join outcome o on o.cause_id = k.cause_id
    where k.detail = o.detail
        or o.detail is null and o.is_verified and exists (
            select from :"dlq_schema".shown_detail s
            where s.cause_id = k.cause_id and s.detail = k.detail and s.first_seen <= o.flagged_at)
    order by k.cause_id, k.detail
    for update of k
)
update :"dlq_schema".cause_detail k
set status = o.status, fixed_at = o.fixed_at
from detail
cross join outcome o
where k.cause_id = detail.cause_id and k.detail = detail.detail

-- name: set_status
-- A fix that is resumed can go on at once.
update :"dlq_schema".fix
set status = %(status)s,
    verdict = %(verdict)s,
    refill_at = case when %(status)s = 'active' then %(now)s::timestamptz end
where id = %(fix_id)s

-- name: failures
-- Errors before and after the retry, of events of a stage that were not delivered, the latest
-- first.
select r.outcome, d.error as before, again.error as after
from :"dlq_schema".retry r
join :"dlq_schema".death d on d.id = r.death_id
left join lateral (
    select a.error from :"dlq_schema".death a
    where a.event_id = r.event_id
        and a.event_created_at is not distinct from r.event_created_at
        and a.died_at > d.died_at
    order by a.died_at limit 1) again on true
where r.fix_id = %(fix_id)s and r.stage = %(stage)s
    and r.outcome in ('died_again', 'timed_out', 'deleted')
order by r.event_id desc limit %(limit)s

-- name: stages_difference
-- Stages whose counts differ from the ledger and from what was purged from it. Normally there are
-- none.
select fix_id, stage
from :"dlq_schema".fix_stage s
full join (
    select fix_id,
        stage,
        sum(events) as released,
        jsonb_object_agg(outcome, events) filter (where outcome is not null) as outcomes
    from (
        select fix_id, stage, outcome, count(*) as events
        from :"dlq_schema".retry
        where fix_id is not null
        group by fix_id, stage, outcome
        union all
        select fix_id, stage, 'recalled', count(*)
        from :"dlq_schema".recalled
        where fix_id is not null
        group by fix_id, stage) r
    group by fix_id, stage
) ledger using (fix_id, stage)
left join (
    select fix_id,
        stage,
        sum(purged) as purged,
        jsonb_object_agg(outcome, events - purged) filter (where events > purged) as outcomes
    from :"dlq_schema".fix_outcome
    group by fix_id, stage
) counted using (fix_id, stage)
where (s.released, counted.outcomes)
    is distinct from (coalesce(ledger.released, 0) + coalesce(counted.purged, 0), ledger.outcomes)
order by fix_id, stage
limit 20
