-- Archiving, discarding, restoring and purging dead events; the reconciliation.

-- name: exported_times
-- The days that may be archived, as a multirange of times.
select :"dlq_schema".exported_times(%(before)s)::text as times

-- name: count_movable
-- The number of events that archive_batch would move, for a dry run.
select count(*) as events
from :"outbox_schema".:"outbox_table" e
where e.status = 'dead' and e.dead_at < %(before)s
    and (%(times)s::tstzmultirange is null or e.dead_at <@ %(times)s::tstzmultirange)
    and not exists (select from :"outbox_schema".:"archive_table" a where a.id = e.id)
    and not exists (select from :"dlq_schema".wanted w where w.event_id = e.id and w.died_at = e.dead_at)

-- name: move_batch
select moved, rows, last_time, last_id from :"dlq_schema".archive_batch(
    %(before)s, %(times)s::tstzmultirange, %(after_time)s, %(after_id)s, %(limit)s, %(room)s, %(now)s)

-- name: discardable
-- Of locked deaths, those whose events can be archived: an event stays if the archive has its id.
select count(*) as events, coalesce(array_agg(d.id order by d.id), '{}')::text as deaths
from :"dlq_schema".death d
where d.id = any(%(deaths)s::bigint[])
    and not exists (select from :"outbox_schema".:"archive_table" a where a.id = d.event_id)

-- name: discard
-- Record the reason of the discard in the ledger and archive the events.
with target as (
    select d.id as death_id, d.event_id from :"dlq_schema".death d where d.id = any(%(deaths)s::bigint[])
), recorded as (
    insert into :"dlq_schema".discard (death_id, event_id, actor, reason, discarded_at)
    select death_id, event_id, %(actor)s, %(reason)s, %(now)s from target
    on conflict (death_id) do update set actor = excluded.actor, reason = excluded.reason,
        discarded_at = excluded.discarded_at
    returning event_id
)
select :"dlq_schema".move_to_archive(array(select event_id from recorded), %(now)s) as moved

-- name: count_old
select count(*) as events
from :"outbox_schema".:"outbox_table" where status = 'dead' and dead_at < %(before)s

-- name: restorable
-- The next archived events of a selection, by keyset pagination: a page reads a bounded number of rows. The cause, the
-- ids or the archive itself lead. An event stays if the outbox has its id; a discarded event is restored by its id only.
with page as (
    select * from (
        (select d.id, d.event_id, d.died_at as at from unnest(%(causes)s::text[]) as member (cause_id)
         cross join lateral (
            select d.* from :"dlq_schema".death d
            where d.cause_id = member.cause_id and (d.died_at, d.event_id) > (%(after_time)s, %(after_id)s)
            order by d.died_at, d.event_id limit %(limit)s) d
         where %(event_ids)s::bigint[] is null)
        union all
        (select d.id, d.event_id, d.died_at as at from :"dlq_schema".death d
         where d.event_id = any(%(event_ids)s::bigint[]) and (d.died_at, d.event_id) > (%(after_time)s, %(after_id)s)
         order by d.died_at, d.event_id limit %(limit)s)
        union all
        (select d.id, d.event_id, a.archived_at as at from (
            select a.id, a.dead_at, a.archived_at from :"outbox_schema".:"archive_table" a
            where a.status = 'dead' and a.dead_at is not null and (a.archived_at, a.id) > (%(after_time)s, %(after_id)s)
                and %(causes)s::text[] is null and %(event_ids)s::bigint[] is null
            order by a.archived_at, a.id limit %(limit)s) a
         cross join lateral (
            select d.* from :"dlq_schema".death d where d.event_id = a.id and d.died_at = a.dead_at limit 1) d)
    ) drive
    order by at, event_id limit %(limit)s
), judged as materialized (
    select page.event_id, page.at, d.died_at, case
        when exists (select from :"outbox_schema".:"outbox_table" e where e.id = page.event_id) then 'blocked'
        when %(event_ids)s::bigint[] is null
            and exists (select from :"dlq_schema".discard g where g.death_id = page.id) then 'discarded'
        else 'free' end as state
    from page
    join :"dlq_schema".death d on d.id = page.id
    cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
    cross join lateral (
        select from :"outbox_schema".:"archive_table" a
        where a.id = page.event_id and a.status = 'dead' and a.dead_at = d.died_at limit 1) a
    left join :"dlq_schema".cause c on c.id = d.cause_id
    where :"dlq_schema".selects(f, d, coalesce(c.merged_into, d.cause_id))
), locked as (
    select free.event_id from judged free
    cross join lateral (
        select from :"outbox_schema".:"archive_table" a
        where a.id = free.event_id and a.status = 'dead' and a.dead_at = free.died_at
        for update skip locked) a
    where free.state = 'free'
)
select coalesce((select array_agg(event_id order by event_id) from locked), '{}') as ids,
    (select count(*) from judged where state = 'blocked') as blocked,
    (select count(*) from judged where state = 'discarded') as discarded,
    (select count(*) from judged where state = 'free') - (select count(*) from locked) as locked,
    count(*) as rows, max(at) as last_time, (array_agg(event_id order by at desc, event_id desc))[1] as last_id
