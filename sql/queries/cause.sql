-- Causes: classification of deaths, the catalogue and its changes.

-- name: take_batch
-- Locks the next unclassified deaths and returns their ids with the digests of their errors. The
-- texts stay in the database: a text that a thousand deaths share is fetched once. Pages by time
-- and id, so that a batch does not scan what earlier batches classified.
with batch as (
    select id, died_at, error
    from :"dlq_schema".death
    where cause_id is null and (died_at, id) > (%(after_time)s, %(after_id)s)
    order by died_at, id
    limit %(limit)s
    for update skip locked
)
select coalesce(array_agg(id order by died_at, id), '{}') as ids,
    coalesce(
        array_agg(sha256(convert_to(coalesce(error, ''), 'UTF8')) order by died_at, id),
        '{}') as digests,
    max(died_at) as last_time,
    (array_agg(id order by died_at desc, id desc))[1] as last_id
from batch

-- name: has_unclassified
select exists (select from :"dlq_schema".death where cause_id is null) as found

-- name: fetch_errors
select id, error from :"dlq_schema".death where id = any(%(ids)s::bigint[])

-- name: check_version
-- outdated: whether the ledger has deaths of causes of an earlier version. current: whether a
-- fingerprint of this version is known.
select exists (
        select from :"dlq_schema".cause c
        where c.id not like %(version)s || '-%%'
            and exists (select from :"dlq_schema".death d where d.cause_id = c.id)
    ) as outdated,
    exists (
        select from :"dlq_schema".cause_alias where fingerprint like %(version)s || '-%%'
    ) as current

-- name: lock_by_fingerprint
-- Locks the causes of these fingerprints in the order of their ids: two runs that classify deaths
-- of the same causes wait for each other instead of deadlocking.
select a.fingerprint, a.cause_id
from :"dlq_schema".cause_alias a
join :"dlq_schema".cause c on c.id = a.cause_id
where a.fingerprint = any(%(fingerprints)s::text[])
order by c.id
for update of c

-- name: create
-- Creates the cause of a fingerprint; returns 0 if a concurrent run created it first.
with cause as (
    insert into :"dlq_schema".cause
        (id, exception_type, template, is_transient, first_seen, last_seen)
    values (
        %(id)s,
        %(exception_type)s,
        %(template)s,
        %(is_transient)s,
        'infinity',
        '-infinity')
    on conflict (id) do nothing
    returning id
), alias as (
    insert into :"dlq_schema".cause_alias (fingerprint, cause_id) values (%(id)s, %(id)s)
    on conflict (fingerprint) do nothing
)
select count(*) as created from cause

-- name: place_details
-- Gives new details of causes a row while their cause has fewer than the limit, and the cause that
-- it is merged into another one. Returns the new details with whether they have a row: the others
-- are `other`. The causes are locked, so that concurrent runs decide alike.
with given as (
    select *
    from unnest(%(causes)s::text[], %(details)s::text[]) as given (cause_id, detail)
), unplaced as (
    select g.cause_id,
        c.merged_into,
        g.detail,
        row_number() over (partition by g.cause_id order by g.detail collate "C") as place
    from given g
    join :"dlq_schema".cause c on c.id = g.cause_id
    where not exists (
        select from :"dlq_schema".cause_detail k
        where k.cause_id = g.cause_id and k.detail = g.detail)
), decided as (
    select u.*,
        u.place + (
            select count(*)
            from :"dlq_schema".cause_detail k
            where k.cause_id = u.cause_id and k.detail <> 'other'
        ) <= %(most)s as is_placed,
        exists (
            select from :"dlq_schema".cause_detail k
            where k.cause_id = u.merged_into and k.detail = u.detail
        ) as is_shown
    from unplaced u
), stored as (
    select cause_id, merged_into, case when is_placed then detail else 'other' end as detail
    from decided
), created as (
    insert into :"dlq_schema".cause_detail (cause_id, detail, first_seen, last_seen, deaths)
    select cause_id, detail, 'infinity', '-infinity', 0
    from (
        select cause_id, detail from stored
        union
        select merged_into, detail from stored where merged_into is not null
    ) wanted
    order by cause_id, detail
    on conflict do nothing
)
select cause_id, detail, is_placed, is_placed and not is_shown as is_new from decided

