-- Alerts: the figures of the rules, which are bounded index reads that run every minute; the alerts; their delivery.

-- name: muted
-- Muted causes, with the causes that are merged into them.
with muted as (
    select id from :"dlq_schema".cause where muted_until > %(now)s and muted_until is not null and merged_into is null
)
select coalesce(array_agg(id), '{}') as ids
from (select id from muted union all select m.id from :"dlq_schema".cause m where m.merged_into in (select id from muted)) x

-- name: backlog
-- Number of dead events whose cause is not muted, at most `most`, among the `look` latest deaths.
select count(*) as events
from (
    select from (
        select n.cause_id from :"dlq_schema".dead_now n
        order by n.died_at desc, n.death_id desc limit %(look)s) n
    where n.cause_id is null or n.cause_id <> all(%(muted)s::text[])
    limit %(most)s) counted

-- name: oldest
-- Time of the oldest death whose event is still dead and whose cause is not muted, among the `look` oldest.
select min(n.died_at) as died_at
from (
    select n.died_at, n.cause_id from :"dlq_schema".dead_now n
    order by n.died_at, n.death_id limit %(look)s) n
where n.cause_id is null or n.cause_id <> all(%(muted)s::text[])

-- name: window
-- Deaths since a time by event type, of causes that are not muted: the latest `most` among the latest
-- `look` deaths. A type without a label in dlq.death_hour, after these deaths are classified, is a row
-- of its own with at least `least` deaths; the other ones are one row, `other`.
with tally as materialized (
    select left(event_type, 100) as event_type, count(*) as deaths
    from (
        select event_type from (
            select event_type, cause_id from :"dlq_schema".death
            where died_at > %(since)s order by died_at desc, id desc limit %(look)s) died
        where cause_id is null or cause_id <> all(%(muted)s::text[])
        limit %(most)s) d
    group by 1
), label as (
    select value
    from :"dlq_schema".choose_metric_labels((select json_agg(tally) from tally), %(labels)s)
    where name = 'event_type'
), labelled as (
    select tally.event_type, tally.deaths, label.value is not null as has_label
    from tally left join label on label.value = tally.event_type
)
select case when has_label or deaths >= %(least)s then event_type else 'other' end as event_type,
    has_label,
    sum(deaths)::bigint as deaths
from labelled
group by 1, 2
order by 1, 2

-- name: usual
-- Deaths of these types in each hour that had any.
select event_type, array_agg(deaths) as hours
from :"dlq_schema".death_hour
where hour >= %(since)s and hour < %(until)s and event_type = any(%(event_types)s::text[])
group by event_type

-- name: recording
-- Since when deaths are recorded: the installation, or the first recorded death if it is earlier.
-- Events that were dead before may have no other time of death than the installation, so deaths
-- count since these were recorded.
select least(i.created_at, (select min(hour) from :"dlq_schema".death_hour)) as began,
    case
        when a.recorded_at < i.created_at + interval '1 hour' then a.recorded_at
        else i.created_at end as counted_since
from :"dlq_schema".installation i
left join :"dlq_schema".attachment a on true
limit 1

-- name: new_causes
-- Causes first seen since a time that are not muted, with the event type of the latest death.
select c.id, coalesce(c.name, concat_ws(': ', nullif(left(c.exception_type, 200), ''), nullif(left(c.template, 500), '')))
        as title, c.first_seen as since, last.event_type, c.owner,
    to_jsonb(:"dlq_schema".deployment_before(c.first_seen)) as deployment
from :"dlq_schema".cause c
left join lateral (
    select left(d.event_type, 200) as event_type from :"dlq_schema".death d
    where d.cause_id = c.id order by d.died_at desc limit 1) last on true
where c.merged_into is null and c.first_seen > %(since)s and c.id <> all(%(muted)s::text[])
order by c.first_seen desc, c.id limit %(limit)s

