-- Moving dead events out of the hot table.

-- name: exported_days
-- Days that could be archived: not after the limit, nor before the oldest dead event (its day is another in some zones).
select x.day from :"dlq_schema".export_day x
where x.day <= %(last_day)s
    and x.day >= (select min(dead_at)::date - 1 from :"outbox_schema".:"outbox_table" where status = 'dead')
order by x.day

-- name: complete_days
-- Those of the days whose export still holds every death, as the times that they span: neighbours are one range. A
-- death that committed late makes its day incomplete until it is exported again. When a day begins is not asked of the
-- server: it takes CET for a fixed offset, and midnights that come twice for the later one.
select coalesce(range_agg(tstzrange(given.start, given.until)), '{}')::text as times
from unnest(%(days)s::date[], %(starts)s::timestamptz[], %(untils)s::timestamptz[]) as given (day, start, until)
join :"dlq_schema".export_day x using (day)
where x.rows = (
    select count(*) from :"dlq_schema".death d where d.died_at >= given.start and d.died_at < given.until)

-- name: count_movable
-- The same predicate as move_batch, for the dry run.
select count(*) as events
from :"outbox_schema".:"outbox_table" e
where e.status = 'dead' and e.dead_at < %(before)s
    and (%(times)s::tstzmultirange is null or e.dead_at <@ %(times)s::tstzmultirange)
    and not exists (select from :"outbox_schema".:"archive_table" a where a.id = e.id)
    and not exists (
        select from :"dlq_schema".shown_death d join :"dlq_schema".fix f on f.closed_at is null
            and (f.cause_id = d.cause_id or f.cause_id is null)
        where d.event_id = e.id and d.died_at = e.dead_at and :"dlq_schema".selects(
            f, d.cause_id, d.event_type, d.aggregate_type, d.event_id, d.error, d.died_at))

-- name: move_batch
-- One batch, deleted and inserted by one statement, so an event is never in both tables or in neither. By key, so that
-- no batch reads again what an earlier one passed over. An event that an open fix targets stays, and so does one
-- whose id is in the archive already: it would stop every run, and the check of the books names it.
with batch as (
    select e.id from :"outbox_schema".:"outbox_table" e
    where e.status = 'dead' and e.dead_at < %(before)s and (e.dead_at, e.id) > (%(after_time)s, %(after_id)s)
        and (%(times)s::tstzmultirange is null or e.dead_at <@ %(times)s::tstzmultirange)
        and not exists (select from :"outbox_schema".:"archive_table" a where a.id = e.id)
        and not exists (
            select from :"dlq_schema".shown_death d join :"dlq_schema".fix f on f.closed_at is null
                and (f.cause_id = d.cause_id or f.cause_id is null)
            where d.event_id = e.id and d.died_at = e.dead_at and :"dlq_schema".selects(
                f, d.cause_id, d.event_type, d.aggregate_type, d.event_id, d.error, d.died_at))
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
-- An application that deletes its delivered events is within its rights. The whole ledger, each time: a row may vanish
-- from the archive years after its event died, so no window of days keeps the promise, and totals hide one loss behind
-- one double. As joins, which merge three indexes in the order of their ids; 2 s a million events.
with event as (select distinct event_id from :"dlq_schema".death), wrong as (
    select event_id, e.id is not null as in_outbox
    from event
    left join :"outbox_schema".:"outbox_table" e on e.id = event_id
    left join :"outbox_schema".:"archive_table" a on a.id = event_id
    where (e.id is null) = (a.id is null) and (e.id is not null or not exists (
        select from :"dlq_schema".retry r where r.event_id = event.event_id and r.outcome = 'done'))
)
select count(*) filter (where not in_outbox) as missing, count(*) filter (where in_outbox) as doubled,
    (array_agg(event_id order by event_id))[1:20] as examples
from wrong
