-- Recalls: released events that no worker has taken yet are dead again.

-- name: take
-- Recalls the next events of a fix, or those that people retried, that fall due later than now: by
-- keyset pagination, the earliest due time first, because it is the next that a worker could take.
-- Reads at most so many rows, however many of them can be recalled.
with page as materialized (
    select r.death_id, r.due_at from :"dlq_schema".retry r
    where r.outcome is null
        and (r.fix_id = %(fix_id)s or %(fix_id)s::bigint is null and r.fix_id is null)
        -- By the clock of the workers too: what is due may be with one although no row shows it.
        and r.due_at > greatest(%(now)s, statement_timestamp())
        and (r.due_at, r.death_id) > (%(after_time)s, %(after_id)s)
    order by r.fix_id, r.due_at, r.death_id limit %(rows)s
), chosen as materialized (
    select page.death_id from page
    where %(selection)s::jsonb is null
        or exists (
            select
            from :"dlq_schema".death d
            cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
            where d.id = page.death_id
                and :"dlq_schema".selects(
                    f, d, case when d.cause_id = any(%(causes)s::text[]) then f.cause_id end))
), recalled as materialized (
    select unnest(:"dlq_schema".recall_events(
        array(select death_id from chosen), %(now)s, %(actor)s, %(reason)s)) as death_id
)
select (select count(*) from recalled) as recalled,
    count(*) as rows,
    max(due_at) as last_time,
    (array_agg(death_id order by due_at desc, death_id desc))[1] as last_id
from page

-- name: lock
-- Until the transaction ends, no other recall of what people retried takes a batch. Otherwise the
-- rows that one of two recalls holds would look to the other as if a worker held them.
select pg_advisory_xact_lock(hashtextextended(:'dlq_schema' || ' recall', 0))

-- name: count_with_worker
-- Counts released events of a fix, or those that people retried, that the worker still has.
select count(*) as events
from :"dlq_schema".retry r
cross join lateral (
    select from :"dlq_schema".outbox o
    where o.id = r.event_id
        and o.created_at is not distinct from r.event_created_at
        and coalesce(o.delivered, false) = false
        and coalesce(o.dead, false) = false
    limit 1) o
where r.outcome is null
    and (r.fix_id = %(fix_id)s or %(fix_id)s::bigint is null and r.fix_id is null)
    and (%(selection)s::jsonb is null
        or exists (
            select
            from :"dlq_schema".death d
            cross join jsonb_populate_record(null:::"dlq_schema".fix, %(selection)s::jsonb) f
            where d.id = r.death_id
                and :"dlq_schema".selects(
                    f, d, case when d.cause_id = any(%(causes)s::text[]) then f.cause_id end)))

-- name: reset_pace
-- The next event of the fix falls due at its rate after those that were due before the recall, with
-- or without an outcome, and after those that the worker still has.
update :"dlq_schema".fix f
set last_due_at = greatest(least(f.last_due_at, %(now)s::timestamptz), (
    select max(r.due_at) from :"dlq_schema".retry r where r.fix_id = f.id and r.outcome is null))
where f.id = %(fix_id)s

-- name: is_known
-- Whether a person retried one of these events without a fix, and may have recalled it.
select exists (
    select from :"dlq_schema".retry r
    where r.event_id = any(:"dlq_schema".event_ids(%(event_ids)s::text[])) and r.fix_id is null
) or exists (
    select from :"dlq_schema".recalled r
    where r.event_id = any(:"dlq_schema".event_ids(%(event_ids)s::text[])) and r.fix_id is null
) as found
