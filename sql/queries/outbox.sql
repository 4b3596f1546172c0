-- Statements of workers and of application code on the outbox table.

-- name: fetch_pending
-- Leases due events, oldest due first: they are due again when the lease ends, so no second worker
-- gets them, and the crash of a worker loses none. skip locked: workers do not wait for each other.
-- By ctid: for a join by id the planner looks up the smallest id, past all dead index entries that
-- an archive run has just left, and each fetch took four times as long meanwhile.
with due as (
    select ctid as place, next_run_at from :"outbox_schema".:"outbox_table"
    where status in ('pending', 'retry') and next_run_at <= clock_timestamp()
    order by next_run_at, id
    limit %(limit)s
    for update skip locked
), leased as (
    update :"outbox_schema".:"outbox_table" e
    set next_run_at = clock_timestamp() + make_interval(secs => %(lease)s)
    from due where e.ctid = due.place
    returning e.id, e.aggregate_type, e.aggregate_id, e.event_type, e.payload, e.status, e.attempts,
        due.next_run_at, e.created_at, e.last_error, e.last_error_at, e.dead_at
)
select * from leased order by next_run_at, id

-- name: mark_success
-- Also an event that died meanwhile, because another worker had it after the lease, is delivered.
update :"outbox_schema".:"outbox_table" set status = 'done', attempts = attempts + 1
where id = %(id)s and status <> 'done'

-- name: mark_retry
-- A late result of an event that is done or dead changes nothing.
update :"outbox_schema".:"outbox_table"
set status = case when attempts + 1 >= %(max_attempts)s then 'dead' else 'retry' end,
    attempts = attempts + 1,
    next_run_at = case when attempts + 1 >= %(max_attempts)s then next_run_at
                       else clock_timestamp() + make_interval(secs => %(backoff)s) end,
    last_error = %(error)s,
    last_error_at = clock_timestamp()
where id = %(id)s and status not in ('done', 'dead')

-- name: dead_events
-- The latest death first: the index dlq_dead is read backwards.
select id,
    aggregate_type,
    aggregate_id,
    event_type,
    payload,
    status,
    attempts,
    next_run_at,
    created_at,
    last_error,
    last_error_at,
    dead_at
from :"outbox_schema".:"outbox_table"
where status = 'dead'
    and (%(aggregate_type)s::text is null or aggregate_type = %(aggregate_type)s)
    and (%(event_type)s::text is null or event_type = %(event_type)s)
    and (%(since)s::timestamptz is null or dead_at > %(since)s)
order by dead_at desc, id desc
limit %(limit)s offset %(offset)s

-- name: count_dead_events
select count(*) as events
from :"outbox_schema".:"outbox_table"
where status = 'dead'
    and (%(aggregate_type)s::text is null or aggregate_type = %(aggregate_type)s)
    and (%(event_type)s::text is null or event_type = %(event_type)s)
    and (%(since)s::timestamptz is null or dead_at > %(since)s)

-- name: dead_event
select id,
    aggregate_type,
    aggregate_id,
    event_type,
    payload,
    status,
    attempts,
    next_run_at,
    created_at,
    last_error,
    last_error_at,
    dead_at
from :"outbox_schema".:"outbox_table"
where id = %(id)s and status = 'dead'

-- name: observe
-- The state of the outbox for the observation in Dagster. Reads the two partial indexes, never the
-- delivered events.
select dead.events as dead,
    dead.oldest as oldest_dead_at,
    due.events as waiting,
    due.oldest as oldest_due_at
from (
    select count(*) as events, min(dead_at) as oldest
    from :"outbox_schema".:"outbox_table" where status = 'dead'
) dead, (
    select count(*) as events, min(next_run_at) as oldest
    from :"outbox_schema".:"outbox_table" where status in ('pending', 'retry')
) due

-- name: rows
-- Rows of the outbox: counted while the table is small, otherwise the planner's estimate, because
-- the statement runs every five minutes.
select case when c.reltuples < 100000 then (select count(*) from :"outbox_schema".:"outbox_table")
            else c.reltuples::bigint end as rows
from pg_catalog.pg_class c where c.oid = :"dlq_schema".outbox_table()