-- name: new_details
-- Causes that are not muted, with their details that were first seen since a time, and at least `age` after the cause:
-- a new cause has nothing but new details. With the event type of the latest death.
select c.id,
    coalesce(
        c.name, concat_ws(': ', nullif(left(c.exception_type, 200), ''), nullif(left(c.template, 500), ''))) as title,
    fresh.since,
    last.event_type,
    c.owner,
    fresh.details[:%(details)s] as details,
    cardinality(fresh.details) as details_found
from (
    select shown.id, min(k.first_seen) as since, array_agg(k.detail order by k.first_seen desc, k.detail) as details
    from (
        select coalesce(c.merged_into, c.id) as cause_id, k.detail, min(k.first_seen) as first_seen
        from :"dlq_schema".cause_detail k
        join :"dlq_schema".cause c on c.id = k.cause_id
        where k.first_seen > %(since)s and k.first_seen < 'infinity' and k.detail <> 'other'
        group by 1, 2
    ) k
    join :"dlq_schema".cause shown on shown.id = k.cause_id
    where k.first_seen > shown.first_seen + %(age)s::interval
        and shown.id <> all(%(muted)s::text[])
        and not exists (
            select from :"dlq_schema".shown_detail s
            where s.cause_id = k.cause_id and s.detail = k.detail and s.first_seen <= %(since)s)
    group by 1
) fresh
join :"dlq_schema".cause c on c.id = fresh.id
left join lateral (
    select left(d.event_type, 200) as event_type from :"dlq_schema".death d
    where d.cause_id = c.id order by d.died_at desc limit 1) last on true
order by fresh.since desc, c.id limit %(limit)s

-- name: regressed
-- Causes that are regressed or have regressed details and no open fix, and are not muted.
with detail as (
    select k.cause_id, max(k.fixed_at) as fixed_at, array_agg(k.detail order by k.detail) as details
    from :"dlq_schema".cause_detail k where k.status = 'regressed' group by 1
)
select c.id,
    coalesce(
        c.name, concat_ws(': ', nullif(left(c.exception_type, 200), ''), nullif(left(c.template, 500), ''))) as title,
    coalesce(c.fixed_at, detail.fixed_at) as since,
    last.event_type,
    c.owner,
    coalesce(detail.details[:%(details)s], '{}') as details,
    coalesce(cardinality(detail.details), 0) as details_found
from (
    select id from :"dlq_schema".cause where status = 'regressed' union select cause_id from detail
) found
join :"dlq_schema".cause c on c.id = found.id
left join detail on detail.cause_id = c.id
left join lateral (
    select left(d.event_type, 200) as event_type from :"dlq_schema".death d
    where d.cause_id = c.id order by d.died_at desc limit 1) last on true
where c.merged_into is null and c.status <> 'fixing' and c.id <> all(%(muted)s::text[])
order by c.id limit %(limit)s

-- name: escalating
-- Causes with at least `least` deaths on a day that are older than the day, not muted, not regressed
-- and without an open fix, as reports decide it, with their deaths of each day since `first`.
with many as (
    select coalesce(c.merged_into, c.id) as id
    from :"dlq_schema".cause_day d join :"dlq_schema".cause c on c.id = d.cause_id
    where d.day = %(day)s
    group by 1 having sum(d.deaths) >= %(least)s
    order by sum(d.deaths) desc, 1 limit %(limit)s
), member as (
    select many.id, m.id as member_id, min(m.first_seen) over (partition by many.id) as first_seen
    from many join :"dlq_schema".cause m on m.id = many.id or m.merged_into = many.id
), deaths as (
    select member.id, d.day, sum(d.deaths)::bigint as deaths
    from member
    join :"dlq_schema".cause_day d
        on d.cause_id = member.member_id and d.day >= %(first)s and d.day <= %(day)s
    group by 1, 2
), known as (
    select distinct id, first_seen from member
)
select c.id,
    coalesce(
        c.name, concat_ws(': ', nullif(left(c.exception_type, 200), ''), nullif(left(c.template, 500), ''))) as title,
    known.first_seen as since,
    last.event_type,
    c.owner,
    (
        select array_agg(coalesce(deaths.deaths, 0) order by given.day)
        from generate_series(%(first)s::date, %(day)s::date, '1 day') as given (day)
        left join deaths on deaths.id = c.id and deaths.day = given.day) as days
