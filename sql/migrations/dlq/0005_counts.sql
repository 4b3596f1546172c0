-- Counts for metrics. They stay when the ledger is purged, are small however many events die, and
-- are written in the transaction that classifies deaths or records outcomes, so they cost workers
-- nothing. They never decrease.

-- Event types and aggregate types with a series of their own: the first 50 of each. The rest is
-- counted as `other`. The list only grows, because a series that disappears and returns breaks its
-- counter.
create table :"dlq_schema".metric_label (
    name  text not null check (name in ('event_type', 'aggregate_type')),
    value text not null,
    primary key (name, value)
);
comment on table :"dlq_schema".metric_label
    is 'Types that have a series of their own in the metrics. Never deleted.';

-- Bucket bounds of the histogram of attempts; the last bound is infinity.
create function :"dlq_schema".attempts_bucket(attempts integer)
    returns integer language sql immutable parallel safe as $$
    select case
        when attempts <= 1 then 1
        when attempts <= 2 then 2
        when attempts <= 3 then 3
        when attempts <= 5 then 5
        when attempts <= 10 then 10
        when attempts <= 20 then 20
        when attempts <= 50 then 50
        else 2147483647 end
$$;

create table :"dlq_schema".death_count (
    event_type     text    not null,
    aggregate_type text    not null,
    attempts_up_to integer not null,
    deaths         bigint  not null check (deaths > 0),
    attempts       bigint  not null,  -- the sum over these deaths
    primary key (event_type, aggregate_type, attempts_up_to)
);
comment on table :"dlq_schema".death_count
    is 'Classified deaths by type, for metrics. Never purged.';

create table :"dlq_schema".death_hour (
    hour       timestamptz not null,
    event_type text        not null,
    deaths     bigint      not null check (deaths > 0),
    primary key (hour, event_type)
);
comment on table :"dlq_schema".death_hour
    is 'Classified deaths by hour, the base of anomaly alerts. Kept for 15 days.';

create table :"dlq_schema".cause_count (
    -- Or `other`: deaths of causes that had no series of their own when they were counted.
    cause_id text    primary key,
    deaths   bigint  not null check (deaths > 0),
    shown    boolean not null
);
comment on table :"dlq_schema".cause_count
    is 'Classified deaths by cause, for metrics. Never purged.';
create index cause_count_shown on :"dlq_schema".cause_count (cause_id) where shown;

create table :"dlq_schema".retry_count (
    outcome text   primary key,
    retries bigint not null check (retries > 0)
);
comment on table :"dlq_schema".retry_count
    is 'Outcomes of retries without a fix. Those of fixes are in fix_outcome.';

-- Deaths without a cause by type, read from the index alone. A worker that records one pays a
-- hundredth more. `attempts >= 0` holds for all and is said by the scrape alone: whoever takes the
-- queue in its order must not be led to this index.
create index death_unclassified_type on :"dlq_schema".death (event_type, aggregate_type, attempts)
    where cause_id is null and attempts >= 0;

revoke all on all functions in schema :"dlq_schema" from public;
