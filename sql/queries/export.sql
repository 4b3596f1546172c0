-- The deaths of a day, for files.

-- name: day
-- The ledger joined with the event wherever it is now. Only facts of the death: nothing here changes when the event is
-- retried or archived later. Payloads as text: a column of numbers beyond 2^53 must survive every reader.
select d.id as death_id, d.event_id, d.aggregate_type, d.aggregate_id, d.event_type,
    coalesce(e.payload, a.payload)::text as payload, coalesce(e.created_at, a.created_at) as created_at,
    d.attempts, d.died_at, d.error, d.cause_id, c.exception_type, c.template
from :"dlq_schema".shown_death d
left join :"outbox_schema".:"outbox_table" e on e.id = d.event_id
left join :"outbox_schema".:"archive_table" a on a.id = d.event_id
left join :"dlq_schema".cause c on c.id = d.cause_id
where d.died_at >= %(start)s and d.died_at < %(until)s
order by d.died_at, d.id

-- name: lock_day
-- One export of a day at a time, to the end of the transaction: the manifest must be of the files that lie there. The
-- transaction is idle while another connection streams.
select pg_try_advisory_xact_lock(hashtextextended(:'dlq_schema' || ' export ' || %(day)s::date, 0)) as locked,
    set_config('idle_in_transaction_session_timeout', '0', true)

-- name: count_day
select count(*) as deaths, count(*) filter (where cause_id is null) as unclassified
from :"dlq_schema".death where died_at >= %(start)s and died_at < %(until)s

-- name: record_day
insert into :"dlq_schema".export_day as x (day, starts_at, ends_at, rows, first_id, last_id, files, exported_at)
values (%(day)s, %(starts_at)s, %(ends_at)s, %(rows)s, %(first_id)s, %(last_id)s, %(files)s::jsonb, %(now)s)
on conflict (day) do update set starts_at = excluded.starts_at, ends_at = excluded.ends_at, rows = excluded.rows, first_id = excluded.first_id, last_id = excluded.last_id,
    files = excluded.files, exported_at = excluded.exported_at

-- name: recorded_day
select day, rows, first_id, last_id, files, exported_at from :"dlq_schema".export_day where day = %(day)s
