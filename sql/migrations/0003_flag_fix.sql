-- Flagging a fix. Every face calls the same function, so all of them refuse the same input. Error
-- codes: no_data_found (something does not exist), raise_exception (the present state does not
-- allow it), invalid_parameter_value (an argument is invalid). Messages and hints are shown to
-- users.

-- Refuses a fix whose values no face could show or use. The columns are read from the table, so
-- that a new text or time is checked too.
create function :"dlq_schema".validate_fix(given :"dlq_schema".fix)
    returns void language plpgsql stable set search_path = :"dlq_schema", pg_temp
as $$
declare
    columns  jsonb := to_jsonb(given);
    argument text;
    value    text;
    kind     regtype;
    most     integer;
begin
    for argument, kind, value in
        select a.attname, a.atttypid, columns ->> a.attname
        from pg_attribute a
        where a.attrelid = 'fix'::regclass and a.attnum > 0 and not a.attisdropped
        order by a.attnum
    loop
        argument := case argument when 'cause_id' then 'cause' else argument end;
        most := case argument when 'note' then 10000 when 'link' then 2000 when 'owner' then 200
                    else 1000 end;
        if kind = 'text'::regtype and value !~ '\S' then
            raise exception '% must not be empty.', argument
                using errcode = 'invalid_parameter_value',
                    hint = case argument when 'note' then 'Say what was fixed, in one sentence.'
                               else format('Pass a text, or leave %s out.', argument) end;
        elsif kind = 'text'::regtype and length(value) > most then
            raise exception '% has % characters; the maximum is %.', argument, length(value), most
                using errcode = 'invalid_parameter_value', hint = 'Shorten it.';
        -- The years that the other faces accept. Many programs cannot read later or infinite times.
        elsif kind = 'timestamptz'::regtype
            and not value::timestamptz between '1900-01-01Z' and '9000-12-31 23:59:59.999999Z' then
            raise exception '% must lie in the years 1900 to 9000, not at %.', argument, value
                using errcode = 'invalid_parameter_value',
                    hint = format('Pass another time, or leave %s out.', argument);
        end if;
    end loop;
    perform payload_predicate(given."where");
    if given.note is null then
        raise exception 'note must not be empty.'
            using errcode = 'invalid_parameter_value',
                hint = 'Say what was fixed, in one sentence.';
    elsif given."all" and count_filters(given) > 0 then
        raise exception 'all cannot be combined with filters.'
            using errcode = 'invalid_parameter_value', hint = 'Leave one of them out.';
    elsif not coalesce(given."all", false) and count_filters(given) = 0 then
        raise exception 'A fix without a filter would target every dead event.'
            using errcode = 'invalid_parameter_value',
                hint = 'Name a cause, or pass all.';
    elsif given."where" is not null and offers() ->> 'payloads' <> '' then
        raise exception '%', offers() ->> 'payloads'
            using errcode = 'invalid_parameter_value', hint = 'Leave where out.';
    elsif given.attempts < 0 then
        raise exception 'attempts must not be negative, not %.', given.attempts
            using errcode = 'invalid_parameter_value', hint = 'Pass 0 or a larger number.';
    elsif given.rate not between 0.001 and 100000 then
        raise exception 'rate must be from 0.001 to 100000, not %.', given.rate
            using errcode = 'invalid_parameter_value',
                hint = 'Pass the events per second that fall due, such as 50.';
    elsif given.since >= given.until then
        raise exception 'since must be before until.'
            using errcode = 'invalid_parameter_value',
                hint = 'Pass an earlier since or a later until.';
    elsif given.expires_at <= greatest(given.flagged_at, given.not_before) then
        raise exception 'The fix would expire before it begins.'
            using errcode = 'invalid_parameter_value',
                hint = 'Pass a later expires_at or an earlier not_before.';
    elsif cardinality(given.event_ids) = 0 then
        raise exception 'event_ids must hold at least one event id.'
            using errcode = 'invalid_parameter_value', hint = 'Pass ids, or leave event_ids out.';
    elsif cardinality(given.event_ids) > 10000 then
        raise exception 'event_ids holds % ids; the maximum is 10000.', cardinality(given.event_ids)
            using errcode = 'invalid_parameter_value',
                hint = 'Name a cause, or flag several fixes.';
    elsif array_ndims(given.event_ids) > 1 or exists (
            select from unnest(given.event_ids) as id where id is null) then
        raise exception 'event_ids must be a list of ids, without null and nested lists.'
            using errcode = 'invalid_parameter_value', hint = 'Write it as array[17, 18].';
    end if;
end
$$;

-- Why a fix cannot end before it expires: its targets do not all fall due until then. Null: it can,
-- or its rate or expiry are not known yet.
create function :"dlq_schema".explain_expiry(given :"dlq_schema".fix, targets bigint)
    returns text language sql stable set search_path = :"dlq_schema", pg_temp
as $$
    select format(
        '%s events at %s per second take %s, and the fix expires in %s.',
        to_char(targets, 'FM999,999,999,999'),
        given.rate,
        justify_hours(make_interval(secs => ceil(targets / given.rate))),
        justify_hours(date_trunc('second', lifetime.length)))
    from (
        select given.expires_at - greatest(given.flagged_at, given.not_before) as length
    ) lifetime
    where targets / given.rate > extract(epoch from lifetime.length)
$$;

create function :"dlq_schema".place_fix(given :"dlq_schema".fix, run_id text default null)
    returns bigint language plpgsql set search_path = :"dlq_schema", pg_temp
