-- Archiving, discarding, restoring and purging dead events.

-- name: exported_times
-- The days that may be archived, as a multirange of times.
select :"dlq_schema".exported_times(%(before)s)::text as times

-- name: count_movable
-- The number of events that archive_batch would move, for a dry run.
select :"dlq_schema".count_movable(%(before)s, %(times)s::tstzmultirange) as events

-- name: move_batch
select moved, locked, rows, last_time, last_id
from :"dlq_schema".archive_batch(
    %(before)s,
    %(times)s::tstzmultirange,
    %(after_time)s,
    %(after_id)s,
    %(limit)s,
    %(room)s,
    %(now)s)

-- name: discard
-- Archives the events of these deaths, which are locked, and records the reason in the ledger. An
-- event stays if a row of the application refers to it.
with moved as materialized (
    select unnest(:"dlq_schema".archive_events(%(deaths)s::bigint[], %(now)s)) as death_id
), recorded as (
    insert into :"dlq_schema".discard (death_id, event_id, actor, reason, discarded_at)
    select d.id, d.event_id, %(actor)s, %(reason)s, %(now)s
    from moved
    join :"dlq_schema".death d on d.id = moved.death_id
    on conflict (death_id) do update
    set actor = excluded.actor, reason = excluded.reason, discarded_at = excluded.discarded_at
)
select count(*) as events from moved

-- name: count_old
select count(*) as events from :"dlq_schema".dead_now where died_at < %(before)s

-- name: restorable
-- The next archived events of a selection, by keyset pagination: a page reads a bounded number of
-- rows. The cause, the ids or the archive itself lead. An event stays if the outbox has its id, or
-- if it was erased; a discarded event is restored by its id only.
with page as (
    select * from (
        (select d.id as death_id, d.died_at as at
         from unnest(%(causes)s::text[]) as member (cause_id)
         cross join lateral (
            select d.id, d.died_at from :"dlq_schema".death d
            where d.cause_id = member.cause_id
                and (d.died_at, d.id) > (%(after_time)s, %(after_id)s)
            order by d.died_at, d.id limit %(limit)s) d
         where %(event_ids)s::text[] is null)
        union all
        (select d.id, d.died_at from :"dlq_schema".death d
         where d.event_id = any(:"dlq_schema".event_ids(%(event_ids)s::text[]))
            and (d.died_at, d.id) > (%(after_time)s, %(after_id)s)
         order by d.died_at, d.id limit %(limit)s)
        union all
        (select a.death_id, a.archived_at from :"dlq_schema".archive a
         where (a.archived_at, a.death_id) > (%(after_time)s, %(after_id)s)
            and %(causes)s::text[] is null and %(event_ids)s::text[] is null
         order by a.archived_at, a.death_id limit %(limit)s)
    ) drive
    order by at, death_id limit %(limit)s
), known as (
    select page.death_id, d.event_id, case
        when exists (
            select from :"dlq_schema".outbox o where o.id = d.event_id) then 'blocked'
        -- A retry of an erased event would deliver an empty payload.
        when d.erased_at is not null then 'erased'
        when %(event_ids)s::text[] is null and exists (
            select from :"dlq_schema".discard g where g.death_id = d.id) then 'discarded'
        else 'free' end as state
    from page
    cross join lateral (
        select d.* from :"dlq_schema".death d where d.id = page.death_id limit 1) d
    cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
    cross join lateral (
        select from :"dlq_schema".archive a where a.death_id = page.death_id limit 1) a
    left join :"dlq_schema".cause c on c.id = d.cause_id
    where :"dlq_schema".selects(f, d:::"dlq_schema".death, coalesce(c.merged_into, d.cause_id))
), judged as materialized (
    -- The outbox has room for one of several archived events of the same id.
    select death_id, case
        when state = 'free' and row_number() over (
            partition by event_id, state order by death_id desc) > 1 then 'blocked'
        else state end as state
    from known
), locked as (
    select free.death_id from judged free
    cross join lateral (
        select from :"dlq_schema".archive a
        where a.death_id = free.death_id limit 1 for update skip locked) a
    where free.state = 'free'
)
select coalesce((select array_agg(death_id order by death_id) from locked), '{}') as deaths,
    (select count(*) from judged where state = 'blocked') as blocked,
    (select count(*) from judged where state = 'discarded') as discarded,
    (select count(*) from judged where state = 'erased') as erased,
    (select count(*) from judged where state = 'free') - (select count(*) from locked) as locked,
    count(*) as rows,
    max(at) as last_time,
    (array_agg(death_id order by at desc, death_id desc))[1] as last_id
from page

-- name: restore
with undiscarded as (
    delete from :"dlq_schema".discard where death_id = any(%(deaths)s::bigint[])
), recorded as (
    insert into :"dlq_schema".restored (death_id, event_id, died_at, archived_at, restored_at)
    select d.id, d.event_id, d.died_at, a.archived_at, %(now)s
    from :"dlq_schema".archive a
    join :"dlq_schema".death d on d.id = a.death_id
    where a.death_id = any(%(deaths)s::bigint[])
)
select :"dlq_schema".restore_events(%(deaths)s::bigint[]) as moved

-- name: count_purgeable
select count(*) as events from :"dlq_schema".archive where archived_at < %(before)s

-- name: purge
-- Deletes the oldest archived events. Their deaths are kept in `purged` until the ledger is purged.
with batch as (
    select a.dlq_death_id from :"dlq_schema".archived a
    where a.dlq_archived_at < %(before)s
    order by a.dlq_archived_at, a.dlq_death_id limit %(limit)s
    for update skip locked
), gone as (
    delete from :"dlq_schema".archived a using batch where a.dlq_death_id = batch.dlq_death_id
    returning a.dlq_death_id, a.dlq_archived_at
)
select coalesce(array_agg(dlq_death_id order by dlq_death_id), '{}') as deaths,
    coalesce(array_agg(dlq_archived_at order by dlq_death_id), '{}') as archived
