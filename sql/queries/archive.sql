-- Moving dead events out of the hot table, and deleting them from the archive.

-- name: exported_times
-- When the days are that may be archived, as a multirange.
select :"dlq_schema".exported_times(%(before)s)::text as times

-- name: count_movable
-- For the dry run, what archive_batch would take.
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
-- Of locked deaths those whose events may go: as with the archive's batch, one whose id is there already stays.
select count(*) as events, coalesce(array_agg(d.id order by d.id), '{}')::text as deaths
from :"dlq_schema".death d
where d.id = any(%(deaths)s::bigint[])
    and not exists (select from :"outbox_schema".:"archive_table" a where a.id = d.event_id)

-- name: discard
-- Locked deaths that a person gave up: in the ledger why, and the events out of the hot table.
with target as (
    select d.id as death_id, d.event_id from :"dlq_schema".death d where d.id = any(%(deaths)s::bigint[])
), noted as (
    insert into :"dlq_schema".discard (death_id, event_id, actor, reason, discarded_at)
    select death_id, event_id, %(actor)s, %(reason)s, %(now)s from target
    on conflict (death_id) do update set actor = excluded.actor, reason = excluded.reason,
        discarded_at = excluded.discarded_at
    returning event_id
)
select :"dlq_schema".move_to_archive(array(select event_id from noted), %(now)s) as moved

-- name: count_old
select count(*) as events
from :"outbox_schema".:"outbox_table" where status = 'dead' and dead_at < %(before)s

-- name: restorable
-- The next archived dead events that a selection means, by key: each page reads so many rows and no more. Led by the
-- cause, by the ids, or by the archive itself. What is in the outbox already stays, and what a person gave up comes
-- back only by its id.
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
with no_longer_given_up as (
    delete from :"dlq_schema".discard where event_id = any(%(ids)s::bigint[])
), noted as (
    insert into :"dlq_schema".restored (event_id, died_at, archived_at, restored_at)
    select a.id, a.dead_at, a.archived_at, %(now)s from :"outbox_schema".:"archive_table" a
    where a.id = any(%(ids)s::bigint[]) and a.status = 'dead'
)
select :"dlq_schema".move_to_outbox(%(ids)s::bigint[]) as moved

-- name: count_purgeable
select count(*) as events
from :"outbox_schema".:"archive_table" where status = 'dead' and dead_at is not null and archived_at < %(before)s

-- name: purge
-- The oldest archived dead events are deleted; which they were stays, until the ledger forgets them too. Of the table
-- only what was moved there by us, which has a time of death; the rest is the application's own.
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

-- name: note_purged
insert into :"dlq_schema".purged (event_id, audit_id, purged_at, died_at, archived_at)
select id, %(audit_id)s, %(now)s, died_at, archived_at
from unnest(%(ids)s::bigint[], %(died)s::timestamptz[], %(archived)s::timestamptz[]) as given (id, died_at, archived_at)
on conflict (event_id) do update set audit_id = excluded.audit_id, purged_at = excluded.purged_at,
    died_at = excluded.died_at, archived_at = excluded.archived_at

-- name: forget
-- Deaths older than the ledger's retention, of events that are in neither table: delivered, or purged. Led by
-- death_day; by key, because what is still somewhere stays. An outcome that nobody has written down yet is told by a
-- later death, so until then all deaths of its event stay. That an event was purged is known until the last of its deaths
-- goes. What is forgotten is counted where it was counted: in the export of its day, and in the outcomes of its stage.
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
    update :"dlq_schema".export_day x set forgotten = x.forgotten + day.deaths from day where x.day = day.day
), restored as (
    delete from :"dlq_schema".restored b using deaths where b.event_id = deaths.event_id and b.died_at = deaths.died_at
), purged as (
    delete from :"dlq_schema".purged p using deaths
    where p.event_id = deaths.event_id and not exists (
        select from :"dlq_schema".death d where d.event_id = p.event_id and d.id not in (select id from deaths))
)
select (select count(*) from deaths) as forgotten, count(*) as rows, max(died_at) as last_time,
    (array_agg(id order by died_at desc, id desc))[1] as last_id
from page

-- name: unaccounted
-- Events of the ledger that are in neither table though no retry delivered them and no purge counted them, and events
-- that are in both. An application that deletes its delivered events is within its rights. The whole ledger, each time:
-- a row may vanish from the archive years after its event died, so no window of days keeps the promise, and totals hide
-- one loss behind one double. As joins, which merge three indexes in the order of their ids; 2 s a million events.
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
select count(*) filter (where not in_outbox) as missing, count(*) filter (where in_outbox) as doubled,
    (array_agg(event_id order by event_id))[1:20] as examples
from wrong

-- name: record_books
insert into :"dlq_schema".books (checked_at, missing, doubled, examples)
values (%(now)s, %(missing)s, %(doubled)s, %(examples)s) on conflict (checked_at) do nothing

-- name: rows
-- Of the archive: counted while that is quick, then what the planner takes it for.
select case when c.reltuples < 1000000 then (select count(*) from :"outbox_schema".:"archive_table")
            else c.reltuples::bigint end as rows
from pg_catalog.pg_class c where c.oid = :"dlq_schema".archive_table()

-- name: columns_lacking
-- Columns of the outbox table that the archive table lacks, or has in another type; none, normally.
select o.attname as column, pg_catalog.format_type(o.atttypid, o.atttypmod) as type,
    pg_catalog.format_type(a.atttypid, a.atttypmod) as archived_as
from pg_catalog.pg_attribute o
left join pg_catalog.pg_attribute a
    on a.attrelid = :"dlq_schema".archive_table() and a.attname = o.attname and a.attnum > 0 and not a.attisdropped
where o.attrelid = :"dlq_schema".outbox_table() and o.attnum > 0 and not o.attisdropped and o.attgenerated = ''
    and (a.attname is null or a.atttypid <> o.atttypid)
order by o.attnum