-- name: assign
-- Writes the cause and the detail of each death, and adds those whose events are still dead to
-- dlq.dead. Returns the number of deaths, and as JSON the groups that the statements below add to
-- the rollups in the same transaction.
with assigned as (
    update :"dlq_schema".death d
    set cause_id = given.cause_id, detail = given.detail
    from unnest(%(deaths)s::bigint[], %(places)s::bigint[]) as death (id, place)
    join unnest(%(causes)s::text[], %(details)s::text[]) with ordinality
        as given (cause_id, detail, place) using (place)
    where d.id = death.id and d.cause_id is null
    returning d.*
), still_dead as (
    insert into :"dlq_schema".dead
    select id,
        event_id,
        event_created_at,
        aggregate_type,
        aggregate_id,
        event_type,
        died_at,
        cause_id,
        detail
    from assigned
    where ended_at is null
    on conflict (death_id) do nothing
), grouped as (
    select cause_id,
        event_type,
        aggregate_type,
        (died_at at time zone %(zone)s)::date as day,
        date_trunc('hour', died_at, 'UTC') as hour,
        :"dlq_schema".attempts_bucket(attempts) as attempts_up_to,
        count(*) as deaths,
        sum(attempts) as attempts,
        min(died_at) as first_death,
        max(died_at) as last_death
    from assigned
    group by 1, 2, 3, 4, 5, 6
), detailed as (
    select cause_id,
        detail,
        count(*) as deaths,
        min(died_at) as first_death,
        max(died_at) as last_death
    from assigned
    where detail <> ''
    group by 1, 2
)
select coalesce(sum(deaths), 0)::bigint as deaths,
    coalesce(json_agg(grouped), '[]')::text as groups,
    (select json_agg(detailed)::text from detailed) as details
from grouped

-- name: roll_up_days
-- This and the following statements lock the rows that concurrent runs also write in the order of
-- their keys.
insert into :"dlq_schema".cause_day as r (day, cause_id, event_type, aggregate_type, deaths)
select day, cause_id, event_type, aggregate_type, sum(deaths)
from json_to_recordset(%(groups)s::json)
    as g (day date, cause_id text, event_type text, aggregate_type text, deaths bigint)
group by 1, 2, 3, 4
order by 1, 2, 3, 4
on conflict (day, cause_id, event_type, aggregate_type) do update
set deaths = r.deaths + excluded.deaths

-- name: count_details
insert into :"dlq_schema".cause_detail as k (cause_id, detail, first_seen, last_seen, deaths)
select cause_id, detail, first_death, last_death, deaths
from json_to_recordset(%(details)s::json) as g (
    cause_id text,
    detail text,
    first_death timestamptz,
    last_death timestamptz,
    deaths bigint
)
order by 1, 2
on conflict (cause_id, detail) do update
set deaths = k.deaths + excluded.deaths,
    first_seen = least(k.first_seen, excluded.first_seen),
    last_seen = greatest(k.last_seen, excluded.last_seen)

-- name: widen_times
-- `lock_by_fingerprint` holds the locks of these causes already.
update :"dlq_schema".cause c
set first_seen = least(c.first_seen, seen.first), last_seen = greatest(c.last_seen, seen.last)
from (
    select cause_id, min(first_death) as first, max(last_death) as last
    from json_to_recordset(%(groups)s::json)
        as g (cause_id text, first_death timestamptz, last_death timestamptz)
    group by cause_id
) seen
where c.id = seen.cause_id

-- name: place_labels
-- Gives types a metric label of their own while the list is shorter than its limit. All other types
-- count as `other` from now on.
insert into :"dlq_schema".metric_label (name, value)
select name, value
from :"dlq_schema".choose_metric_labels(%(groups)s::json, %(labels)s)
order by 1, 2
on conflict do nothing

