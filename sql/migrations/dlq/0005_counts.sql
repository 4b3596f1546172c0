-- What counters are read from: kept for good when the ledger forgets, small however much has died, and written in the
-- transaction that classifies deaths or settles retries, so workers pay for none of it. None of them ever goes down.

-- The event types and aggregate types that have a series of their own, by the order in which they were met. The list
-- only grows, to 50 of each; all others are counted as `other` together. A name that came and went would break its
-- counter.
create table :"dlq_schema".metric_label (
    name  text not null check (name in ('event_type', 'aggregate_type')),
    value text not null,
    primary key (name, value)
);
comment on table :"dlq_schema".metric_label is 'Types that have a series of their own in the metrics, for good.';

-- The bounds of the histogram of attempts; the last one stands for no bound.
create function :"dlq_schema".attempts_bucket(attempts integer) returns integer language sql immutable parallel safe as $$
    select case when attempts <= 1 then 1 when attempts <= 2 then 2 when attempts <= 3 then 3 when attempts <= 5 then 5
        when attempts <= 10 then 10 when attempts <= 20 then 20 when attempts <= 50 then 50 else 2147483647 end
$$;

create table :"dlq_schema".death_count (
    event_type     text    not null,
    aggregate_type text    not null,
    attempts_up_to integer not null,
    deaths         bigint  not null check (deaths > 0),
    attempts       bigint  not null,  -- of all these deaths together
    primary key (event_type, aggregate_type, attempts_up_to)
);
comment on table :"dlq_schema".death_count is 'Classified deaths by type, as metrics show them. Never purged.';

create table :"dlq_schema".death_hour (
    hour       timestamptz not null,
    event_type text        not null,
    deaths     bigint      not null check (deaths > 0),
    primary key (hour, event_type)
);
comment on table :"dlq_schema".death_hour is 'Classified deaths by hour: what is usual. Kept for 15 days.';

create table :"dlq_schema".cause_count (
    cause_id text    primary key,  -- or `other`: deaths of causes that had no series of their own when they were counted
    deaths   bigint  not null check (deaths > 0),
    shown    boolean not null
);
comment on table :"dlq_schema".cause_count is 'Classified deaths by cause, as metrics show them. Never purged.';
create index cause_count_shown on :"dlq_schema".cause_count (cause_id) where shown;

create table :"dlq_schema".retry_count (
    outcome text   primary key,
    retries bigint not null check (retries > 0)
);
comment on table :"dlq_schema".retry_count is 'Outcomes of retries without a fix; those of fixes are counted in fix_outcome.';

-- Deaths without a cause by type, read from the index alone. A worker that records one pays a hundredth more. `attempts
-- >= 0` holds for all and is said by the scrape alone: whoever takes the queue in its order must not be led to this
-- index.
create index death_unclassified_type on :"dlq_schema".death (event_type, aggregate_type, attempts)
    where cause_id is null and attempts >= 0;

revoke all on all functions in schema :"dlq_schema" from public;
