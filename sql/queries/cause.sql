-- The catalogue of causes and the classification of deaths.

-- name: take_batch
-- Unclassified deaths, locked, with the digest of their error instead of the error: a text that a thousand deaths
-- share crosses the wire once. By key, so that no batch walks over what the batches before it have done.
with batch as (
    select id, error from :"dlq_schema".death
    where cause_id is null and id > %(after)s order by id limit %(limit)s
    for update skip locked
)
select coalesce(array_agg(id order by id), '{}') as ids,
    coalesce(array_agg(sha256(convert_to(coalesce(error, ''), 'UTF8')) order by id), '{}') as digests
from batch

-- name: texts
select id, error from :"dlq_schema".death where id = any(%(ids)s::bigint[])

-- name: versions
-- Whether the catalogue knows anything, and anything by the present version of the algorithm.
select exists (select from :"dlq_schema".cause_alias) as used,
    exists (select from :"dlq_schema".cause_alias where fingerprint like %(version)s || '-%%') as current

-- name: known
-- The causes of these fingerprints, locked in the order of their ids: two runs that meet the same causes then wait for
-- each other instead of deadlocking.
select a.fingerprint, a.cause_id
from :"dlq_schema".cause_alias a join :"dlq_schema".cause c on c.id = a.cause_id
where a.fingerprint = any(%(fingerprints)s::text[])
order by c.id
for update of c

-- name: mint
-- A cause for a fingerprint that has none; another run may have been faster.
with cause as (
    insert into :"dlq_schema".cause (id, exception_type, template, sample, first_seen, last_seen)
    values (%(id)s, %(exception_type)s, %(template)s, %(sample)s, 'infinity', '-infinity')
    on conflict (id) do nothing
    returning id
), alias as (
    insert into :"dlq_schema".cause_alias (fingerprint, cause_id) values (%(id)s, %(id)s)
    on conflict (fingerprint) do nothing
)
select count(*) as minted from cause

-- name: assign
-- Write the causes into the deaths, add exactly those rows to the rollups and widen the causes' times. What metrics
-- count is written with the names that they are shown under: a type that finds no place among the 50, and a cause that
-- is not shown, count as `other` from then on. Rows that other runs write too are taken in the order of their keys.
with named as (
    select death_id, cause_id from unnest(%(deaths)s::bigint[], %(causes)s::text[]) as given (death_id, cause_id)
), assigned as (
    update :"dlq_schema".death d set cause_id = named.cause_id
    from named where d.id = named.death_id and d.cause_id is null
    returning d.id, d.died_at, d.cause_id, d.event_type, d.aggregate_type, d.attempts
), rolled as (
    insert into :"dlq_schema".cause_day as r (day, cause_id, event_type, aggregate_type, deaths)
    select (died_at at time zone %(zone)s)::date, cause_id, event_type, aggregate_type, count(*)
    from assigned group by 1, 2, 3, 4 order by 1, 2, 3, 4
    on conflict (day, cause_id, event_type, aggregate_type) do update set deaths = r.deaths + excluded.deaths
), seen as (
    select cause_id, min(died_at) as first, max(died_at) as last from assigned group by cause_id
), widened as (
    update :"dlq_schema".cause c
    set first_seen = least(c.first_seen, seen.first), last_seen = greatest(c.last_seen, seen.last)
    from seen where c.id = seen.cause_id
), tally as (
    select cause_id, left(event_type, 100) as event_type, left(aggregate_type, 100) as aggregate_type,
        :"dlq_schema".attempts_bucket(attempts) as attempts_up_to, date_trunc('hour', died_at, 'UTC') as hour,
        count(*) as deaths, sum(attempts) as attempts
    from assigned group by 1, 2, 3, 4, 5
), placeless as (
    select name, value, row_number() over (partition by name order by deaths desc, value collate "C") as place
    from (
        select 'event_type' as name, event_type as value, sum(deaths) as deaths from tally group by 2
        union all
        select 'aggregate_type', aggregate_type, sum(deaths) from tally group by 2
    ) met
    where not exists (select from :"dlq_schema".metric_label l where l.name = met.name and l.value = met.value)
), placed as (
    insert into :"dlq_schema".metric_label (name, value)
    select name, value from placeless p
    where p.place + (select count(*) from :"dlq_schema".metric_label l where l.name = p.name) <= %(labels)s
    order by 1, 2
    on conflict do nothing
    returning name, value
), label as (
    select name, value from :"dlq_schema".metric_label union all select name, value from placed
), labelled as (
    select tally.cause_id, coalesce(e.value, 'other') as event_type, coalesce(a.value, 'other') as aggregate_type,
        tally.attempts_up_to, tally.hour, tally.deaths, tally.attempts
    from tally
    left join label e on e.name = 'event_type' and e.value = tally.event_type
    left join label a on a.name = 'aggregate_type' and a.value = tally.aggregate_type
), counted as (
    insert into :"dlq_schema".death_count as t (event_type, aggregate_type, attempts_up_to, deaths, attempts)
    select event_type, aggregate_type, attempts_up_to, sum(deaths), sum(attempts)
    from labelled group by 1, 2, 3 order by 1, 2, 3
    on conflict (event_type, aggregate_type, attempts_up_to) do update
    set deaths = t.deaths + excluded.deaths, attempts = t.attempts + excluded.attempts
), hourly as (
    insert into :"dlq_schema".death_hour as t (hour, event_type, deaths)
    select hour, event_type, sum(deaths) from labelled group by 1, 2 order by 1, 2
    on conflict (hour, event_type) do update set deaths = t.deaths + excluded.deaths
), by_cause as (
    select l.cause_id, sum(l.deaths) as deaths, t.shown
    from labelled l left join :"dlq_schema".cause_count t using (cause_id) group by l.cause_id, t.shown
), shown as (
    select cause_id, deaths, coalesce(shown, %(causes_shown)s >= (
        select count(*) from :"dlq_schema".cause_count t where t.shown and t.cause_id <> 'other'
    ) + row_number() over (partition by shown order by deaths desc, cause_id collate "C")) as shown
    from by_cause
), caused as (
    insert into :"dlq_schema".cause_count as t (cause_id, deaths, shown)
    select * from (
        select cause_id, deaths, shown from shown
        union all
        select 'other', sum(deaths), true from shown where not shown having sum(deaths) > 0
    ) new order by cause_id
    on conflict (cause_id) do update set deaths = t.deaths + excluded.deaths
), announced as (
    insert into :"dlq_schema".death_notice (death_id) select id from assigned where %(announce)s::boolean
)
select count(*) as deaths from assigned