-- name: count_types
-- Adds the deaths to the counters by type, attempts and hour.
with labelled as (
    select coalesce(e.value, 'other') as event_type,
        coalesce(a.value, 'other') as aggregate_type,
        g.attempts_up_to,
        g.hour,
        g.deaths,
        g.attempts
    from json_to_recordset(%(groups)s::json) as g (
        event_type text,
        aggregate_type text,
        attempts_up_to integer,
        hour timestamptz,
        deaths bigint,
        attempts bigint
    )
    left join :"dlq_schema".metric_label e
        on e.name = 'event_type' and e.value = left(g.event_type, 100)
    left join :"dlq_schema".metric_label a
        on a.name = 'aggregate_type' and a.value = left(g.aggregate_type, 100)
), counted as (
    insert into :"dlq_schema".death_count as t
        (event_type, aggregate_type, attempts_up_to, deaths, attempts)
    select event_type, aggregate_type, attempts_up_to, sum(deaths), sum(attempts)
    from labelled
    group by 1, 2, 3
    order by 1, 2, 3
    on conflict (event_type, aggregate_type, attempts_up_to) do update
    set deaths = t.deaths + excluded.deaths, attempts = t.attempts + excluded.attempts
)
insert into :"dlq_schema".death_hour as t (hour, event_type, deaths)
select hour, event_type, sum(deaths)
from labelled
group by 1, 2
order by 1, 2
on conflict (hour, event_type) do update set deaths = t.deaths + excluded.deaths

-- name: count_causes
-- Adds the deaths to the counters by cause. A new cause has a series of its own while fewer than
-- the limit have one. Deaths of a cause that has none also count as `other`.
with by_cause as (
    select g.cause_id, sum(g.deaths) as deaths, t.shown
    from json_to_recordset(%(groups)s::json) as g (cause_id text, deaths bigint)
    left join :"dlq_schema".cause_count t using (cause_id)
    group by g.cause_id, t.shown
), placed as (
    select cause_id, deaths, coalesce(shown, %(causes_shown)s >= (
        select count(*) from :"dlq_schema".cause_count t where t.shown and t.cause_id <> 'other'
    ) + row_number() over (partition by shown order by deaths desc, cause_id collate "C")) as shown
    from by_cause
)
insert into :"dlq_schema".cause_count as t (cause_id, deaths, shown)
select * from (
    select cause_id, deaths, shown from placed
    union all
    select 'other', sum(deaths), true from placed where not shown having sum(deaths) > 0
) new
order by cause_id
on conflict (cause_id) do update set deaths = t.deaths + excluded.deaths

-- name: announce
-- Queues the deaths for the webhook of deaths.
insert into :"dlq_schema".death_notice (death_id)
select unnest(%(deaths)s::bigint[])

-- name: choose_shown
-- Chooses the causes that metrics show: those with most deaths since that day. A shown cause stays
-- until another one has twice as many deaths, so that two of equal size do not alternate. No
-- counter decreases: `other` counts a cause while it is not shown.
with recent as (
    select cause_id, sum(deaths) as deaths
    from :"dlq_schema".cause_day
    where day >= %(since)s
    group by cause_id
), chosen as (
    select t.cause_id, t.shown, row_number() over (
        order by coalesce(r.deaths, 0) * case when t.shown then 2 else 1 end desc, t.shown desc,
            t.deaths desc, t.cause_id collate "C") <= %(causes_shown)s as wanted
    from :"dlq_schema".cause_count t
    left join recent r using (cause_id)
    where t.cause_id <> 'other'
), changed as (
    select t.cause_id, chosen.wanted
    from :"dlq_schema".cause_count t
    join chosen using (cause_id)
    where chosen.shown <> chosen.wanted
    order by t.cause_id
    for update of t
)
update :"dlq_schema".cause_count t
set shown = changed.wanted
from changed
where t.cause_id = changed.cause_id

-- name: delete_hours
delete from :"dlq_schema".death_hour where hour < %(until)s