from known
join :"dlq_schema".cause c on c.id = known.id
left join lateral (
    select left(d.event_type, 200) as event_type from :"dlq_schema".death d
    where d.cause_id = c.id order by d.died_at desc limit 1) last on true
where known.first_seen < %(start)s
    and c.status <> 'regressed'
    and c.id <> all(%(muted)s::text[])
    and not exists (
        select from :"dlq_schema".fix f
        where f.cause_id = c.id and f.detail is null and f.closed_at is null)
order by c.id

-- name: halted
-- Fixes halted since a time, without those for which a later fix of the same events was flagged.
-- The owner of the cause precedes that of the fix.
select f.id,
    left(f.note, 500) as note,
    left(f.verdict, 1000) as verdict,
    f.event_type,
    coalesce(shown.owner, c.owner, f.owner) as owner
from :"dlq_schema".fix f
left join :"dlq_schema".cause c on c.id = f.cause_id
left join :"dlq_schema".cause shown on shown.id = c.merged_into
where f.status = 'halted' and f.closed_at > %(since)s
    and (f.cause_id is null or f.cause_id <> all(%(muted)s::text[]))
    and not exists (
        select from :"dlq_schema".fix later
        where later.id > f.id and later.cause_id is not distinct from f.cause_id
            and later.event_type is not distinct from f.event_type)
order by f.closed_at desc, f.id limit %(limit)s

-- name: healed
-- Fixes that probes flagged and that were verified since a time, with what they delivered.
select f.id as fix_id,
    f.cause_id,
    (
        select coalesce(sum(o.events), 0)::bigint
        from :"dlq_schema".fix_outcome o
        where o.fix_id = f.id and o.outcome = 'delivered'
    ) as events,
    coalesce(shown.owner, c.owner) as owner
from :"dlq_schema".fix f
join :"dlq_schema".cause c on c.id = f.cause_id
left join :"dlq_schema".cause shown on shown.id = c.merged_into
where f.status = 'verified'
    and f.flagged_by = 'probe'
    and f.closed_at > %(since)s
    and f.cause_id <> all(%(muted)s::text[])
order by f.closed_at desc, f.id
limit %(limit)s

-- name: parked
-- An index-only scan of failed retries leads; each event with enough of them is looked up.
select count(*) as events
from (
    select r.event_id, r.event_created_at from :"dlq_schema".retry r
    where r.outcome in ('died_again', 'timed_out', 'deleted')
    group by r.event_id, r.event_created_at having count(*) >= %(max_retries)s) tried
cross join lateral (
    select n.cause_id from :"dlq_schema".dead_now n
    where n.event_id = tried.event_id
        and n.event_created_at is not distinct from tried.event_created_at
    limit 1) n
where n.cause_id is null or n.cause_id <> all(%(muted)s::text[])

-- name: purged_soon
-- Number of events archived before a time, which the purge will delete, at most `look`.
select count(*) as events
from (select from :"dlq_schema".archive a
      where a.archived_at < %(before)s
      order by a.archived_at, a.death_id limit %(look)s) soon

-- name: failed_checks
select name, severity, figures, checked_at
from :"dlq_schema".check_result where not passed order by name limit %(limit)s

-- name: failed_jobs
-- Jobs that failed and have not succeeded since, with the first failed days.
select r.job, max(r.failed_at) as failed_at, (array_agg(r.failed_run order by r.failed_at desc))[1] as failed_run,
    (select max(s.succeeded_at) from :"dlq_schema".job_run s where s.job = r.job) as succeeded_at,
    coalesce((array_agg(r.day order by r.day) filter (where r.day <> ''))[:%(days)s], '{}') as days,
    greatest(count(*) filter (where r.day <> '') - %(days)s, 0) as more_days
from :"dlq_schema".job_run r
where r.failed_at > coalesce(r.succeeded_at, '-infinity') group by r.job order by r.job limit %(limit)s