-- name: choose_shown
-- The causes that metrics show: most deaths since that day. One that is shown stays until another has twice as many, so
-- that two of equal size do not take turns. Nothing goes down by it: `other` counts a cause while it is not shown.
with recent as (
    select cause_id, sum(deaths) as deaths from :"dlq_schema".cause_day where day >= %(since)s group by cause_id
), chosen as (
    select t.cause_id, t.shown, row_number() over (
        order by coalesce(r.deaths, 0) * case when t.shown then 2 else 1 end desc, t.shown desc, t.deaths desc,
            t.cause_id collate "C") <= %(causes_shown)s as wanted
    from :"dlq_schema".cause_count t left join recent r using (cause_id)
    where t.cause_id <> 'other'
), changed as (
    select t.cause_id, chosen.wanted
    from :"dlq_schema".cause_count t join chosen using (cause_id)
    where chosen.shown <> chosen.wanted
    order by t.cause_id for update of t
)
update :"dlq_schema".cause_count t set shown = changed.wanted from changed where t.cause_id = changed.cause_id

-- name: forget_hours
delete from :"dlq_schema".death_hour where hour < %(until)s

-- name: list
-- The causes that are shown, those with most dead events now first; what was merged into one counts as its own. Those
-- behind the key, of which a null is not asked for.
with now as (
    select d.cause_id, count(*) as dead
    from :"outbox_schema".:"outbox_table" e
    join :"dlq_schema".death d on d.event_id = e.id and d.died_at = e.dead_at
    where e.status = 'dead' group by 1
), rollup as (
    select cause_id, sum(deaths)::bigint as deaths from :"dlq_schema".cause_day group by 1
), shown as (
    select coalesce(c.merged_into, c.id) as id, min(c.first_seen) as first_seen, max(c.last_seen) as last_seen,
        coalesce(sum(rollup.deaths), 0)::bigint as deaths, coalesce(sum(now.dead), 0)::bigint as dead,
        array_agg(c.id order by c.id) filter (where c.merged_into is not null) as members
    from :"dlq_schema".cause c
    left join rollup on rollup.cause_id = c.id
    left join now on now.cause_id = c.id
    group by 1
)
select c.id, c.exception_type, c.template, c.status, c.fixed_at, c.name, c.owner, c.note, c.muted_until,
    shown.first_seen, shown.last_seen, shown.deaths, shown.dead, coalesce(shown.members, '{}') as members
