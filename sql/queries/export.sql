-- Exports: the deaths of a day, or those of a selection, for files.

-- name: deaths
-- The ledger joined with the event in the outbox or the archive. It returns facts of the death
-- alone: a later retry or archive changes nothing. `fingerprint` is the cause that the death was
-- given. The payload is the one that the event died with, also if it was retried with another one
-- since; `retry` is searched only if it has any such payload. Payloads are text: numbers beyond
-- 2^53 must survive every reader. Times, ids and causes are compared here, so that an index serves
-- them; the selection has all filters, and is null if there are no others. What is null folds away
-- before planning. A death of one of `causes` is shown as the cause of the selection. Ids are text,
-- because the key of an outbox may be a number, a uuid or a text. A time that no reader can hold is
-- null and counted, never another time.
select d.id as death_id,
    d.event_id::text as event_id,
    d.aggregate_type,
    d.aggregate_id,
    d.event_type,
    coalesce(
        case when (
            select exists (
                select from :"dlq_schema".retry r where r.payload_before is not null)
        ) then (
            select r.payload_before
            from :"dlq_schema".retry r
            where r.event_id = d.event_id
                and r.event_created_at is not distinct from d.event_created_at
                and r.death_id >= d.id
                and r.payload_before is not null
            order by r.death_id
            limit 1
        ) end,
        o.payload,
        a.payload
    ) as payload,
    case
        when d.event_created_at >= '0001-01-01Z' and d.event_created_at < '10000-01-01Z'
        then d.event_created_at end as created_at,
    d.attempts,
    d.died_at,
    d.error,
    d.cause_id as fingerprint,
    d.detail,
    coalesce(
        d.event_created_at < '0001-01-01Z' or d.event_created_at >= '10000-01-01Z', false
    ) as created_at_is_far,
    -- The data of an erased event is not lost by another export.
    o.id is null and a.id is null and d.erased_at is null as is_deleted
from :"dlq_schema".death d
left join :"dlq_schema".outbox o
    on o.id = d.event_id and o.created_at is not distinct from d.event_created_at
left join :"dlq_schema".archive a
    on a.id = d.event_id and a.created_at is not distinct from d.event_created_at
cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
where (%(since)s::timestamptz is null or d.died_at >= %(since)s::timestamptz)
    and (%(until)s::timestamptz is null or d.died_at < %(until)s::timestamptz)
    and (%(event_ids)s::text[] is null
        or d.event_id = any(:"dlq_schema".event_ids(%(event_ids)s::text[])))
    and (%(causes)s::text[] is null or d.cause_id = any(%(causes)s::text[]))
    and (%(selection)s::jsonb is null or :"dlq_schema".selects(f, d, f.cause_id))
order by d.died_at, d.id
limit %(limit)s

-- name: event_id_type
-- The type of event ids: bigint, uuid or text.
select pg_typeof((:"dlq_schema".event_ids('{}'))[1])::text as type

-- name: causes
-- The names of each fingerprint. `cause_id` is the cause that it is merged into. A separate
-- statement: a million rows need not carry the same few texts across the network. Measured: a
-- million deaths take 1.8 s without the join and 2.4 s with it. Both read one snapshot, so that no
-- cause lacks its name.
select own.id as fingerprint, c.id as cause_id, c.exception_type, c.template
from :"dlq_schema".cause own
join :"dlq_schema".cause c on c.id = coalesce(own.merged_into, own.id)

-- name: lock_day
-- Allows one export of a day at a time until the end of the transaction, because the manifest must
-- match the files. The transaction is idle while another connection streams.
select pg_try_advisory_xact_lock(
        hashtextextended(:'dlq_schema' || ' export ' || %(day)s::date, 0)) as locked,
    set_config('idle_in_transaction_session_timeout', '0', true)

-- name: count_day
select count(*) as deaths, count(*) filter (where cause_id is null) as unclassified
from :"dlq_schema".death
where died_at >= %(start)s and died_at < %(until)s

-- name: record_day
-- Runs before the files are moved to their places: until they are verified, the day has no sound
-- export, and an earlier one no longer counts.
insert into :"dlq_schema".export_day as x
    (day, starts_at, ends_at, rows, first_id, last_id, files, exported_at)
values (
    %(day)s,
    %(starts_at)s,
    %(ends_at)s,
    %(rows)s,
    %(first_id)s,
    %(last_id)s,
    %(files)s::jsonb,
    %(now)s
)
on conflict (day) do update
set starts_at = excluded.starts_at,
    ends_at = excluded.ends_at,
    rows = excluded.rows,
    first_id = excluded.first_id,
    last_id = excluded.last_id,
    files = excluded.files,
    exported_at = excluded.exported_at,
    verified_at = null,
    purged = 0,
    deleted_at = null

-- name: record_verified
-- Records when the files were last sound; null if they were not. Ignores a later export.
update :"dlq_schema".export_day
set verified_at = %(verified_at)s
where day = %(day)s and exported_at = %(exported_at)s

-- name: recorded_day
select day, starts_at, ends_at, rows, purged, first_id, last_id, files, exported_at
from :"dlq_schema".export_day
where day = %(day)s

-- name: recorded_days
select day from :"dlq_schema".export_day

-- name: expired_days
-- Days before that day whose files were not deleted, the oldest first: all, or one day.
select day, files
from :"dlq_schema".export_day
where day < %(before)s and deleted_at is null and (%(day)s::date is null or day = %(day)s)
order by day

-- name: record_deleted
update :"dlq_schema".export_day set deleted_at = %(now)s where day = %(day)s

-- name: missing_days
-- The days that need an export and have no sound one. Of the recent days, those that the schedule
-- missed: an event died, or an earlier day was exported. Of all days, those whose files are not
-- right any more: a death committed after the export, or the time zone was changed. Then the bounds
-- of the day are others, and what died in the hours between can belong to a day without an export.
-- Not if the ledger has less than the files.
select wanted.day
from unnest(
    %(days)s::date[], %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(recent)s::boolean[])
    as wanted (day, start, until, is_recent)
left join :"dlq_schema".export_day x on x.day = wanted.day
cross join lateral (
    select count(*) as deaths
    from :"dlq_schema".death d
    where d.died_at >= wanted.start and d.died_at < wanted.until
) now_in_day
where case
    when x.verified_at is null and wanted.is_recent then
        now_in_day.deaths > 0
        or exists (select from :"dlq_schema".export_day e where e.day <= wanted.day)
    when x.day is null then
        now_in_day.deaths > 0
        and exists (
            select from :"dlq_schema".export_day e
            where e.starts_at < wanted.until and e.ends_at > wanted.start)
    when x.verified_at is null or x.purged > 0 then false
    when x.deleted_at is not null and not exists (
        select from :"dlq_schema".dead_now n
        where n.died_at >= wanted.start and n.died_at < wanted.until) then false
    when (x.starts_at, x.ends_at) = (wanted.start, wanted.until) then x.rows < now_in_day.deaths
    else x.rows <= (
        select count(*) from :"dlq_schema".death d
        where d.died_at >= x.starts_at and d.died_at < x.ends_at)
end
order by wanted.day