from page

-- name: restore
with undiscarded as (
    delete from :"dlq_schema".discard where event_id = any(%(ids)s::bigint[])
), recorded as (
    insert into :"dlq_schema".restored (event_id, died_at, archived_at, restored_at)
    select a.id, a.dead_at, a.archived_at, %(now)s from :"outbox_schema".:"archive_table" a
    where a.id = any(%(ids)s::bigint[]) and a.status = 'dead'
)
select :"dlq_schema".move_to_outbox(%(ids)s::bigint[]) as moved

-- name: count_purgeable
select count(*) as events
from :"outbox_schema".:"archive_table" where status = 'dead' and dead_at is not null and archived_at < %(before)s

-- name: purge
-- Delete the oldest archived events; their ids stay until the ledger is purged too. Only events that were archived as
-- dead have a time of death: the other rows of the table belong to the application.
with batch as (
    select a.id from :"outbox_schema".:"archive_table" a
    where a.status = 'dead' and a.dead_at is not null and a.archived_at < %(before)s
    order by a.archived_at, a.id limit %(limit)s
    for update skip locked
), gone as (
    delete from :"outbox_schema".:"archive_table" a using batch where a.id = batch.id and a.status = 'dead'
    returning a.id, a.dead_at, a.archived_at
)
select coalesce(array_agg(id order by id), '{}') as ids,
    coalesce(array_agg(dead_at order by id), '{}') as died, coalesce(array_agg(archived_at order by id), '{}') as archived
from gone

-- name: record_purged
insert into :"dlq_schema".purged (event_id, audit_id, purged_at, died_at, archived_at)
select id, %(audit_id)s, %(now)s, died_at, archived_at
from unnest(%(ids)s::bigint[], %(died)s::timestamptz[], %(archived)s::timestamptz[]) as given (id, died_at, archived_at)
on conflict (event_id) do update set audit_id = excluded.audit_id, purged_at = excluded.purged_at,
    died_at = excluded.died_at, archived_at = excluded.archived_at

