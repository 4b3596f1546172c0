-- Retries: releasing dead events, recording their outcomes, and their history.

-- name: take
-- A batch of the selected deaths, oldest first, in keyset order: it reads at most so many rows,
-- however few match. Locks as many of the events that may be released as there is room for; if they
-- are to be released, makes them pending and writes their rows of the ledger. Counts the rest.
--
-- One statement. Measured per event: update 5.5 µs, ledger and indexes 4 µs, finding, checking and
-- locking 4.5 µs. Two statements that pass the ids out and back take 3.4 times a bare update
-- instead of 2.8.
--
-- Rows that are looked up one by one are compared with `is not distinct from`, except for the id:
-- after a storm the statistics know nothing of the dead events, and the planner would read an index
-- of all of them for each row.
--
-- The batch is driven by causes, by ids or by the outbox. `archive.restorable` and
-- `dead_event.look` have drives of their own: their second or third source is another table, they
-- use another order, and only literal limits and orders in each branch keep the index scans. One
-- shared drive would need the orders and sources as parameters, which the planner cannot turn into
-- index scans.
with page as materialized (
    select * from (
        (select d.* from unnest(%(causes)s::text[]) as member (cause_id)
         cross join lateral (
            select d.* from :"dlq_schema".death d
            where d.cause_id = member.cause_id and d.died_at < %(before)s
                and (d.died_at, d.event_id) > (%(after_time)s, %(after_id)s)
            order by d.died_at, d.event_id limit %(rows)s) d
         where %(event_ids)s::bigint[] is null)
        union all
        (select d.* from :"dlq_schema".death d
         where d.event_id = any(%(event_ids)s::bigint[]) and d.died_at < %(before)s
            and (d.died_at, d.event_id) > (%(after_time)s, %(after_id)s)
         order by d.died_at, d.event_id limit %(rows)s)
        union all
        (select d.* from (
            select e.id, e.dead_at from :"outbox_schema".:"outbox_table" e
            where e.status = 'dead' and e.dead_at < %(before)s
                and (e.dead_at, e.id) > (%(after_time)s, %(after_id)s)
                and %(causes)s::text[] is null and %(event_ids)s::bigint[] is null
            order by e.dead_at, e.id limit %(rows)s) e
         cross join lateral (
            select d.* from :"dlq_schema".death d
            where d.event_id = e.id and d.died_at is not distinct from e.dead_at limit 1) d)
    ) drive
    order by died_at, event_id limit %(rows)s
), tried as materialized (
    select r.event_id, count(*) as retries, array_agg(r.death_id) as deaths,
        bool_or(r.fix_id = %(fix_id)s) as by_fix
    from :"dlq_schema".retry r where r.event_id = any(array(select event_id from page))
    group by r.event_id
), judged as materialized (
    select page.id as death_id, page.event_id, page.died_at, case
        when %(max_retries)s::integer is not null and tried.retries >= %(max_retries)s then 'parked'
        when not %(ordered)s then 'free'
        when exists (
            select from :"dlq_schema".retry r
            cross join lateral (
                select from :"outbox_schema".:"outbox_table" o
                where o.id = r.event_id and o.status in ('pending', 'retry') limit 1) under_way
            where r.aggregate_type = page.aggregate_type and r.aggregate_id = page.aggregate_id
                and r.event_id < page.event_id
                and (r.outcome is null or r.outcome = 'timed_out')) then 'waiting'
        when exists (
            select from :"outbox_schema".:"outbox_table" o
            where o.aggregate_type = page.aggregate_type and o.aggregate_id = page.aggregate_id
                and o.id < page.event_id and o.status = 'dead') then 'held'
        else 'free' end as state
    from page
    cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
    left join tried using (event_id)
    where (tried.event_id is null or page.id <> all(tried.deaths) and tried.by_fix is not true)
        and :"dlq_schema".selects(
            f,
            page:::"dlq_schema".death,
            case when page.cause_id = any(%(causes)s::text[]) then f.cause_id end)
), locked as materialized (
    select free.death_id,
        free.place,
        row_number() over (order by free.died_at, free.event_id) - 1 as n
    from (
        select free.*, e.place
        from (select * from judged where state = 'free' order by died_at, event_id) free
        -- Looked up one by one: the planner expects a join on two columns to find a single row, and
        -- would read the whole outbox for every batch of a cause with many deaths.
        cross join lateral (
            select e.ctid as place from :"outbox_schema".:"outbox_table" e
            where e.id = free.event_id and e.dead_at = free.died_at
                and e.status is not distinct from 'dead'
            for update skip locked) e
        limit %(room)s) free
), released as (
    update :"outbox_schema".:"outbox_table" e
    set status = 'pending', attempts = 0, dead_at = null,
        next_run_at = %(due)s::timestamptz + make_interval(secs => locked.n * %(seconds_each)s)
    -- By ctid: an event that changed since the statement began is not found, and is skipped like a
    -- locked one.
    from locked where %(release)s and e.ctid = locked.place
    returning locked.death_id, e.id as event_id, e.aggregate_type, e.aggregate_id, e.next_run_at
), ledger as (
    insert into :"dlq_schema".retry
        (death_id, event_id, aggregate_type, aggregate_id, fix_id, stage, actor, reason, retried_at,
            due_at)
    select death_id,
        event_id,
        aggregate_type,
        aggregate_id,
        %(fix_id)s,
        %(stage)s,
        %(actor)s,
        %(reason)s,
        %(now)s,
        next_run_at
    from released
), passed as materialized (
    -- `not in` uses a hash table, whatever the planner expects.
    select * from judged where death_id not in (select death_id from locked)
), last as (
    select died_at, event_id from page order by died_at desc, event_id desc limit 1
)
select case when %(release)s then (select count(*) from released) else taken.events end as taken,
    case when %(release)s then '{}' else (
        select coalesce(array_agg(death_id order by n), '{}')::text from locked) end as deaths,
    taken.events + counted.free as free,
    counted.waiting,
    counted.held,
    counted.parked,
    (select count(*) from page) as rows,
    coalesce(last.died_at, %(after_time)s) as last_time,
    coalesce(last.event_id, %(after_id)s) as last_id