from gone

-- name: record_purged
insert into :"dlq_schema".purged (death_id, event_id, audit_id, purged_at, died_at, archived_at)
select d.id, d.event_id, %(audit_id)s, %(now)s, d.died_at, given.archived_at
from unnest(%(deaths)s::bigint[], %(archived)s::timestamptz[]) as given (death_id, archived_at)
join :"dlq_schema".death d on d.id = given.death_id
on conflict (death_id) do update
set audit_id = excluded.audit_id,
    purged_at = excluded.purged_at,
    archived_at = excluded.archived_at

-- name: purge_deaths
-- Deletes deaths past the retention of the ledger whose events are in neither table: delivered, or
-- purged. The index death_day leads, by keyset pagination, because deaths of existing events stay.
-- An outcome that is not recorded yet follows from a later death, so all deaths of its event stay
-- until then. Deleted deaths stay counted in the export of their day, in their detail and in the
-- outcomes of their stage.
with page as (
    select d.id, d.event_id, d.event_created_at, d.died_at from :"dlq_schema".death d
    where d.died_at < %(before)s and d.cause_id is not null
        and (d.died_at, d.id) > (%(after_time)s, %(after_id)s)
    order by d.died_at, d.id limit %(limit)s
), target as (
    select d.id, d.event_id from :"dlq_schema".death d join page on page.id = d.id
    where not exists (
            select from :"dlq_schema".outbox o
            where o.id = page.event_id
                and o.created_at is not distinct from page.event_created_at
                and coalesce(o.delivered, false) = false)
        and not exists (
            select from :"dlq_schema".archive a
            where a.id = page.event_id
                and a.created_at is not distinct from page.event_created_at)
        and not exists (
            select from :"dlq_schema".retry r
            where r.event_id = page.event_id
                and r.event_created_at is not distinct from page.event_created_at
                and r.outcome is null)
    for update of d skip locked
), retries as (
    delete from :"dlq_schema".retry r using target where r.death_id = target.id
    returning r.fix_id, r.stage, r.outcome
), recalls as (
    delete from :"dlq_schema".recalled r using target where r.death_id = target.id
    returning r.fix_id, r.stage, 'recalled' as outcome
), outcomes as (
    -- Every row exists already, because its outcome was counted when it was written: only `purged`
    -- changes. In the order of the key, as the days below, so that two at once wait for each other
    -- instead of deadlocking.
    insert into :"dlq_schema".fix_outcome as o (fix_id, stage, outcome, events, purged)
    select fix_id, stage, outcome, count(*), count(*)
    from (select * from retries union all select * from recalls) gone
    where fix_id is not null
    group by fix_id, stage, outcome order by fix_id, stage, outcome
    on conflict (fix_id, stage, outcome) do update set purged = o.purged + excluded.purged
), discards as (
    delete from :"dlq_schema".discard r using target where r.death_id = target.id
), stale as (
    delete from :"dlq_schema".dead n using target where n.death_id = target.id
), deaths as (
    delete from :"dlq_schema".death d using target where d.id = target.id
    returning d.id, d.died_at, d.cause_id, d.detail
), details as (
    -- Every row exists already, as above.
    insert into :"dlq_schema".cause_detail as k
        (cause_id, detail, first_seen, last_seen, deaths, purged)
    select cause_id, detail, min(died_at), max(died_at), count(*), count(*) from deaths
    where detail <> '' group by cause_id, detail order by cause_id, detail
    on conflict (cause_id, detail) do update set purged = k.purged + excluded.purged
), day as (
    select x.day, gone.deaths from :"dlq_schema".export_day x
    cross join lateral (
        select count(*) as deaths from deaths
        where died_at >= x.starts_at and died_at < x.ends_at) gone
    where x.ends_at > (select min(died_at) from deaths)
        and x.starts_at <= (select max(died_at) from deaths)
        and gone.deaths > 0
    order by x.day for update of x
), counted_deaths as (
    update :"dlq_schema".export_day x set purged = x.purged + day.deaths
    from day where x.day = day.day
), restored as (
    delete from :"dlq_schema".restored b using deaths where b.death_id = deaths.id
), purged as (
    delete from :"dlq_schema".purged p using deaths where p.death_id = deaths.id
)
select (select count(*) from deaths) as purged,
    count(*) as rows,
    max(died_at) as last_time,
    (array_agg(id order by died_at desc, id desc))[1] as last_id
from page

-- name: rows
-- Rows of the archive: counted up to a million, then the estimate of the planner.
select case when c.reltuples < 1000000 then (select count(*) from :"dlq_schema".archived)
            else c.reltuples::bigint end as rows
from pg_catalog.pg_class c where c.oid = :'archived_regclass'::regclass

-- name: columns_lacking
-- Columns of the outbox table that the archive lacks or has with another type.
select o.attname as column,
    pg_catalog.format_type(o.atttypid, o.atttypmod) as type,
    pg_catalog.format_type(a.atttypid, a.atttypmod) as archived_as
from pg_catalog.pg_attribute o
left join pg_catalog.pg_attribute a
    on a.attrelid = :'archived_regclass'::regclass
    and a.attname = o.attname
    and not a.attisdropped
where o.attrelid = :"dlq_schema".outbox_table()
    and o.attnum > 0
    and not o.attisdropped
    and (a.attname is null or (a.atttypid, a.atttypmod) <> (o.atttypid, o.atttypmod))
order by o.attnum