as $$
declare
    members text[];
    other   bigint;
    targets bigint;
    placed  bigint;
    endless text;
    was     cause;
    whole   constant boolean := selects_whole_cause(given) or selects_whole_detail(given);
    refusal constant text := offers() ->> 'fixes';
begin
    if refusal <> '' then
        raise exception '%', refusal;
    end if;
    -- Deaths are dated by the clock of the server. A flag dated by a clock that is ahead would
    -- target the deaths of its own retries.
    given.flagged_at := least(given.flagged_at, clock_timestamp());
    perform validate_fix(given);

    -- Counted before anything is locked: the count may take seconds, and others classify deaths and
    -- flag fixes meanwhile.
    if given.cause_id is not null then
        members := array(
            select id from cause where id = given.cause_id or merged_into = given.cause_id);
        select count(*) into targets from dead_event e
        where e.own_cause_id = any(members) and selects(given, e);
    else
        select count(*) into targets from dead_event e where selects(given, e);
    end if;

    -- One flag at a time: of two fixes that overlap, the second must find the first. The number is
    -- "dlqf" in ASCII.
    perform pg_advisory_xact_lock(1684828518);
    if given.cause_id is not null then
        select * into was from cause where id = given.cause_id for update;
        if not found then
            raise exception 'There is no cause %.', quote_literal(given.cause_id)
                using errcode = 'no_data_found', hint = '`dlq causes list` lists the causes.';
        elsif was.merged_into is not null then
            raise exception 'Cause % is merged into %.', given.cause_id, was.merged_into
                using hint = format('Flag the fix for %s.', was.merged_into);
        end if;
    end if;
    if targets = 0 then
        raise exception 'No dead events match this fix, so nothing could verify it.'
            using hint = '`dlq causes list` shows what is dead.';
    end if;
    -- A fix without a rate or an expiry takes those of the installation at its first step, which
    -- then rejects it.
    endless := explain_expiry(given, targets);
    if endless <> '' then
        raise exception '%', endless
            using hint = 'Raise the rate or the expiry, or narrow the filter.';
    end if;

    -- The selections are compared first. Events are looked up only if the selections alone leave
    -- the overlap open. Two fixes of one whole cause or detail, or of a cause and one of its
    -- details, overlap even while the worker has all events of the first: they may die again and
    -- halt it.
    select f.id into other from fix f
    where f.closed_at is null
        and can_overlap(f, given)
        and (f.status_before is not null and whole
            or exists (select from dead_event e where selects(f, e) and selects(given, e)))
    order by f.id limit 1;
    if found then
        raise exception 'Fix % is open and targets the same cause or some of the same events.',
            other using hint = format('Wait until it ends, or run `dlq fixes withdraw %s`.', other);
    end if;

    -- A fix of a part of a cause does not change the cause: it says nothing about the other deaths.
    if selects_whole_cause(given) then
        given.status_before := was.status;
        given.fixed_at_before := was.fixed_at;
        update cause set status = 'fixing', fixed_at = null where id = given.cause_id;
    elsif whole then
        select status, fixed_at into given.status_before, given.fixed_at_before
        from cause_detail k where k.cause_id = given.cause_id and k.detail = given.detail
        for update;
        update cause_detail k set status = 'fixing', fixed_at = null
        where k.cause_id = given.cause_id and k.detail = given.detail;
    end if;

    -- The next number, under the lock above. A preview is rolled back, and would use up a number of
    -- a sequence.
    given.id := (select coalesce(max(f.id), 0) + 1 from fix f);
    given."all" := coalesce(given."all", false);
    given.stage := 0;
    given.status := 'active';
    given.evidence := '[]';
    insert into fix overriding system value select given.* returning id into placed;
    insert into audit (kind, actor, reason, filter, events, at, run_id)
    values (
        'fix.flag',
        given.flagged_by,
        given.note,
        jsonb_build_object('fix', placed),
        targets,
        given.flagged_at,
        place_fix.run_id);
    return placed;
end
$$;

-- For other teams: a role that may execute this function can flag a fix and do nothing else. The
-- fix is signed by the connected role, dated by the server, and takes the policy of the
-- installation.
create function :"dlq_schema".flag_fix(
    note text,
    cause text default null,
    event_type text default null,
    aggregate_type text default null,
    event_ids :event_id_type[] default null,
    error_contains text default null,
    since timestamptz default null,
    until timestamptz default null,
    "all" boolean default false,
    link text default null,
    owner text default null,
    not_before timestamptz default null,
    expires_at timestamptz default null,
    attempts integer default null,
    detail text default null,
    "where" text default null,
    aggregate_id text default null
) returns bigint
    language plpgsql security definer set search_path = :"dlq_schema", pg_temp
as $$
declare
    given fix;
begin
    given.note := note;
    given.cause_id := cause;
    given.detail := detail;
    given.event_type := event_type;
    given.aggregate_type := aggregate_type;
    given.aggregate_id := aggregate_id;
    given.event_ids := event_ids;
    given.attempts := attempts;
    given.error_contains := error_contains;
    given."where" := "where";
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
comment on function :"dlq_schema".flag_fix
    is 'Flag a fix: select dlq.flag_fix(''fixed in v42'', cause => ''v2-...'').';

-- PostgreSQL lets every role execute a new function. Here only the owner may, until a role is
-- granted it.
revoke all on all functions in schema :"dlq_schema" from public;
