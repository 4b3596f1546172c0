-- The reconciliation of ledger, outbox and archive, and the state of the outbox.

-- name: record_missed
-- Reads the next events of the outbox in the order of their ids, and records the deaths of those
-- that are dead and not known as dead: from before the triggers, or while none fired. An event that
-- another transaction holds is left for the next reconciliation.
with page as materialized (
    select o.id from :"dlq_schema".outbox o
    where %(after)s::text is null
        or o.id > (:"dlq_schema".event_ids(array[%(after)s::text]))[1]
    order by o.id limit %(limit)s
), missed as materialized (
    select o.* from page
    cross join lateral (
        select o.* from :"dlq_schema".outbox o
        where o.id = page.id and o.dead
            and not exists (
                select from :"dlq_schema".dead_now n
                where n.event_id = o.id and n.event_created_at is not distinct from o.created_at)
        for update of o skip locked) o
), recorded as (
    insert into :"dlq_schema".death (
        event_id,
        event_created_at,
        aggregate_type,
        aggregate_id,
        event_type,
        attempts,
        error,
        died_at,
        was_missed)
    select id,
        created_at,
        coalesce(aggregate_type, ''),
        coalesce(aggregate_id, ''),
        coalesce(event_type, ''),
        coalesce(attempts, 0),
        error,
        -- Where no column says when it died, nearest to it is the time at which its last attempt
        -- was due.
        case
            when isfinite(died_at) and died_at between '0001-01-02Z' and %(now)s then died_at
            when isfinite(due_at) and due_at between '0001-01-02Z' and %(now)s then due_at
            else %(now)s end,
        %(is_missed)s
    from missed
    order by id
    returning 1
)
select (select count(*) from recorded) as recorded,
    count(*) as rows,
    (array_agg(id order by id desc))[1]::text as last_id
from page

-- name: end_stale
-- Reads the next deaths of events that are known as dead, and ends those whose events are not dead.
with page as materialized (
    select n.death_id, n.event_id, n.event_created_at, n.died_at from :"dlq_schema".dead_now n
    where (n.died_at, n.death_id) > (%(after_time)s, %(after_id)s)
    order by n.died_at, n.death_id limit %(limit)s
), stale as materialized (
    select page.death_id from page
    where not exists (
            select from :"dlq_schema".outbox o
            where o.id = page.event_id
                and o.created_at is not distinct from page.event_created_at
                and o.dead)
        or exists (
            select from :"dlq_schema".death d
            where d.event_id = page.event_id
                and d.event_created_at is not distinct from page.event_created_at
                and d.id > page.death_id)
), ended as materialized (
    select :"dlq_schema".end_deaths(array(select death_id from stale))
)
select (select count(*) from stale) as ended,
    (select count(*) from ended) as done,
    count(*) as rows,
    max(died_at) as last_time,
    (array_agg(death_id order by died_at desc, death_id desc))[1] as last_id
from page

-- name: unaccounted
-- Events of the ledger that are in neither table although no retry delivered and no purge deleted
-- them, and events that are in both tables. Applications may delete delivered events. The whole
-- ledger is read each time, because a row can disappear from the archive years after its event
-- died, and because totals would hide a loss behind a duplicate.
with event as (
    select distinct event_id, event_created_at from :"dlq_schema".death
), wrong as (
    select event_id, o.id is not null as in_outbox
    from event
    left join :"dlq_schema".outbox o
        on o.id = event_id and o.created_at is not distinct from event_created_at
    left join :"dlq_schema".archive a
        on a.id = event_id and a.created_at is not distinct from event_created_at
    where (o.id is null) = (a.id is null) and (o.id is not null or not (
        exists (
            select from :"dlq_schema".retry r
            where r.event_id = event.event_id
                and r.event_created_at is not distinct from event.event_created_at
                and (r.outcome = 'delivered'
                    or r.late_at is not null
                    -- A deletion may be the delivery: the outcome is recorded later, or the retry
                    -- had timed out, or nothing says what is delivered.
                    or not :"dlq_schema".deletion_is_loss()
                        and coalesce(r.outcome, 'timed_out') in ('timed_out', 'deleted')
                        and not exists (
                            select from :"dlq_schema".death again
                            where again.event_id = event.event_id
                                and again.event_created_at
                                    is not distinct from event.event_created_at
                                and again.id > r.death_id)))
        or exists (
            select from :"dlq_schema".purged p
            join :"dlq_schema".death d on d.id = p.death_id
            where p.event_id = event.event_id
                and d.event_created_at is not distinct from event.event_created_at)))
)
select count(*) filter (where not in_outbox) as missing,
    count(*) filter (where in_outbox) as duplicated,
    (array_agg(event_id::text order by event_id))[1:20] as event_ids
from wrong

-- name: record
insert into :"dlq_schema".reconciliation (checked_at, missing, duplicated, missed, event_ids)
values (%(now)s, %(missing)s, %(duplicated)s, %(missed)s, %(event_ids)s)
on conflict (checked_at) do nothing

-- name: observe
-- The state of the outbox for the observation in Dagster. Reads what is dead and, by an index of
-- the application's, what waits; never the delivered events.
select dead.events as dead,
    dead.oldest as oldest_dead_at,
    due.events as waiting,
    due.oldest as oldest_due_at
from (
    select count(*) as events, min(died_at) as oldest from :"dlq_schema".dead_now
) dead, (
    select count(*) as events, min(due_at) as oldest
    from :"dlq_schema".outbox where waiting
) due

-- name: rows
-- Rows of the outbox: counted while the table is small, otherwise the planner's estimate, because
-- the statement runs every five minutes.
select case when c.reltuples < 100000 then (select count(*) from :"dlq_schema".outbox)
            else c.reltuples::bigint end as rows
from pg_catalog.pg_class c where c.oid = :"dlq_schema".outbox_table()

-- name: first_death
select min(died_at) as died_at from :"dlq_schema".death where died_at > '1900-01-01 00:00+00'
