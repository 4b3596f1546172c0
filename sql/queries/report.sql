-- The figures of one day's report, as of the end of the day. `start` and `until` are the first
-- instants of the day and of the next day in its time zone. Statements leave out what happened at
-- `until` or later, or count back to the state at that time.

-- name: rows
-- Number of days that have a report.
select count(*) as rows from :"dlq_schema".report_day where deleted_at is null

-- name: memory
-- Lets a day of a million deaths be hashed in memory. Compilation (JIT) costs more than it saves.
select
    set_config('work_mem', '96MB', true),
    set_config('jit', 'off', true),
    set_config('hash_mem_multiplier', '2', true)

-- name: events
-- Distinct events that died. Fewer than deaths if one was retried and died again.
select count(*) as events
from (
    select event_id, event_created_at
    from :"dlq_schema".death
    where died_at >= %(start)s and died_at < %(until)s
    group by event_id, event_created_at
) event

-- name: is_incomplete
-- Whether the ledger has deleted deaths of the day: the rollup has more than are left. Counts only
-- if the ledger ever deleted any.
select case when exists (select from :"dlq_schema".audit where kind = 'ledger.purge') then
    (select coalesce(sum(deaths), 0) from :"dlq_schema".cause_day where day = %(day)s) > (
        select count(*)
        from :"dlq_schema".death
        where died_at >= %(start)s and died_at < %(until)s and cause_id is not null)
    else false end as is_incomplete

-- name: causes
-- Returns the first `limit` causes of the day by harm: distinct aggregates, then deaths. Each row
-- has the total number of causes and deaths, and the `types` most frequent event types. The row
-- without cause_id counts the unclassified deaths and is always included. Two passes over the day,
-- both hashed: carrying more than the keys through the distinct count costs more than the second.
with cell as (
    select coalesce(c.merged_into, d.cause_id) as cause_id,
        d.event_type,
        sum(d.deaths)::bigint as deaths,
        min(d.first_seen) as first_seen,
        max(d.last_seen) as last_seen,
        min(d.fewest) as fewest,
        max(d.most) as most,
        sum(d.attempts)::bigint as attempts
    from (
        select cause_id,
            event_type,
            count(*) as deaths,
            min(died_at) as first_seen,
            max(died_at) as last_seen,
            min(attempts) as fewest,
            max(attempts) as most,
            sum(attempts) as attempts
        from :"dlq_schema".death
        where died_at >= %(start)s and died_at < %(until)s
        group by cause_id, event_type
    ) d
    left join :"dlq_schema".cause c on c.id = d.cause_id
    group by 1, 2
), type as (
    select *,
        row_number() over (
            partition by cause_id order by deaths desc, event_type collate "C"
        ) as position
    from cell
), counted as (
    select cause_id,
        sum(deaths)::bigint as deaths,
        min(first_seen) as first_seen,
        max(last_seen) as last_seen,
        min(fewest) as fewest,
        max(most) as most,
        sum(attempts)::bigint as attempts,
        count(*) as event_type_count,
        array_agg(left(event_type, 200) order by position)
            filter (where position <= %(types)s) as event_types,
        array_agg(deaths order by position) filter (where position <= %(types)s) as type_deaths
    from type
    group by cause_id
), affected as (
    select coalesce(c.merged_into, d.cause_id) as cause_id,
        sum(d.aggregates)::bigint as aggregates,
        min(d.first_type) as first_type,
        max(d.last_type) as last_type,
        array_agg(d.cause_id) as members
    from (
        select cause_id,
            count(*) as aggregates,
            min(affected_type collate "C") as first_type,
            max(affected_type collate "C") as last_type
        from (
            -- An event without an aggregate stands for itself.
            select cause_id,
                case when aggregate_id = '' then 'event' else aggregate_type end as affected_type
            from :"dlq_schema".death
            where died_at >= %(start)s and died_at < %(until)s
            group by cause_id,
                aggregate_type,
                aggregate_id,
                case when aggregate_id = '' then event_id end
        ) aggregate
        group by cause_id
    ) d
    left join :"dlq_schema".cause c on c.id = d.cause_id
    group by 1
), ranked as (
    select counted.*,
        affected.aggregates,
        case when affected.first_type = affected.last_type then
            left(affected.first_type, 200) end as aggregate_type,
        affected.members,
        count(counted.cause_id) over () as causes_found,
        (sum(counted.deaths) over ())::bigint as deaths_found,
        row_number() over (
            order by affected.aggregates desc,
                counted.deaths desc,
                counted.cause_id collate "C" nulls last
        ) as position
    from counted
    join affected on coalesce(affected.cause_id, '') = coalesce(counted.cause_id, '')
)
select * from ranked where position <= %(limit)s or cause_id is null order by position