from :"dlq_schema".cause c join shown using (id)
where (%(id)s::text is null or c.id = %(id)s)
    and (%(after_id)s::text is null
        or (-shown.dead, -shown.deaths, c.id) > (-%(after_dead)s::bigint, -%(after_deaths)s::bigint, %(after_id)s))
order by shown.dead desc, shown.deaths desc, c.id
limit %(limit)s

-- name: get
select id, merged_into, sample from :"dlq_schema".cause where id = %(id)s

-- name: lock
-- The causes, what they are shown as and what was merged into them, locked in the order of their ids.
select * from :"dlq_schema".cause
where merged_into = any(%(ids)s::text[]) or id = any(%(ids)s::text[] || array(
    select shown.merged_into from :"dlq_schema".cause shown where shown.id = any(%(ids)s::text[])))
order by id for update

-- name: change
-- Of the columns that people may write, those that `changes` names.
update :"dlq_schema".cause c
set (name, owner, note, muted_until, merged_into) = (
    select r.name, r.owner, r.note, r.muted_until, r.merged_into from jsonb_populate_record(c, %(changes)s::jsonb) r)
where id = %(id)s

-- name: changes
-- What people did to the cause, the last first.
select id, kind, actor, reason, filter, at from :"dlq_schema".audit
where kind like 'cause.%%'
    and filter @> jsonb_build_object('changes', jsonb_build_array(jsonb_build_object('cause', %(id)s::text)))
order by id desc limit %(limit)s

-- name: operation
select id, kind, actor, reason, filter, at from :"dlq_schema".audit
where id = %(id)s and kind like 'cause.%%' and filter ? 'changes'

-- name: active_fix
select id, cause_id from :"dlq_schema".fix
where closed_at is null and cause_id = any(%(ids)s::text[])
order by id limit 1

-- name: texts_of
-- The latest errors of the cause, distinct, for its details.
select distinct error from (
    select error from :"dlq_schema".death where cause_id = any(%(ids)s::text[])
    order by died_at desc, event_id desc limit %(limit)s) latest

-- name: relapse
-- Fixed causes of which an event died that was first attempted after the fix: it was written after it. What was
-- retried had its first attempt before, and proves nothing new. The audit says when the first of them died: since then
-- the cause is regressed.
with found as (
    select f.id, again.died_at from :"dlq_schema".cause f
    cross join lateral (
        select min(d.died_at) as died_at from :"dlq_schema".death d
        left join :"outbox_schema".:"outbox_table" e on e.id = d.event_id
        left join :"outbox_schema".:"archive_table" a on a.id = d.event_id
        where d.cause_id = any(array(
                select m.id from :"dlq_schema".cause m where m.id = f.id or m.merged_into = f.id))
            and d.died_at > f.fixed_at and coalesce(e.created_at, a.created_at) > f.fixed_at) again
    where f.status = 'fixed' and again.died_at is not null
    order by f.id for update of f
), relapsed as (
    update :"dlq_schema".cause c set status = 'regressed' from found where c.id = found.id
    returning c.id, found.died_at
), recorded as (
    insert into :"dlq_schema".audit (kind, actor, reason, filter, events, at)
    select 'cause.regressed', 'dead_event_causes', 'an event written after the fix died of it again',
        jsonb_build_object('cause', id, 'died_at', died_at), 0, %(now)s
    from relapsed
)
select id from relapsed order by id

-- name: page
-- Classified deaths in the order of their ids, for a reindex: each text by its digest.
select id, cause_id, sha256(convert_to(coalesce(error, ''), 'UTF8')) as digest
from :"dlq_schema".death where id > %(after)s and cause_id is not null order by id limit %(limit)s

-- name: samples
-- A text of every cause, whether or not the ledger still has its deaths.
select id, sample from :"dlq_schema".cause order by id

-- name: add_alias
insert into :"dlq_schema".cause_alias (fingerprint, cause_id) values (%(fingerprint)s, %(cause_id)s)
on conflict (fingerprint) do nothing

-- name: rollup_difference
-- Three figures that are one, read in one snapshot. What the ledger has forgotten was counted in the audit.
select (select count(*) from :"dlq_schema".death where cause_id is not null)
        + (select coalesce(sum(events), 0)::bigint from :"dlq_schema".audit where kind = 'ledger.forget') as ledger,
    (select coalesce(sum(deaths), 0)::bigint from :"dlq_schema".cause_day) as rollup,
    (select coalesce(sum(deaths), 0)::bigint from :"dlq_schema".death_count) as counters

-- name: rows
-- Of the table: those that were merged into another stay in it.
select count(*) as rows from :"dlq_schema".cause
