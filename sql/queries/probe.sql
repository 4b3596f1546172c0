-- Probes: single events of transient causes, released to find out whether the failure has passed.

-- name: due
-- Causes whose probe needs a step: of one cause, or of all. Outcomes are judged before further
-- events are released; otherwise the one that waits longest is first.
-- - The released event has an outcome, or one that no run has recorded yet, or was recalled.
-- - The fix that a delivered probe flagged has ended.
-- - A release is due: the cause is open, not muted and wanted, no open fix targets it, and it has
--   dead events, and its last death is before `quiet_since`.
-- Reads the causes that are transient or wanted by a person, and of each one row of what is dead.
with running as materialized (
    select p.cause_id, p.next_at
    from :"dlq_schema".probe p
    where (p.death_id is not null or p.fix_id is not null)
        and (%(cause_id)s::text is null or p.cause_id = %(cause_id)s)
        and case
            when p.fix_id is not null then exists (
                select from :"dlq_schema".fix f
                where f.id = p.fix_id and f.closed_at is not null)
            else coalesce((
                select r.outcome is not null
                    or r.due_at <= %(now)s and (
                        o.id is null or o.delivered or o.dead
                        or r.due_at + make_interval(secs => %(settle_seconds)s) <= %(now)s)
                from :"dlq_schema".retry r
                left join :"dlq_schema".outbox o
                    on o.id = r.event_id and o.created_at is not distinct from r.event_created_at
                where r.death_id = p.death_id
                limit 1
            ), true) end
), ready as materialized (
    select c.id as cause_id, p.next_at
    from :"dlq_schema".cause c
    left join :"dlq_schema".probe p on p.cause_id = c.id
    where %(may_release)s
        and c.merged_into is null
        and (c.is_transient or c.probe = 'on')
        and (%(cause_id)s::text is null or c.id = %(cause_id)s)
        and coalesce(c.probe, case when %(enabled)s then 'on' else 'off' end) = 'on'
        and c.status <> 'fixing'
        and coalesce(c.muted_until, '-infinity') <= %(now)s
        and c.last_seen <= %(quiet_since)s
        and p.death_id is null
        and p.fix_id is null
        and coalesce(p.next_at, '-infinity') <= %(now)s
        and not exists (
            select from :"dlq_schema".cause m
            where m.merged_into = c.id
                and (m.last_seen > %(quiet_since)s
                    or not m.is_transient and c.probe is distinct from 'on'))
        and not exists (
            select from :"dlq_schema".fix f where f.closed_at is null and f.cause_id = c.id)
        and exists (
            select from :"dlq_schema".cause m
            -- In the order of the index: the planner would read the whole table if all that is dead
            -- has one cause.
            cross join lateral (
                select
                from :"dlq_schema".dead n
                where n.cause_id = m.id
                order by n.cause_id, n.died_at, n.death_id
                limit 1) n
            where m.id = c.id or m.merged_into = c.id)
    order by p.next_at nulls first, c.id
    limit %(limit)s
), chosen as (
    select *, true as is_running from running
    union all
    select *, false from ready
)
select c.id as cause_id,
    c.merged_into is null
        and coalesce(c.probe, case when %(enabled)s then 'on' else 'off' end) = 'on'
        and coalesce(c.muted_until, '-infinity') <= %(now)s as is_wanted,
    greatest(c.last_seen, (
        select max(m.last_seen) from :"dlq_schema".cause m where m.merged_into = c.id
    )) as last_death,
    coalesce(p.tries, 0) as tries,
    p.next_at,
    p.death_id,
    r.event_id::text as event_id,
    coalesce(r.outcome, case when r.death_id is null then 'recalled' end) as outcome,
    p.fix_id,
    f.status as fix_status,
    f.closed_at as fix_closed_at
from chosen
join :"dlq_schema".cause c on c.id = chosen.cause_id
left join :"dlq_schema".probe p on p.cause_id = c.id
left join :"dlq_schema".retry r on r.death_id = p.death_id
left join :"dlq_schema".fix f on f.id = p.fix_id
order by chosen.is_running desc, chosen.next_at nulls first, c.id
limit %(limit)s

-- name: try_lock
-- One run decides at a time, until its transaction ends: so a cause has one probe, and the bound of
-- a day holds. The number is "dlqp" in ASCII.
select pg_try_advisory_xact_lock(1684828528) as is_locked

-- name: count_released
-- Events that probes released since then.
select coalesce(sum(events), 0)::bigint as events
from :"dlq_schema".audit
where kind = 'probe.release' and at >= %(since)s

-- name: pick
-- Dead events of a cause that a probe may release, oldest death first: not parked, not erased, and
-- targeted by no open fix. Reads at most so many dead events. What died again is among the last of
-- them, so each probe takes another event.
with page as materialized (
    select n.*
    from unnest(%(causes)s::text[]) as member (cause_id)
    cross join lateral (
        select n.*
        from :"dlq_schema".dead n
        where n.cause_id = member.cause_id
        order by n.died_at, n.death_id
        limit %(rows)s) n
    order by n.died_at, n.death_id
    limit %(rows)s
)
select page.death_id, page.event_id::text as event_id
from page
cross join lateral (
    select d.*
    from :"dlq_schema".death d
    where d.id = page.death_id and d.erased_at is null
    limit 1) death
where %(max_retries)s > (
        select count(*)
        from :"dlq_schema".retry r
        where r.event_id = page.event_id
            and r.event_created_at is not distinct from page.event_created_at)
    and not exists (
        select from :"dlq_schema".fix f
        where f.closed_at is null
            and :"dlq_schema".selects(f, death:::"dlq_schema".death, %(cause_id)s))
order by page.died_at, page.death_id
limit %(limit)s

-- name: has_dead
-- Whether events of these causes are dead: a row, or none.
select true as found
from unnest(%(causes)s::text[]) as member (cause_id)
cross join lateral (
    select
    from :"dlq_schema".dead n
    where n.cause_id = member.cause_id
    order by n.cause_id, n.died_at, n.death_id
    limit 1) n
limit 1

-- name: record
-- Stores the state of the probes of a cause.
insert into :"dlq_schema".probe as p (cause_id, tries, death_id, fix_id, next_at, probed_at)
values (
    %(cause_id)s,
    %(tries)s,
    %(death_id)s,
    %(fix_id)s,
    %(next_at)s,
    %(now)s)
on conflict (cause_id) do update
set tries = excluded.tries,
    death_id = excluded.death_id,
    fix_id = excluded.fix_id,
    next_at = excluded.next_at,
    probed_at = case
        when excluded.death_id is null then p.probed_at
        else excluded.probed_at end

-- name: get
-- The state of the probes of a cause. `event_id` is the event that is released now.
select c.merged_into is null
        and coalesce(c.probe, case when %(enabled)s then 'on' else 'off' end) = 'on'
        and (c.probe = 'on' or c.is_transient and not exists (
            select from :"dlq_schema".cause m
            where m.merged_into = c.id and not m.is_transient)) as is_on,
    c.is_transient,
    c.probe is not null as is_overridden,
    coalesce(p.tries, 0) as tries,
    p.probed_at,
    d.event_id::text as event_id,
    f.id as fix_id,
    greatest(c.last_seen, (
        select max(m.last_seen) from :"dlq_schema".cause m where m.merged_into = c.id
    )) as last_death,
    p.next_at
from :"dlq_schema".cause c
left join :"dlq_schema".probe p on p.cause_id = c.id
left join :"dlq_schema".death d on d.id = p.death_id
left join :"dlq_schema".fix f on f.id = p.fix_id and f.closed_at is null
where c.id = %(cause_id)s
