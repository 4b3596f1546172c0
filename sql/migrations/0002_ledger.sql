-- The ledger of deaths, their causes, the fixes and retries, and who did what.

create table :"dlq_schema".cause (
    id             text        primary key,  -- minted once: the first fingerprint that was seen
    exception_type text        not null,
    template       text        not null,
    first_seen     timestamptz not null,
    last_seen      timestamptz not null,
    status         text        not null default 'open'
                   check (status in ('open', 'fixing', 'fixed', 'regressed')),
    -- Since when the cause is fixed: an event that was written later and dies is a regression.
    fixed_at       timestamptz,
    -- Set by people.
    name           text check (name <> ''),
    owner          text check (owner <> ''),
    note           text check (note <> ''),
    muted_until    timestamptz,
    -- Whether events are released as probes: null follows DLQ_PROBES for a transient cause.
    probe          text check (probe in ('on', 'off')),
    -- Whether such failures pass by themselves, decided by the first error that was seen.
    is_transient   boolean     not null default false,
    -- Never a merged cause, so one look-up finds the cause that is shown.
    merged_into    text references :"dlq_schema".cause,
    check (merged_into <> id),
    check ((status in ('fixed', 'regressed')) = (fixed_at is not null))
);
comment on table :"dlq_schema".cause
    is 'A class of failures with one root cause. Ids never change.';
create index cause_merged on :"dlq_schema".cause (merged_into) where merged_into is not null;
-- The sensor of probes reads these twice a minute, and no other cause.
create index cause_probed on :"dlq_schema".cause (id)
    where merged_into is null and (is_transient or probe = 'on');

create table :"dlq_schema".cause_alias (
    fingerprint text primary key,
    cause_id    text not null references :"dlq_schema".cause
);
comment on table :"dlq_schema".cause_alias is 'The cause of each fingerprint.';

-- After a new version of the fingerprint: a cause of an earlier version points to these.
create table :"dlq_schema".cause_successor (
    cause_id     text   not null references :"dlq_schema".cause,
    successor_id text   not null references :"dlq_schema".cause,
    deaths       bigint not null check (deaths > 0),
    primary key (cause_id, successor_id)
);
comment on table :"dlq_schema".cause_successor
    is 'What the deaths of causes of earlier versions of the fingerprint became, by a reindex.';
create index cause_successor_of on :"dlq_schema".cause_successor (successor_id);

-- A shown cause has a row for each detail of its members too, with no deaths of its own: the state
-- of a detail is that of the row of the shown cause, as the state of a merged cause is.
create table :"dlq_schema".cause_detail (
    cause_id   text        not null references :"dlq_schema".cause,
    detail     text        not null check (detail <> ''),
    first_seen timestamptz not null,
    last_seen  timestamptz not null,
    deaths     bigint      not null check (deaths >= 0),
    -- Of these, purged from the ledger.
    purged     bigint      not null default 0 check (purged <= deaths),
    status     text        not null default 'open'
               check (status in ('open', 'fixing', 'fixed', 'regressed')),
    -- Since when the detail is fixed, as in dlq.cause.
    fixed_at   timestamptz,
    primary key (cause_id, detail),
    check ((status in ('fixed', 'regressed')) = (fixed_at is not null))
);
comment on table :"dlq_schema".cause_detail is
    'What the errors of a cause name: its second level. Stays when the ledger is purged.';

create table :"dlq_schema".death (
    id             bigint generated always as identity primary key,
    event_id       :event_id_type not null,
    -- With the id the identity of the event: ids may begin again after a truncate or a restore.
    -- Null or infinite where the application's value is.
    event_created_at timestamptz,
    -- Empty where the application's value is null or its table has no such column.
    aggregate_type text        not null,
    aggregate_id   text        not null,
    event_type     text        not null,
    attempts       integer     not null,
    died_at        timestamptz not null,
    error          text,
    -- Dlq.cause; cause_day has the reference, because checking it for each death costs a third of
    -- classifying.
    cause_id       text,
    -- What the error names, such as a missing key; empty if it names nothing. Set with cause_id.
    detail         text,
    -- Set only if the event stopped being dead before its death was classified. For a classified
    -- death, dlq.dead says whether its event is still dead.
    ended_at       timestamptz,
    -- Whether the reconciliation recorded the death, because no trigger saw it.
    was_missed     boolean     not null default false,
    -- When `dlq erase` removed the error, and the payload of the archived event. Such an event is
    -- never restored.
    erased_at      timestamptz
);
comment on table :"dlq_schema".death
    is 'One row for each transition of an event to dead. Append-only; its cause is set once.';
