-- Alerts, the results that they rest on, and the delivery of notices.

create table :"dlq_schema".job_run (
    job          text not null,
    day          text not null default '',  -- '' for a job without partitions
    succeeded_at timestamptz,  -- recorded by the run
    failed_at    timestamptz,  -- read from Dagster, because a killed run writes nothing
    failed_run   text,
    primary key (job, day)
);
comment on table :"dlq_schema".job_run
    is 'Last success and last failure of each job, and of each day of a partitioned job.';

create table :"dlq_schema".job_scan (
    scanned_until timestamptz not null default now()
);
comment on table :"dlq_schema".job_scan
    is 'The scan of Dagster runs for failures: runs that ended before this time are done. One row.';
insert into :"dlq_schema".job_scan default values;

create table :"dlq_schema".check_result (
    name       text        primary key,
    passed     boolean     not null,
    severity   text        not null check (severity in ('info', 'warning', 'critical')),
    figures    jsonb       not null,
    checked_at timestamptz not null
);
comment on table :"dlq_schema".check_result
    is 'Last result of each asset check, for metrics and alerts, which cannot run the checks.';

create table :"dlq_schema".alert (
    key            text        primary key,
    rule           text        not null,
    severity       text        not null check (severity in ('info', 'warning', 'critical')),
    event_type     text,
    owner          text,  -- of its cause
    summary        text        not null,
    detail         text        not null,
    link           text,  -- where to look: an address of dlq serve or of Dagster's UI
    fired_at       timestamptz not null,  -- start of this episode
    missing_since  timestamptz,  -- since when no rule finds it; it resolves ten minutes later
    notified_at    timestamptz,           -- time of the last notice of this episode
    resolved_at    timestamptz,
    silenced_until timestamptz,
    check (resolved_at >= fired_at)
);
comment on table :"dlq_schema".alert is 'Alerts that fire or fired.';
create index alert_firing on :"dlq_schema".alert (key) where resolved_at is null;
create index alert_resolved on :"dlq_schema".alert (resolved_at);

create table :"dlq_schema".alert_notice (
    id         bigint generated always as identity primary key,
    key        text        not null,
    kind       text        not null check (kind in ('fired', 'repeated', 'resolved', 'digest')),
    severity   text        not null,
    event_type text,
    owner      text,
    summary    text        not null,
    detail     text        not null,
    link       text,
    at         timestamptz not null
);
comment on table :"dlq_schema".alert_notice
    is 'Notices, written in the transaction that decides them.';
create index alert_notice_at on :"dlq_schema".alert_notice (at);
-- The digest of a day is sent once, however often its report is built.
create unique index alert_notice_digest on :"dlq_schema".alert_notice (key) where kind = 'digest';

-- Never changes. Notices of two installations, or of a recreated database, have equal ids and
-- differ by this one.
create table :"dlq_schema".installation (
    id      uuid        primary key default gen_random_uuid(),
    created_at timestamptz not null default now()
);
comment on table :"dlq_schema".installation
    is 'Identifies this installation to receivers of webhooks. One row.';
insert into :"dlq_schema".installation default values;

create table :"dlq_schema".alert_delivery (
    notice_id   bigint      not null references :"dlq_schema".alert_notice on delete cascade,
    channel     text        not null,
    attempts    integer     not null default 0,
    sent_at     timestamptz,
    given_up_at timestamptz,
    primary key (notice_id, channel)
);
comment on table :"dlq_schema".alert_delivery
    is 'A notice for a channel. Delivery is at least once: sent_at is written after sending.';
create index alert_delivery_open on :"dlq_schema".alert_delivery (channel, notice_id)
    where sent_at is null and given_up_at is null;

create table :"dlq_schema".alert_channel (
    -- Scheme and six hexadecimal digits of the hash of the URL; never the URL.
    id         text        primary key,
    due_at     timestamptz not null,     -- end of the lease or of the back-off
    failures   integer     not null default 0,  -- since the last success
    last_error text,
    sent_at    timestamptz,
    sent       bigint      not null default 0,  -- messages, ever
    failed     bigint      not null default 0
);
comment on table :"dlq_schema".alert_channel
    is 'State of each channel. A channel that fails backs off and delays no other channel.';

-- Deaths to send to DLQ_DEATH_WEBHOOK_URL, queued once by the transaction that classifies them. A
-- cursor over the ledger would skip deaths that commit late.
create table :"dlq_schema".death_notice (
    death_id bigint primary key
);
comment on table :"dlq_schema".death_notice
    is 'Deaths that were not sent to DLQ_DEATH_WEBHOOK_URL yet.';

-- For the rules, which run every minute.
create index cause_new on :"dlq_schema".cause (first_seen) where merged_into is null;
create index cause_regressed on :"dlq_schema".cause (id) where status = 'regressed';
create index cause_detail_new on :"dlq_schema".cause_detail (first_seen);
create index cause_detail_regressed on :"dlq_schema".cause_detail (cause_id)
    where status = 'regressed';
create index cause_muted on :"dlq_schema".cause (id) where muted_until is not null;
create index fix_halted on :"dlq_schema".fix (closed_at) where status = 'halted';
