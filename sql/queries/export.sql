-- The deaths of a day, or any others, for files.

-- name: deaths
-- The ledger joined with the event wherever it is now. Only facts of the death: nothing here changes when the event is
-- retried or archived later. `fingerprint` is the cause that the death was given. The payload is the one it died with,
-- also when it was retried with another since, which is looked for where anybody ever did that. Payloads as text:
-- numbers beyond 2^53 must survive every reader. A filter that is null is not asked for, and folded away before the
-- statement is planned.
select d.id as death_id, d.event_id, d.aggregate_type, d.aggregate_id, d.event_type,
    coalesce(
        case when (select exists (select from :"dlq_schema".retry r where r.payload_before is not null)) then (
            select r.payload_before::text from :"dlq_schema".retry r
            where r.event_id = d.event_id and r.death_id >= d.id and r.payload_before is not null
            order by r.death_id limit 1) end,
        e.payload::text, a.payload::text) as payload,
    coalesce(e.created_at, a.created_at) as created_at,
    d.attempts, d.died_at, d.error, d.cause_id as fingerprint
from :"dlq_schema".death d
left join :"outbox_schema".:"outbox_table" e on e.id = d.event_id
left join :"outbox_schema".:"archive_table" a on a.id = d.event_id
where (%(since)s::timestamptz is null or d.died_at >= %(since)s::timestamptz)
    and (%(until)s::timestamptz is null or d.died_at < %(until)s::timestamptz)
    and (%(event_ids)s::bigint[] is null or d.event_id = any(%(event_ids)s::bigint[]))
    and (%(attempts)s::integer is null or d.attempts = %(attempts)s::integer)
    and (%(event_type)s::text is null or d.event_type = %(event_type)s::text)
    and (%(aggregate_type)s::text is null or d.aggregate_type = %(aggregate_type)s::text)
    and (%(error_contains)s::text is null or position(%(error_contains)s::text in d.error) > 0)
    and (%(cause)s::text is null or d.cause_id in (
        select m.id from :"dlq_schema".cause m
        where m.id = %(cause)s::text or m.merged_into = %(cause)s::text))
order by d.died_at, d.id
limit %(limit)s

-- name: causes
-- What each fingerprint is called: `cause_id` is the one that people merged it into. Beside the deaths and not joined
-- with them: a million rows need not carry the same few texts across the wire.
select own.id as fingerprint, c.id as cause_id, c.exception_type, c.template
from :"dlq_schema".cause own join :"dlq_schema".cause c on c.id = coalesce(own.merged_into, own.id)

-- name: lock_day
-- One export of a day at a time, to the end of the transaction: the manifest must be of the files that lie there. The
-- transaction is idle while another connection streams.
select pg_try_advisory_xact_lock(hashtextextended(:'dlq_schema' || ' export ' || %(day)s::date, 0)) as locked,
    set_config('idle_in_transaction_session_timeout', '0', true)

-- name: count_day
select count(*) as deaths, count(*) filter (where cause_id is null) as unclassified
from :"dlq_schema".death where died_at >= %(start)s and died_at < %(until)s

-- name: record_day
-- Before its files are brought to their places: until they are read again they are not taken for sound, nor is what
-- lies there of an earlier export.
insert into :"dlq_schema".export_day as x (day, starts_at, ends_at, rows, first_id, last_id, files, exported_at)
values (%(day)s, %(starts_at)s, %(ends_at)s, %(rows)s, %(first_id)s, %(last_id)s, %(files)s::jsonb, %(now)s)
on conflict (day) do update set starts_at = excluded.starts_at, ends_at = excluded.ends_at, rows = excluded.rows,
    first_id = excluded.first_id, last_id = excluded.last_id, files = excluded.files, exported_at = excluded.exported_at,
    verified_at = null, forgotten = 0

-- name: record_verified
-- When the files were last found to be what they should be; null when they were not. Of that export, no later one.
update :"dlq_schema".export_day set verified_at = %(verified_at)s
where day = %(day)s and exported_at = %(exported_at)s

-- name: recorded_day
select day, rows, forgotten, first_id, last_id, files, exported_at from :"dlq_schema".export_day where day = %(day)s

-- name: missing_days
-- Of these days those that have no sound export and should: something died, or an earlier day was exported, so that one
-- was only missed.
select wanted.day
from unnest(%(days)s::date[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) as wanted (day, start, until)
where not exists (select from :"dlq_schema".export_day x where x.day = wanted.day and x.verified_at is not null)
    and (exists (select from :"dlq_schema".export_day x where x.day <= wanted.day)
        or exists (select from :"dlq_schema".death d where d.died_at >= wanted.start and d.died_at < wanted.until))
order by wanted.day
