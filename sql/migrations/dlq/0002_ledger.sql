-- The ledger of deaths, their causes, the fixes and retries, and who did what.

create table :"dlq_schema".cause (
    id             text        primary key,  -- minted once: the first fingerprint that was seen
    exception_type text        not null,
    template       text        not null,
    sample         text        not null,
    first_seen     timestamptz not null,
    last_seen      timestamptz not null,
    status         text        not null default 'open' check (status in ('open', 'fixing', 'fixed', 'regressed')),
    fixed_at       timestamptz,  -- since when events met the mended upstream: what is written later and dies is a relapse
    -- What people say of it.
    name           text check (name <> ''),
    owner          text check (owner <> ''),
    note           text check (note <> ''),
    muted_until    timestamptz,
    merged_into    text references :"dlq_schema".cause,  -- never a merged one: one step leads to the cause that is shown
    check (merged_into <> id),
    check ((status in ('fixed', 'regressed')) = (fixed_at is not null))
);
comment on table :"dlq_schema".cause is 'A class of failures with one root. Ids never change.';
create index cause_merged on :"dlq_schema".cause (merged_into) where merged_into is not null;

create table :"dlq_schema".cause_alias (
    fingerprint text primary key,
    cause_id    text not null references :"dlq_schema".cause
);

create table :"dlq_schema".death (
    id             bigint generated always as identity primary key,
    event_id       bigint      not null,
    aggregate_type text        not null,
    aggregate_id   text        not null,
    event_type     text        not null,
    attempts       integer     not null,
    died_at        timestamptz not null,
    error          text,
    cause_id       text,  -- of dlq.cause; cause_day's reference guards it, checking it a death costs a third of classifying
    -- One event dies once at one moment: what makes recording a death idempotent.
    unique (event_id, died_at)
);
comment on table :"dlq_schema".death is 'One row a transition of an event to dead. Append-only; cause_id is filled in once.';
create index death_unclassified on :"dlq_schema".death (id) where cause_id is null;
create index death_day on :"dlq_schema".death (died_at, id);
-- Not of the unclassified ones: a worker that records a death then pays for one index less.
create index death_cause on :"dlq_schema".death (cause_id, died_at, id) where cause_id is not null;

-- What people see: a death has the cause that its own is merged into.
create view :"dlq_schema".shown_death as
select d.id, d.event_id, d.aggregate_type, d.aggregate_id, d.event_type, d.attempts, d.died_at, d.error,
    coalesce(c.merged_into, d.cause_id) as cause_id
from :"dlq_schema".death d left join :"dlq_schema".cause c on c.id = d.cause_id;

create table :"dlq_schema".cause_day (
    day            date   not null,
    cause_id       text   not null references :"dlq_schema".cause,
    event_type     text   not null,
    aggregate_type text   not null,
    deaths         bigint not null check (deaths > 0),
    primary key (day, cause_id, event_type, aggregate_type)
);
comment on table :"dlq_schema".cause_day is 'Deaths a day and cause. Stays when the ledger is purged.';

create table :"dlq_schema".operation (
    id     bigint generated always as identity primary key,
    kind   text        not null,
    actor  text        not null check (actor <> ''),
    reason text        not null check (reason <> ''),
    filter jsonb       not null,
    events bigint      not null check (events >= 0),
    at     timestamptz not null,
    run_id text  -- of Dagster, when a run did it
);
comment on table :"dlq_schema".operation is 'Who changed what, with which filter, when, how many events.';

create table :"dlq_schema".fix (
    id             bigint generated always as identity primary key,
    cause_id       text             references :"dlq_schema".cause,
    event_type     text,
    note           text             not null,
    flagged_by     text             not null check (flagged_by <> ''),
    flagged_at     timestamptz      not null,
    canary         integer          not null check (canary between 1 and 5000),
    rate           double precision not null check (rate > 0),
    min_success    double precision not null check (min_success > 0 and min_success <= 1),
    settle_seconds integer          not null check (settle_seconds > 0),
    stage          integer          not null default 0,  -- the last stage that was begun; 0: none yet
    stage_size     bigint,                               -- how many events that stage may release; null: all that are left
    status         text             not null default 'active'
                   check (status in ('active', 'verified', 'halted', 'withdrawn', 'rejected')),
    verdict        text,
    closed_at      timestamptz,
    check ((status = 'active') = (closed_at is null))
);
comment on table :"dlq_schema".fix is 'A statement that a cause is mended upstream. Targets the deaths before flagged_at.';
-- Two flags for the same cause at once would count each other's successes as proof.
create unique index fix_active on :"dlq_schema".fix (cause_id) where status = 'active';

create table :"dlq_schema".retry (
    id           bigint generated always as identity primary key,
    event_id     bigint      not null,
    death_id     bigint      not null references :"dlq_schema".death,
    fix_id       bigint      references :"dlq_schema".fix,
    stage        integer,
    actor        text        not null check (actor <> ''),
    reason       text        not null check (reason <> ''),
    retried_at   timestamptz not null,
    due_at       timestamptz not null,
    outcome      text        check (outcome in ('done', 'dead', 'unsettled', 'gone')),
    settled_at   timestamptz,
    unique (fix_id, event_id),
    -- A death is answered by one retry: the next needs a new death.
    unique (death_id),
    check ((fix_id is null) = (stage is null)),
    check ((outcome is null) = (settled_at is null))
);
comment on table :"dlq_schema".retry is 'One row a retried event: which death it answers, when it falls due, what became of it.';
create index retry_stage on :"dlq_schema".retry (fix_id, stage, outcome);
create index retry_event on :"dlq_schema".retry (event_id);
create index retry_unsettled on :"dlq_schema".retry (due_at, id) where outcome is null;

create table :"dlq_schema".export_day (
    day         date        primary key,
    rows        bigint      not null,
    first_id    bigint,
    last_id     bigint,
    files       jsonb       not null,  -- [{name, bytes, sha256}], the manifest last
    exported_at timestamptz not null,
    verified_at timestamptz  -- when the files were read again and found whole; null: not yet, or they are not
);
comment on table :"dlq_schema".export_day is 'What was exported for a day: its files with sizes and sums.';
