-- The queue of the workers: how far they are behind, and what they pass over.

-- name: oldest_due
-- Seconds since the oldest due event fell due; at least the queue lag. Driven by the index that
-- workers poll.
select extract(epoch from %(now)s::timestamptz - min(due_at))::float8 as seconds
from :"dlq_schema".outbox where waiting and due_at > '-infinity'

-- name: waiting
-- What waits for workers, in two kinds of rows: `lag`, the events that the workers have not passed
-- over, whose oldest due time gives the queue lag; and `stuck`, by event type, the events that have
-- been due since before `stuck_before` although later ones were taken.
--
-- An event that waits although one that fell due later was taken is passed over, and says nothing
-- about how long a released event would wait: for example, no worker consumes its type. The oldest
-- due event alone would let one such row stop every fix.
--
-- What workers took is seen in the last rows of the outbox, in the last deaths, and in the last
-- retries with an outcome. The last rows are those with the highest keys, and those in the last
-- pages of the table: a random key, such as a uuid, says nothing about when a row was written.
-- Without any of them, as in a new outbox, every due event counts; but if the workers delete what
-- they deliver, which leaves next to nothing to see, only ten or more do.
--
-- Each type may have workers of its own, and one that is behind is not hidden by another one that
-- is not: ten events or more of a type count if they fell due after the last one of their type that
-- was taken. Fewer may be rows that no worker can take.
--
-- An event whose retry has timed out is passed over by definition, however many of them there are:
-- those of one fix must not stop another one.
--
-- A partitioned table has no pages of its own: the first 2,000 rows that a scan finds are read.
--
-- Reads at most 200 rows of each kind and three times `rows` due events, each by an index, and 20
-- pages.
with evidence as materialized (
    (select o.event_type, o.created_at as due_at
     from (
        select o.event_type, o.created_at, o.delivered or o.working as is_taken
        from :"dlq_schema".outbox o order by o.id desc limit 200) o
     -- An event is due when it is created, or later: this is the cautious end.
     where o.is_taken)
    union all
    (select o.event_type, o.created_at
     from (
        select o.event_type, o.created_at, o.delivered or o.working as is_taken
        from :"dlq_schema".outbox o
        where o.place >= (
            select format('(%%s,0)', greatest(pages - 20, 0))::tid
            from (
                select pg_relation_size(:"dlq_schema".outbox_table())
                    / current_setting('block_size')::bigint as pages) size)
        limit 2000) o
     where o.is_taken)
    union all
    (select d.event_type, d.event_created_at
     from :"dlq_schema".death d order by d.died_at desc, d.id desc limit 200)
    union all
    (select d.event_type, r.due_at
     from (
        select r.death_id, r.due_at, r.outcome
        from :"dlq_schema".retry r order by r.death_id desc limit 200) r
     cross join lateral (
        select d.event_type from :"dlq_schema".death d where d.id = r.death_id limit 1) d
     where r.outcome in ('delivered', 'died_again'))
), taken as materialized (
    select event_type, max(due_at) as until from evidence
    where due_at <= %(now)s group by event_type
), seen as materialized (
    select coalesce(min(until), '-infinity') as since, coalesce(max(until), '-infinity') as until
    from taken
), waiting as materialized (
    select w.id,
        w.event_type,
        w.due_at,
        last.outcome is not distinct from 'timed_out' as is_timed_out,
        taken.until,
        count(*) filter (
            where w.due_at > taken.until and last.outcome is distinct from 'timed_out')
            over (partition by w.event_type) as following,
        count(*) filter (
            where w.due_at > (select until from seen)
                and last.outcome is distinct from 'timed_out') over () as newer
    from (
        (select o.id, o.created_at, o.event_type, o.due_at from :"dlq_schema".outbox o
         where o.waiting and o.due_at <= %(stuck_before)s and o.due_at > '-infinity'
         order by o.due_at limit %(rows)s)
        union
        (select o.id, o.created_at, o.event_type, o.due_at from :"dlq_schema".outbox o
         where o.waiting and o.due_at <= %(now)s and o.due_at > (select since from seen)
         order by o.due_at limit %(rows)s)
        union
        (select o.id, o.created_at, o.event_type, o.due_at from :"dlq_schema".outbox o
         where o.waiting and o.due_at <= %(now)s and o.due_at > (select until from seen)
         order by o.due_at limit %(rows)s)) w
    left join taken using (event_type)
    left join lateral (
        select r.outcome from :"dlq_schema".retry r
        where r.event_id = w.id and r.event_created_at is not distinct from w.created_at
        order by r.death_id desc limit 1) last on true
), judged as materialized (
    select w.*,
        not w.is_timed_out and (
            w.due_at > (select until from seen)
                and (:"dlq_schema".deletion_is_loss() or w.newer >= 10)
            or coalesce(w.due_at > w.until, false) and w.following >= 10) as is_lag
    from waiting w
)
select 'lag' as kind,
    null as event_type,
    count(*) as events,
    min(due_at) as due_at,
    null as event_id
from judged where is_lag
union all
(select 'stuck',
    left(event_type, 200),
    count(*),
    min(due_at),
    (array_agg(id::text order by due_at, id))[1]
 from judged
 where not is_lag and due_at <= %(stuck_before)s
 group by left(event_type, 200)
 order by min(due_at), 2 limit 20)