-- name: merged_aggregates
-- Distinct aggregates of causes with merged members. An aggregate that two members affected counts
-- once.
select coalesce(c.merged_into, c.id) as cause_id,
    count(distinct (
        d.aggregate_type,
        d.aggregate_id,
        case when d.aggregate_id = '' then d.event_id end)) as aggregates
from :"dlq_schema".cause c
join :"dlq_schema".death d
    on d.cause_id = c.id and d.died_at >= %(start)s and d.died_at < %(until)s
where c.id = any(%(members)s)
group by 1

-- name: catalogue
-- The catalogue's rows of these causes, with the state of their fixes and regressions at the end of
-- the day. As in `fix.close`, the last verdict on a fix of the whole cause says whether the cause is
-- fixed. Any other end of a fix leaves the cause as it was.
select c.id as cause_id,
    left(c.exception_type, 300) as exception_type,
    left(c.template, 1000) as template,
    c.name,
    c.owner,
    c.note,
    c.muted_until,
    seen.first as first_seen,
    to_jsonb(:"dlq_schema".deployment_before(seen.first, %(until)s)) as deployment,
    exists (
        select from :"dlq_schema".fix f
        where f.cause_id = c.id
            and f.detail is null
            and f.flagged_at < %(until)s
            and (f.closed_at is null or f.closed_at >= %(until)s)
    ) as fixing,
    coalesce(ended.is_verified, false) as fixed,
    coalesce(ended.is_verified, false) and exists (
        select from :"dlq_schema".audit a
        where a.kind = 'cause.regressed'
            and a.filter ->> 'cause' = c.id
            and (a.filter ->> 'died_at')::timestamptz > ended.flagged_at
            and (a.filter ->> 'died_at')::timestamptz < %(until)s
    ) as regressed
from :"dlq_schema".cause c
cross join lateral (
    select min(m.first_seen) as first
    from :"dlq_schema".cause m
    where m.id = c.id or m.merged_into = c.id
) seen
left join lateral (
    select f.flagged_at, f.status = 'verified' as is_verified
    from :"dlq_schema".fix f
    where f.cause_id = c.id
        and f.closed_at < %(until)s
        and f.status in ('verified', 'halted')
        and :"dlq_schema".selects_whole_cause(f)
    order by f.closed_at desc, f.id desc
    limit 1
) ended on true
where c.id = any(%(causes)s)

-- name: explanations
-- What sets the events of each cause apart, as recorded for the day.
select cause_id, condition, "where", dead, compared_dead, delivered, compared_delivered
from :"dlq_schema".report_explanation
where day = %(day)s

-- name: record_explanations
-- The first explanation of a day and cause stays: of two builds at once, both show it.
insert into :"dlq_schema".report_explanation (
    day, cause_id, condition, "where", dead, compared_dead, delivered, compared_delivered,
    explained_at)
select %(day)s,
    given.cause_id,
    given.condition,
    given."where",
    given.dead,
    given.compared_dead,
    given.delivered,
    given.compared_delivered,
    %(now)s
from jsonb_to_recordset(%(explanations)s::jsonb) as given (
    cause_id text,
    condition text,
    "where" text,
    dead integer,
    compared_dead integer,
    delivered integer,
    compared_delivered integer)