-- name: record_check
insert into :"dlq_schema".check_result (name, passed, severity, figures, checked_at)
values (%(name)s, %(passed)s, %(severity)s, %(figures)s::jsonb, %(now)s)
on conflict (name) do update set passed = excluded.passed, severity = excluded.severity, figures = excluded.figures,
    checked_at = excluded.checked_at

-- name: record_success
insert into :"dlq_schema".job_run (job, day, succeeded_at) values (%(job)s, %(day)s, %(at)s)
on conflict (job, day) do update set succeeded_at = greatest(job_run.succeeded_at, excluded.succeeded_at)

-- name: record_failure
-- A day that succeeded at or after `unless_since` has not failed.
insert into :"dlq_schema".job_run (job, day, failed_at, failed_run)
select %(job)s, day, %(at)s, %(run_id)s from unnest(%(days)s::text[]) as given (day) order by day
on conflict (job, day) do update set failed_at = excluded.failed_at, failed_run = excluded.failed_run
where (job_run.failed_at is null or job_run.failed_at < excluded.failed_at)
    and (job_run.succeeded_at is null or job_run.succeeded_at < %(unless_since)s)

-- name: is_new_failure
-- Whether record_failure would write a row.
select exists (
    select from unnest(%(days)s::text[]) as given (day)
    where not exists (
        select from :"dlq_schema".job_run r
        where r.job = %(job)s and r.day = given.day
            and (r.failed_at >= %(at)s or r.succeeded_at >= %(unless_since)s))) as new

-- name: scan_start
select scanned_until from :"dlq_schema".job_scan

-- name: record_scan
update :"dlq_schema".job_scan set scanned_until = greatest(scanned_until, %(until)s)

-- name: try_lock
-- One run at a time evaluates alerts, until the end of its transaction.
select pg_try_advisory_xact_lock(hashtextextended(:'dlq_schema' || ' alerts', 0)) as locked

-- name: firing
-- Firing alerts, and alerts whose rule found them again.
select * from :"dlq_schema".alert where resolved_at is null or key = any(%(keys)s::text[]) order by key

-- name: put
insert into :"dlq_schema".alert as a (key, rule, severity, event_type, owner, summary, detail, link, fired_at, missing_since,
    notified_at, resolved_at, silenced_until)
values (%(key)s, %(rule)s, %(severity)s, %(event_type)s, %(owner)s, %(summary)s, %(detail)s, %(link)s, %(fired_at)s,
    %(missing_since)s, %(notified_at)s, %(resolved_at)s, %(silenced_until)s)
on conflict (key) do update set rule = excluded.rule, severity = excluded.severity, event_type = excluded.event_type,
    owner = excluded.owner, summary = excluded.summary, detail = excluded.detail, link = excluded.link, fired_at = excluded.fired_at,
    missing_since = excluded.missing_since, notified_at = excluded.notified_at, resolved_at = excluded.resolved_at

-- name: notice
-- A notice with a delivery for each channel. The digest of a day is queued once.
with notice as (
    insert into :"dlq_schema".alert_notice (key, kind, severity, event_type, owner, summary, detail, link, at)
    values (%(key)s, %(kind)s, %(severity)s, %(event_type)s, %(owner)s, %(summary)s, %(detail)s, %(link)s, %(now)s)
    on conflict do nothing
    returning id
), delivery as (
    insert into :"dlq_schema".alert_delivery (notice_id, channel)
    select notice.id, channel from notice, unnest(%(channels)s::text[]) as given (channel)
)
select count(*) as notices from notice

-- name: notified_channels
-- Channels with a notice of this episode of an alert.
select coalesce(array_agg(distinct d.channel), '{}') as ids
from :"dlq_schema".alert_notice n
join :"dlq_schema".alert_delivery d on d.notice_id = n.id
where n.key = %(key)s and n.at >= %(fired_at)s

-- name: unsent_notices
-- Notices of firing alerts that a channel has not received yet.
select n.id, n.key, n.summary, n.detail, n.link
from :"dlq_schema".alert_notice n
where n.kind in ('fired', 'repeated')
    and exists (
        select from :"dlq_schema".alert_delivery d
        where d.notice_id = n.id and d.sent_at is null and d.given_up_at is null)
