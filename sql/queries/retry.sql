-- Retries: releasing dead events, recording their outcomes, and their history.

-- name: take
-- A batch of the selected deaths, oldest first, in keyset order: it reads at most so many rows,
-- however few match. Locks as many of the events that may be released as there is room for; if they
-- are to be released, makes them due and writes their rows of the ledger. Counts the rest.
--
-- One statement: two statements that pass the ids out and back take a third longer.
--
-- Rows are looked up one by one (`lateral` with `limit 1`): after a storm the statistics know
-- nothing of the dead events, and the planner would read all of a table for each batch.
--
-- The batch is driven by causes, by ids or by everything that is dead. `archive.restorable` and
-- `dead_event.look` have drives of their own: their sources and orders differ, and only literal
-- limits and orders in each branch keep the index scans.
with page as materialized (
    select * from (
        (select n.* from unnest(%(causes)s::text[]) as member (cause_id)
         cross join lateral (
            select n.* from :"dlq_schema".dead n
            where n.cause_id = member.cause_id and n.died_at < %(before)s
                and (%(detail)s::text is null or n.detail = %(detail)s)
                and (n.died_at, n.death_id) > (%(after_time)s, %(after_id)s)
            order by n.died_at, n.death_id limit %(rows)s) n
         where %(event_ids)s::text[] is null)
        union all
        (select n.* from :"dlq_schema".dead_now n
         where n.event_id = any(:"dlq_schema".event_ids(%(event_ids)s::text[]))
            and n.died_at < %(before)s
            and (n.died_at, n.death_id) > (%(after_time)s, %(after_id)s)
         order by n.died_at, n.death_id limit %(rows)s)
        union all
        (select n.* from :"dlq_schema".dead n
         where n.died_at < %(before)s
            and (n.died_at, n.death_id) > (%(after_time)s, %(after_id)s)
            and (%(detail)s::text is null or n.detail = %(detail)s)
            and %(causes)s::text[] is null and %(event_ids)s::text[] is null
         order by n.died_at, n.death_id limit %(rows)s)
        union all
        -- Not through dead_now: PostgreSQL sorts all rows of a union in a view.
        (select d.id, d.event_id, d.event_created_at, d.aggregate_type, d.aggregate_id,
            d.event_type, d.died_at, d.cause_id, d.detail
         from :"dlq_schema".death d
         where d.cause_id is null and d.ended_at is null and d.died_at < %(before)s
            and (d.died_at, d.id) > (%(after_time)s, %(after_id)s)
            and %(detail)s::text is null
            and %(causes)s::text[] is null and %(event_ids)s::text[] is null
         order by d.died_at, d.id limit %(rows)s)
    ) drive
    order by died_at, death_id limit %(rows)s
), tried as materialized (
    select r.event_id, r.event_created_at, count(*) as retries, array_agg(r.death_id) as deaths,
        bool_or(r.fix_id = %(fix_id)s) as by_fix
    from :"dlq_schema".retry r where r.event_id = any(array(select event_id from page))
    group by r.event_id, r.event_created_at
), judged as materialized (
    select page.*, case
        when %(max_retries)s::integer is not null and tried.retries >= %(max_retries)s then 'parked'
        when not %(ordered)s or page.aggregate_id = '' then 'free'
        when exists (
            select from :"dlq_schema".retry r
            cross join lateral (
                select from :"dlq_schema".outbox o
                where o.id = r.event_id
                    and coalesce(o.dead, false) = false and coalesce(o.delivered, false) = false
                limit 1) under_way
            where hashtext(r.aggregate_id) = hashtext(page.aggregate_id) and r.aggregate_id <> ''
                and r.aggregate_id = page.aggregate_id and r.aggregate_type = page.aggregate_type
                and (coalesce(r.event_created_at, '-infinity'), r.event_id)
                    < (coalesce(page.event_created_at, '-infinity'), page.event_id)
                and (r.outcome is null or r.outcome = 'timed_out')) then 'waiting'
        when exists (
            select from (
                -- The first one alone: an aggregate may have thousands of dead events.
                select n.event_created_at, n.event_id from :"dlq_schema".dead n
                where hashtext(n.aggregate_id) = hashtext(page.aggregate_id)
                    and n.aggregate_id <> ''
                    -- `case`: the planner takes it for half of the rows. As conditions these are
                    -- so selective to it that, without statistics, it sorts all dead events of the
                    -- aggregate for each of them: 11 s instead of 0.1 s for a batch of 5,000.
                    and case when n.aggregate_id = page.aggregate_id
                        and n.aggregate_type = page.aggregate_type then true end
                order by hashtext(n.aggregate_id),
                    coalesce(n.event_created_at, '-infinity'::timestamptz),
                    n.event_id
                limit 1) n
            where (coalesce(n.event_created_at, '-infinity'), n.event_id)
                < (coalesce(page.event_created_at, '-infinity'), page.event_id)
            -- Those without a cause are in no index by aggregate: hashed once for the batch.
            ) or (page.aggregate_type, page.aggregate_id) in (
                select d.aggregate_type, d.aggregate_id from :"dlq_schema".death d
                where d.cause_id is null and d.ended_at is null)
            and exists (
            select from :"dlq_schema".death d
            where d.cause_id is null and d.ended_at is null
                and d.aggregate_id = page.aggregate_id and d.aggregate_type = page.aggregate_type
                and (coalesce(d.event_created_at, '-infinity'), d.event_id)
                    < (coalesce(page.event_created_at, '-infinity'), page.event_id)) then 'held'
        else 'free' end as state
    from page
    cross join lateral (
        select d.* from :"dlq_schema".death d where d.id = page.death_id limit 1) death
    cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
    left join tried
        on tried.event_id = page.event_id
        and tried.event_created_at is not distinct from page.event_created_at
    where (tried.event_id is null
            or page.death_id <> all(tried.deaths) and tried.by_fix is not true)
        and :"dlq_schema".selects(
            f,
            death:::"dlq_schema".death,
            case when page.cause_id = any(%(causes)s::text[]) then f.cause_id end)
), locked as materialized (
    select free.*, row_number() over (order by free.died_at, free.death_id) - 1 as n
    from (
        select free.death_id,
            free.died_at,
            free.event_id,
            free.event_created_at,
            free.aggregate_type,
            free.aggregate_id,
            o.release_before
        from (select * from judged where state = 'free' order by died_at, death_id) free
        cross join lateral (
            select o.release_before from :"dlq_schema".outbox o
            where o.id = free.event_id
                and o.created_at is not distinct from free.event_created_at
                and o.dead
            limit 1 for update skip locked) o
        limit %(room)s) free
), released as materialized (
    select unnest(:"dlq_schema".release_events(
        array(select death_id from locked order by n),
        array(select %(due)s::timestamptz + make_interval(secs => n * %(seconds_each)s)
              from locked order by n))) as death_id
    where %(release)s
), ledger as (
    insert into :"dlq_schema".retry (
        death_id,
        event_id,
        event_created_at,
        aggregate_type,
        aggregate_id,
        fix_id,
        stage,
        actor,
        reason,
        retried_at,
        due_at,
        row_before)
    select death_id,
        event_id,
        event_created_at,
        aggregate_type,
        aggregate_id,
        %(fix_id)s,
        %(stage)s,
        %(actor)s,
        %(reason)s,
        %(now)s,
        %(due)s::timestamptz + make_interval(secs => locked.n * %(seconds_each)s),
        release_before
    from locked
    -- `is true`: a join of rows that the planner takes for one would be a nested loop. It took 5 s
    -- for a batch of 5,000.
    where (death_id in (select death_id from released)) is true
), passed as materialized (
    -- `not in` uses a hash table, whatever the planner expects.
    select * from judged where death_id not in (select death_id from locked)
), last as (
    select died_at, death_id from page order by died_at desc, death_id desc limit 1
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
    coalesce(last.death_id, %(after_id)s) as last_id
from (select count(*) as events from locked) taken
cross join (
    select count(*) filter (where state = 'free') as free,
        count(*) filter (where state = 'waiting') as waiting,
        count(*) filter (where state = 'held') as held,
        count(*) filter (where state = 'parked') as parked
    from passed
    cross join lateral (
        select from :"dlq_schema".outbox o
        where o.id = passed.event_id
            and o.created_at is not distinct from passed.event_created_at
            and o.dead
        limit 1) o) counted
left join last on true

-- name: read_payload
-- Fails if PostgreSQL cannot parse the payload. Run before anything is locked.
select :"dlq_schema".read_payload(%(payload)s)

-- name: payload_type
-- The type that the text of a payload is cast to.
select shape ->> 'payload_type' as type from :"dlq_schema".attachment

-- name: replace_payload
-- Replaces the payload of an event that was just released. The ledger keeps the old one.
with kept as (
    update :"dlq_schema".retry r set payload_before = o.payload
    from :"dlq_schema".outbox o
    where r.death_id = any(%(deaths)s::bigint[]) and o.id = r.event_id
        and o.created_at is not distinct from r.event_created_at
    returning r.event_id, r.event_created_at
)
select :"dlq_schema".set_payload(event_id, event_created_at, %(payload)s) from kept

-- name: settle
-- Records the outcomes of a batch of retries, of a fix or of none, in the order of their due times.
-- Reads at most so many rows, however many are still with the worker.
with page as materialized (
    select r.death_id, r.event_id, r.event_created_at, r.due_at from :"dlq_schema".retry r
    where r.outcome is null
        and (r.fix_id = %(fix_id)s or %(fix_id)s::bigint is null and r.fix_id is null)
        and r.due_at <= %(now)s  -- no worker takes an event before it is due
        and (r.due_at, r.death_id) > (%(after_time)s, %(after_id)s)
    order by r.fix_id, r.due_at, r.death_id limit %(rows)s
), known as materialized (
    select page.death_id, case
        -- Checked first, because the event may have been retried again since.
        when exists (
            select from :"dlq_schema".death d
            where d.event_id = page.event_id
                and d.event_created_at is not distinct from page.event_created_at
                and d.id > page.death_id) then 'died_again'
        when o.delivered then 'delivered'
        when o.id is null then :"dlq_schema".vanished_outcome()
        when page.due_at + make_interval(secs => %(settle_seconds)s) <= %(now)s then 'timed_out'
        end as outcome
    from page
    left join lateral (
        select o.id, o.delivered from :"dlq_schema".outbox o
        where o.id = page.event_id
            and o.created_at is not distinct from page.event_created_at
        limit 1) o on true
), decided as materialized (
    select r.death_id, known.outcome from known
    cross join lateral (
        select r.death_id from :"dlq_schema".retry r
        where r.death_id = known.death_id and coalesce(r.outcome, '') = ''
        limit 1 for update skip locked) r
    where known.outcome is not null
), settled as (
    -- What has an outcome is not recalled.
    update :"dlq_schema".retry r
    set outcome = o.outcome, settled_at = %(now)s, row_before = null
    -- By an array for each outcome: for a join with five thousand rows the planner would read the
    -- whole table, or all of these rows for each of them.
    from (select outcome, array_agg(death_id) as deaths from decided group by outcome) o
    where r.death_id = any(o.deaths)
    returning r.death_id, r.fix_id, r.stage, r.outcome, r.actor
), by_fix as (
    -- Inserted in the order of the key, so that two that settle at once wait for each other instead
    -- of deadlocking.
    insert into :"dlq_schema".fix_outcome as o (fix_id, stage, outcome, events)
    select fix_id, stage, outcome, count(*) from settled where fix_id is not null
    group by fix_id, stage, outcome order by fix_id, stage, outcome
    on conflict (fix_id, stage, outcome) do update set events = o.events + excluded.events
), by_hand as (
    insert into :"dlq_schema".retry_count as t (outcome, by_probe, retries)
    select outcome, actor = 'probe', count(*) from settled where fix_id is null
    group by 1, 2 order by 1, 2
    on conflict (outcome, by_probe) do update set retries = t.retries + excluded.retries
)
select (select count(*) from settled) as events,
    (select coalesce(array_agg(death_id), '{}')::text from settled where outcome = 'delivered')
        as delivered,
    count(*) as rows,
    max(due_at) as last_time,
    (array_agg(death_id order by due_at desc, death_id desc))[1] as last_id
from page

-- name: find_followers
-- The first dead event of the aggregate of each of these retries: its ids as texts.
select coalesce(array_agg(follower.event_id::text), '{}') as event_ids
from (
    select distinct r.aggregate_type, r.aggregate_id from :"dlq_schema".retry r
    where r.death_id = any(%(deaths)s::bigint[]) and r.aggregate_id <> '') delivered
cross join lateral (
    select n.event_id from :"dlq_schema".dead n
    where hashtext(n.aggregate_id) = hashtext(delivered.aggregate_id) and n.aggregate_id <> ''
        -- As in `take`.
        and case when n.aggregate_id = delivered.aggregate_id
            and n.aggregate_type = delivered.aggregate_type then true end
    order by hashtext(n.aggregate_id),
        coalesce(n.event_created_at, '-infinity'::timestamptz),
        n.event_id
    limit 1) follower

-- name: has_followers
-- Whether a dead event waits for one that the fix released and that is due by then. Reads at most
-- so many retries, the first that are due.
select exists (
    select from (
        select r.aggregate_type, r.aggregate_id from :"dlq_schema".retry r
        where r.fix_id = %(fix_id)s and r.outcome is null and r.due_at <= %(until)s
        order by r.fix_id, r.due_at limit %(rows)s) r
    cross join lateral (
        select from :"dlq_schema".dead n
        where hashtext(n.aggregate_id) = hashtext(r.aggregate_id) and n.aggregate_id <> ''
            -- As in `take`.
            and case when n.aggregate_id = r.aggregate_id
                and n.aggregate_type = r.aggregate_type then true end
        limit 1) n) as found

-- name: recount_deleted
-- Counts deleted events of a fix as delivered, if the mapping says by now that its worker deletes
-- what it has delivered. Reads at most so many failed retries, from a stage and an event on.
with page as materialized (
    select r.death_id, r.stage, r.event_id, r.outcome
    from :"dlq_schema".retry r
    where r.fix_id = %(fix_id)s
        and r.outcome in ('died_again', 'timed_out', 'deleted')
        and :"dlq_schema".vanished_outcome() = 'delivered'
        and (%(stage)s::integer is null
            or (r.stage, r.event_id) >= (
                %(stage)s::integer,
                (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1]))
    order by r.stage, r.event_id
    limit %(rows)s
), recounted as (
    update :"dlq_schema".retry r set outcome = 'delivered'
    where r.death_id = any(array(select death_id from page where outcome = 'deleted'))
    returning r.fix_id, r.stage
), counted as (
    select fix_id, stage, count(*) as events from recounted group by fix_id, stage
), fewer as (
    update :"dlq_schema".fix_outcome o set events = o.events - c.events
    from counted c
    where o.fix_id = c.fix_id and o.stage = c.stage and o.outcome = 'deleted'
), more as (
    insert into :"dlq_schema".fix_outcome as o (fix_id, stage, outcome, events)
    select fix_id, stage, 'delivered', events from counted order by fix_id, stage
    on conflict (fix_id, stage, outcome) do update set events = o.events + excluded.events
)
select count(*) as rows,
    (array_agg(stage order by stage desc, event_id desc))[1] as stage,
    (array_agg(event_id::text order by stage desc, event_id desc))[1] as event_id
from page

-- name: left_by_fixes
-- Fixes that have ended or are paused, and have retries without an outcome.
select f.id from :"dlq_schema".fix f
cross join lateral (
    select from :"dlq_schema".retry r
    where r.fix_id = f.id and r.outcome is null limit 1) outstanding
where f.status <> 'active' order by f.id

-- name: has_unsettled
-- Whether a retry that no active fix waits for was due by then and has no outcome.
select exists (
    select from :"dlq_schema".retry r
    where r.outcome is null and r.fix_id is null and r.due_at <= %(due_before)s
) or exists (
    select from :"dlq_schema".fix f
    cross join lateral (
        select from :"dlq_schema".retry r
        where r.fix_id = f.id and r.outcome is null and r.due_at <= %(due_before)s
        limit 1
    ) outstanding
    where f.status <> 'active'
) as found

-- name: note_late
-- Notes events that were delivered after their retry timed out, of the last week. The outcome
-- stays, because such a late delivery proves nothing about a fix. But the application may delete
-- such an event, and then it is not missing.
with late as (
    select r.death_id from :"dlq_schema".retry r
    join :"dlq_schema".outbox o
        on o.id = r.event_id and o.created_at is not distinct from r.event_created_at
        and o.delivered
    where r.outcome = 'timed_out' and r.late_at is null
        and r.settled_at >= %(now)s::timestamptz - interval '7 days'
    order by r.death_id limit %(limit)s
    for update of r skip locked
)
update :"dlq_schema".retry r set late_at = %(now)s
from late where r.death_id = late.death_id

-- name: parked
-- Parked events in the order of their ids, after that of a death. Driven by the retries, which most
-- events do not have: their index counts them in that order, without a sort.
select e.death_id,
    e.event_id,
    e.event_type,
    e.aggregate_type,
    e.aggregate_id,
    e.cause_id,
    e.detail,
    tried.retries,
    e.died_at
from (
    select r.event_id, r.event_created_at, count(*) as retries from :"dlq_schema".retry r
    where (%(after)s = 0
            or r.event_id > (select d.event_id from :"dlq_schema".death d where d.id = %(after)s))
        and (%(event_ids)s::text[] is null
            or r.event_id = any(:"dlq_schema".event_ids(%(event_ids)s::text[])))
    group by r.event_id, r.event_created_at having count(*) >= %(max_retries)s) tried
cross join lateral (
    select d.* from :"dlq_schema".dead_event d
    where d.event_id = tried.event_id
        and d.event_created_at is not distinct from tried.event_created_at
    limit 1) e
cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
where :"dlq_schema".selects(f, e:::"dlq_schema".dead_event)
    and (%(causes)s::text[] is null or e.own_cause_id = any(%(causes)s::text[]))
    and (%(fix_id)s::bigint is null
        or exists (
            select from :"dlq_schema".retry r
            where r.event_id = e.event_id
                and r.event_created_at is not distinct from e.event_created_at
                and r.fix_id = %(fix_id)s)
        or exists (
            select from :"dlq_schema".fix x
            where x.id = %(fix_id)s and :"dlq_schema".selects(x, e:::"dlq_schema".dead_event)))
order by tried.event_id, tried.event_created_at limit %(limit)s

-- name: identify
-- When the last event with this id that died was created. Ids may begin again after a truncate or a
-- restore: earlier events with the same id are others. As a text, which also holds infinite times.
select d.event_created_at::text as created_at
from :"dlq_schema".death d
where d.event_id = (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1]
order by d.died_at desc, d.id desc limit 1

-- name: place
-- The place of an event.
with given as (
    select (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1] as id,
        %(created_at)s::timestamptz as created_at
)
select case
    when exists (
        select from :"dlq_schema".outbox o
        where o.id = given.id and o.created_at is not distinct from given.created_at) then 'outbox'
    when exists (
        select from :"dlq_schema".archive a
        where a.id = given.id and a.created_at is not distinct from given.created_at) then 'archive'
    when exists (
        select from :"dlq_schema".purged p
        join :"dlq_schema".death d on d.id = p.death_id
        where p.event_id = given.id
            and d.event_created_at is not distinct from given.created_at) then 'purged'
    else 'gone' end as place
from given

-- name: event
-- An event from the outbox, otherwise from the archive.
with given as (
    select (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1] as id,
        %(created_at)s::timestamptz as created_at
)
select event.*, (
        select max(d.died_at) from :"dlq_schema".death d
        where d.event_id = event.id
            and d.event_created_at is not distinct from event.created_at
            and event.dead) as dead_at
from (
    select 1 as place,
        o.id,
        o.aggregate_type,
        o.aggregate_id,
        o.event_type,
        o.payload,
        o.status,
        o.attempts,
        o.due_at as next_run_at,
        o.created_at,
        o.error as last_error,
        o.error_at as last_error_at,
        o.dead
    from :"dlq_schema".outbox o where o.id = (select id from given)
    union all
    select 2,
        a.id,
        a.aggregate_type,
        a.aggregate_id,
        a.event_type,
        a.payload,
        a.status,
        a.attempts,
        a.due_at,
        a.created_at,
        a.error,
        a.error_at,
        a.dead
    from :"dlq_schema".archive a where a.id = (select id from given)
) event
join given on event.created_at is not distinct from given.created_at
order by event.place limit 1

-- name: deaths_of
select d.id,
    d.died_at,
    d.attempts,
    d.cause_id,
    d.detail,
    d.error,
    g.discarded_at,
    g.actor as discarded_by,
    g.reason as discard_reason
from :"dlq_schema".shown_death d left join :"dlq_schema".discard g on g.death_id = d.id
where d.event_id = (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1]
    and d.event_created_at is not distinct from %(created_at)s::timestamptz
order by d.died_at desc, d.id desc limit %(limit)s

-- name: retries_of
-- The retries of an event, also those that were recalled.
with tried as (
    select death_id,
        fix_id,
        stage,
        actor,
        reason,
        retried_at,
        due_at,
        payload_before,
        outcome,
        settled_at,
        null as recalled_by,
        null as recall_reason,
        event_created_at
    from :"dlq_schema".retry
    where event_id = (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1]
    union all
    select death_id,
        fix_id,
        stage,
        actor,
        reason,
        retried_at,
        due_at,
        null,
        'recalled',
        recalled_at,
        recalled_by,
        recall_reason,
        event_created_at
    from :"dlq_schema".recalled
    where event_id = (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1]
)
select death_id,
    fix_id,
    stage,
    actor,
    reason,
    retried_at,
    due_at,
    payload_before,
    outcome,
    settled_at,
    recalled_by,
    recall_reason
from tried
where event_created_at is not distinct from %(created_at)s::timestamptz
order by retried_at desc, death_id desc limit %(limit)s

-- name: fix_of
-- The open fix that targets an event, otherwise the last fix that released it.
with given as (
    select (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1] as id,
        %(created_at)s::timestamptz as created_at
)
select f.* from :"dlq_schema".fix f cross join given
where f.id = (
        select max(r.fix_id) from :"dlq_schema".retry r
        where r.event_id = given.id
            and r.event_created_at is not distinct from given.created_at)
    or f.closed_at is null and exists (
        select from :"dlq_schema".dead_event e
        where e.event_id = given.id
            and e.event_created_at is not distinct from given.created_at
            and :"dlq_schema".selects(f, e))
order by f.closed_at is null desc, f.id desc limit 1