-- An application's worker pays for these three indexes and the key. What only jobs need is in
-- dlq.dead, which the classification fills. Measured without waiting for the disk: a death takes 37
-- microseconds without a trigger, 80 with this table, and 95 if the worker writes dlq.dead too.
create index death_event on :"dlq_schema".death (event_id);
create index death_day on :"dlq_schema".death (died_at, id);
create index death_unclassified on :"dlq_schema".death (died_at, id) where cause_id is null;
-- Without unclassified deaths, so that a worker that records a death maintains one index less.
create index death_cause on :"dlq_schema".death (cause_id, died_at, id)
    where cause_id is not null;
-- For the files that still hold erased data. A worker pays nothing for it.
create index death_erased on :"dlq_schema".death (erased_at) where erased_at is not null;

-- The classification inserts a row for each death that it classifies and whose event is still dead.
-- It is deleted when the event is released, archived, or no longer dead for any other reason.
create table :"dlq_schema".dead (
    death_id         bigint        primary key,
    event_id         :event_id_type not null,
    event_created_at timestamptz,
    aggregate_type   text          not null,
    aggregate_id     text          not null,
    event_type       text          not null,
    died_at          timestamptz   not null,
    cause_id         text          not null,
    detail           text          not null default ''
);
comment on table :"dlq_schema".dead is 'Dead events whose last death is classified.';
create index dead_event_id on :"dlq_schema".dead (event_id);
create index dead_time on :"dlq_schema".dead (died_at, death_id);
create index dead_cause on :"dlq_schema".dead (cause_id, died_at, death_id);
-- For the details of a cause that most of the dead events share.
create index dead_detail on :"dlq_schema".dead (cause_id, detail, died_at, death_id)
    where detail <> '';
-- Without events that have no aggregate: in a table without aggregates these are all events, of one
-- key, and the planner would read all of what is dead instead. In the order of the events, so that
-- the first one of a long aggregate is found without reading the others.
create index dead_aggregate on :"dlq_schema".dead
    (hashtext(aggregate_id), (coalesce(event_created_at, '-infinity'::timestamptz)), event_id)
    where aggregate_id <> '';

-- Applications delete delivered events. The payloads of some are kept, to compare dead events with.
create table :"dlq_schema".delivered_sample (
    event_id         :event_id_type primary key,
    event_created_at timestamptz,
    event_type       text        not null,
    aggregate_type   text        not null,
    aggregate_id     text        not null,
    -- Without the values that DLQ_EXPORT_REDACT_PAYLOAD hides.
    payload          text        not null,
    kept_at          timestamptz not null
);
comment on table :"dlq_schema".delivered_sample is
    'Payloads of events that were not dead, for a comparison with dead ones. Kept for thirty days.';
create index delivered_sample_type on :"dlq_schema".delivered_sample (event_type, kept_at);

-- A death is shown as the cause that its own cause is merged into.
create view :"dlq_schema".shown_death as
select d.id,
    d.event_id,
    d.event_created_at,
    d.aggregate_type,
    d.aggregate_id,
    d.event_type,
    d.attempts,
    d.died_at,
    d.error,
    d.was_missed,
    coalesce(c.merged_into, d.cause_id) as cause_id,
    d.detail
from :"dlq_schema".death d left join :"dlq_schema".cause c on c.id = d.cause_id;
comment on view :"dlq_schema".shown_death is 'Every death with the cause that it is shown as.';

-- Dead events by death: those of dlq.dead and those whose death is not classified yet.
create view :"dlq_schema".dead_now as
select n.death_id,
    n.event_id,
    n.event_created_at,
    n.aggregate_type,
    n.aggregate_id,
    n.event_type,
    n.died_at,
    n.cause_id,
    n.detail
from :"dlq_schema".dead n
union all
select d.id,
    d.event_id,
    d.event_created_at,
    d.aggregate_type,
    d.aggregate_id,
    d.event_type,
    d.died_at,
    d.cause_id,
    d.detail
from :"dlq_schema".death d
where d.cause_id is null and d.ended_at is null;
comment on view :"dlq_schema".dead_now
    is 'What is dead now, by death, with the cause of each death.';