-- name: list
-- Causes that are not merged into another one, those with most dead events now first. The figures
-- of a merged cause are added to the cause that it is merged into. `ids` and the cursor are null
-- where they do not apply. With `ids`, only the events of these causes are counted, by an index:
-- one cause of 500 takes 3 ms among a million dead events, and a count of all 120 ms. A state
-- `muted` is one at the time `now`; an owner matches in any case.
with now as (
    select cause_id, count(*) as dead
    from :"dlq_schema".dead
    where %(ids)s::text[] is null
        or cause_id = any(array(
            select c.id from :"dlq_schema".cause c
            where c.id = any(%(ids)s::text[]) or c.merged_into = any(%(ids)s::text[])))
    group by 1
), rollup as (
    select cause_id, sum(deaths)::bigint as deaths
    from :"dlq_schema".cause_day
    where %(ids)s::text[] is null
        or cause_id = any(array(
            select c.id from :"dlq_schema".cause c
            where c.id = any(%(ids)s::text[]) or c.merged_into = any(%(ids)s::text[])))
    group by 1
), shown as (
    select coalesce(c.merged_into, c.id) as id,
        min(c.first_seen) as first_seen,
        max(c.last_seen) as last_seen,
        coalesce(sum(rollup.deaths), 0)::bigint as deaths,
        coalesce(sum(now.dead), 0)::bigint as dead,
        array_agg(c.id order by c.id) filter (where c.merged_into is not null) as members
    from :"dlq_schema".cause c
    left join rollup on rollup.cause_id = c.id
    left join now on now.cause_id = c.id
    group by 1
)
select c.id,
    c.exception_type,
    c.template,
    c.status,
    c.fixed_at,
    c.name,
    c.owner,
    c.note,
    c.muted_until,
    c.probe,
    c.is_transient,
    shown.first_seen,
    shown.last_seen,
    shown.deaths,
    shown.dead,
    coalesce(shown.members, '{}') as members,
    to_jsonb(:"dlq_schema".deployment_before(shown.first_seen)) as deployment
from :"dlq_schema".cause c
join shown using (id)
where (%(ids)s::text[] is null or c.id = any(%(ids)s::text[]))
    and (%(state)s::text is null
        or case when c.muted_until > %(now)s::timestamptz then 'muted' else c.status end
            = %(state)s)
    and (%(owner)s::text is null or lower(c.owner) = lower(%(owner)s))
    and (%(after_id)s::text is null or (-shown.dead, -shown.deaths, c.id)
        > (-%(after_dead)s::bigint, -%(after_deaths)s::bigint, %(after_id)s))
order by shown.dead desc, shown.deaths desc, c.id
limit %(limit)s

-- name: starting_with
-- Causes whose ids begin with a text, with or without their version.
select id from :"dlq_schema".cause
where id = %(text)s or starts_with(id, %(text)s) or starts_with(split_part(id, '-', 2), %(text)s)
order by id <> %(text)s, id
limit %(limit)s

-- name: of_event_type
select distinct coalesce(c.merged_into, c.id) as id
from :"dlq_schema".cause_day r
join :"dlq_schema".cause c on c.id = r.cause_id
where r.event_type = %(event_type)s

-- name: details
-- The first `limit` details of each of these causes by deaths, with the events that are dead now.
with now as (
    select coalesce(c.merged_into, c.id) as cause_id, n.detail, count(*) as dead
    from :"dlq_schema".dead n
    join :"dlq_schema".cause c on c.id = n.cause_id
    where n.detail <> '' and (c.id = any(%(ids)s::text[]) or c.merged_into = any(%(ids)s::text[]))
    group by 1, 2
), ranked as (
    select s.*,
        row_number() over (
            partition by s.cause_id order by s.deaths desc, s.detail collate "C"
        ) as place
    from :"dlq_schema".shown_detail s
    where s.cause_id = any(%(ids)s::text[])
)
select r.cause_id,
    r.detail,
    r.status,
    r.fixed_at,
    r.first_seen,
    r.last_seen,
    r.deaths,
    coalesce(now.dead, 0) as dead
from ranked r
left join now using (cause_id, detail)
where r.place <= %(limit)s
order by r.cause_id, r.place

-- name: align_details
-- After a merge or a split: a shown cause has a row for each detail of its members, with the state
-- of theirs if it had none, and no row that none of them needs.
with member as (
    select coalesce(c.merged_into, c.id) as shown, k.*
    from :"dlq_schema".cause_detail k
    join :"dlq_schema".cause c on c.id = k.cause_id
    where coalesce(c.merged_into, c.id) = any(%(ids)s::text[])
), unneeded as (
    delete from :"dlq_schema".cause_detail k
    where k.cause_id = any(%(ids)s::text[])
        and k.deaths = 0
        and not exists (
            select from member m
            where m.shown = k.cause_id and m.detail = k.detail and m.deaths > 0)
)
insert into :"dlq_schema".cause_detail
    (cause_id, detail, first_seen, last_seen, deaths, status, fixed_at)
select distinct on (shown, detail)
    shown,
    detail,
    'infinity'::timestamptz,
    '-infinity'::timestamptz,
    0,
    status,
    fixed_at
