-- What sets the dead events of a cause apart: samples of dead and of delivered events.

-- name: dead
-- The latest dead events of the causes, with the payload of each. One that is longer than
-- `max_length` is null.
select case when length(o.payload) <= %(max_length)s then o.payload end as payload,
    n.event_type,
    n.aggregate_type,
    n.aggregate_id,
    case when n.event_created_at between '1900-01-01Z' and '9000-01-01Z'
        then n.event_created_at end as created_at
from (
    select page.*
    from unnest(%(causes)s::text[]) as member (cause_id)
    cross join lateral (
        select n.* from :"dlq_schema".dead n
        where n.cause_id = member.cause_id
            and (%(detail)s::text is null or n.detail = %(detail)s)
            and n.died_at >= coalesce(%(died_from)s::timestamptz, '-infinity')
            and n.died_at < coalesce(%(died_before)s::timestamptz, 'infinity')
        order by n.died_at desc, n.death_id desc limit %(limit)s) page
    order by page.died_at desc, page.death_id desc limit %(limit)s
) n
cross join lateral (
    select o.payload from :"dlq_schema".outbox o
    where o.id = n.event_id and o.created_at is not distinct from n.event_created_at
    limit 1) o

-- name: delivered
-- The last delivered events of each type, up to the quota of the type, that never died. Of the last
-- `scanned` rows by key: an application's table has no index of what is delivered.
with recent as materialized (
    select o.id,
        o.created_at,
        coalesce(o.event_type, '') as event_type,
        coalesce(o.delivered, false) as delivered
    from :"dlq_schema".outbox o
    order by o.id desc
    limit %(scanned)s
), ranked as (
    select r.id, r.created_at, r.event_type,
        row_number() over (partition by r.event_type order by r.id desc) as rank
    from recent r
    where r.delivered
        and r.event_type = any(%(types)s::text[])
        and not exists (select from :"dlq_schema".death d where d.event_id = r.id)
)
select case when length(o.payload) <= %(max_length)s then o.payload end as payload,
    coalesce(o.event_type, '') as event_type,
    coalesce(o.aggregate_type, '') as aggregate_type,
    coalesce(o.aggregate_id, '') as aggregate_id,
    case when o.created_at between '1900-01-01Z' and '9000-01-01Z'
        then o.created_at end as created_at
from unnest(%(types)s::text[], %(quotas)s::integer[]) as wanted (event_type, quota)
join ranked r on r.event_type = wanted.event_type and r.rank <= wanted.quota
cross join lateral (
    select o.* from :"dlq_schema".outbox o
    where o.id = r.id and o.created_at is not distinct from r.created_at
    limit 1) o

-- name: kept
-- The sample of events that were delivered and deleted since: those that never died, and that are
-- no longer in the outbox.
select s.payload,
    s.event_type,
    s.aggregate_type,
    s.aggregate_id,
    case when s.event_created_at between '1900-01-01Z' and '9000-01-01Z'
        then s.event_created_at end as created_at
from unnest(%(types)s::text[], %(quotas)s::integer[]) as wanted (event_type, quota)
cross join lateral (
    select s.* from :"dlq_schema".delivered_sample s
    where s.event_type = wanted.event_type
        and not exists (select from :"dlq_schema".death d where d.event_id = s.event_id)
        and not exists (select from :"dlq_schema".outbox o where o.id = s.event_id)
    order by s.kept_at desc, s.event_id
    limit wanted.quota) s

-- name: list_candidates
-- Events to keep a sample of: the last ones of each type that has fewer than `enough` delivered
-- events among the last `scanned` rows, dead ones excluded. Those that are kept already are not
-- read again.
with recent as materialized (
    select o.id,
        o.created_at,
        coalesce(o.event_type, '') as event_type,
        coalesce(o.delivered, false) as delivered,
        coalesce(o.dead, false) as dead
    from :"dlq_schema".outbox o
    order by o.id desc
    limit %(scanned)s
), scarce as (
    select event_type from recent
    group by event_type
    having count(*) filter (where delivered) < %(enough)s
    order by count(*) desc, event_type
    limit %(types)s
), ranked as (
    select r.*, row_number() over (partition by r.event_type order by r.id desc) as rank
    from recent r
    join scarce on scarce.event_type = r.event_type
    where not r.dead
        and not exists (
            select from :"dlq_schema".delivered_sample s where s.event_id = r.id)
)
select o.id::text as event_id, o.created_at::text as created_at, o.payload,
    coalesce(o.event_type, '') as event_type,
    coalesce(o.aggregate_type, '') as aggregate_type,
    coalesce(o.aggregate_id, '') as aggregate_id
from ranked r
cross join lateral (
    select o.* from :"dlq_schema".outbox o
    where o.id = r.id and o.created_at is not distinct from r.created_at
    limit 1) o
where r.rank <= %(limit)s and length(o.payload) <= %(max_length)s

-- name: keep
insert into :"dlq_schema".delivered_sample (
    event_id, event_created_at, event_type, aggregate_type, aggregate_id, payload, kept_at)
select (:"dlq_schema".event_ids(array[given.event_id]))[1],
    given.created_at::timestamptz,
    given.event_type,
    given.aggregate_type,
    given.aggregate_id,
    given.payload,
    %(now)s
from jsonb_to_recordset(%(events)s::jsonb) as given (
    event_id text,
    created_at text,
    event_type text,
    aggregate_type text,
    aggregate_id text,
    payload text)
on conflict (event_id) do nothing

-- name: trim
-- Deletes what is past the retention, and all but the latest of each type.
delete from :"dlq_schema".delivered_sample s
where s.kept_at < %(before)s
    or s.event_id in (
        select ranked.event_id
        from (
            select k.event_id,
                row_number() over (
                    partition by k.event_type order by k.kept_at desc, k.event_id desc) as rank
            from :"dlq_schema".delivered_sample k) ranked
        where ranked.rank > %(limit)s)