create view :"dlq_schema".dead_event as
select n.death_id,
    n.event_id,
    n.event_created_at,
    n.aggregate_type,
    n.aggregate_id,
    n.event_type,
    d.attempts,
    n.died_at,
    d.error,
    n.cause_id as own_cause_id,
    coalesce(c.merged_into, n.cause_id) as cause_id,
    n.detail
from :"dlq_schema".dead_now n
join :"dlq_schema".death d on d.id = n.death_id
left join :"dlq_schema".cause c on c.id = n.cause_id;
comment on view :"dlq_schema".dead_event is 'Dead events with their last death and its cause.';

-- A detail of a merged cause counts for the cause that it is merged into.
create view :"dlq_schema".shown_detail as
select coalesce(c.merged_into, c.id) as cause_id,
    k.detail,
    min(k.first_seen) as first_seen,
    max(k.last_seen) as last_seen,
    sum(k.deaths)::bigint as deaths,
    coalesce(max(k.status) filter (where c.merged_into is null), 'open') as status,
    max(k.fixed_at) filter (where c.merged_into is null) as fixed_at
from :"dlq_schema".cause_detail k
join :"dlq_schema".cause c on c.id = k.cause_id
group by 1, 2
having sum(k.deaths) > 0;
comment on view :"dlq_schema".shown_detail is
    'The details of each cause with those of the causes that are merged into it.';

-- Ends deaths: their events are no longer dead. First the unclassified ones: the update waits for a
-- classification of the same death, and the delete, a statement of its own, finds what it inserted.
create function :"dlq_schema".end_deaths(deaths bigint[]) returns void language plpgsql
    set enable_seqscan = off
as $$
begin
    update :"dlq_schema".death set ended_at = clock_timestamp()
    where id = any(deaths) and cause_id is null and ended_at is null;
    delete from :"dlq_schema".dead where death_id = any(deaths);
end
$$;

-- Reopens deaths: their events are dead again. First the unclassified ones, as above.
create function :"dlq_schema".reopen_deaths(deaths bigint[]) returns void language plpgsql
    set enable_seqscan = off
as $$
begin
    update :"dlq_schema".death set ended_at = null where id = any(deaths) and cause_id is null;
    insert into :"dlq_schema".dead
    select id,
        event_id,
        event_created_at,
        aggregate_type,
        aggregate_id,
        event_type,
        died_at,
        cause_id,
        coalesce(detail, '')
    from :"dlq_schema".death where id = any(deaths) and cause_id is not null
    on conflict do nothing;
end
$$;

-- A death is shown as the cause that its own cause is merged into.
create table :"dlq_schema".cause_day (
    day            date   not null,
    cause_id       text   not null references :"dlq_schema".cause,
    event_type     text   not null,
    aggregate_type text   not null,
    deaths         bigint not null check (deaths > 0),
    primary key (day, cause_id, event_type, aggregate_type)
);
comment on table :"dlq_schema".cause_day
    is 'Deaths by day and cause. Stays when the ledger is purged.';

create table :"dlq_schema".audit (
    id     bigint generated always as identity primary key,
    kind   text        not null,
    actor  text        not null check (actor <> ''),
    reason text        not null check (reason <> ''),
    filter jsonb       not null,
    events bigint      not null check (events >= 0),
    at     timestamptz not null,
    run_id text  -- the Dagster run, if one made the change
);
comment on table :"dlq_schema".audit
    is 'Who changed what, with which filter, when, how many events.';
-- For the changes of a day by kind, and for the sums by kind in metrics. There is one row a batch
-- of 5,000 events.
create index audit_kind on :"dlq_schema".audit (kind, at) include (events);