from member
where deaths > 0 and shown <> cause_id
order by shown, detail, cause_id
on conflict do nothing

-- name: get
-- outdated: whether a reindex has led the cause to its successors.
select c.id,
    c.merged_into,
    exists (select from :"dlq_schema".cause_successor s where s.cause_id = c.id) as outdated
from :"dlq_schema".cause c
where c.id = %(id)s

-- name: latest_error
-- The latest error of these causes that the ledger has and that was not erased. No cause keeps a
-- copy, so the retention of the ledger and `dlq erase` reach every error.
select latest.error
from unnest(%(ids)s::text[]) as member (cause_id)
cross join lateral (
    select d.error, d.died_at, d.id
    from :"dlq_schema".death d
    where d.cause_id = member.cause_id and d.erased_at is null
    order by d.died_at desc, d.id desc
    limit 1
) latest
order by latest.died_at desc, latest.id desc
limit 1

-- name: lock
-- Locks the causes, the causes that they are merged into and those merged into them, in the order
-- of their ids.
select *
from :"dlq_schema".cause
where merged_into = any(%(ids)s::text[])
    or id = any(%(ids)s::text[] || array(
        select c.merged_into from :"dlq_schema".cause c where c.id = any(%(ids)s::text[])))
order by id
for update

-- name: update
-- Sets those of the columns that people may write that `columns` names.
update :"dlq_schema".cause c
set (name, owner, note, muted_until, probe, merged_into) = (
    select r.name, r.owner, r.note, r.muted_until, r.probe, r.merged_into
    from jsonb_populate_record(c, %(columns)s::jsonb) r)
where id = %(id)s

-- name: list_changes
-- The changes of a cause, and the merges into it with what undid them.
select id, kind, actor, reason, filter, at
from :"dlq_schema".audit
cross join (select jsonb_build_object('merged_into', %(id)s::text) as merged) given
where kind like 'cause.%%'
    and (
        filter @> jsonb_build_object(
            'changes', jsonb_build_array(jsonb_build_object('cause', %(id)s::text)))
        or filter @> jsonb_build_object(
            'changes', jsonb_build_array(jsonb_build_object('after', merged)))
        or filter @> jsonb_build_object(
            'changes', jsonb_build_array(jsonb_build_object('before', merged))))
order by id desc
limit %(limit)s

-- name: get_change
select id, kind, actor, reason, filter, at
from :"dlq_schema".audit
where id = %(id)s and kind like 'cause.%%' and filter ? 'changes'

-- name: active_fix
select id, cause_id
from :"dlq_schema".fix
where closed_at is null and cause_id = any(%(ids)s::text[])
order by id
limit 1

-- name: mark_regressed
-- Marks a fixed cause as regressed if an event died of it that was written after the fix. An event
-- that was written before the fix proves nothing: a retry may have been its second attempt. Nor
-- does a detail that was first seen after the fix, which is news of its own. The audit log records
-- the first of these deaths: the cause is regressed since then.
with found as (
    select f.id, again.died_at
    from :"dlq_schema".cause f
    cross join lateral (
        select array_agg(m.id) as ids
        from :"dlq_schema".cause m
        where m.id = f.id or m.merged_into = f.id
    ) member
    cross join lateral (
        select array_agg(k.detail) || array['', 'other'] as details
        from :"dlq_schema".cause_detail k
        where k.cause_id = any(member.ids) and k.first_seen <= f.fixed_at
    ) known
    cross join lateral (
        select min(d.died_at) as died_at
        from :"dlq_schema".death d
        where d.cause_id = any(member.ids)
            and coalesce(d.detail, '') = any(known.details)
            and d.died_at > f.fixed_at
            and d.event_created_at > f.fixed_at
    ) again
    where f.status = 'fixed' and again.died_at is not null
    order by f.id
    for update of f
), regressed as (
    update :"dlq_schema".cause c
    set status = 'regressed'
    from found
    where c.id = found.id
    returning c.id, found.died_at
), recorded as (
    insert into :"dlq_schema".audit (kind, actor, reason, filter, events, at)
    select 'cause.regressed',
        'dead_event_causes',
        'an event written after the fix died of it again',
        jsonb_build_object('cause', id, 'died_at', died_at),
        0,
        %(now)s
    from regressed
)
select id from regressed order by id

