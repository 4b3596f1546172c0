-- The tables that counters of metrics are read from. They are small, are kept when the ledger
-- deletes deaths, and never decrease. The transaction that classifies deaths or settles retries
-- writes them, so workers do not pay for them.

-- Each list of labels only grows, to 50 names. All other types count as `other`: a label that came
-- and went would break its counter.
create table :"dlq_schema".metric_label (
    name  text not null check (name in ('event_type', 'aggregate_type')),
    value text not null,
    primary key (name, value)
);
comment on table :"dlq_schema".metric_label is
    'Event types and aggregate types with a time series of their own in the metrics. Never purged.';

-- Returns the labels that exist once these deaths are counted: those of metric_label and, while a
-- list is shorter than its limit, the types with most deaths. The classification stores them. A
-- scrape uses them for deaths that are not classified yet, so a series keeps its labels afterwards.
-- `groups` is an array of objects with event_type, aggregate_type and deaths.
create function :"dlq_schema".choose_metric_labels(groups json, max_labels integer)
    returns table (name text, value text)
    language sql stable set search_path = :"dlq_schema", pg_temp as $$
    with counted as (
        select label.name, left(label.value, 100) as value, sum(g.deaths) as deaths
        from json_to_recordset(groups)
            as g (event_type text, aggregate_type text, deaths bigint)
        cross join lateral (
            values ('event_type', g.event_type), ('aggregate_type', g.aggregate_type)
        ) as label (name, value)
        group by 1, 2
    ), unplaced as (
        select c.name,
            c.value,
            row_number() over (
                partition by c.name order by c.deaths desc, c.value collate "C"
            ) as place
        from counted c
        where not exists (
            select from metric_label m where m.name = c.name and m.value = c.value)
    )
    select m.name, m.value from metric_label m
    union all
    select u.name, u.value
    from unplaced u
    where u.place + (select count(*) from metric_label m where m.name = u.name) <= max_labels
$$;

-- The upper bound of the histogram's bucket; the last one stands for no bound.
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
        else 2147483647
    end
$$;

create table :"dlq_schema".death_count (
    event_type     text    not null,
    aggregate_type text    not null,
    attempts_up_to integer not null,
    deaths         bigint  not null check (deaths > 0),
    attempts       bigint  not null,  -- the sum over these deaths
    primary key (event_type, aggregate_type, attempts_up_to)
);
comment on table :"dlq_schema".death_count is
    'Classified deaths by the types that metrics show and by attempts. Never purged.';

create table :"dlq_schema".death_hour (
    hour       timestamptz not null,
    event_type text        not null,
    deaths     bigint      not null check (deaths > 0),
    primary key (hour, event_type)
);
comment on table :"dlq_schema".death_hour is
    'Classified deaths by hour, which alerts compare with. Kept for 15 days.';

create table :"dlq_schema".cause_count (
    cause_id text    primary key,  -- or `other`: deaths of causes without a series at that time
    deaths   bigint  not null check (deaths > 0),
    shown    boolean not null
);
comment on table :"dlq_schema".cause_count is
    'Classified deaths by cause, and whether metrics show the cause. Never purged.';
create index cause_count_shown on :"dlq_schema".cause_count (cause_id) where shown;

create table :"dlq_schema".retry_count (
    outcome  text    not null,
    by_probe boolean not null,  -- released by a probe, not by a person
    retries  bigint  not null check (retries > 0),
    primary key (outcome, by_probe)
);
comment on table :"dlq_schema".retry_count is
    'Outcomes of retries without a fix. fix_outcome has those of fixes.';

revoke all on all functions in schema :"dlq_schema" from public;
