-- Statements of workers and of application code on the outbox table.

-- name: fetch_pending
-- Leases due events, oldest due first: they are due again when the lease ends, so no second worker
-- gets them, and the crash of a worker loses none. skip locked: workers do not wait for each other.
-- By an array of ids: for a join the planner looks up the smallest id, past all dead index entries
-- that an archive run has just left, and each fetch took four times as long meanwhile.
with due as (
    select id, next_run_at from :"outbox_schema".:"outbox_table"
    where status in ('pending', 'retry') and next_run_at <= clock_timestamp()
    order by next_run_at, id
    limit %(limit)s
    for update skip locked
), leased as (
    update :"outbox_schema".:"outbox_table" e
    set next_run_at = clock_timestamp() + make_interval(secs => %(lease)s)
    where e.id = any(array(select id from due))
    returning e.id,
        e.aggregate_type,
        e.aggregate_id,
        e.event_type,
        e.payload,
        e.status,
        e.attempts,
        e.created_at,
        e.last_error,
        e.last_error_at
)
select leased.*, due.next_run_at, null::timestamptz as dead_at
from leased join due using (id)
order by due.next_run_at, id

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
                       else clock_timestamp() + make_interval(
                           -- From three to five quarters of the pause, so that events that failed
                           -- together do not come back together.
                           secs => (0.75 + 0.5 * random()) * least(
                               %(backoff)s::float8 * 2 ^ least(attempts, 30),
                               greatest(%(backoff)s::float8, %(longest_backoff)s))) end,
    last_error = %(error)s,
    last_error_at = clock_timestamp()
where id = %(id)s and status not in ('done', 'dead')

-- name: dead_events
-- The latest death first.
select o.id,
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
    n.died_at as dead_at
from (
    select n.* from :"dlq_schema".dead_now n
    where (%(aggregate_type)s::text is null or n.aggregate_type = %(aggregate_type)s)
        and (%(event_type)s::text is null or n.event_type = %(event_type)s)
        and (%(since)s::timestamptz is null or n.died_at > %(since)s)
    order by n.died_at desc, n.death_id desc
    limit %(limit)s offset %(offset)s
) n
cross join lateral (
    select o.* from :"dlq_schema".outbox o
    where o.id = n.event_id and o.created_at is not distinct from n.event_created_at and o.dead
    limit 1) o
order by n.died_at desc, n.death_id desc

-- name: count_dead_events
select count(*) as events
from :"dlq_schema".dead_now
where (%(aggregate_type)s::text is null or aggregate_type = %(aggregate_type)s)
    and (%(event_type)s::text is null or event_type = %(event_type)s)
    and (%(since)s::timestamptz is null or died_at > %(since)s)

-- name: dead_event
select o.id,
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
    n.died_at as dead_at
from :"dlq_schema".dead_now n
cross join lateral (
    select o.* from :"dlq_schema".outbox o
    where o.id = n.event_id and o.created_at is not distinct from n.event_created_at and o.dead
    limit 1) o
where n.event_id = (:"dlq_schema".event_ids(array[%(id)s::text]))[1]
order by n.death_id desc
limit 1

-- name: offers
-- Operations, each with the reason why the mapping does not offer it, or an empty text.
select :"dlq_schema".offers() as offers