on conflict (day, cause_id) do nothing

-- name: delete_explanations
delete from :"dlq_schema".report_explanation where day = %(day)s

-- name: details
-- Deaths of the day by detail, of these causes, with the state of each detail at the end of the day
-- as in `catalogue`: the first `limit` details of a cause, and the new and regressed ones. A fix of
-- the whole cause that is verified fixes the details that were seen before it.
with day as (
    select coalesce(c.merged_into, c.id) as cause_id, d.detail, sum(d.deaths)::bigint as deaths
    from (
        select cause_id, detail, count(*) as deaths
        from :"dlq_schema".death
        where died_at >= %(start)s and died_at < %(until)s and detail <> ''
        group by cause_id, detail
    ) d
    join :"dlq_schema".cause c on c.id = d.cause_id
    group by 1, 2
), ranked as (
    select day.*,
        s.first_seen,
        row_number() over (
            partition by day.cause_id order by day.deaths desc, day.detail collate "C"
        ) as position
    from day
    join :"dlq_schema".shown_detail s using (cause_id, detail)
    where day.cause_id = any(%(causes)s)
), known as (
    select r.*,
        exists (
            select from :"dlq_schema".fix f
            where f.cause_id = r.cause_id
                and f.detail = r.detail
                and f.flagged_at < %(until)s
                and (f.closed_at is null or f.closed_at >= %(until)s)
        ) as fixing,
        coalesce(ended.is_verified, false) as fixed,
        coalesce(ended.is_verified, false) and exists (
            select from :"dlq_schema".audit a
            where a.kind = 'detail.regressed'
                and a.filter ->> 'cause' = r.cause_id
                and a.filter ->> 'detail' = r.detail
                and (a.filter ->> 'died_at')::timestamptz > ended.flagged_at
                and (a.filter ->> 'died_at')::timestamptz < %(until)s
        ) as regressed
    from ranked r
    left join lateral (
        select f.flagged_at, f.status = 'verified' as is_verified
        from :"dlq_schema".fix f
        where f.cause_id = r.cause_id
            and f.closed_at < %(until)s
            and (
                f.detail = r.detail
                    and f.status in ('verified', 'halted')
                    and :"dlq_schema".selects_whole_detail(f)
                or f.status = 'verified'
                    and f.flagged_at >= r.first_seen
                    and :"dlq_schema".selects_whole_cause(f)
            )
        order by f.closed_at desc, f.id desc
        limit 1
    ) ended on true
)
select cause_id,
    left(detail, 200) as detail,
    deaths,
    first_seen,
    fixing,
    fixed,
    regressed
from known
where position <= %(limit)s or first_seen >= %(start)s or regressed
order by cause_id, position

-- name: later_changes
-- Owner, note and mute of these causes as they were before the first change after the day.
select distinct on (change ->> 'cause', key)
    change ->> 'cause' as cause_id,
    key,
    change -> 'before' ->> key as value
from :"dlq_schema".audit a
cross join lateral jsonb_array_elements(a.filter -> 'changes') change
cross join lateral jsonb_object_keys(change -> 'before') key
where a.kind in ('cause.owner', 'cause.note', 'cause.mute', 'cause.undo')
    and a.at >= %(until)s
    and key in ('owner', 'note', 'muted_until')
    and change ->> 'cause' = any(%(causes)s)
order by 1, 2, a.id

-- name: types
-- Deaths by cause and event type, for the `limit` event types with most deaths on the day. Causes
-- that are not in `causes` are one row, without cause_id.
with cell as (
    select coalesce(c.merged_into, d.cause_id, '') as cause_id, d.event_type, d.deaths
    from (
        select cause_id, event_type, count(*) as deaths
        from :"dlq_schema".death
        where died_at >= %(start)s and died_at < %(until)s
        group by cause_id, event_type
    ) d
    left join :"dlq_schema".cause c on c.id = d.cause_id
), frequent as (
    select event_type,
        row_number() over (order by sum(deaths) desc, event_type collate "C") as position
    from cell
    group by event_type
    order by position
    limit %(limit)s
)
select case when cell.cause_id = any(%(causes)s) then cell.cause_id end as cause_id,
    frequent.position,
    left(frequent.event_type, 200) as event_type,
    sum(cell.deaths)::bigint as deaths