create table :"dlq_schema".fix (
    id             bigint generated always as identity primary key,
    -- The selection: deaths that match all of these. Null: not given.
    cause_id       text references :"dlq_schema".cause,
    detail         text check (detail <> ''),
    event_type     text check (event_type <> ''),
    aggregate_type text check (aggregate_type <> ''),
    event_ids      :event_id_type[] check (cardinality(event_ids) between 1 and 10000),
    attempts       integer check (attempts >= 0),
    aggregate_id   text check (aggregate_id <> '' and length(aggregate_id) <= 1000),
    error_contains text check (error_contains <> '' and length(error_contains) <= 1000),
    -- A jsonpath predicate on the payload.
    "where"        text check (
        "where" is null
        or length("where") <= 1000 and :"dlq_schema".payload_predicate("where") is not null),
    since     timestamptz,
    until     timestamptz check (until > since),
    -- All dead events; explicit, because an empty filter may be a forgotten one.
    "all"          boolean     not null default false,
    -- The claim, and who makes it.
    note           text        not null check (note <> '' and length(note) <= 10000),
    -- Version or address of the change.
    link           text        check (link <> '' and length(link) <= 2000),
    owner          text        check (owner <> '' and length(owner) <= 200),
    flagged_by     text        not null check (flagged_by <> ''),
    flagged_at     timestamptz not null,
    not_before     timestamptz,
    expires_at     timestamptz,
    -- The policy. All null until the first step, which stores the installation's.
    canary         integer          check (canary between 1 and 5000),
    growth         double precision check (growth between 1 and 1000),
    rate           double precision check (rate between 0.001 and 100000),
    min_success    double precision check (min_success > 0 and min_success <= 1),
    settle_seconds integer          check (settle_seconds between 1 and 604800),
    max_retries    integer          check (max_retries between 1 and 100),
    "order"        text             check ("order" in ('aggregate', 'none')),
    check (num_nulls(canary, growth, rate, min_success, settle_seconds, max_retries, "order")
           in (0, 7)),
    -- Set for a fix of a whole cause or of one of its details: the state of that cause or detail
    -- before, which returns if the fix ends without a verdict.
    status_before   text,
    fixed_at_before timestamptz,
    -- Progress and result.
    stage          integer     not null default 0,  -- the last stage that began; 0: none
    stepped_at     timestamptz,                     -- when a run last advanced it
    last_due_at    timestamptz,  -- of the event that it released last; the next one is due later
    -- What the worker can take of its rate, by the outcomes so far; null: all of it.
    current_rate   double precision check (current_rate > 0),
    -- At which it released its last events: its share of the worker.
    release_rate   double precision check (release_rate > 0),
    -- What the current rate was judged by; see retries/pace.py.
    rate_state     jsonb,
    -- When its stage can go on although events have no outcome yet; null: it waits for outcomes.
    refill_at      timestamptz,
    status         text        not null default 'active'
                   check (status in ('active', 'paused', 'verified', 'halted', 'withdrawn',
                                     'expired', 'rejected')),
    verdict        text,
    -- Of a halted fix: [{events, outcome, before, after}].
    evidence       jsonb       not null default '[]',
    closed_at      timestamptz,
    check ((status in ('active', 'paused')) = (closed_at is null))
);
comment on table :"dlq_schema".fix
    is 'A claim that a cause or another selection is resolved. Targets deaths before flagged_at.';
create index fix_open on :"dlq_schema".fix (cause_id) where closed_at is null;
-- For fixes that ended with released events that are not due yet.
create index fix_stopped on :"dlq_schema".fix (closed_at)
    where status in ('halted', 'withdrawn', 'expired');
-- For what probes healed, which alerts ask for every minute.
create index fix_healed on :"dlq_schema".fix (closed_at)
    where status = 'verified' and flagged_by = 'probe';
-- Two open fixes of one whole cause or detail would count each other's successes as proof.
create unique index fix_open_cause on :"dlq_schema".fix (cause_id, coalesce(detail, ''))
    where closed_at is null and status_before is not null;

-- Whether the payload of an event, in the outbox or the archive, matches a jsonpath predicate. One
-- that is no JSON, or on which the predicate fails, does not: the fix of one team must not stop the
-- archive of all events. The ledger has no payloads, so this reads the event by its key.
create function :"dlq_schema".payload_matches(
    death :"dlq_schema".death, predicate text
) returns boolean language plpgsql stable
as $$
declare
    found_payload text;
begin
    select o.payload into found_payload
    from :"dlq_schema".outbox o
    where o.id = death.event_id and o.created_at is not distinct from death.event_created_at
    limit 1;
    if not found then
        select a.payload into found_payload
        from :"dlq_schema".archive a where a.death_id = death.id limit 1;
    end if;
    -- With time zones, because `.datetime()` of a date fails without, also if silent.
    return coalesce(
        jsonb_path_match_tz(found_payload::jsonb, predicate::jsonpath, '{}', silent => true),
        false);
exception when data_exception or program_limit_exceeded or feature_not_supported then
    return false;
end
$$;

