-- What went wrong with us or with the outbox, who was told, and what is still to be told.

create table :"dlq_schema".job_run (
    job          text not null,
    day          text not null default '',  -- '': the job itself
    succeeded_at timestamptz,  -- written by the run itself
    failed_at    timestamptz,  -- read from Dagster: a killed run writes nothing
    failed_run   text,
    primary key (job, day)
);
comment on table :"dlq_schema".job_run is 'When each of our jobs, and of those with days each day, last succeeded and last failed for good.';

create table :"dlq_schema".job_look (
    looked_until timestamptz not null default now()
);
comment on table :"dlq_schema".job_look is 'Until when runs ended that were looked at for failures. One row.';
insert into :"dlq_schema".job_look default values;

create table :"dlq_schema".check_result (
    name       text        primary key,
    passed     boolean     not null,
    severity   text        not null check (severity in ('info', 'warning', 'critical')),
    figures    jsonb       not null,
    checked_at timestamptz not null
);
comment on table :"dlq_schema".check_result is 'What each asset check found last. A scrape or a sensor may not recount the ledger.';

create table :"dlq_schema".alert (
    key            text        primary key,
    rule           text        not null,
    severity       text        not null check (severity in ('info', 'warning', 'critical')),
    event_type     text,
    summary        text        not null,
    detail         text        not null,
    fired_at       timestamptz not null,  -- when this episode began
    missing_since  timestamptz,           -- since when it is not the case any more; for some minutes it may come back
    told_at        timestamptz,           -- when people were last told of this episode; null: not yet
    resolved_at    timestamptz,
    silenced_until timestamptz,
    check (resolved_at >= fired_at)
);
comment on table :"dlq_schema".alert is 'One row an alert that is firing or was. Silenced ones are found, and told to nobody.';
create index alert_firing on :"dlq_schema".alert (key) where resolved_at is null;
create index alert_resolved on :"dlq_schema".alert (resolved_at);

create table :"dlq_schema".alert_notice (
    id         bigint generated always as identity primary key,
    key        text        not null,
    kind       text        not null check (kind in ('fired', 'repeated', 'resolved', 'digest')),
    severity   text        not null,
    event_type text,
    summary    text        not null,
    detail     text        not null,
    at         timestamptz not null
);
comment on table :"dlq_schema".alert_notice is 'What is to be told, written in the transaction that decides it.';
create index alert_notice_at on :"dlq_schema".alert_notice (at);
-- A day's digest is told once, however often its report is built.
create unique index alert_notice_digest on :"dlq_schema".alert_notice (key) where kind = 'digest';

-- Made with the schema and never changed: notices of two installations, or of a database made anew, have one number and
-- are not the same.
create table :"dlq_schema".installation (
    id      uuid        primary key default gen_random_uuid(),
    made_at timestamptz not null default now()
);
comment on table :"dlq_schema".installation is 'By which receivers of webhooks tell installations apart, and since when it is there. One row.';
insert into :"dlq_schema".installation default values;

create table :"dlq_schema".alert_delivery (
    notice_id   bigint      not null references :"dlq_schema".alert_notice on delete cascade,
    channel     text        not null,
    attempts    integer     not null default 0,
    sent_at     timestamptz,
    given_up_at timestamptz,
    primary key (notice_id, channel)
);
comment on table :"dlq_schema".alert_delivery is 'A notice for a channel. At least once: recorded as sent after it was.';
create index alert_delivery_open on :"dlq_schema".alert_delivery (channel, notice_id)
    where sent_at is null and given_up_at is null;

create table :"dlq_schema".alert_channel (
    id         text        primary key,  -- scheme and six hexadecimal digits of the address's hash; never the address
    due_at     timestamptz not null,     -- leased or waiting until then
    failures   integer     not null default 0,  -- since it last worked
    last_error text,
    sent_at    timestamptz,
    sent       bigint      not null default 0,  -- messages, ever
    failed     bigint      not null default 0
);
comment on table :"dlq_schema".alert_channel is 'How each channel is doing. One that fails waits, and no other waits for it.';

-- Deaths that the webhook of deaths was not told of yet. Filled by the transaction that classifies them, each once, so
-- none is skipped however ids commit; a position in the ledger would pass over what commits late.
create table :"dlq_schema".death_notice (
    death_id bigint primary key
);
comment on table :"dlq_schema".death_notice is 'Deaths that DLQ_DEATH_WEBHOOK_URL was not told of yet.';

-- What rules ask each minute.
create index cause_new on :"dlq_schema".cause (first_seen) where merged_into is null;
create index cause_regressed on :"dlq_schema".cause (id) where status = 'regressed';
create index cause_muted on :"dlq_schema".cause (id) where muted_until is not null;
create index fix_halted on :"dlq_schema".fix (closed_at) where status = 'halted';
