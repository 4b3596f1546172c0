-- Releasing dead events and writing down what became of them.

-- name: count_ids
select count(*) as events
from :"outbox_schema".:"outbox_table" e
join :"dlq_schema".death d on d.event_id = e.id and d.died_at = e.dead_at
where e.id = any(%(ids)s::bigint[]) and e.status = 'dead'

-- name: release_ids
-- Named events, in the order of their ids, which is the order in which every batch locks them.
with target as (
    select e.id, d.id as death_id
    from :"outbox_schema".:"outbox_table" e
    join :"dlq_schema".death d on d.event_id = e.id and d.died_at = e.dead_at
    where e.id = any(%(ids)s::bigint[]) and e.status = 'dead'
    order by e.id
    for update of e
), paced as (
    select id, death_id, %(now)s::timestamptz
        + make_interval(secs => (%(already)s + row_number() over (order by id) - 1) * %(seconds_each)s) as due_at
    from target
), released as (
    update :"outbox_schema".:"outbox_table" e
    set status = 'pending', attempts = 0, next_run_at = paced.due_at, dead_at = null
    from paced where e.id = paced.id and e.status = 'dead'
    returning e.id, paced.death_id, paced.due_at
), ledger as (
    insert into :"dlq_schema".retry (event_id, death_id, actor, reason, retried_at, due_at)
    select id, death_id, %(actor)s, %(reason)s, %(now)s, due_at from released
    returning 1
)
select count(*) as events from ledger

-- name: has_candidates
-- The same deaths as release_stage, looked up one by one for the reason given there.
select count(*) > 0 as found from (
    select from unnest(%(cause_ids)s::text[]) as member (cause_id)
    cross join lateral (
        select from :"dlq_schema".death d
        cross join lateral (
            select from :"outbox_schema".:"outbox_table" e
            where e.id = d.event_id and e.dead_at = d.died_at and e.status = 'dead' limit 1) e
        where d.cause_id = member.cause_id and d.died_at < %(flagged_at)s
            and (%(event_type)s::text is null or d.event_type = %(event_type)s)
            and (d.died_at, d.id) > (%(after_time)s, %(after_id)s)
            and not exists (select from :"dlq_schema".retry r where r.fix_id = %(fix_id)s and r.event_id = d.event_id)
        order by d.died_at, d.id limit 1) candidate
    limit 1) found

-- name: release_stage
-- The next events of a fix, oldest death first, each due 1 / rate after the one before it. By key, so that no batch
-- reads again what an earlier one released. `lateral` has each event looked up in the order of death_cause, a merged
-- cause after the other, until the batch is full: the planner takes a join on two columns to find a single row, and
-- would read the whole outbox for every batch of a cause with many deaths.
with target as (
    select t.id, t.death_id, t.died_at
    from unnest(%(cause_ids)s::text[]) as member (cause_id)
    cross join lateral (
        select e.id, d.id as death_id, d.died_at
        from :"dlq_schema".death d
        cross join lateral (
            select e.id from :"outbox_schema".:"outbox_table" e
            where e.id = d.event_id and e.dead_at = d.died_at and e.status = 'dead'
            for update skip locked) e
        where d.cause_id = member.cause_id and d.died_at < %(flagged_at)s
            and (%(event_type)s::text is null or d.event_type = %(event_type)s)
            and (d.died_at, d.id) > (%(after_time)s, %(after_id)s)
            and not exists (select from :"dlq_schema".retry r where r.fix_id = %(fix_id)s and r.event_id = d.event_id)
        order by d.died_at, d.id
        limit %(limit)s
    ) t
    order by t.died_at, t.death_id
    limit %(limit)s
), paced as (
    select id, death_id, died_at, %(now)s::timestamptz
        + make_interval(secs => (%(already)s + row_number() over (order by died_at, death_id) - 1) * %(seconds_each)s)
        as due_at
    from target
), released as (
    update :"outbox_schema".:"outbox_table" e
    set status = 'pending', attempts = 0, next_run_at = paced.due_at, dead_at = null
    from paced where e.id = paced.id and e.status = 'dead'
    returning e.id, paced.death_id, paced.died_at, paced.due_at
), ledger as (
    insert into :"dlq_schema".retry (event_id, death_id, fix_id, stage, actor, reason, retried_at, due_at)
    select id, death_id, %(fix_id)s, %(stage)s, %(actor)s, %(reason)s, %(now)s, due_at from released
    returning 1
)
select count(*) as events, max(died_at) as last_time,
    (array_agg(death_id order by died_at desc, death_id desc))[1] as last_id
from released

-- name: settle
-- What became of retried events. A later death decides first: the event may have been retried again since. An event
-- that left the outbox as done lives in the archive as done. Before its due time no worker has an event. Without a fix:
-- the retries that no active fix waits for, which are those of people and what ended fixes left behind.
with outstanding as (
    select r.id, case
        when exists (select from :"dlq_schema".death d where d.event_id = r.event_id and d.id > r.death_id) then 'dead'
        when e.status = 'done' or (e.id is null and a.status = 'done') then 'done'
        when e.id is null then 'gone'
        when r.due_at + make_interval(secs => %(settle_seconds)s) <= %(now)s then 'unsettled'
        end as outcome
    from :"dlq_schema".retry r
    left join :"outbox_schema".:"outbox_table" e on e.id = r.event_id
    left join :"outbox_schema".:"archive_table" a on a.id = r.event_id and e.id is null
    where r.outcome is null and r.due_at <= %(now)s and (r.fix_id = %(fix_id)s or %(fix_id)s::bigint is null
        and not exists (select from :"dlq_schema".fix f where f.id = r.fix_id and f.status = 'active'))
), decided as (
    select r.id, o.outcome from :"dlq_schema".retry r join outstanding o on o.id = r.id
    where o.outcome is not null and r.outcome is null
    order by r.id limit %(limit)s
    for update of r skip locked
), settled as (
    update :"dlq_schema".retry r set outcome = decided.outcome, settled_at = %(now)s
    from decided where r.id = decided.id
    returning 1
)
select count(*) as events from settled

-- name: stages
select stage, count(*) as released, count(*) filter (where outcome = 'done') as done,
    count(*) filter (where outcome = 'dead') as dead, count(*) filter (where outcome = 'unsettled') as unsettled,
    count(*) filter (where outcome = 'gone') as gone
from :"dlq_schema".retry where fix_id = %(fix_id)s group by stage order by stage