-- Whether a fix selects a death that is shown as this cause. The only definition of a selection:
-- every statement that counts, releases, archives or exports calls it. The planner inlines it, also
-- where a row of a subquery is cast to dlq.death. Not parallel: payload_matches catches errors.
create function :"dlq_schema".selects(fix :"dlq_schema".fix, death :"dlq_schema".death, cause text)
    returns boolean language sql stable
    return (fix.cause_id is null or cause = fix.cause_id)
        and (fix.detail is null or death.detail = fix.detail)
        and (fix.event_type is null or death.event_type = fix.event_type)
        and (fix.aggregate_type is null or death.aggregate_type = fix.aggregate_type)
        and (fix.aggregate_id is null or death.aggregate_id = fix.aggregate_id)
        and (fix.event_ids is null or death.event_id = any(fix.event_ids))
        and (fix.attempts is null or death.attempts = fix.attempts)
        and (fix.since is null or death.died_at >= fix.since)
        and (fix.until is null or death.died_at < fix.until)
        and (fix.flagged_at is null or death.died_at < fix.flagged_at)
        and (fix.error_contains is null or position(fix.error_contains in death.error) > 0)
        and (fix."where" is null or :"dlq_schema".payload_matches(death, fix."where"));

-- How many filters a fix has. Every filter of dlq.selects is listed here.
create function :"dlq_schema".count_filters(fix :"dlq_schema".fix)
    returns integer language sql immutable parallel safe
    return num_nonnulls(fix.cause_id, fix.detail, fix.event_type, fix.aggregate_type,
                        fix.aggregate_id, fix.event_ids, fix.attempts, fix.error_contains,
                        fix."where", fix.since, fix.until);
-- Also for rows that are written by hand. Without a filter and without "all", such a row would
-- select every dead event.
alter table :"dlq_schema".fix add constraint fix_filters_or_all
    check ("all" = (:"dlq_schema".count_filters(fix) = 0));

-- Whether a fix selects a dead event.
create function :"dlq_schema".selects(fix :"dlq_schema".fix, event :"dlq_schema".dead_event)
    returns boolean language sql stable
    return :"dlq_schema".selects(
        fix,
        row(
            event.death_id,
            event.event_id,
            event.event_created_at,
            event.aggregate_type,
            event.aggregate_id,
            event.event_type,
            event.attempts,
            event.died_at,
            event.error,
            event.own_cause_id,
            event.detail,
            null::timestamptz,
            false,
            null::timestamptz
        ):::"dlq_schema".death,
        event.cause_id);

-- Deaths of dead events that an open fix targets: their events are not archived.
create view :"dlq_schema".wanted as
select e.death_id
from :"dlq_schema".dead_event e
join :"dlq_schema".fix f on f.closed_at is null and :"dlq_schema".selects(f, e);
comment on view :"dlq_schema".wanted is
    'Deaths that an open fix targets: their events are not archived.';

-- Whether a fix selects all deaths of its cause, or all that name one detail of it. Only such a fix
-- changes the state of the cause or of the detail: a narrower one says nothing about the others.
create function :"dlq_schema".selects_whole_cause(fix :"dlq_schema".fix)
    returns boolean language sql immutable parallel safe
    return fix.cause_id is not null and :"dlq_schema".count_filters(fix) = 1;
create function :"dlq_schema".selects_whole_detail(fix :"dlq_schema".fix)
    returns boolean language sql immutable parallel safe
    return num_nonnulls(fix.cause_id, fix.detail) = 2 and :"dlq_schema".count_filters(fix) = 2;

-- Whether the filters of two fixes leave open that both select the same event. A filter that is
-- missing here costs time only, because dlq.place_fix then looks the events up.
create function :"dlq_schema".can_overlap(a :"dlq_schema".fix, b :"dlq_schema".fix)
    returns boolean language sql immutable parallel safe
    return coalesce(a.cause_id = b.cause_id, true)
        and coalesce(a.detail = b.detail, true)
        and coalesce(a.event_type = b.event_type, true)
        and coalesce(a.aggregate_type = b.aggregate_type, true)
        and coalesce(a.aggregate_id = b.aggregate_id, true)
        and coalesce(a.event_ids && b.event_ids, true)
        and coalesce(a.attempts = b.attempts, true)
        and coalesce(a.since < b.until, true)
        and coalesce(b.since < a.until, true);