-- name: purge_deaths
-- Delete deaths past the retention of the ledger whose events are in neither table: delivered, or purged. The index
-- death_day leads, by keyset pagination, because deaths of existing events stay. An outcome that is not recorded yet
-- follows from a later death, so all deaths of its event stay until then. The id of a purged event is kept until its
-- last death is deleted. Deleted deaths stay counted in the export of their day and in the outcomes of their stage.
with page as (
    select d.id, d.event_id, d.died_at from :"dlq_schema".death d
    where d.died_at < %(before)s and d.cause_id is not null and (d.died_at, d.id) > (%(after_time)s, %(after_id)s)
    order by d.died_at, d.id limit %(limit)s
), target as (
    select d.id, d.event_id from :"dlq_schema".death d join page on page.id = d.id
    where not exists (select from :"outbox_schema".:"outbox_table" e where e.id = page.event_id and e.status <> 'done')
        and not exists (select from :"outbox_schema".:"archive_table" a where a.id = page.event_id)
        and not exists (select from :"dlq_schema".retry r where r.event_id = page.event_id and r.outcome is null)
    for update of d skip locked
), retries as (
    delete from :"dlq_schema".retry r using target where r.event_id = target.event_id and r.death_id = target.id
    returning r.fix_id, r.stage, r.outcome
), outcomes as (
    -- Every row exists already, because its outcome was counted when it was written: only `purged` changes. In the order
    -- of the key, as the days below, so that two at once wait for each other instead of deadlocking.
    insert into :"dlq_schema".fix_outcome as o (fix_id, stage, outcome, events, purged)
    select fix_id, stage, outcome, count(*), count(*) from retries where fix_id is not null
    group by fix_id, stage, outcome order by fix_id, stage, outcome
    on conflict (fix_id, stage, outcome) do update set purged = o.purged + excluded.purged
), discards as (
    delete from :"dlq_schema".discard r using target where r.death_id = target.id
), deaths as (
    delete from :"dlq_schema".death d using target where d.id = target.id
    returning d.id, d.event_id, d.died_at
), day as (
    select x.day, gone.deaths from :"dlq_schema".export_day x
    cross join lateral (
        select count(*) as deaths from deaths where died_at >= x.starts_at and died_at < x.ends_at) gone
    where x.ends_at > (select min(died_at) from deaths) and x.starts_at <= (select max(died_at) from deaths)
        and gone.deaths > 0
    order by x.day for update of x
), counted_deaths as (
    update :"dlq_schema".export_day x set purged = x.purged + day.deaths from day where x.day = day.day
), restored as (
    delete from :"dlq_schema".restored b using deaths where b.event_id = deaths.event_id and b.died_at = deaths.died_at
), purged as (
    delete from :"dlq_schema".purged p using deaths
    where p.event_id = deaths.event_id and not exists (
        select from :"dlq_schema".death d where d.event_id = p.event_id and d.id not in (select id from deaths))
)
select (select count(*) from deaths) as purged, count(*) as rows, max(died_at) as last_time,
    (array_agg(id order by died_at desc, id desc))[1] as last_id
from page

-- name: unaccounted
-- Events of the ledger that are in neither table although no retry delivered and no purge deleted them, and events that
-- are in both tables. Applications may delete delivered events. The whole ledger is read each time, because a row can
-- disappear from the archive years after its event died, and because totals would hide a loss behind a duplicate. Merge
-- joins of three indexes: 2 s per million events.
with event as (select distinct event_id from :"dlq_schema".death), wrong as (
    select event_id, e.id is not null as in_outbox
    from event
    left join :"outbox_schema".:"outbox_table" e on e.id = event_id
    left join :"outbox_schema".:"archive_table" a on a.id = event_id
    where (e.id is null) = (a.id is null) and (e.id is not null or not (
        exists (select from :"dlq_schema".retry r
                where r.event_id = event.event_id and (r.outcome = 'delivered' or r.late_at is not null))
        or exists (select from :"dlq_schema".purged p where p.event_id = event.event_id)))
)
select count(*) filter (where not in_outbox) as missing, count(*) filter (where in_outbox) as duplicated,
    (array_agg(event_id order by event_id))[1:20] as event_ids
from wrong

-- name: record_reconciliation
insert into :"dlq_schema".reconciliation (checked_at, missing, duplicated, event_ids)
values (%(now)s, %(missing)s, %(duplicated)s, %(event_ids)s) on conflict (checked_at) do nothing

-- name: rows
-- Rows of the archive: counted up to a million, then the estimate of the planner.
select case when c.reltuples < 1000000 then (select count(*) from :"outbox_schema".:"archive_table")
            else c.reltuples::bigint end as rows
from pg_catalog.pg_class c where c.oid = :"dlq_schema".archive_table()

-- name: columns_lacking
-- Columns of the outbox table that the archive table lacks or has with another type.
select o.attname as column, pg_catalog.format_type(o.atttypid, o.atttypmod) as type,
    pg_catalog.format_type(a.atttypid, a.atttypmod) as archived_as
from pg_catalog.pg_attribute o
left join pg_catalog.pg_attribute a
    on a.attrelid = :"dlq_schema".archive_table() and a.attname = o.attname and a.attnum > 0 and not a.attisdropped
where o.attrelid = :"dlq_schema".outbox_table() and o.attnum > 0 and not o.attisdropped and o.attgenerated = ''
    and (a.attname is null or a.atttypid <> o.atttypid)
order by o.attnum