order by n.id desc limit 1000

-- name: update_notice
update :"dlq_schema".alert_notice set summary = %(summary)s, detail = %(detail)s, link = %(link)s where id = %(id)s

-- name: give_up_ended
-- Give up deliveries of notices whose alert has ended since: the notice of its resolution is sent.
with ended as (
    select d.notice_id, d.channel
    from :"dlq_schema".alert_delivery d
    join :"dlq_schema".alert_notice n on n.id = d.notice_id
    join :"dlq_schema".alert a on a.key = n.key
    where d.sent_at is null and d.given_up_at is null
        and n.kind in ('fired', 'repeated')
        and (a.resolved_at is not null or a.fired_at > n.at)
    order by d.notice_id, d.channel limit 1000
    for update of d skip locked
)
update :"dlq_schema".alert_delivery d set given_up_at = %(now)s
from ended where d.notice_id = ended.notice_id and d.channel = ended.channel

-- name: delete_old
-- Delete notices before a time, a bounded number at a time, and alerts that resolved before it.
with old as (
    select id from :"dlq_schema".alert_notice where at < %(before)s order by at limit 1000
), notices as (
    delete from :"dlq_schema".alert_notice n using old where n.id = old.id
), resolved as (
    select key from :"dlq_schema".alert
    where resolved_at < %(before)s and (silenced_until is null or silenced_until < %(now)s) order by resolved_at limit 1000
)
delete from :"dlq_schema".alert a using resolved where a.key = resolved.key

-- name: list
-- Firing alerts, the most severe first, then resolved alerts, the latest first. A null cursor begins at the first.
select alert.*
from :"dlq_schema".alert, lateral (
    select (resolved_at is not null)::int as over,
        case severity when 'critical' then 0 when 'warning' then 1 else 2 end as rank,
        -(extract(epoch from coalesce(resolved_at, fired_at)) * 1000000)::bigint as ago) place
where %(after_key)s::text is null
    or (over, rank, ago, key) > (%(after_over)s::int, %(after_rank)s::int, %(after_ago)s::bigint, %(after_key)s)
order by over, rank, ago, key
limit %(limit)s

-- name: channels
select c.*, (select count(*) from :"dlq_schema".alert_delivery d
             where d.channel = c.id and d.sent_at is null and d.given_up_at is null) as waiting
from :"dlq_schema".alert_channel c order by c.id

-- name: get
select * from :"dlq_schema".alert where key = %(key)s

-- name: lock
select * from :"dlq_schema".alert where key = %(key)s for update

-- name: silence
update :"dlq_schema".alert set silenced_until = %(until)s where key = %(key)s

-- name: add_channels
insert into :"dlq_schema".alert_channel (id, due_at) select id, %(now)s from unnest(%(ids)s::text[]) as given (id) order by id
on conflict (id) do nothing

-- name: installation
select id from :"dlq_schema".installation limit 1

-- name: orphans
-- Open deliveries of channels that are no longer configured.
select d.notice_id, d.channel, n.severity, n.event_type, n.owner
from :"dlq_schema".alert_delivery d join :"dlq_schema".alert_notice n on n.id = d.notice_id
where d.sent_at is null and d.given_up_at is null and d.channel <> all(%(ids)s::text[])
order by d.notice_id, d.channel limit 1000

-- name: readdress
-- Move a notice to other channels. A channel that already has it gets no second delivery.
with moved as (
    insert into :"dlq_schema".alert_delivery (notice_id, channel)
    select %(notice)s, channel from unnest(%(channels)s::text[]) as given (channel) order by channel
    on conflict do nothing
)
update :"dlq_schema".alert_delivery set given_up_at = %(now)s
where notice_id = %(notice)s and channel = %(channel)s and sent_at is null and given_up_at is null

