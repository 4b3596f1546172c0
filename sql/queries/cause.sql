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
-- Write the causes into the deaths, add exactly those rows to the rollup and widen the causes' times.
with named as (
    select death_id, cause_id from unnest(%(deaths)s::bigint[], %(causes)s::text[]) as given (death_id, cause_id)
), assigned as (
    update :"dlq_schema".death d set cause_id = named.cause_id
    from named where d.id = named.death_id and d.cause_id is null
    returning d.died_at, d.cause_id, d.event_type, d.aggregate_type
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
)
select count(*) as deaths from assigned

-- name: list
select c.id, c.exception_type, c.template, c.status, c.first_seen, c.last_seen,
    coalesce(rollup.deaths, 0)::bigint as deaths, coalesce(now.dead, 0) as dead
from :"dlq_schema".cause c
left join (select cause_id, sum(deaths) as deaths from :"dlq_schema".cause_day group by 1) rollup
    on rollup.cause_id = c.id
left join (
    select d.cause_id, count(*) as dead
    from :"outbox_schema".:"outbox_table" e
    join :"dlq_schema".death d on d.event_id = e.id and d.died_at = e.dead_at
    where e.status = 'dead' group by 1) now on now.cause_id = c.id
order by dead desc, deaths desc, c.id
limit %(limit)s

-- name: rollup_difference
-- Two figures that are one, read in one snapshot.
select (select count(*) from :"dlq_schema".death where cause_id is not null) as ledger,
    (select coalesce(sum(deaths), 0)::bigint from :"dlq_schema".cause_day) as rollup