create table :"dlq_schema".fix_stage (
    fix_id    bigint      not null references :"dlq_schema".fix,
    stage     integer     not null check (stage > 0),
    size      bigint      not null check (size > 0),  -- how many events it may release
    begun_at  timestamptz not null,
    -- Also those that were recalled: of these the stage may release as many again.
    released  bigint      not null default 0 check (released >= 0),
    primary key (fix_id, stage)
);
comment on table :"dlq_schema".fix_stage is 'One release of a fix. The first stage is the canary.';

-- Outcomes are counted as they are written. Counting the ledger at each step would read a fix of a
-- million events hundreds of times.
create table :"dlq_schema".fix_outcome (
    fix_id  bigint  not null,
    stage   integer not null,
    outcome text    not null
            check (outcome in ('delivered', 'died_again', 'timed_out', 'deleted', 'recalled')),
    events  bigint  not null check (events >= 0),
    -- Of these, purged from the ledger with their deaths.
    purged  bigint  not null default 0 check (purged <= events),
    primary key (fix_id, stage, outcome),
    foreign key (fix_id, stage) references :"dlq_schema".fix_stage
);
comment on table :"dlq_schema".fix_outcome
    is 'Events of each stage by their outcome. Stays when the ledger is purged.';

create table :"dlq_schema".retry (
    -- A death is retried once; the next retry needs a new death. Without references, which would
    -- cost a release a quarter of its time: the statement that writes a row has just read its death
    -- and holds the lock of its fix.
    death_id       bigint      primary key,
    event_id       :event_id_type not null,
    event_created_at timestamptz,
    aggregate_type text        not null,
    aggregate_id   text        not null,
    fix_id         bigint,
    stage          integer,
    actor          text        not null check (actor <> ''),
    reason         text        not null check (reason <> ''),
    retried_at     timestamptz not null,
    due_at         timestamptz not null,
    payload_before text,  -- the old payload, if a person retried the event with a new one
    -- Until the outcome is known: what the release overwrote, as texts in the order of
    -- dlq.released_columns.
    row_before     text[],
    outcome        text
                   check (outcome in ('delivered', 'died_again', 'timed_out', 'deleted')),
    settled_at     timestamptz,
    late_at        timestamptz,  -- of a retry that timed out: when its delivery was noted
    check ((fix_id is null) = (stage is null)),
    check ((outcome is null) = (settled_at is null)),
    check (late_at is null or outcome = 'timed_out')
);
comment on table :"dlq_schema".retry
    is 'One row for each retry of an event: its death, due time and outcome.';
create index retry_event on :"dlq_schema".retry (event_id, event_created_at);
create index retry_outstanding on :"dlq_schema".retry (fix_id, due_at) where outcome is null;
-- For an event that waits for an earlier event of its aggregate.
create index retry_aggregate on :"dlq_schema".retry (hashtext(aggregate_id))
    where aggregate_id <> '' and (outcome is null or outcome = 'timed_out');
create index retry_edited on :"dlq_schema".retry (event_id, death_id)
    where payload_before is not null;
-- For the retries and outcomes of a day. Rows are written in the order of time, so a BRIN index is
-- enough, and a release writes no further index entry.
create index retry_time on :"dlq_schema".retry using brin (retried_at, settled_at)
    with (pages_per_range = 32);
-- For the failed retries of a stage.
create index retry_failed on :"dlq_schema".retry (fix_id, stage, event_id)
    where outcome in ('died_again', 'timed_out', 'deleted');
-- For the count of parked events, each minute.
create index retry_failed_event on :"dlq_schema".retry (event_id)
    where outcome in ('died_again', 'timed_out', 'deleted');

-- A recalled event is dead of the same death again, which can then be retried again. So the row
-- leaves dlq.retry, and no count of retries includes it.
create table :"dlq_schema".recalled (
    death_id       bigint      not null,
    event_id       :event_id_type not null,
    event_created_at timestamptz,
    aggregate_type text        not null,
    aggregate_id   text        not null,
    fix_id         bigint,
    stage          integer,
    actor          text        not null check (actor <> ''),
    reason         text        not null check (reason <> ''),
    retried_at     timestamptz not null,
    due_at         timestamptz not null,
    recalled_at    timestamptz not null,
    recalled_by    text        not null check (recalled_by <> ''),
    recall_reason  text        not null check (recall_reason <> ''),
    check ((fix_id is null) = (stage is null))
);
comment on table :"dlq_schema".recalled
    is 'Retries that were recalled before a worker took their events. As dlq.retry, and by whom.';