-- name: give_up
-- Give up deliveries of notices before a time.
with late as (
    select d.notice_id, d.channel
    from :"dlq_schema".alert_delivery d join :"dlq_schema".alert_notice n on n.id = d.notice_id
    where d.sent_at is null and d.given_up_at is null and n.at < %(before)s
    order by d.notice_id, d.channel limit 1000
    for update of d skip locked
)
update :"dlq_schema".alert_delivery d set given_up_at = %(now)s
from late where d.notice_id = late.notice_id and d.channel = late.channel

-- name: waiting_channels
-- Channels with open deliveries that are due. A channel that was never used has no row yet. The
-- notice of an alert that its rule does not find now waits until the alert is found or resolved.
select given.id from unnest(%(ids)s::text[]) as given (id)
where exists (
        select from :"dlq_schema".alert_delivery d
        where d.channel = given.id and d.sent_at is null and d.given_up_at is null
            and not exists (
                select from :"dlq_schema".alert_notice n
                join :"dlq_schema".alert a on a.key = n.key
                where n.id = d.notice_id and n.kind in ('fired', 'repeated')
                    and a.resolved_at is null and a.missing_since is not null))
    and not exists (select from :"dlq_schema".alert_channel c where c.id = given.id and c.due_at > %(now)s)
order by given.id

-- name: lease
-- Lease channels. Until the lease ends, no other run sends to them, even after this run was killed.
with free as (
    select c.id from :"dlq_schema".alert_channel c
    where c.due_at <= %(now)s and c.id = any(%(ids)s::text[])
    order by c.id for update skip locked
)
update :"dlq_schema".alert_channel c set due_at = %(now)s::timestamptz + %(lease)s
from free where c.id = free.id
returning c.id

-- name: open_deliveries
-- Open notices of a channel, the oldest first, as waiting_channels counts them. Counts the attempt.
with open as (
    select notice_id, channel from :"dlq_schema".alert_delivery d
    where channel = %(channel)s and sent_at is null and given_up_at is null
        and not exists (
            select from :"dlq_schema".alert_notice n
            join :"dlq_schema".alert a on a.key = n.key
            where n.id = d.notice_id and n.kind in ('fired', 'repeated')
                and a.resolved_at is null and a.missing_since is not null)
    order by notice_id limit %(limit)s
), tried as (
    update :"dlq_schema".alert_delivery d set attempts = d.attempts + 1
    from open where d.notice_id = open.notice_id and d.channel = open.channel
    returning d.notice_id
)
select n.* from :"dlq_schema".alert_notice n join tried on tried.notice_id = n.id order by n.id

-- name: record_sent
update :"dlq_schema".alert_delivery set sent_at = %(now)s
where channel = %(channel)s and notice_id = any(%(notices)s::bigint[]) and sent_at is null

-- name: channel_worked
update :"dlq_schema".alert_channel
set due_at = %(now)s, failures = 0, last_error = null, sent_at = %(now)s, sent = sent + %(messages)s where id = %(id)s

-- name: channel_failed
-- Exponential back-off: 30 seconds, doubled with each failure in a row, up to an hour.
update :"dlq_schema".alert_channel
set due_at = %(now)s::timestamptz + least(interval '30 seconds' * 2 ^ least(failures, 10), interval '1 hour'),
    failures = failures + 1, failed = failed + 1, last_error = left(%(error)s, 500) where id = %(id)s

-- name: has_queued_deaths
select (select min(death_id) from :"dlq_schema".death_notice) is not null and not exists (
    select from :"dlq_schema".alert_channel where id = %(id)s and due_at > %(now)s) as waiting

-- name: queued_deaths
-- The next deaths to send, by id. A death that was purged from the ledger has no columns.
select n.death_id, d.event_id, d.event_type, d.aggregate_type, d.aggregate_id, d.attempts, d.died_at,
    coalesce(c.merged_into, d.cause_id) as cause_id, left(c.exception_type, 200) as exception_type,
    d.detail
from (select death_id from :"dlq_schema".death_notice order by death_id limit %(limit)s) n
left join :"dlq_schema".death d on d.id = n.death_id
left join :"dlq_schema".cause c on c.id = d.cause_id
order by n.death_id

-- name: remove_queued_deaths
delete from :"dlq_schema".death_notice where death_id = any(%(ids)s::bigint[])