from cell
join frequent using (event_type)
group by 1, 2, 3
order by 2, 1

-- name: hours
-- Deaths by hour of the day. `bounds` holds the start of each of its 23 to 25 hours.
select width_bucket(died_at, %(bounds)s::timestamptz[]) - 1 as position, count(*) as deaths
from :"dlq_schema".death
where died_at >= %(start)s and died_at < %(until)s
group by 1
order by 1

-- name: days
-- Deaths of earlier days by cause, from the rollup: the ledger would be 14 more days to read. The
-- days are those of the time zone in which the deaths were classified. Causes
-- that are not in `causes` are one row a day, without cause_id.
select r.day,
    case when coalesce(c.merged_into, c.id) = any(%(causes)s) then
        coalesce(c.merged_into, c.id) end as cause_id,
    sum(r.deaths)::bigint as deaths
from (
    select day, cause_id, sum(deaths) as deaths
    from :"dlq_schema".cause_day
    where day >= %(first)s and day < %(day)s
    group by day, cause_id
) r
join :"dlq_schema".cause c on c.id = r.cause_id
group by 1, 2
order by 1, 2

-- name: days_unclassified
-- Unclassified deaths of earlier days, which the rollup does not have yet. `bounds` holds the start
-- of each day. Reads the short index of unclassified deaths.
select width_bucket(died_at, %(bounds)s::timestamptz[]) - 1 as position, count(*) as deaths
from (
    select died_at
    from :"dlq_schema".death
    where cause_id is null and died_at < %(start)s
    offset 0
) unclassified
where died_at >= (%(bounds)s::timestamptz[])[1]
group by 1
order by 1

-- name: first_recorded_day
-- The first day with a death, and the day since which deaths are recorded: the installation, or the
-- first death if it is earlier.
select first.day,
    least(first.day, (i.created_at at time zone %(zone)s)::date) as recorded_since
from :"dlq_schema".installation i
cross join (select min(day) as day from :"dlq_schema".cause_day where day <= %(day)s) first
limit 1

-- name: samples
-- The last error of the day of each of these causes and of the unclassified deaths; of a long
-- error, both ends. Two branches, because `is not distinct from` uses no index.
select wanted.cause_id,
    last.event_id,
    char_length(last.error) as characters,
    case when char_length(last.error) <= 2 * %(half)s then last.error
        else left(last.error, %(half)s) || E'\n[...]\n' || right(last.error, %(half)s)
    end as error
from unnest(%(causes)s::text[] || null::text) with ordinality as wanted (cause_id, position)
cross join lateral (
    (
        select latest.*
        from :"dlq_schema".cause m
        cross join lateral (
            select d.id, d.event_id, d.error, d.died_at
            from :"dlq_schema".death d
            where d.cause_id = m.id and d.died_at >= %(start)s and d.died_at < %(until)s
            order by d.died_at desc, d.id desc
            limit 1
        ) latest
        where m.id = wanted.cause_id or m.merged_into = wanted.cause_id
        order by latest.died_at desc, latest.id desc
        limit 1
    )
    union all
    (
        select d.id, d.event_id, d.error, d.died_at
        from :"dlq_schema".death d
        where wanted.cause_id is null
            and d.cause_id is null
            and d.died_at >= %(start)s
            and d.died_at < %(until)s
        order by d.died_at desc, d.id desc
        limit 1
    )
) last
order by wanted.position

-- name: dead_events
-- Dead events in the outbox at a time, and how many of them died before another time.
select count(*) as events,
    min(died_at) as oldest,
    count(*) filter (where died_at < %(archive_before)s) as archived_soon
