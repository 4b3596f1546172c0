-- Erasing personal data: payloads and errors of events, and every copy of them. Patterns are those
-- of `like`.

-- name: find
-- Events whose payload or error matches a pattern, in the order of their ids. Reads every event,
-- every death and every edited payload.
select found.event_id::text as event_id
from (
    select d.event_id
    from :"dlq_schema".death d
    where d.error like any(%(patterns)s::text[])
    union
    select r.event_id
    from :"dlq_schema".retry r
    where r.payload_before like any(%(patterns)s::text[])
    union
    select o.id
    from :"dlq_schema".outbox o
    where o.payload like any(%(patterns)s::text[]) or o.error like any(%(patterns)s::text[])
    union
    select a.id
    from :"dlq_schema".archive a
    where a.payload like any(%(patterns)s::text[]) or a.error like any(%(patterns)s::text[])
    union
    select s.event_id
    from :"dlq_schema".delivered_sample s
    where s.payload like any(%(patterns)s::text[])
) found
order by found.event_id
limit %(limit)s

-- name: unknown
-- The given ids that neither the outbox, the archive, the ledger nor the sample has.
select given.id as event_id
from unnest(%(event_ids)s::text[]) as given (id)
cross join lateral (
    select (:"dlq_schema".event_ids(array[given.id]))[1] as id offset 0) event
where not exists (select from :"dlq_schema".death d where d.event_id = event.id)
    and not exists (select from :"dlq_schema".outbox o where o.id = event.id)
    and not exists (select from :"dlq_schema".archive a where a.id = event.id)
    and not exists (
        select from :"dlq_schema".delivered_sample s where s.event_id = event.id)

-- name: lock
-- Locks an event in the outbox, after the worker that holds it. Returns whether it is dead then.
select coalesce(bool_or(locked.dead), false) as is_dead
from (
    select o.dead
    from :"dlq_schema".outbox o
    where o.id = (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1]
    for update
) locked

-- name: errors
-- The distinct errors of an event: fixes and alerts may have copies. Not those that hold nothing
-- but what the title of their cause says: they are of other events too.
select distinct d.error
from :"dlq_schema".death d
left join :"dlq_schema".cause c on c.id = d.cause_id
where d.event_id = (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1]
    and d.error <> ''
    and position(d.error in concat_ws(': ', c.exception_type, c.template)) = 0

-- name: event
select emptied, kept, deaths
from :"dlq_schema".erase_event(
    (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1], %(now)s)

-- name: payloads
-- Payloads before an edit, and what a release overwrote, such as the error of an outbox that clears
-- it. So a released event that was erased is not recalled: it stays with its worker.
update :"dlq_schema".retry
set payload_before = null, row_before = null
where event_id = (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1]
    and (payload_before is not null or row_before is not null)

-- name: evidence
-- Errors in the evidence of halted fixes. By `erased_at` older reports are found.
update :"dlq_schema".fix f
set evidence = (
    select jsonb_agg(
        case when pair ->> 'before' like any(%(patterns)s::text[])
                or pair ->> 'after' like any(%(patterns)s::text[])
            then pair || jsonb_build_object(
                'before', case when pair ->> 'before' like any(%(patterns)s::text[])
                    then '' else pair ->> 'before' end,
                'after', case when pair ->> 'after' like any(%(patterns)s::text[])
                    then '' else pair ->> 'after' end,
                'erased_at', %(now)s::timestamptz)
            else pair end
        order by place)
    from jsonb_array_elements(f.evidence) with ordinality as given (pair, place))
where exists (
    select from jsonb_array_elements(f.evidence) as pair
    where pair ->> 'before' like any(%(patterns)s::text[])
        or pair ->> 'after' like any(%(patterns)s::text[]))

-- name: explanations_of_event
-- What set the events of a cause apart on a day on which the event died of it: a condition may
-- name a value of its payload.
delete from :"dlq_schema".report_explanation x
using :"dlq_schema".death d
join :"dlq_schema".cause c on c.id = d.cause_id
where d.event_id = (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1]
    and x.day = (d.died_at at time zone %(zone)s)::date
    and x.cause_id in (c.id, c.merged_into)

-- name: explanations
-- What set the events of a cause apart, where it matches. The row stays, so that the cause is not
-- explained again, and older reports are found by `erased_at`.
update :"dlq_schema".report_explanation x
set condition = null, "where" = null, compared_delivered = 0, erased_at = %(now)s
where x.condition like any(%(patterns)s::text[]) or x."where" like any(%(patterns)s::text[])

-- name: alerts
-- Alerts, and the notices that were queued of them.
with shown as (
    update :"dlq_schema".alert a
    set summary = '(erased)', detail = '(erased)'
    where a.summary like any(%(patterns)s::text[]) or a.detail like any(%(patterns)s::text[])
)
update :"dlq_schema".alert_notice n
set summary = '(erased)', detail = '(erased)'
where n.summary like any(%(patterns)s::text[]) or n.detail like any(%(patterns)s::text[])

-- name: files
-- Files that still hold data that was erased: exports and reports of the days on which an event
-- died, and reports of the days on which a fix ended whose evidence held its errors, or whose
-- explanations named it. Not those that were written again since. A manifest has no data of events.
-- Of all erased events, or of one.
with died as (
    select d.died_at, d.erased_at
    from :"dlq_schema".death d
    where d.erased_at is not null
        and (%(event_id)s::text is null
            or d.event_id = (:"dlq_schema".event_ids(array[%(event_id)s::text]))[1])
), ended as (
    select f.closed_at, (pair ->> 'erased_at')::timestamptz as erased_at
    from :"dlq_schema".fix f
    cross join jsonb_array_elements(f.evidence) as pair
    where pair ? 'erased_at'
), reported as (
    select (died_at at time zone %(zone)s)::date as day, erased_at from died
    union all
    select (closed_at at time zone %(zone)s)::date, erased_at from ended
    union all
    select x.day, x.erased_at from :"dlq_schema".report_explanation x
    where x.erased_at is not null and %(event_id)s::text is null
)
select 'export' as kind, file ->> 'name' as name
from died
join :"dlq_schema".export_day x
    on died.died_at >= x.starts_at
    and died.died_at < x.ends_at
    and x.exported_at < died.erased_at
    and x.deleted_at is null
cross join jsonb_array_elements(x.files) as file
where file ->> 'name' not like '%%.json'
union
select 'report', file ->> 'name'
from reported
join :"dlq_schema".report_day r
    on r.day = reported.day
    and r.built_at < reported.erased_at
    and r.deleted_at is null
cross join jsonb_array_elements(r.files) as file
order by kind, name

-- name: left
-- The columns that still hold the text.
select place, rows from :"dlq_schema".find_texts(%(patterns)s::text[])
