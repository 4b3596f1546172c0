-- The catalogue of causes and the classification of deaths.

-- name: take_batch
-- Unclassified deaths, locked, as distinct texts: a text that a thousand events share is read once.
with batch as (
    select id, error, died_at from :"dlq_schema".death
    where cause_id is null order by id limit %(limit)s
    for update skip locked
)
select error, array_agg(id order by id) as ids, min(died_at) as first_died, max(died_at) as last_died
from batch group by error order by min(id)

-- name: upsert
-- Mint the cause of a fingerprint that has none, or widen the times of the one that it has. The sample is the first
-- text that was seen. A merged fingerprint's alias leads to the cause that it was merged into.
with known as (
    select cause_id from :"dlq_schema".cause_alias where fingerprint = %(id)s
), cause as (
    insert into :"dlq_schema".cause as c (id, exception_type, template, sample, first_seen, last_seen)
    select coalesce((select cause_id from known), %(id)s), %(exception_type)s, %(template)s, %(sample)s,
        %(first_seen)s, %(last_seen)s
    on conflict (id) do update
    set first_seen = least(c.first_seen, excluded.first_seen), last_seen = greatest(c.last_seen, excluded.last_seen)
    returning id, xmax = 0 as minted
), alias as (
    insert into :"dlq_schema".cause_alias (fingerprint, cause_id)
    select %(id)s, id from cause
    on conflict (fingerprint) do nothing
)
select id, minted from cause

-- name: assign
-- Write the causes into the deaths and add exactly those rows to the rollup.
with named as (
    select death_id, a.cause_id
    from unnest(%(deaths)s::bigint[], %(fingerprints)s::text[]) as given (death_id, fingerprint)
    join :"dlq_schema".cause_alias a using (fingerprint)
), assigned as (
    update :"dlq_schema".death d set cause_id = named.cause_id
    from named where d.id = named.death_id and d.cause_id is null
    returning (d.died_at at time zone %(zone)s)::date as day, d.cause_id, d.event_type, d.aggregate_type
), rolled as (
    insert into :"dlq_schema".cause_day as r (day, cause_id, event_type, aggregate_type, deaths)
    select day, cause_id, event_type, aggregate_type, count(*) from assigned group by 1, 2, 3, 4 order by 1, 2, 3, 4
    on conflict (day, cause_id, event_type, aggregate_type) do update set deaths = r.deaths + excluded.deaths
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