from :"dlq_schema".dead_at(%(at)s)

-- name: parked
-- Events that were dead at that time and had been retried `max_retries` times before.
with retried as materialized (
    select event_id, event_created_at
    from :"dlq_schema".retry
    where retried_at < %(at)s
    group by event_id, event_created_at
    having count(*) >= %(max_retries)s
)
select count(*) as events
from :"dlq_schema".dead_at(%(at)s) n
join :"dlq_schema".death d on d.id = n.death_id
join retried
    on retried.event_id = d.event_id
    and retried.event_created_at is not distinct from d.event_created_at

-- name: purged_soon
-- Events that were in the archive at one time and were archived before another one: still there,
-- purged since or restored since.
select
    (
        select count(*)
        from :"dlq_schema".archive a
        where a.archived_at < %(purge_before)s
    ) + (
        select count(*)
        from :"dlq_schema".purged p
        where p.purged_at >= %(at)s and p.archived_at < %(purge_before)s
    ) + (
        select count(*)
        from :"dlq_schema".restored r
        where r.restored_at >= %(at)s and r.archived_at < %(purge_before)s
    ) as events

-- name: archive_moves
-- Dead events that were moved to the archive and back on the day.
select
    coalesce(sum(events) filter (where kind <> 'archive.restore'), 0)::bigint as archived,
    coalesce(sum(events) filter (where kind = 'archive.discard'), 0)::bigint as discarded,
    coalesce(sum(events) filter (where kind = 'archive.restore'), 0)::bigint as restored
from :"dlq_schema".audit
where kind in ('archive.move', 'archive.discard', 'archive.restore')
    and at >= %(start)s
    and at < %(until)s

-- name: retries
-- Retries of the day, and the outcomes that were settled on the day, whenever the retry was.
select
    count(*) filter (where retried_at >= %(start)s and retried_at < %(until)s) as retried,
    count(*) filter (where settled and outcome = 'delivered') as delivered,
    count(*) filter (where settled and outcome = 'died_again') as died_again,
    count(*) filter (where settled and outcome = 'timed_out') as timed_out,
    count(*) filter (where settled and outcome = 'deleted') as deleted,
    count(*) filter (where settled and outcome = 'recalled') as recalled
from (
    select retried_at, outcome, settled_at >= %(start)s and settled_at < %(until)s as settled
    from :"dlq_schema".retry
    where retried_at >= %(start)s and retried_at < %(until)s
        or settled_at >= %(start)s and settled_at < %(until)s
    union all
    select retried_at, 'recalled', recalled_at >= %(start)s and recalled_at < %(until)s
    from :"dlq_schema".recalled
    where retried_at >= %(start)s and retried_at < %(until)s
        or recalled_at >= %(start)s and recalled_at < %(until)s
) r

-- name: healed
-- What probes healed on the day: the causes whose fix was verified, and the events that were found
-- delivered and that no person retried.
select (
        select count(*)
        from :"dlq_schema".retry r
        left join :"dlq_schema".fix f on f.id = r.fix_id
        where r.settled_at >= %(start)s
            and r.settled_at < %(until)s
            and r.outcome = 'delivered'
            and coalesce(f.flagged_by, r.actor) = 'probe'
    ) as events,
    (
        select coalesce(array_agg(f.cause_id order by f.id), '{}')
        from :"dlq_schema".fix f
        where f.flagged_by = 'probe'
            and f.status = 'verified'
            and f.closed_at >= %(start)s
            and f.closed_at < %(until)s
    ) as causes

-- name: fixes
-- At most `limit` fixes that were open at the end of the day or ended on it; the ended ones first.
select f.*,
    f.closed_at < %(until)s as ended,
    coalesce(pause.kind = 'fix.paused', false) as was_paused,
    carrier.service || ' ' || carrier.version as carrier,
    count(*) over () as found
