-- Classifying the ledger anew after a new version of the fingerprint.

-- name: list_pending
-- Causes of an earlier version that have deaths in the ledger, or whose deaths have all moved but
-- that are not finished: their fingerprints lead to them still. First those that are shown, with
-- the most deaths first: their successors take their names first.
select c.id, c.merged_into, coalesce(sum(r.deaths), 0)::bigint as deaths
from :"dlq_schema".cause c
left join :"dlq_schema".cause_day r on r.cause_id = c.id
where c.id not like %(version)s || '-%%'
    and (
        exists (select from :"dlq_schema".death d where d.cause_id = c.id)
        or exists (select from :"dlq_schema".cause_alias a where a.cause_id = c.id)
            and exists (select from :"dlq_schema".cause_successor s where s.cause_id = c.id))
group by c.id
order by c.merged_into is not null, 3 desc, c.id

-- name: take_batch
-- Locks the next deaths of a cause. Returns their ids with the digests of their errors.
with batch as (
    select id, died_at, error
    from :"dlq_schema".death
    where cause_id = %(cause_id)s and (died_at, id) > (%(after_time)s, %(after_id)s)
    order by died_at, id
    limit %(limit)s
    for update
)
select coalesce(array_agg(id order by died_at, id), '{}') as ids,
    coalesce(
        array_agg(sha256(convert_to(coalesce(error, ''), 'UTF8')) order by died_at, id),
        '{}') as digests,
    max(died_at) as last_time,
    (array_agg(id order by died_at desc, id desc))[1] as last_id
from batch

-- name: reassign
-- Gives the deaths of a batch their new causes and details. Returns as JSON the groups that the
-- statements below move between the rollups in the same transaction; `former` are the details that
-- the deaths had.
with given as (
    select d.id, named.cause_id, named.detail, d.detail as former_detail
    from unnest(%(deaths)s::bigint[], %(places)s::bigint[]) as death (id, place)
    join unnest(%(causes)s::text[], %(details)s::text[]) with ordinality
        as named (cause_id, detail, place) using (place)
    join :"dlq_schema".death d on d.id = death.id
), assigned as (
    update :"dlq_schema".death d
    set cause_id = given.cause_id, detail = given.detail
    from given
    where d.id = given.id
    returning d.*
), still_dead as (
    update :"dlq_schema".dead n
    set cause_id = given.cause_id, detail = given.detail
    from given
    where n.death_id = given.id
), grouped as (
    select cause_id,
        event_type,
        aggregate_type,
        (died_at at time zone %(zone)s)::date as day,
        count(*) as deaths,
        min(died_at) as first_death,
        max(died_at) as last_death
    from assigned
    group by 1, 2, 3, 4
), detailed as (
    select cause_id,
        detail,
        count(*) as deaths,
        min(died_at) as first_death,
        max(died_at) as last_death
    from assigned
    where detail <> ''
    group by 1, 2
), formerly as (
    select former_detail as detail, count(*) as deaths
    from given
    where former_detail <> ''
    group by 1
)
select coalesce(json_agg(grouped), '[]')::text as groups,
    (select json_agg(detailed)::text from detailed) as details,
    (select json_agg(formerly)::text from formerly) as former
from grouped

-- name: take_details
-- Takes the deaths of a batch from the details of their old cause.
update :"dlq_schema".cause_detail k
set deaths = k.deaths - g.deaths
from json_to_recordset(%(former)s::json) as g (detail text, deaths bigint)
where k.cause_id = %(cause_id)s and k.detail = g.detail

-- name: move_days
-- Moves the deaths of a batch from the days of their old cause to those of the new ones. At most as
-- many as the old cause has: days that were counted in another time zone, and deaths that the
-- ledger purged, stay with the old cause, which is shown as its successor.
with wanted as (
    select g.*, sum(deaths) over (
        partition by day, event_type, aggregate_type order by cause_id
    ) - deaths as before
    from (
        select day, event_type, aggregate_type, cause_id, sum(deaths)::bigint as deaths
        from json_to_recordset(%(groups)s::json)
            as g (day date, cause_id text, event_type text, aggregate_type text, deaths bigint)
        group by 1, 2, 3, 4
    ) g
), held as (
    select r.*
    from :"dlq_schema".cause_day r
    where r.cause_id = %(cause_id)s
        and (r.day, r.event_type, r.aggregate_type) in (
            select day, event_type, aggregate_type from wanted)
    order by r.day, r.event_type, r.aggregate_type
    for update
), moved as (
    select w.day,
        w.event_type,
        w.aggregate_type,
        w.cause_id,
        least(w.deaths, h.deaths - w.before)::bigint as deaths
    from wanted w
    join held h using (day, event_type, aggregate_type)
    where h.deaths > w.before
), taken as (
    select day, event_type, aggregate_type, sum(deaths)::bigint as deaths
    from moved
    group by 1, 2, 3
), emptied as (
    delete from :"dlq_schema".cause_day r
    using taken t
    where r.cause_id = %(cause_id)s
        and (r.day, r.event_type, r.aggregate_type) = (t.day, t.event_type, t.aggregate_type)
        and r.deaths = t.deaths
), reduced as (
    update :"dlq_schema".cause_day r
    set deaths = r.deaths - t.deaths
    from taken t
    where r.cause_id = %(cause_id)s
        and (r.day, r.event_type, r.aggregate_type) = (t.day, t.event_type, t.aggregate_type)
        and r.deaths > t.deaths
)
insert into :"dlq_schema".cause_day as r (day, cause_id, event_type, aggregate_type, deaths)
select day, cause_id, event_type, aggregate_type, deaths
from moved
order by 1, 2, 3, 4
on conflict (day, cause_id, event_type, aggregate_type) do update
set deaths = r.deaths + excluded.deaths

