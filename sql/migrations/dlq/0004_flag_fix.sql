-- Flagging a fix: one function for every face, so that all refuse the same things for the same reasons. What it raises
-- is for people: no_data_found (a thing that is not there), raise_exception (not in the present state),
-- invalid_parameter_value (an argument).

create function :"dlq_schema".place_fix(given :"dlq_schema".fix, run_id text default null) returns bigint
    language plpgsql set search_path = :"dlq_schema", pg_temp
as $$
declare
    members text[];
    other   bigint;
    targets bigint;
    placed  bigint;
    was     cause;
begin
    if coalesce(btrim(given.note), '') = '' then
        raise exception 'note must not be empty: say what was mended' using errcode = 'invalid_parameter_value';
    end if;
    if num_nonnulls(given.cause_id, given.event_type, given.aggregate_type, given.event_ids, given.attempts,
                    given.error_contains, given.since, given.until) = 0 and not coalesce(given."all", false) then
        raise exception 'A fix without any filter targets every dead event. Name a cause, or say that all are meant.'
            using errcode = 'invalid_parameter_value';
    end if;
    -- Deaths are dated by this clock. A flag from one that is ahead would target what its own retries die of.
    given.flagged_at := least(given.flagged_at, clock_timestamp());
    if given.expires_at <= greatest(given.flagged_at, given.not_before) then
        raise exception 'The fix would expire before it begins.' using errcode = 'invalid_parameter_value';
    end if;

    -- Before anything is locked, because it may take seconds in which deaths are to be classified and others to flag.
    if given.cause_id is not null then
        members := array(select id from cause where id = given.cause_id or merged_into = given.cause_id);
        select count(*) into targets from dead_event e
        where e.own_cause_id = any(members)
            and selects(given, e);
    else
        select count(*) into targets from dead_event e
        where selects(given, e);
    end if;

    -- One flag at a time: of two that overlap, the second has to see the first. "dlqf" in ASCII.
    perform pg_advisory_xact_lock(1684828518);
    if given.cause_id is not null then
        select * into was from cause where id = given.cause_id for update;
        if not found then
            raise exception 'There is no cause %. `dlq causes list` lists them.', quote_literal(given.cause_id)
                using errcode = 'no_data_found';
        elsif was.merged_into is not null then
            raise exception 'Cause % is merged into %. Flag the fix for that one.', given.cause_id, was.merged_into;
        end if;
    end if;
    if targets = 0 then
        raise exception 'No dead event is meant by this, so a fix could not be proven on any. `dlq causes list` shows '
            'what is dead.';
    end if;

    -- First what can be told from the two selections alone; only what they leave open is looked up. Two of the same whole
    -- cause overlap even while all that the first one means is with the worker: it may die again and halt that one.
    select f.id into other from fix f
    where f.closed_at is null
        and (f.cause_id = given.cause_id or f.cause_id is null or given.cause_id is null)
        and (f.event_type = given.event_type or f.event_type is null or given.event_type is null)
        and (f.aggregate_type = given.aggregate_type or f.aggregate_type is null or given.aggregate_type is null)
        and (f.event_ids && given.event_ids or f.event_ids is null or given.event_ids is null)
        and (f.attempts = given.attempts or f.attempts is null or given.attempts is null)
        and coalesce(f.since, '-infinity') < coalesce(given.until, 'infinity')
        and coalesce(given.since, '-infinity') < coalesce(f.until, 'infinity')
        and (selects_whole_cause(f) and selects_whole_cause(given) or exists (
            select from dead_event e
            where selects(f, e)
                and selects(given, e)))
    order by f.id limit 1;
    if found then
        raise exception 'Fix % is under way and targets the same cause or some of the same events. Wait for its end, or '
            '`dlq fixes withdraw %`.', other, other;
    end if;

    -- A fix of a part of a cause leaves it as it is: nobody knows what the rest would do.
    if selects_whole_cause(given) then
        given.cause_status := was.status;
        given.cause_fixed_at := was.fixed_at;
        update cause set status = 'fixing', fixed_at = null where id = given.cause_id;
    end if;

    -- The next number, under the lock above. A sequence would give one away with each preview, which is rolled back.
    insert into fix (id, cause_id, event_type, aggregate_type, event_ids, attempts, error_contains, since,
        until, "all", note, link, owner, flagged_by, flagged_at, not_before, expires_at,
        canary, growth, rate, min_success, settle_seconds, max_retries, "order", cause_status, cause_fixed_at)
    overriding system value
    values ((select coalesce(max(f.id), 0) + 1 from fix f), given.cause_id, given.event_type, given.aggregate_type,
        given.event_ids, given.attempts, given.error_contains, given.since, given.until,
        coalesce(given."all", false), given.note, given.link, given.owner, given.flagged_by, given.flagged_at, given.not_before, given.expires_at,
        given.canary, given.growth, given.rate, given.min_success, given.settle_seconds, given.max_retries,
        given."order", given.cause_status, given.cause_fixed_at)
    returning id into placed;
    insert into audit (kind, actor, reason, filter, events, at, run_id)
    values ('fix.flag', given.flagged_by, given.note, jsonb_build_object('fix', placed), targets, given.flagged_at,
        place_fix.run_id);
    return placed;
end
$$;

-- For an upstream team: the role that may execute this can flag a fix and do nothing else. It signs as the role that
-- is connected, at the server's time, and leaves the stages to the installation.
create function :"dlq_schema".flag_fix(
    note text, cause text default null, event_type text default null, aggregate_type text default null,
    event_ids bigint[] default null, error_contains text default null, since timestamptz default null,
    until timestamptz default null, "all" boolean default false, link text default null,
    owner text default null, not_before timestamptz default null, expires_at timestamptz default null,
    attempts integer default null
) returns bigint
    language plpgsql security definer set search_path = :"dlq_schema", pg_temp
as $$
declare
    given fix;
begin
    given.note := note;
    given.cause_id := cause;
    given.event_type := event_type;
    given.aggregate_type := aggregate_type;
    given.event_ids := event_ids;
    given.attempts := attempts;
    given.error_contains := error_contains;
    given.since := since;
    given.until := until;
    given."all" := coalesce("all", false);
    given.link := link;
    given.owner := owner;
    given.not_before := not_before;
    given.expires_at := expires_at;
    given.flagged_by := session_user;
    given.flagged_at := clock_timestamp();
    return place_fix(given);
end
$$;
comment on function :"dlq_schema".flag_fix is 'State that something is mended upstream: select dlq.flag_fix(''mended in v42'', cause => ''v1-...'').';

-- PostgreSQL lets everybody execute a new function; here only its owner, until somebody is granted one.
revoke all on all functions in schema :"dlq_schema" from public;