create index recalled_death on :"dlq_schema".recalled (death_id);
create index recalled_event on :"dlq_schema".recalled (event_id);
create index recalled_time on :"dlq_schema".recalled using brin (retried_at, recalled_at)
    with (pages_per_range = 32);

-- What the next decision about probes needs. Each release is a row of dlq.retry and an audit entry.
-- One row a cause, so a cause has one probe at a time.
create table :"dlq_schema".probe (
    cause_id  text        primary key references :"dlq_schema".cause,
    tries     integer     not null check (tries >= 0),  -- probes since the cause last healed
    -- The death whose event was released and whose outcome no run has judged yet.
    death_id  bigint,
    fix_id    bigint      references :"dlq_schema".fix,  -- the fix that a delivered probe flagged
    next_at   timestamptz not null,  -- no probe is released before
    probed_at timestamptz not null,
    check (num_nonnulls(death_id, fix_id) <= 1)
);
comment on table :"dlq_schema".probe
    is 'Causes with probes: the event that was released, or the fix that a delivered one flagged.';
create index probe_running on :"dlq_schema".probe (cause_id)
    where death_id is not null or fix_id is not null;

create table :"dlq_schema".discard (
    death_id     bigint      primary key references :"dlq_schema".death,
    event_id     :event_id_type not null,
    actor        text        not null check (actor <> ''),
    reason       text        not null check (reason <> ''),
    discarded_at timestamptz not null
);
comment on table :"dlq_schema".discard
    is 'Dead events that a person discarded: archived at once, restored only by their ids.';
create index discard_event on :"dlq_schema".discard (event_id);

-- Deaths are kept here as long as the ledger knows them. With a count in the audit log alone, a
-- loss could hide behind a purge, because no event could be named.
create table :"dlq_schema".purged (
    death_id    bigint      primary key,
    event_id    :event_id_type not null,
    audit_id    bigint      not null references :"dlq_schema".audit,
    purged_at   timestamptz not null,
    -- As in the archive: a report of a day before the purge still counts the event as archived or
    -- dead.
    died_at     timestamptz not null,
    archived_at timestamptz not null
);
comment on table :"dlq_schema".purged
    is 'Events that the purge deleted from the archive. Kept while the ledger has their deaths.';
create index purged_event on :"dlq_schema".purged (event_id);
create index purged_time on :"dlq_schema".purged using brin (purged_at) with (pages_per_range = 32);

create table :"dlq_schema".restored (
    death_id    bigint      not null,
    event_id    :event_id_type not null,
    died_at     timestamptz not null,
    archived_at timestamptz not null,
    restored_at timestamptz not null
);
create index restored_death on :"dlq_schema".restored (death_id);
comment on table :"dlq_schema".restored
    is 'Past stays of restored events in the archive, for reports of the days in between.';

create table :"dlq_schema".reconciliation (
    checked_at timestamptz primary key,
    missing    bigint not null,
    duplicated bigint not null,
    missed     bigint not null,
    event_ids  text[] not null
);
comment on table :"dlq_schema".reconciliation
    is 'Results of each reconciliation: events that are missing, or in both tables.';

create table :"dlq_schema".export_day (
    day         date        primary key,
    -- The instants of the day as it was exported. The database does not know the time zone, and a
    -- changed setting must not move the events of half a day.
    starts_at   timestamptz not null,
    ends_at     timestamptz not null check (ends_at > starts_at),
    rows        bigint      not null,
    first_id    bigint,
    last_id     bigint,
    files       jsonb       not null,  -- [{name, bytes, sha256}], the manifest last
    exported_at timestamptz not null,
    -- When the files were read again and found complete; null: not verified.
    verified_at timestamptz,
    -- Deaths of the day that were purged from the ledger since.
    purged      bigint      not null default 0,
    -- When the retention deleted the files. The day still counts as exported: its events were
    -- handed over, and another export would only bring the files back.
    deleted_at  timestamptz
);
comment on table :"dlq_schema".export_day
    is 'The export of each day: its bounds, and its files with sizes and checksums.';

create table :"dlq_schema".report_day (
    day       date        primary key,
    headline  text        not null,
    figures   jsonb       not null,  -- the figures that the list of reports shows
    files     jsonb       not null,  -- [{name, bytes, sha256}]
    built_at  timestamptz not null,
    deleted_at timestamptz           -- when the retention deleted the files
);
comment on table :"dlq_schema".report_day is 'The last report that was built for each day.';