-- name: count_successors
-- Adds the deaths of a batch to the successors of their old cause.
insert into :"dlq_schema".cause_successor as s (cause_id, successor_id, deaths)
select %(cause_id)s, cause_id, sum(deaths)
from json_to_recordset(%(groups)s::json) as g (cause_id text, deaths bigint)
group by 2
order by 2
on conflict (cause_id, successor_id) do update
set deaths = s.deaths + excluded.deaths

-- name: list_successors
-- The successors of a cause, those with most deaths first.
select successor_id, deaths
from :"dlq_schema".cause_successor
where cause_id = %(cause_id)s
order by deaths desc, successor_id

-- name: is_finished
-- Whether the cause was handed over: no fingerprint points to it any more. Asked under its lock.
select not exists (
    select from :"dlq_schema".cause_alias a where a.cause_id = %(cause_id)s
) as finished

-- name: has_finished_predecessors
-- Whether another cause that is finished has the same successor.
select exists (
    select from :"dlq_schema".cause_successor s
    where s.successor_id = %(successor_id)s
        and s.cause_id <> %(cause_id)s
        and not exists (select from :"dlq_schema".cause_alias a where a.cause_id = s.cause_id)
) as found

-- name: is_shared
-- Whether a cause that people did not merge into `target` has the same successor, which then stays
-- on its own.
select exists (
    select from :"dlq_schema".cause_successor s
    join :"dlq_schema".cause c on c.id = s.cause_id
    where s.successor_id = %(successor_id)s
        and s.cause_id <> %(cause_id)s
        and c.id <> %(target)s
        and c.merged_into is distinct from %(target)s
) as shared

-- name: open_fix
-- The open fix of a whole cause, with the state of the cause before it.
select id, status_before, fixed_at_before
from :"dlq_schema".fix
where cause_id = %(cause_id)s and closed_at is null and status_before is not null
    and detail is null

-- name: inherit
-- Gives a successor what its predecessor leaves it.
update :"dlq_schema".cause
set name = %(name)s,
    owner = %(owner)s,
    note = %(note)s,
    muted_until = %(muted_until)s,
    probe = %(probe)s,
    status = %(status)s,
    fixed_at = %(fixed_at)s
where id = %(id)s

-- name: inherit_details
-- Gives the details of a successor the state that its predecessor's have. An open fix follows the
-- first successor alone.
update :"dlq_schema".cause_detail d
set status = case when old.status = 'fixing' and not %(is_first)s then 'open' else old.status end,
    fixed_at = old.fixed_at
from :"dlq_schema".cause_detail old
where old.cause_id = %(cause_id)s
    and d.cause_id = %(successor_id)s
    and d.detail = old.detail
    and d.status = 'open'

-- name: withdraw_second_fixes
-- Two open fixes of one cause would count each other's successes as proof, so the later ones end.
-- Such fixes exist if two causes become one.
update :"dlq_schema".fix f
set status = 'withdrawn',
    verdict = 'A new version of the fingerprint joined its cause with that of fix '
        || first.id || '.',
    closed_at = %(now)s
from :"dlq_schema".fix first
where f.cause_id = %(cause_id)s
    and f.closed_at is null
    and f.status_before is not null
    and first.cause_id = %(successor_id)s
    and first.closed_at is null
    and first.status_before is not null
    and first.detail is not distinct from f.detail
returning f.id

-- name: move_fixes
-- An open fix follows the first successor alone: it never selects more than it did.
update :"dlq_schema".fix set cause_id = %(successor_id)s where cause_id = %(cause_id)s

-- name: move_members
-- Shows the causes that are merged into a cause as another one, so one step finds what is shown.
update :"dlq_schema".cause set merged_into = %(target)s where merged_into = %(cause_id)s

-- name: merge
update :"dlq_schema".cause set merged_into = %(target)s where id = %(cause_id)s

-- name: move_aliases
-- Ends the reindex of a cause: its fingerprints lead to its first successor.
update :"dlq_schema".cause_alias set cause_id = %(successor_id)s where cause_id = %(cause_id)s

-- name: end_details
-- Deletes the details of a finished cause, but those of purged deaths.
delete from :"dlq_schema".cause_detail where cause_id = %(cause_id)s and deaths = 0