from (select count(*) as events from locked) taken
cross join (
    select count(*) filter (where state = 'free') as free,
        count(*) filter (where state = 'waiting') as waiting,
        count(*) filter (where state = 'held') as held,
        count(*) filter (where state = 'parked') as parked
    from passed
    cross join lateral (
        select from :"outbox_schema".:"outbox_table" e
        where e.id = passed.event_id and e.dead_at = passed.died_at
            and e.status is not distinct from 'dead'
        limit 1) e) counted
left join last on true

-- name: next_due
-- The due time of the next event of a fix: now, or after its last event without an outcome.
select greatest(%(now)s::timestamptz, max(due_at) + make_interval(secs => %(seconds_each)s)) as due
from :"dlq_schema".retry where fix_id = %(fix_id)s and outcome is null

-- name: read_payload
-- Fails if PostgreSQL cannot parse the payload. Run before anything is locked.
select %(payload)s::jsonb

-- name: replace_payload
-- Replaces the payload of an event that was just released. The ledger keeps the old one.
with event as (
    select id, payload from :"outbox_schema".:"outbox_table" where id = %(event_id)s
), kept as (
    update :"dlq_schema".retry r set payload_before = event.payload
    from event where r.event_id = event.id and r.death_id = any(%(deaths)s::bigint[])
)
update :"outbox_schema".:"outbox_table" set payload = %(payload)s::jsonb where id = %(event_id)s

-- name: settle
-- Records the outcomes of a batch of retries, of a fix or of none, in the order of their due times.
-- Reads at most so many rows, however many are still with the worker.
with page as materialized (
    select r.event_id, r.death_id, r.due_at from :"dlq_schema".retry r
    where r.outcome is null
        and (r.fix_id = %(fix_id)s or %(fix_id)s::bigint is null and r.fix_id is null)
        and r.due_at <= %(now)s  -- no worker takes an event before it is due
        and (r.due_at, r.event_id) > (%(after_time)s, %(after_id)s)
    order by r.fix_id, r.due_at, r.event_id limit %(rows)s
), known as materialized (
    select page.event_id, page.death_id, case
        -- Checked first, because the event may have been retried again since.
        when exists (
            select from :"dlq_schema".death d
            where d.event_id = page.event_id and d.id > page.death_id) then 'died_again'
        -- The application may have moved a delivered event to the archive table.
        when e.status = 'done' or e.status is null and a.status = 'done' then 'delivered'
        when e.status is null then 'deleted'
        when page.due_at + make_interval(secs => %(settle_seconds)s) <= %(now)s then 'timed_out'
        end as outcome
    from page
    left join lateral (
        select o.status from :"outbox_schema".:"outbox_table" o
        where o.id = page.event_id limit 1) e on true
    left join lateral (
        select o.status from :"outbox_schema".:"archive_table" o
        where o.id = page.event_id and e.status is null limit 1) a on true
), decided as materialized (
    select r.place, known.outcome from known
    cross join lateral (
        select r.ctid as place from :"dlq_schema".retry r
        where r.event_id = known.event_id and r.death_id = known.death_id
            and coalesce(r.outcome, '') = ''
        for update skip locked) r
    where known.outcome is not null
), settled as (
    update :"dlq_schema".retry r set outcome = decided.outcome, settled_at = %(now)s
    from decided
    -- By an array of ctids: for a join with five thousand rows the planner would read the whole
    -- ledger.
    where r.ctid = any(array(select place from decided)) and r.ctid = decided.place
    returning r.fix_id, r.stage, r.outcome
), by_fix as (
    -- Inserted in the order of the key, so that two that settle at once wait for each other instead
    -- of deadlocking.
    insert into :"dlq_schema".fix_outcome as o (fix_id, stage, outcome, events)
    select fix_id, stage, outcome, count(*) from settled where fix_id is not null
    group by fix_id, stage, outcome order by fix_id, stage, outcome
    on conflict (fix_id, stage, outcome) do update set events = o.events + excluded.events
), by_hand as (
    insert into :"dlq_schema".retry_count as t (outcome, retries)
    select outcome, count(*) from settled where fix_id is null group by outcome order by outcome
    on conflict (outcome) do update set retries = t.retries + excluded.retries
)
select (select count(*) from settled) as events, count(*) as rows, max(due_at) as last_time,
    (array_agg(event_id order by due_at desc, event_id desc))[1] as last_id
