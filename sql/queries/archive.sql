-- Moving dead events out of the hot table.

-- name: complete_days
-- Days before the limit whose export still holds every death of the day. A death that committed late makes its day
-- incomplete until it is exported again.
select x.day
from :"dlq_schema".export_day x
where x.day <= %(last_day)s and x.rows = (
    select count(*) from :"dlq_schema".death d
    where d.died_at >= (x.day::timestamp at time zone %(zone)s)
        and d.died_at < ((x.day + 1)::timestamp at time zone %(zone)s))
order by x.day

-- name: count_movable
-- The same predicate as move_batch, for the dry run.
select count(*) as events
from :"outbox_schema".:"outbox_table" e
where e.status = 'dead' and e.dead_at < %(before)s
    and (%(days)s::date[] is null or (e.dead_at at time zone %(zone)s)::date = any(%(days)s))
    and not exists (
        select from :"dlq_schema".shown_death d join :"dlq_schema".fix f on f.cause_id = d.cause_id and f.status = 'active'
        where d.event_id = e.id and d.died_at = e.dead_at and d.died_at < f.flagged_at
            and (f.event_type is null or f.event_type = d.event_type))

-- name: move_batch
-- One batch, deleted and inserted by one statement, so an event is never in both tables or in neither. By key, so that
-- no batch reads again what an earlier one passed over. An event that an active fix targets stays.
with batch as (
    select e.id from :"outbox_schema".:"outbox_table" e
    where e.status = 'dead' and e.dead_at < %(before)s and (e.dead_at, e.id) > (%(after_time)s, %(after_id)s)
        and (%(days)s::date[] is null or (e.dead_at at time zone %(zone)s)::date = any(%(days)s))
        and not exists (
            select from :"dlq_schema".shown_death d
            join :"dlq_schema".fix f on f.cause_id = d.cause_id and f.status = 'active'
            where d.event_id = e.id and d.died_at = e.dead_at and d.died_at < f.flagged_at
                and (f.event_type is null or f.event_type = d.event_type))
    order by e.dead_at, e.id
    limit %(limit)s
    for update of e skip locked
), moved as (
    delete from :"outbox_schema".:"outbox_table" e using batch where e.id = batch.id and e.status = 'dead'
    returning e.id, e.aggregate_type, e.aggregate_id, e.event_type, e.payload, e.status, e.attempts, e.next_run_at,
        e.created_at, e.last_error, e.last_error_at, e.dead_at
), archived as (
    insert into :"outbox_schema".:"archive_table" (id, aggregate_type, aggregate_id, event_type, payload, status,
        attempts, next_run_at, created_at, last_error, last_error_at, dead_at, archived_at)
    select moved.*, %(now)s from moved
    returning id, dead_at
)
select count(*) as moved, max(dead_at) as last_time, (array_agg(id order by dead_at desc, id desc))[1] as last_id
from archived

-- name: count_old
select count(*) as events
from :"outbox_schema".:"outbox_table" where status = 'dead' and dead_at < %(before)s

-- name: unaccounted
-- Events of the ledger that are in neither table though no retry delivered them, and events that are in both.
-- An application that deletes its delivered events is within its rights.
with event as (select distinct event_id from :"dlq_schema".death), place as (
    select event_id,
        exists (select from :"outbox_schema".:"outbox_table" e where e.id = event_id) as in_outbox,
        exists (select from :"outbox_schema".:"archive_table" a where a.id = event_id) as in_archive
    from event
), wrong as (
    select event_id, in_outbox from place
    where in_outbox and in_archive
        or not in_outbox and not in_archive and not exists (
            select from :"dlq_schema".retry r where r.event_id = place.event_id and r.outcome = 'done')
)
select count(*) filter (where not in_outbox) as missing, count(*) filter (where in_outbox) as doubled,
    (array_agg(event_id order by event_id))[1:20] as examples
from wrong