-- name: mark_regressed_details
-- As above, for the details of a cause.
with found as (
    select k.cause_id, k.detail, again.died_at
    from :"dlq_schema".cause_detail k
    join :"dlq_schema".cause c on c.id = k.cause_id and c.merged_into is null
    cross join lateral (
        select array_agg(m.cause_id) as ids
        from :"dlq_schema".cause_detail m
        join :"dlq_schema".cause own on own.id = m.cause_id
        where (own.id = k.cause_id or own.merged_into = k.cause_id)
            and m.detail = k.detail
            and m.last_seen > k.fixed_at
    ) member
    cross join lateral (
        select min(d.died_at) as died_at
        from :"dlq_schema".death d
        where d.cause_id = any(member.ids)
            and d.detail = k.detail
            and d.died_at > k.fixed_at
            and d.event_created_at > k.fixed_at
    ) again
    where k.status = 'fixed' and again.died_at is not null
    order by k.cause_id, k.detail
    for update of k
), regressed as (
    update :"dlq_schema".cause_detail k
    set status = 'regressed'
    from found
    where k.cause_id = found.cause_id and k.detail = found.detail
    returning k.cause_id, k.detail, found.died_at
), recorded as (
    insert into :"dlq_schema".audit (kind, actor, reason, filter, events, at)
    select 'detail.regressed',
        'dead_event_causes',
        'an event written after the fix died of it again',
        jsonb_build_object('cause', cause_id, 'detail', detail, 'died_at', died_at),
        0,
        %(now)s
    from regressed
)
select cause_id, detail from regressed order by 1, 2

-- name: rollup_difference
-- Three counts of classified deaths that must be equal, and two of those with a detail, read in one
-- snapshot. The audit log has the number of deaths that the ledger purged.
select kept.deaths + (
        select coalesce(sum(events), 0)::bigint
        from :"dlq_schema".audit
        where kind = 'ledger.purge'
    ) as ledger,
    (select coalesce(sum(deaths), 0)::bigint from :"dlq_schema".cause_day) as rollup,
    (select coalesce(sum(deaths), 0)::bigint from :"dlq_schema".death_count) as counters,
    kept.detailed + detail.purged as ledger_details,
    detail.deaths as details
from (
    select count(*) as deaths, count(*) filter (where detail <> '') as detailed
    from :"dlq_schema".death
    where cause_id is not null
) kept
cross join (
    select coalesce(sum(deaths), 0)::bigint as deaths, coalesce(sum(purged), 0)::bigint as purged
    from :"dlq_schema".cause_detail
) detail

-- name: rows
-- Rows of the table, merged causes included.
select count(*) as rows from :"dlq_schema".cause

-- name: daily
-- Deaths of these causes by day, from the rollup; days without any are left out.
select r.day,
    sum(r.deaths)::bigint as deaths
from :"dlq_schema".cause_day r
where r.cause_id = any(%(ids)s::text[])
    and r.day between %(first_day)s::date and %(last_day)s::date
group by r.day

-- name: recent
-- Deaths of each shown cause since a time, of the latest ones that died since. An unclassified
-- death has no cause. The days before are those of the rollup, for what is usual.
with latest as (
    select d.cause_id, d.died_at
    from :"dlq_schema".death d
    where d.died_at >= %(since)s
    order by d.died_at desc
    limit %(limit)s
), counted as (
    select coalesce(c.merged_into, latest.cause_id) as cause_id,
        count(*) as deaths,
        min(latest.died_at) as first_death
    from latest
    left join :"dlq_schema".cause c on c.id = latest.cause_id
    group by 1
)
select counted.cause_id,
    counted.deaths,
    counted.first_death,
    coalesce((
        select array_agg(coalesce(per_day.deaths, 0) order by day.at)
        from generate_series(%(first_day)s::date, %(last_day)s::date, interval '1 day') as day (at)
        left join (
            select r.day, sum(r.deaths)::bigint as deaths
            from :"dlq_schema".cause_day r
            where r.cause_id in (
                    select m.id from :"dlq_schema".cause m
                    where m.id = counted.cause_id or m.merged_into = counted.cause_id)
                and r.day between %(first_day)s::date and %(last_day)s::date
            group by r.day
        ) per_day on per_day.day = day.at::date
    ), '{}') as days
from counted
order by counted.cause_id is null desc, counted.deaths desc, counted.cause_id
limit %(causes)s