from page

-- name: left_by_fixes
-- Fixes that have ended or are paused, and have retries without an outcome.
select f.id from :"dlq_schema".fix f
cross join lateral (
    select from :"dlq_schema".retry r
    where r.fix_id = f.id and r.outcome is null limit 1) outstanding
where f.status <> 'active' order by f.id

-- name: note_late
-- Notes events that were delivered after their retry timed out, of the last week. The outcome
-- stays, because such a late delivery proves nothing about a fix. But the application may delete
-- such an event, and then it is not missing.
with late as (
    select r.event_id, r.death_id from :"dlq_schema".retry r
    join :"outbox_schema".:"outbox_table" e on e.id = r.event_id and e.status = 'done'
    where r.outcome = 'timed_out' and r.late_at is null
        and r.settled_at >= %(now)s::timestamptz - interval '7 days'
    order by r.death_id limit %(limit)s
    for update of r skip locked
)
update :"dlq_schema".retry r set late_at = %(now)s
from late where r.event_id = late.event_id and r.death_id = late.death_id

-- name: parked
-- Parked events in the order of their ids. Driven by the retries, which most events do not have:
-- their unique index counts them in that order, without a sort.
select e.event_id,
    e.event_type,
    e.aggregate_type,
    e.aggregate_id,
    e.cause_id,
    tried.retries,
    e.died_at
from (
    select r.event_id, count(*) as retries from :"dlq_schema".retry r
    where r.event_id > %(after)s
        and (%(event_ids)s::bigint[] is null or r.event_id = any(%(event_ids)s::bigint[]))
    group by r.event_id having count(*) >= %(max_retries)s) tried
cross join lateral (
    select d.* from :"dlq_schema".dead_event d where d.event_id = tried.event_id limit 1) e
cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
where :"dlq_schema".selects(f, e:::"dlq_schema".dead_event)
    and (%(causes)s::text[] is null or e.own_cause_id = any(%(causes)s::text[]))
    and (%(fix_id)s::bigint is null
        or exists (
            select from :"dlq_schema".retry r
            where r.event_id = e.event_id and r.fix_id = %(fix_id)s)
        or exists (
            select from :"dlq_schema".fix x
            where x.id = %(fix_id)s and :"dlq_schema".selects(x, e:::"dlq_schema".dead_event)))
order by tried.event_id limit %(limit)s

-- name: place
-- The place of an event.
select case
    when exists (
        select from :"outbox_schema".:"outbox_table" e where e.id = %(event_id)s) then 'outbox'
    when exists (
        select from :"outbox_schema".:"archive_table" a where a.id = %(event_id)s) then 'archive'
    when exists (select from :"dlq_schema".purged p where p.event_id = %(event_id)s) then 'purged'
    else 'gone' end as place

-- name: event
-- An event from the outbox, otherwise from the archive.
select id,
    aggregate_type,
    aggregate_id,
    event_type,
    payload::text as payload,
    status,
    attempts,
    next_run_at,
    created_at,
    last_error,
    last_error_at,
    dead_at
from :"outbox_schema".:"outbox_table" where id = %(event_id)s
union all
select id,
    aggregate_type,
    aggregate_id,
    event_type,
    payload::text as payload,
    status,
    attempts,
    next_run_at,
    created_at,
    last_error,
    last_error_at,
    dead_at
from :"outbox_schema".:"archive_table" a where id = %(event_id)s
    and not exists (select from :"outbox_schema".:"outbox_table" e where e.id = a.id)

-- name: deaths_of
select d.id,
    d.died_at,
    d.attempts,
    d.cause_id,
    d.error,
    g.discarded_at,
    g.actor as discarded_by,
    g.reason as discard_reason
from :"dlq_schema".shown_death d left join :"dlq_schema".discard g on g.death_id = d.id
where d.event_id = %(event_id)s order by d.died_at desc limit %(limit)s

-- name: retries_of
select death_id,
    fix_id,
    stage,
    actor,
    reason,
    retried_at,
    due_at,
    payload_before::text as payload_before,
    outcome,
    settled_at
from :"dlq_schema".retry where event_id = %(event_id)s
order by retried_at desc, death_id desc limit %(limit)s

-- name: fix_of
-- The open fix that targets an event, otherwise the last fix that released it.
select f.* from :"dlq_schema".fix f
where f.id = (select max(r.fix_id) from :"dlq_schema".retry r where r.event_id = %(event_id)s)
    or f.closed_at is null and exists (
        select from :"dlq_schema".dead_event e
        where e.event_id = %(event_id)s and :"dlq_schema".selects(f, e))
order by f.closed_at is null desc, f.id desc limit 1