from :"dlq_schema".fix f
left join :"dlq_schema".deployment carrier on carrier.id = f.deployment
left join (
    select distinct on (filter ->> 'fix') (filter ->> 'fix')::bigint as fix_id, kind
    from :"dlq_schema".audit
    where kind in ('fix.paused', 'fix.resumed') and at < %(until)s
    order by filter ->> 'fix', id desc
) pause on pause.fix_id = f.id
where f.flagged_at < %(until)s and (f.closed_at is null or f.closed_at >= %(start)s)
order by coalesce(f.closed_at, 'infinity') >= %(until)s, f.id desc
limit %(limit)s

-- name: stages
-- The stages of these fixes at the end of the day, from the retries: the counters of a stage have
-- its present state only.
select r.fix_id,
    r.stage,
    count(*) as released,
    count(*) filter (where settled and outcome = 'delivered') as delivered,
    count(*) filter (where settled and outcome = 'died_again') as died_again,
    count(*) filter (where settled and outcome = 'timed_out') as timed_out,
    count(*) filter (where settled and outcome = 'deleted') as deleted,
    count(*) filter (where settled and outcome = 'recalled') as recalled
from (
    select fix_id, stage, outcome, settled_at < %(until)s as settled
    from :"dlq_schema".retry
    where retried_at >= %(since)s and retried_at < %(until)s and fix_id = any(%(fixes)s)
    union all
    select fix_id, stage, 'recalled', recalled_at < %(until)s
    from :"dlq_schema".recalled
    where retried_at >= %(since)s and retried_at < %(until)s and fix_id = any(%(fixes)s)
) r
group by 1, 2
order by 1, 2

-- name: reconciliation
-- The last reconciliation before the end of the day.
select checked_at,
    missing,
    duplicated,
    missed,
    event_ids
from :"dlq_schema".reconciliation
where checked_at < %(until)s
order by checked_at desc
limit 1

-- name: lock_publishing
-- Serializes publishing: the list of reports has all reports that are recorded.
select pg_advisory_xact_lock(hashtextextended(:'dlq_schema' || ' reports', 0))

-- name: record
insert into :"dlq_schema".report_day as r (day, headline, figures, files, built_at)
values (%(day)s, %(headline)s, %(figures)s::jsonb, %(files)s::jsonb, %(now)s)
on conflict (day) do update
set headline = excluded.headline,
    figures = excluded.figures,
    files = excluded.files,
    built_at = excluded.built_at,
    deleted_at = null

-- name: recorded
-- Days that have a report, the last first: all, one day, or days before another one.
select day, headline, figures, files
from :"dlq_schema".report_day
where deleted_at is null
    and (%(day)s::date is null or day = %(day)s)
    and (%(before)s::date is null or day < %(before)s)
order by day desc
limit %(limit)s

-- name: is_recorded
select exists (
    select from :"dlq_schema".report_day where day = %(day)s and deleted_at is null
) as is_recorded

-- name: expired_days
-- Days before that day whose files were not deleted, the oldest first: all, or one day.
select day, files
from :"dlq_schema".report_day
where day < %(before)s and deleted_at is null and (%(day)s::date is null or day = %(day)s)
order by day

-- name: record_deleted
update :"dlq_schema".report_day set deleted_at = %(now)s where day = %(day)s

-- name: is_deleted
select exists (
    select from :"dlq_schema".report_day where day = %(day)s and deleted_at is not null
) as is_deleted

-- name: missing_days
-- The days that need a report and have none. A day needs a report if an event died on it, or if an
-- earlier day has one. A day whose files the retention deleted needs none again.
select wanted.day
from unnest(%(days)s::date[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    as wanted (day, start, until)
where not exists (select from :"dlq_schema".report_day r where r.day = wanted.day)
    and (
        exists (select from :"dlq_schema".report_day r where r.day <= wanted.day)
        or exists (
            select from :"dlq_schema".death d
            where d.died_at >= wanted.start and d.died_at < wanted.until)
    )
order by wanted.day
