--
-- PostgreSQL database dump
--


-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: dlq; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA dlq;


--
-- Name: archive_batch(timestamp with time zone, tstzmultirange, timestamp with time zone, bigint, integer, integer, timestamp with time zone); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.archive_batch(before timestamp with time zone, times tstzmultirange, after_time timestamp with time zone, after_id bigint, size integer, room integer, archived_at timestamp with time zone, OUT moved bigint, OUT locked bigint, OUT rows bigint, OUT last_time timestamp with time zone, OUT last_id bigint) RETURNS record
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    AS $_$
declare
    deaths bigint[];
begin
    execute format('
        with page as materialized (
            select * from (
                (select n.death_id, n.event_id, n.event_created_at, n.died_at
                 from %1$s n
                 where n.died_at < $1 and (n.died_at, n.death_id) > ($3, $4)
                 order by n.died_at, n.death_id limit $5)
                union all
                (select d.id, d.event_id, d.event_created_at, d.died_at
                 from %9$s d
                 where d.cause_id is null and d.ended_at is null
                    and d.died_at < $1 and (d.died_at, d.id) > ($3, $4)
                 order by d.died_at, d.id limit $5)
            ) n
            order by n.died_at, n.death_id limit $5
        ), free as materialized (
            select page.* from page
            where ($2 is null or page.died_at <@ $2)
                and not (
                    -- While no fix is open, none is looked up.
                    exists (select from %7$s f where f.closed_at is null)
                    and exists (
                        select from %8$s w where w.death_id = page.death_id offset 0))
        ), taken as materialized (
            select free.death_id from free
            cross join lateral (
                select from %2$s o
                where %3$s = free.event_id
                    and (%4$s) is not distinct from free.event_created_at
                    and (%5$s) and %6$s
                limit 1 for update skip locked) o
            limit $6
        ), last as (
            select died_at, death_id from page order by died_at desc, death_id desc limit 1
        )
        select array(select death_id from taken),
            -- Looked up again only if some are missing.
            case when (select count(*) from taken) < least($6, (select count(*) from free)) then (
                select count(*) from free
                cross join lateral (
                    select from %2$s o
                    where %3$s = free.event_id
                        and (%4$s) is not distinct from free.event_created_at
                        and (%5$s) and %6$s
                    limit 1) o
                where free.death_id not in (select death_id from taken)) else 0 end,
            (select count(*) from page),
            last.died_at,
            last.death_id
        from (values (1)) one left join last on true',
        '"dlq"."dead"', '"public"."outbox_event"', '(o."id")', '(o."created_at")', '((o."status" operator(pg_catalog.=) ''dead''))',
        "dlq".unreferenced(), '"dlq"."fix"', '"dlq"."wanted"',
        '"dlq"."death"')
    into deaths, locked, rows, last_time, last_id
    using before, times, after_time, after_id, size, room;
    moved := cardinality("dlq".archive_events(deaths, archived_at));
end
$_$;


--
-- Name: archive_dead_outbox_events(integer); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.archive_dead_outbox_events(retention_days integer DEFAULT 30) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
declare
    before constant timestamptz := now() - make_interval(days => retention_days);
    times  tstzmultirange;
    batch  record;
    total  bigint := 0;
begin
    if retention_days is null or retention_days < 0 then
        raise exception 'retention_days must be 0 or more'
            using errcode = 'invalid_parameter_value';
    end if;
    times := "dlq".exported_times(before);
    select '-infinity'::timestamptz as last_time, 0::bigint as last_id into batch;
    loop
        select * from "dlq".archive_batch(
            before, times, batch.last_time, batch.last_id, 5000, 5000, now())
        into batch;
        total := total + batch.moved;
        exit when batch.rows < 5000 or total >= 100000;
    end loop;
    if total > 0 then
        insert into "dlq".audit (kind, actor, reason, filter, events, at)
        values (
            'archive.move',
            session_user,
            format('archive_dead_outbox_events(%s)', retention_days),
            jsonb_build_object('before', before),
            total,
            now());
    end if;
    return total;
end
$$;


--
-- Name: archive_events(bigint[], timestamp with time zone); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.archive_events(deaths bigint[], archived_at timestamp with time zone) RETURNS bigint[]
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $_$
declare
    columns constant text := "dlq".moved_columns(true);
    moved   bigint[];
begin
    perform set_config('dlq.moving', 'dlq', true);
    execute format('
        with target as materialized (
            select n.death_id, n.event_id, n.event_created_at
            from %1$s n where n.death_id = any($1)
        ), moved as (
            delete from %2$s o using target
            where %3$s = target.event_id
                and (%4$s) is not distinct from target.event_created_at
                and (%5$s) and %8$s
            returning o.*, target.death_id
        ), archived as (
            insert into %6$s (%7$s, dlq_death_id, dlq_archived_at)
            select %7$s, death_id, $2 from moved
            returning dlq_death_id
        )
        select coalesce(array_agg(dlq_death_id), ''{}'') from archived',
        '"dlq"."dead_now"', '"public"."outbox_event"', '(o."id")', '(o."created_at")', '((o."status" operator(pg_catalog.=) ''dead''))',
        '"dlq"."archived"', columns, "dlq".unreferenced())
    into moved using deaths, archived_at;
    perform set_config('dlq.moving', '', true);
    perform "dlq".end_deaths(moved);
    return moved;
end
$_$;


--
-- Name: attempts_bucket(integer); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.attempts_bucket(attempts integer) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
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


--
-- Name: payload_predicate(text); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.payload_predicate(given text) RETURNS jsonpath
    LANGUAGE plpgsql IMMUTABLE STRICT
    AS $_$
begin
    -- A path that is no predicate, such as `$.a`, fails on every document.
    perform jsonb_path_match('{}', given::jsonpath);
    return given::jsonpath;
exception when others then
    raise exception 'where is no jsonpath predicate: %.', sqlerrm
        using errcode = 'invalid_parameter_value',
            hint = 'Compare a path with a value: $.acquirer == "northbank".';
end
$_$;


SET default_tablespace = '';


--
-- Name: fix; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.fix (
    id bigint NOT NULL,
    cause_id text,
    detail text,
    event_type text,
    aggregate_type text,
    event_ids bigint[],
    attempts integer,
    aggregate_id text,
    error_contains text,
    "where" text,
    since timestamp with time zone,
    until timestamp with time zone,
    "all" boolean DEFAULT false NOT NULL,
    note text NOT NULL,
    link text,
    owner text,
    flagged_by text NOT NULL,
    flagged_at timestamp with time zone NOT NULL,
    not_before timestamp with time zone,
    expires_at timestamp with time zone,
    canary integer,
    growth double precision,
    rate double precision,
    min_success double precision,
    settle_seconds integer,
    max_retries integer,
    "order" text,
    status_before text,
    fixed_at_before timestamp with time zone,
    stage integer DEFAULT 0 NOT NULL,
    stepped_at timestamp with time zone,
    last_due_at timestamp with time zone,
    current_rate double precision,
    release_rate double precision,
    rate_state jsonb,
    refill_at timestamp with time zone,
    status text DEFAULT 'active'::text NOT NULL,
    verdict text,
    evidence jsonb DEFAULT '[]'::jsonb NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT fix_aggregate_id_check CHECK (((aggregate_id <> ''::text) AND (length(aggregate_id) <= 1000))),
    CONSTRAINT fix_aggregate_type_check CHECK ((aggregate_type <> ''::text)),
    CONSTRAINT fix_attempts_check CHECK ((attempts >= 0)),
    CONSTRAINT fix_canary_check CHECK (((canary >= 1) AND (canary <= 5000))),
    CONSTRAINT fix_check CHECK ((until > since)),
    CONSTRAINT fix_check1 CHECK ((num_nulls(canary, growth, rate, min_success, settle_seconds, max_retries, "order") = ANY (ARRAY[0, 7]))),
    CONSTRAINT fix_check2 CHECK (((status = ANY (ARRAY['active'::text, 'paused'::text])) = (closed_at IS NULL))),
    CONSTRAINT fix_current_rate_check CHECK ((current_rate > (0)::double precision)),
    CONSTRAINT fix_detail_check CHECK ((detail <> ''::text)),
    CONSTRAINT fix_error_contains_check CHECK (((error_contains <> ''::text) AND (length(error_contains) <= 1000))),
    CONSTRAINT fix_event_ids_check CHECK (((cardinality(event_ids) >= 1) AND (cardinality(event_ids) <= 10000))),
    CONSTRAINT fix_event_type_check CHECK ((event_type <> ''::text)),
    CONSTRAINT fix_flagged_by_check CHECK ((flagged_by <> ''::text)),
    CONSTRAINT fix_growth_check CHECK (((growth >= (1)::double precision) AND (growth <= (1000)::double precision))),
    CONSTRAINT fix_link_check CHECK (((link <> ''::text) AND (length(link) <= 2000))),
    CONSTRAINT fix_max_retries_check CHECK (((max_retries >= 1) AND (max_retries <= 100))),
    CONSTRAINT fix_min_success_check CHECK (((min_success > (0)::double precision) AND (min_success <= (1)::double precision))),
    CONSTRAINT fix_note_check CHECK (((note <> ''::text) AND (length(note) <= 10000))),
    CONSTRAINT fix_order_check CHECK (("order" = ANY (ARRAY['aggregate'::text, 'none'::text]))),
    CONSTRAINT fix_owner_check CHECK (((owner <> ''::text) AND (length(owner) <= 200))),
    CONSTRAINT fix_rate_check CHECK (((rate >= (0.001)::double precision) AND (rate <= (100000)::double precision))),
    CONSTRAINT fix_release_rate_check CHECK ((release_rate > (0)::double precision)),
    CONSTRAINT fix_settle_seconds_check CHECK (((settle_seconds >= 1) AND (settle_seconds <= 604800))),
    CONSTRAINT fix_status_check CHECK ((status = ANY (ARRAY['active'::text, 'paused'::text, 'verified'::text, 'halted'::text, 'withdrawn'::text, 'expired'::text, 'rejected'::text]))),
    CONSTRAINT fix_where_check CHECK ((("where" IS NULL) OR ((length("where") <= 1000) AND (dlq.payload_predicate("where") IS NOT NULL))))
);


--
-- Name: TABLE fix; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.fix IS 'A claim that a cause or another selection is resolved. Targets deaths before flagged_at.';


--
-- Name: can_overlap(dlq.fix, dlq.fix); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.can_overlap(a dlq.fix, b dlq.fix) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (COALESCE(((a).cause_id = (b).cause_id), true) AND COALESCE(((a).detail = (b).detail), true) AND COALESCE(((a).event_type = (b).event_type), true) AND COALESCE(((a).aggregate_type = (b).aggregate_type), true) AND COALESCE(((a).aggregate_id = (b).aggregate_id), true) AND COALESCE(((a).event_ids && (b).event_ids), true) AND COALESCE(((a).attempts = (b).attempts), true) AND COALESCE(((a).since < (b).until), true) AND COALESCE(((b).since < (a).until), true));


--
-- Name: can_recall(); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.can_recall() RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $$ select true $$;


--
-- Name: choose_metric_labels(json, integer); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.choose_metric_labels(groups json, max_labels integer) RETURNS TABLE(name text, value text)
    LANGUAGE sql STABLE
    SET search_path TO 'dlq', 'pg_temp'
    AS $$
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


--
-- Name: count_filters(dlq.fix); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.count_filters(fix dlq.fix) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN num_nonnulls((fix).cause_id, (fix).detail, (fix).event_type, (fix).aggregate_type, (fix).aggregate_id, (fix).event_ids, (fix).attempts, (fix).error_contains, (fix)."where", (fix).since, (fix).until);


--
-- Name: count_movable(timestamp with time zone, tstzmultirange); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.count_movable(before timestamp with time zone, times tstzmultirange) RETURNS bigint
    LANGUAGE plpgsql STABLE
    AS $_$
declare
    events bigint;
begin
    execute format('
        select count(*) from %1$s n
        where n.died_at < $1
            and ($2 is null or n.died_at <@ $2)
            and exists (
                select from %2$s o
                where %3$s = n.event_id
                    and (%4$s) is not distinct from n.event_created_at
                    and (%5$s) and %6$s)
            and not exists (select from %7$s w where w.death_id = n.death_id)',
        '"dlq"."dead_now"', '"public"."outbox_event"', '(o."id")', '(o."created_at")', '((o."status" operator(pg_catalog.=) ''dead''))',
        "dlq".unreferenced(), '"dlq"."wanted"')
    into events using before, times;
    return events;
end
$_$;


--
-- Name: dead_at(timestamp with time zone); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.dead_at(moment timestamp with time zone) RETURNS TABLE(death_id bigint, event_id bigint, died_at timestamp with time zone)
    LANGUAGE sql STABLE
    AS $$
    select s.death_id, s.event_id, s.died_at
    from (
        select n.death_id, n.event_id, n.died_at
        from "dlq".dead_now n
        where n.died_at < moment
        union all
        select d.id, d.event_id, d.died_at
        from "dlq".retry r
        join "dlq".death d on d.id = r.death_id
        where r.retried_at >= moment and d.died_at < moment
        union all
        select d.id, d.event_id, d.died_at
        from "dlq".archived a
        join "dlq".death d on d.id = a.dlq_death_id
        where a.dlq_archived_at >= moment and d.died_at < moment
        union all
        select p.death_id, p.event_id, p.died_at
        from "dlq".purged p
        where p.purged_at >= moment and p.archived_at >= moment and p.died_at < moment
    ) s
    where not exists (
        select from "dlq".restored b
        where b.death_id = s.death_id and b.archived_at < moment and b.restored_at >= moment)
        and not exists (
            select from "dlq".recalled b
            where b.death_id = s.death_id and b.retried_at < moment and b.recalled_at >= moment)
$$;


--
-- Name: deletion_is_loss(); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.deletion_is_loss() RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $$ select true $$;


--
-- Name: end_deaths(bigint[]); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.end_deaths(deaths bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
begin
    update "dlq".death set ended_at = clock_timestamp()
    where id = any(deaths) and cause_id is null and ended_at is null;
    delete from "dlq".dead where death_id = any(deaths);
end
$$;


--
-- Name: end_deaths_of(bigint); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.end_deaths_of(event bigint) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
begin
    -- The update first: see dlq.end_deaths.
    update "dlq".death set ended_at = pg_catalog.clock_timestamp()
    where event_id operator(pg_catalog.=) event
        and coalesce(cause_id, '') operator(pg_catalog.=) ''
        and ended_at is null;
    delete from "dlq".dead where event_id operator(pg_catalog.=) event;
end
$$;


--
-- Name: erase_event(bigint, timestamp with time zone); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.erase_event(event bigint, now timestamp with time zone, OUT emptied bigint, OUT kept bigint, OUT deaths bigint) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
    stays_delivered boolean;
begin
    with erased as (
        update "public"."outbox_event" o
        set "payload" = '{}', "last_error" = null
        where ((o."id")) = erase_event.event and coalesce((((o."status" operator(pg_catalog.=) 'done'))), false) and not (o."payload"::pg_catalog.text in ('{}', '\x') and o."last_error" is null)
        returning coalesce((((o."status" operator(pg_catalog.=) 'done'))), false) as delivered
    )
    select count(*), coalesce(bool_and(delivered), true) into emptied, stays_delivered from erased;
    if not stays_delivered then
        raise exception 'By the mapping of this outbox, event % would no longer be delivered.',
            erase_event.event
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Let the condition `delivered` read another column than payload and error.';
    end if;
    select count(*) into kept
    from "public"."outbox_event" o
    where ((o."id")) = erase_event.event and not coalesce((((o."status" operator(pg_catalog.=) 'done'))), false) and not (o."payload"::pg_catalog.text in ('{}', '\x') and o."last_error" is null);
    with erased as (
        update "dlq".archived o
        set "payload" = '{}', "last_error" = null
        where ((o."id")) = erase_event.event and not (o."payload"::pg_catalog.text in ('{}', '\x') and o."last_error" is null)
        returning 1
    )
    select emptied + count(*) into emptied from erased;
    delete from "dlq".delivered_sample s where s.event_id = erase_event.event;
    -- The cause stays: it counts deaths, and has no values of an event.
    update "dlq".death d
    set error = null, erased_at = erase_event.now
    where d.event_id = erase_event.event and d.erased_at is null;
    get diagnostics deaths = row_count;
    -- A detail that only erased deaths have goes too: it may be what has to be erased.
    with gone as materialized (
        select distinct d.cause_id, d.detail
        from "dlq".death d
        where d.event_id = erase_event.event
            and d.detail <> ''
            and not exists (
                select from "dlq".death other
                where other.cause_id = d.cause_id
                    and other.detail = d.detail
                    and other.erased_at is null)
    ), emptied as (
        update "dlq".death d
        set detail = ''
        from gone
        where d.cause_id = gone.cause_id and d.detail = gone.detail
    ), dead_emptied as (
        update "dlq".dead n
        set detail = ''
        from gone
        where n.cause_id = gone.cause_id and n.detail = gone.detail
    )
    delete from "dlq".cause_detail k
    using gone
    join "dlq".cause c on c.id = gone.cause_id
    where k.detail = gone.detail
        and (k.cause_id = gone.cause_id or k.cause_id = c.merged_into and k.deaths = 0);
end
$$;


--
-- Name: event_ids(text[]); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.event_ids(given text[]) RETURNS bigint[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
begin
    return given::bigint[];
exception when invalid_text_representation or numeric_value_out_of_range then
    raise exception 'Not an event id of this outbox: %.', sqlerrm
        using errcode = 'invalid_parameter_value',
            hint = format('Ids of this outbox have the type %s.', 'bigint');
end
$$;


--
-- Name: explain_expiry(dlq.fix, bigint); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.explain_expiry(given dlq.fix, targets bigint) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'dlq', 'pg_temp'
    AS $$
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


--
-- Name: exported_times(timestamp with time zone); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.exported_times(before timestamp with time zone) RETURNS tstzmultirange
    LANGUAGE sql STABLE
    AS $$
    select coalesce(range_agg(tstzrange(x.starts_at, x.ends_at)), '{}')
    from "dlq".export_day x
    where x.starts_at < before and x.verified_at is not null
        and x.ends_at > (select min(n.died_at) from "dlq".dead_now n)
        and x.rows = x.purged + (
            select count(*) from "dlq".death d
            where d.died_at >= x.starts_at and d.died_at < x.ends_at)
$$;


--
-- Name: find_texts(text[]); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.find_texts(patterns text[]) RETURNS TABLE(place text, rows bigint)
    LANGUAGE plpgsql STABLE
    AS $_$
declare
    given record;
begin
    for given in
        select format('%s.%s', t.relname, a.attname) as name,
            t.oid::regclass as relation,
            format(
                case when a.atttypid = 'bytea'::regtype
                    then 'encode(t.%I, ''hex'')' else 't.%I::text' end,
                a.attname) as value
        from pg_catalog.pg_namespace n
        join pg_catalog.pg_class t on t.relnamespace = n.oid
        join pg_catalog.pg_attribute a on a.attrelid = t.oid
        join pg_catalog.pg_type y on y.oid = a.atttypid
        where n.nspname = 'dlq'
            and t.relkind in ('r', 'p')
            and a.attnum > 0
            and not a.attisdropped
            -- Not booleans, times, time spans, numbers and ids.
            and y.typcategory not in ('B', 'D', 'T', 'N')
            and a.atttypid <> 'uuid'::regtype
        order by 1
    loop
        return query execute format(
            'select %L::text, count(*) from %s t where %s like any($1) having count(*) > 0',
            given.name, given.relation, given.value)
        using patterns;
    end loop;
end
$_$;


--
-- Name: flag_fix(text, text, text, text, bigint[], text, timestamp with time zone, timestamp with time zone, boolean, text, text, timestamp with time zone, timestamp with time zone, integer, text, text, text); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.flag_fix(note text, cause text DEFAULT NULL::text, event_type text DEFAULT NULL::text, aggregate_type text DEFAULT NULL::text, event_ids bigint[] DEFAULT NULL::bigint[], error_contains text DEFAULT NULL::text, since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone, "all" boolean DEFAULT false, link text DEFAULT NULL::text, owner text DEFAULT NULL::text, not_before timestamp with time zone DEFAULT NULL::timestamp with time zone, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, attempts integer DEFAULT NULL::integer, detail text DEFAULT NULL::text, "where" text DEFAULT NULL::text, aggregate_id text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'dlq', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION flag_fix(note text, cause text, event_type text, aggregate_type text, event_ids bigint[], error_contains text, since timestamp with time zone, until timestamp with time zone, "all" boolean, link text, owner text, not_before timestamp with time zone, expires_at timestamp with time zone, attempts integer, detail text, "where" text, aggregate_id text); Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON FUNCTION dlq.flag_fix(note text, cause text, event_type text, aggregate_type text, event_ids bigint[], error_contains text, since timestamp with time zone, until timestamp with time zone, "all" boolean, link text, owner text, not_before timestamp with time zone, expires_at timestamp with time zone, attempts integer, detail text, "where" text, aggregate_id text) IS 'Flag a fix: select dlq.flag_fix(''fixed in v42'', cause => ''v2-...'').';


--
-- Name: moved_columns(boolean); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.moved_columns(with_generated boolean) RETURNS text
    LANGUAGE plpgsql STABLE
    AS $$
declare
    columns text;
    lacking text;
    changed text;
begin
    select string_agg(format('%I', o.attname), ', ' order by o.attnum)
            filter (where with_generated or o.attgenerated = ''),
        string_agg(format('%I', o.attname), ', ' order by o.attnum)
            filter (where a.attname is null),
        string_agg(
            format('alter column %I type %s',
                o.attname,
                pg_catalog.format_type(o.atttypid, o.atttypmod)),
            ', ' order by o.attnum)
            filter (where (o.atttypid, o.atttypmod) <> (a.atttypid, a.atttypmod))
    into columns, lacking, changed
    from pg_catalog.pg_attribute o
    left join pg_catalog.pg_attribute a
        on a.attrelid = '"dlq"."archived"'::regclass
        and a.attname = o.attname
        and not a.attisdropped
    where o.attrelid = '"public"."outbox_event"'::regclass and o.attnum > 0 and not o.attisdropped;
    if lacking is not null then
        raise exception 'The archive lacks the columns % of %, so events would lose them.',
            lacking, '"public"."outbox_event"'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Run `dlq migrate`.';
    end if;
    if changed is not null then
        raise exception
            'The archive has columns of % with their old types, so events would change.',
            '"public"."outbox_event"'
            using errcode = 'object_not_in_prerequisite_state',
                hint = format('Run `alter table %s %s`.', '"dlq"."archived"', changed);
    end if;
    return columns;
end
$$;


--
-- Name: offers(); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.offers() RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$ select '{"causes": "", "event_types": "", "payloads": "", "attempts": "", "queue_lag": "", "regressions": "", "archive": "", "retries": "", "pace": "", "order": "", "edited_payloads": "", "fixes": ""}'::jsonb $$;


--
-- Name: outbox_table(); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.outbox_table() RETURNS regclass
    LANGUAGE sql STABLE
    AS $$ select '"public"."outbox_event"'::regclass $$;


--
-- Name: death; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.death (
    id bigint NOT NULL,
    event_id bigint NOT NULL,
    event_created_at timestamp with time zone,
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    event_type text NOT NULL,
    attempts integer NOT NULL,
    died_at timestamp with time zone NOT NULL,
    error text,
    cause_id text,
    detail text,
    ended_at timestamp with time zone,
    was_missed boolean DEFAULT false NOT NULL,
    erased_at timestamp with time zone
);


--
-- Name: TABLE death; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.death IS 'One row for each transition of an event to dead. Append-only; its cause is set once.';


--
-- Name: payload_matches(dlq.death, text); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.payload_matches(death dlq.death, predicate text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
declare
    found_payload text;
begin
    select o.payload into found_payload
    from "dlq".outbox o
    where o.id = death.event_id and o.created_at is not distinct from death.event_created_at
    limit 1;
    if not found then
        select a.payload into found_payload
        from "dlq".archive a where a.death_id = death.id limit 1;
    end if;
    -- With time zones, because `.datetime()` of a date fails without, also if silent.
    return coalesce(
        jsonb_path_match_tz(found_payload::jsonb, predicate::jsonpath, '{}', silent => true),
        false);
exception when data_exception or program_limit_exceeded or feature_not_supported then
    return false;
end
$$;


--
-- Name: place_fix(dlq.fix, text); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.place_fix(given dlq.fix, run_id text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'dlq', 'pg_temp'
    AS $$
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


--
-- Name: read_payload(text); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.read_payload(payload text) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$
begin
    perform payload::pg_catalog.jsonb;
end
$$;


--
-- Name: recall_events(bigint[], timestamp with time zone, text, text); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.recall_events(deaths bigint[], recalled_at timestamp with time zone, recalled_by text, recall_reason text) RETURNS bigint[]
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $_$
declare
    assignments text;
    recalled    bigint[];
begin
    if not "dlq".can_recall() or cardinality(deaths) = 0 then
        return '{}';
    end if;
    -- The types as they are now: an application may widen a column meanwhile.
    select string_agg(
        format('%I = (given.row_before)[%s]::%s',
            c.name,
            c.place,
            pg_catalog.format_type(a.atttypid, a.atttypmod)),
        ', ')
    into assignments
    from unnest("dlq".released_columns()) with ordinality as c (name, place)
    join pg_catalog.pg_attribute a
        on a.attrelid = '"public"."outbox_event"'::regclass
        and a.attname = c.name
        and not a.attisdropped;
    perform set_config('dlq.moving', 'dlq', true);
    execute format('
        with given as materialized (
            -- A payload that a person edited is not put back, so such a retry stays.
            select r.death_id, r.event_id, r.event_created_at, r.due_at as due, r.row_before
            from %1$s r
            where r.death_id = any($1)
                and r.outcome is null
                and r.row_before is not null
                and r.payload_before is null
            for update skip locked
        ), free as materialized (
            select given.* from given
            cross join lateral (
                select from %2$s o
                where %3$s = given.event_id
                    and (%4$s) is not distinct from given.event_created_at
                    and %5$s
                limit 1 for update skip locked) o
        ), recalled_now as (
            update %2$s o
            set %6$s
            from free given
            where %3$s = given.event_id and (%4$s) is not distinct from given.event_created_at
            returning given.death_id
        )
        select coalesce(array_agg(death_id), ''{}'') from recalled_now',
        '"dlq"."retry"', '"public"."outbox_event"', '(o."id")', '(o."created_at")', '(o."status" is not distinct from ''pending'' and o."attempts" is not distinct from ''0'' and o."next_run_at" is not distinct from (given.due)::timestamp with time zone and ((o."status" operator(pg_catalog.=) ''dead'')) is not true and ((o."status" operator(pg_catalog.=) ''done'')) is not true and (false) is not true)',
        assignments)
    into recalled using deaths;
    perform set_config('dlq.moving', '', true);
    perform "dlq".reopen_deaths(recalled);
    with gone as (
        delete from "dlq".retry r where r.death_id = any(recalled) returning r.*
    ), by_fix as (
        insert into "dlq".fix_outcome as o (fix_id, stage, outcome, events)
        select fix_id, stage, 'recalled', count(*) from gone where fix_id is not null
        group by fix_id, stage order by fix_id, stage
        on conflict (fix_id, stage, outcome) do update set events = o.events + excluded.events
    ), by_hand as (
        insert into "dlq".retry_count as t (outcome, by_probe, retries)
        select 'recalled', actor = 'probe', count(*) from gone where fix_id is null
        group by 2 order by 2
        on conflict (outcome, by_probe) do update set retries = t.retries + excluded.retries
    )
    insert into "dlq".recalled
    select death_id,
        event_id,
        event_created_at,
        aggregate_type,
        aggregate_id,
        fix_id,
        stage,
        actor,
        reason,
        retried_at,
        due_at,
        recall_events.recalled_at,
        recall_events.recalled_by,
        recall_events.recall_reason
    from gone;
    return recalled;
end
$_$;


--
-- Name: record_change(); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.record_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$
begin
    if tg_op operator(pg_catalog.=) 'TRUNCATE' then
        update "dlq".death set ended_at = pg_catalog.clock_timestamp()
        where cause_id is null and ended_at is null;
        delete from "dlq".dead;
    elsif tg_op operator(pg_catalog.=) 'DELETE' or not coalesce((((new."status" operator(pg_catalog.=) 'dead'))), false) then
        perform "dlq".end_deaths_of((old."id"));
    else
        -- The key of a dead event was changed: the old event is gone, and the new one is dead.
        if tg_op operator(pg_catalog.=) 'UPDATE' and coalesce((((old."status" operator(pg_catalog.=) 'dead'))), false) then
            perform "dlq".end_deaths_of((old."id"));
        end if;
        -- Not now(): a worker's transaction may include all the work of its handler.
        insert into "dlq".death (
            event_id,
            event_created_at,
            aggregate_type,
            aggregate_id,
            event_type,
            attempts,
            error,
            died_at)
        values (
            (new."id"),
            (new."created_at"),
            coalesce((new."aggregate_type"::pg_catalog.text), ''),
            coalesce((new."aggregate_id"::pg_catalog.text), ''),
            coalesce((new."event_type"::pg_catalog.text), ''),
            coalesce((case when new."attempts" is not null then greatest(least(new."attempts", 2147483647), 0) end::pg_catalog.int4), 0),
            (new."last_error"::pg_catalog.text),
            pg_catalog.clock_timestamp());
    end if;
    return null;
exception when others then
    begin
        if not tg_op operator(pg_catalog.=) any (array['TRUNCATE', 'DELETE'])
            and coalesce((((new."status" operator(pg_catalog.=) 'dead'))), false) then
            insert into "dlq".death (
                event_id, aggregate_type, aggregate_id, event_type, attempts, error, died_at)
            values (
                (new."id"), '', '', '', 0, null, pg_catalog.clock_timestamp());
        end if;
    exception when others then
        raise warning 'dlq-pipelines did not record a change of %: %',
            tg_relid::pg_catalog.regclass, sqlerrm;
    end;
    return null;
end
$$;


--
-- Name: release_events(bigint[], timestamp with time zone[]); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.release_events(deaths bigint[], due timestamp with time zone[]) RETURNS bigint[]
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
declare
    released bigint[];
begin
    if not true then
        raise exception 'The mapping of this outbox has no [retry].'
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    perform set_config('dlq.moving', 'dlq', true);
    with given as materialized (
        select n.death_id, n.event_id, n.event_created_at, given.due
        from unnest(deaths, release_events.due) as given (death_id, due)
        join "dlq".dead_now n on n.death_id = given.death_id
    ), released_now as (
        update "public"."outbox_event" o
        set "status" = 'pending', "attempts" = '0', "next_run_at" = (given.due)
        from given
        where (o."id") = given.event_id
            and ((o."created_at")) is not distinct from given.event_created_at
            and (((o."status" operator(pg_catalog.=) 'dead')))
        returning given.death_id
    )
    select coalesce(array_agg(death_id), '{}') into released from released_now;
    perform set_config('dlq.moving', '', true);
    perform "dlq".end_deaths(released);
    return released;
end
$$;


--
-- Name: released_columns(); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.released_columns() RETURNS text[]
    LANGUAGE sql IMMUTABLE
    AS $$ select '{"status","attempts","next_run_at"}'::text[] $$;


--
-- Name: reopen_deaths(bigint[]); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.reopen_deaths(deaths bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
begin
    update "dlq".death set ended_at = null where id = any(deaths) and cause_id is null;
    insert into "dlq".dead
    select id,
        event_id,
        event_created_at,
        aggregate_type,
        aggregate_id,
        event_type,
        died_at,
        cause_id,
        coalesce(detail, '')
    from "dlq".death where id = any(deaths) and cause_id is not null
    on conflict do nothing;
end
$$;


--
-- Name: restore_events(bigint[]); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.restore_events(deaths bigint[]) RETURNS bigint
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $_$
declare
    columns constant text := "dlq".moved_columns(false);
    moved   bigint[];
begin
    perform set_config('dlq.moving', 'dlq', true);
    execute format('
        with moved as (
            delete from %1$s where dlq_death_id = any($1) returning *
        ), restored as (
            insert into %2$s (%3$s) overriding system value select %3$s from moved
        )
        select coalesce(array_agg(dlq_death_id), ''{}'') from moved',
        '"dlq"."archived"', '"public"."outbox_event"', columns)
    into moved using deaths;
    perform set_config('dlq.moving', '', true);
    perform "dlq".reopen_deaths(moved);
    return cardinality(moved);
end
$_$;


--
-- Name: selects(dlq.fix, dlq.death, text); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.selects(fix dlq.fix, death dlq.death, cause text) RETURNS boolean
    LANGUAGE sql STABLE
    RETURN ((((fix).cause_id IS NULL) OR (cause = (fix).cause_id)) AND (((fix).detail IS NULL) OR ((death).detail = (fix).detail)) AND (((fix).event_type IS NULL) OR ((death).event_type = (fix).event_type)) AND (((fix).aggregate_type IS NULL) OR ((death).aggregate_type = (fix).aggregate_type)) AND (((fix).aggregate_id IS NULL) OR ((death).aggregate_id = (fix).aggregate_id)) AND (((fix).event_ids IS NULL) OR ((death).event_id = ANY ((fix).event_ids))) AND (((fix).attempts IS NULL) OR ((death).attempts = (fix).attempts)) AND (((fix).since IS NULL) OR ((death).died_at >= (fix).since)) AND (((fix).until IS NULL) OR ((death).died_at < (fix).until)) AND (((fix).flagged_at IS NULL) OR ((death).died_at < (fix).flagged_at)) AND (((fix).error_contains IS NULL) OR (POSITION(((fix).error_contains) IN ((death).error)) > 0)) AND (((fix)."where" IS NULL) OR dlq.payload_matches(death, (fix)."where")));


--
-- Name: cause; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.cause (
    id text NOT NULL,
    exception_type text NOT NULL,
    template text NOT NULL,
    first_seen timestamp with time zone NOT NULL,
    last_seen timestamp with time zone NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    fixed_at timestamp with time zone,
    name text,
    owner text,
    note text,
    muted_until timestamp with time zone,
    probe text,
    is_transient boolean DEFAULT false NOT NULL,
    merged_into text,
    CONSTRAINT cause_check CHECK ((merged_into <> id)),
    CONSTRAINT cause_check1 CHECK (((status = ANY (ARRAY['fixed'::text, 'regressed'::text])) = (fixed_at IS NOT NULL))),
    CONSTRAINT cause_name_check CHECK ((name <> ''::text)),
    CONSTRAINT cause_note_check CHECK ((note <> ''::text)),
    CONSTRAINT cause_owner_check CHECK ((owner <> ''::text)),
    CONSTRAINT cause_probe_check CHECK ((probe = ANY (ARRAY['on'::text, 'off'::text]))),
    CONSTRAINT cause_status_check CHECK ((status = ANY (ARRAY['open'::text, 'fixing'::text, 'fixed'::text, 'regressed'::text])))
);


--
-- Name: TABLE cause; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.cause IS 'A class of failures with one root cause. Ids never change.';


--
-- Name: dead; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.dead (
    death_id bigint NOT NULL,
    event_id bigint NOT NULL,
    event_created_at timestamp with time zone,
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    event_type text NOT NULL,
    died_at timestamp with time zone NOT NULL,
    cause_id text NOT NULL,
    detail text DEFAULT ''::text NOT NULL
);


--
-- Name: TABLE dead; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.dead IS 'Dead events whose last death is classified.';


--
-- Name: dead_now; Type: VIEW; Schema: dlq; Owner: -
--

CREATE VIEW dlq.dead_now AS
 SELECT n.death_id,
    n.event_id,
    n.event_created_at,
    n.aggregate_type,
    n.aggregate_id,
    n.event_type,
    n.died_at,
    n.cause_id,
    n.detail
   FROM dlq.dead n
UNION ALL
 SELECT d.id AS death_id,
    d.event_id,
    d.event_created_at,
    d.aggregate_type,
    d.aggregate_id,
    d.event_type,
    d.died_at,
    d.cause_id,
    d.detail
   FROM dlq.death d
  WHERE ((d.cause_id IS NULL) AND (d.ended_at IS NULL));


--
-- Name: VIEW dead_now; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON VIEW dlq.dead_now IS 'What is dead now, by death, with the cause of each death.';


--
-- Name: dead_event; Type: VIEW; Schema: dlq; Owner: -
--

CREATE VIEW dlq.dead_event AS
 SELECT n.death_id,
    n.event_id,
    n.event_created_at,
    n.aggregate_type,
    n.aggregate_id,
    n.event_type,
    d.attempts,
    n.died_at,
    d.error,
    n.cause_id AS own_cause_id,
    COALESCE(c.merged_into, n.cause_id) AS cause_id,
    n.detail
   FROM ((dlq.dead_now n
     JOIN dlq.death d ON ((d.id = n.death_id)))
     LEFT JOIN dlq.cause c ON ((c.id = n.cause_id)));


--
-- Name: VIEW dead_event; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON VIEW dlq.dead_event IS 'Dead events with their last death and its cause.';


--
-- Name: selects(dlq.fix, dlq.dead_event); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.selects(fix dlq.fix, event dlq.dead_event) RETURNS boolean
    LANGUAGE sql STABLE
    RETURN dlq.selects(fix, ROW((event).death_id, (event).event_id, (event).event_created_at, (event).aggregate_type, (event).aggregate_id, (event).event_type, (event).attempts, (event).died_at, (event).error, (event).own_cause_id, (event).detail, NULL::timestamp with time zone, false, NULL::timestamp with time zone)::dlq.death, (event).cause_id);


--
-- Name: selects_whole_cause(dlq.fix); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.selects_whole_cause(fix dlq.fix) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (((fix).cause_id IS NOT NULL) AND (dlq.count_filters(fix) = 1));


--
-- Name: selects_whole_detail(dlq.fix); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.selects_whole_detail(fix dlq.fix) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((num_nonnulls((fix).cause_id, (fix).detail) = 2) AND (dlq.count_filters(fix) = 2));


--
-- Name: set_payload(bigint, timestamp with time zone, text); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.set_payload(event bigint, written_at timestamp with time zone, new_payload text) RETURNS void
    LANGUAGE sql
    AS $$
    update "public"."outbox_event" o
    set "payload" = new_payload::pg_catalog.jsonb
    where (o."id") = event and ((o."created_at")) is not distinct from written_at
$$;


--
-- Name: unreferenced(); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.unreferenced() RETURNS text
    LANGUAGE plpgsql STABLE
    AS $$
declare
    conditions text := 'true';
    reference  record;
begin
    for reference in
        select c.conrelid::regclass as referencing, c.conname, c.confdeltype, (
            select string_agg(format('r.%I = o.%I', child.attname, parent.attname), ' and ')
            from unnest(c.conkey, c.confkey) as key (child, parent)
            join pg_catalog.pg_attribute child
                on child.attrelid = c.conrelid and child.attnum = key.child
            join pg_catalog.pg_attribute parent
                on parent.attrelid = c.confrelid and parent.attnum = key.parent) as matches
        from pg_catalog.pg_constraint c
        where c.contype = 'f' and c.confrelid = '"public"."outbox_event"'::regclass
            and c.conparentid = 0
    loop
        if reference.confdeltype not in ('a', 'r') then
            raise exception 'Archiving an event would change rows of %: the foreign key % says on '
                'delete %.', reference.referencing, reference.conname,
                case reference.confdeltype when 'c' then 'cascade' when 'n' then 'set null'
                    else 'set default' end
                using errcode = 'object_not_in_prerequisite_state',
                    hint = 'Change the foreign key to `on delete restrict`.';
        end if;
        conditions := conditions || format(
            ' and not exists (select from %s r where %s)',
            reference.referencing, reference.matches);
    end loop;
    return conditions;
end
$$;


--
-- Name: validate_fix(dlq.fix); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.validate_fix(given dlq.fix) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'dlq', 'pg_temp'
    AS $$
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


--
-- Name: vanished_outcome(); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.vanished_outcome() RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$ select 'deleted' $$;


--
-- Name: written_columns(); Type: FUNCTION; Schema: dlq; Owner: -
--

CREATE FUNCTION dlq.written_columns() RETURNS text[]
    LANGUAGE sql IMMUTABLE
    AS $$ select '{"status","attempts","next_run_at","payload"}'::text[] $$;


--
-- Name: alert; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.alert (
    key text NOT NULL,
    rule text NOT NULL,
    severity text NOT NULL,
    event_type text,
    owner text,
    summary text NOT NULL,
    detail text NOT NULL,
    link text,
    fired_at timestamp with time zone NOT NULL,
    missing_since timestamp with time zone,
    notified_at timestamp with time zone,
    resolved_at timestamp with time zone,
    silenced_until timestamp with time zone,
    CONSTRAINT alert_check CHECK ((resolved_at >= fired_at)),
    CONSTRAINT alert_severity_check CHECK ((severity = ANY (ARRAY['info'::text, 'warning'::text, 'critical'::text])))
);


--
-- Name: TABLE alert; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.alert IS 'Alerts that fire or fired.';


--
-- Name: alert_channel; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.alert_channel (
    id text NOT NULL,
    due_at timestamp with time zone NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    last_error text,
    sent_at timestamp with time zone,
    sent bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL
);


--
-- Name: TABLE alert_channel; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.alert_channel IS 'State of each channel. A channel that fails backs off and delays no other channel.';


--
-- Name: alert_delivery; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.alert_delivery (
    notice_id bigint NOT NULL,
    channel text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    sent_at timestamp with time zone,
    given_up_at timestamp with time zone
);


--
-- Name: TABLE alert_delivery; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.alert_delivery IS 'A notice for a channel. Delivery is at least once: sent_at is written after sending.';


--
-- Name: alert_notice; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.alert_notice (
    id bigint NOT NULL,
    key text NOT NULL,
    kind text NOT NULL,
    severity text NOT NULL,
    event_type text,
    owner text,
    summary text NOT NULL,
    detail text NOT NULL,
    link text,
    at timestamp with time zone NOT NULL,
    CONSTRAINT alert_notice_kind_check CHECK ((kind = ANY (ARRAY['fired'::text, 'repeated'::text, 'resolved'::text, 'digest'::text])))
);


--
-- Name: TABLE alert_notice; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.alert_notice IS 'Notices, written in the transaction that decides them.';


--
-- Name: alert_notice_id_seq; Type: SEQUENCE; Schema: dlq; Owner: -
--

ALTER TABLE dlq.alert_notice ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME dlq.alert_notice_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: archived; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.archived (
    id bigint,
    aggregate_type text,
    aggregate_id text,
    event_type text,
    payload jsonb,
    status text,
    attempts integer,
    next_run_at timestamp with time zone,
    created_at timestamp with time zone,
    last_error text,
    last_error_at timestamp with time zone,
    dlq_death_id bigint NOT NULL,
    dlq_archived_at timestamp with time zone NOT NULL
);


--
-- Name: TABLE archived; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.archived IS 'Archived events: the columns of the outbox table, the death, and when it was archived.';


--
-- Name: archive; Type: VIEW; Schema: dlq; Owner: -
--

CREATE VIEW dlq.archive AS
 SELECT id,
    aggregate_type,
    aggregate_id,
    event_type,
    (payload)::text AS payload,
        CASE
            WHEN (attempts IS NOT NULL) THEN GREATEST(LEAST(attempts, 2147483647), 0)
            ELSE NULL::integer
        END AS attempts,
    next_run_at AS due_at,
    created_at,
    last_error AS error,
    NULL::timestamp with time zone AS died_at,
    last_error_at AS error_at,
    status,
    (status = 'dead'::text) AS dead,
    (status = 'done'::text) AS delivered,
    (status = ANY ('{pending,retry}'::text[])) AS waiting,
    false AS working,
    dlq_death_id AS death_id,
    dlq_archived_at AS archived_at
   FROM dlq.archived a;


--
-- Name: VIEW archive; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON VIEW dlq.archive IS 'Archived events in the words of this project.';


--
-- Name: attachment; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.attachment (
    checksum text NOT NULL,
    shape jsonb NOT NULL,
    attached_at timestamp with time zone DEFAULT now() NOT NULL,
    recorded_at timestamp with time zone,
    added text[] DEFAULT (COALESCE(NULLIF(current_setting('dlq.added'::text, true), ''::text), '{}'::text))::text[] NOT NULL
);


--
-- Name: TABLE attachment; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.attachment IS 'What is installed on the application''s table. One row.';


--
-- Name: audit; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.audit (
    id bigint NOT NULL,
    kind text NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    filter jsonb NOT NULL,
    events bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    run_id text,
    CONSTRAINT audit_actor_check CHECK ((actor <> ''::text)),
    CONSTRAINT audit_events_check CHECK ((events >= 0)),
    CONSTRAINT audit_reason_check CHECK ((reason <> ''::text))
);


--
-- Name: TABLE audit; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.audit IS 'Who changed what, with which filter, when, how many events.';


--
-- Name: audit_id_seq; Type: SEQUENCE; Schema: dlq; Owner: -
--

ALTER TABLE dlq.audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME dlq.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: cause_alias; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.cause_alias (
    fingerprint text NOT NULL,
    cause_id text NOT NULL
);


--
-- Name: TABLE cause_alias; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.cause_alias IS 'The cause of each fingerprint.';


--
-- Name: cause_count; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.cause_count (
    cause_id text NOT NULL,
    deaths bigint NOT NULL,
    shown boolean NOT NULL,
    CONSTRAINT cause_count_deaths_check CHECK ((deaths > 0))
);


--
-- Name: TABLE cause_count; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.cause_count IS 'Classified deaths by cause, and whether metrics show the cause. Never purged.';


--
-- Name: cause_day; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.cause_day (
    day date NOT NULL,
    cause_id text NOT NULL,
    event_type text NOT NULL,
    aggregate_type text NOT NULL,
    deaths bigint NOT NULL,
    CONSTRAINT cause_day_deaths_check CHECK ((deaths > 0))
);


--
-- Name: TABLE cause_day; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.cause_day IS 'Deaths by day and cause. Stays when the ledger is purged.';


--
-- Name: cause_detail; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.cause_detail (
    cause_id text NOT NULL,
    detail text NOT NULL,
    first_seen timestamp with time zone NOT NULL,
    last_seen timestamp with time zone NOT NULL,
    deaths bigint NOT NULL,
    purged bigint DEFAULT 0 NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    fixed_at timestamp with time zone,
    CONSTRAINT cause_detail_check CHECK ((purged <= deaths)),
    CONSTRAINT cause_detail_check1 CHECK (((status = ANY (ARRAY['fixed'::text, 'regressed'::text])) = (fixed_at IS NOT NULL))),
    CONSTRAINT cause_detail_deaths_check CHECK ((deaths >= 0)),
    CONSTRAINT cause_detail_detail_check CHECK ((detail <> ''::text)),
    CONSTRAINT cause_detail_status_check CHECK ((status = ANY (ARRAY['open'::text, 'fixing'::text, 'fixed'::text, 'regressed'::text])))
);


--
-- Name: TABLE cause_detail; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.cause_detail IS 'What the errors of a cause name: its second level. Stays when the ledger is purged.';


--
-- Name: cause_successor; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.cause_successor (
    cause_id text NOT NULL,
    successor_id text NOT NULL,
    deaths bigint NOT NULL,
    CONSTRAINT cause_successor_deaths_check CHECK ((deaths > 0))
);


--
-- Name: TABLE cause_successor; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.cause_successor IS 'What the deaths of causes of earlier versions of the fingerprint became, by a reindex.';


--
-- Name: check_result; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.check_result (
    name text NOT NULL,
    passed boolean NOT NULL,
    severity text NOT NULL,
    figures jsonb NOT NULL,
    checked_at timestamp with time zone NOT NULL,
    CONSTRAINT check_result_severity_check CHECK ((severity = ANY (ARRAY['info'::text, 'warning'::text, 'critical'::text])))
);


--
-- Name: TABLE check_result; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.check_result IS 'Last result of each asset check, for metrics and alerts, which cannot run the checks.';


--
-- Name: death_count; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.death_count (
    event_type text NOT NULL,
    aggregate_type text NOT NULL,
    attempts_up_to integer NOT NULL,
    deaths bigint NOT NULL,
    attempts bigint NOT NULL,
    CONSTRAINT death_count_deaths_check CHECK ((deaths > 0))
);


--
-- Name: TABLE death_count; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.death_count IS 'Classified deaths by the types that metrics show and by attempts. Never purged.';


--
-- Name: death_hour; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.death_hour (
    hour timestamp with time zone NOT NULL,
    event_type text NOT NULL,
    deaths bigint NOT NULL,
    CONSTRAINT death_hour_deaths_check CHECK ((deaths > 0))
);


--
-- Name: TABLE death_hour; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.death_hour IS 'Classified deaths by hour, which alerts compare with. Kept for 15 days.';


--
-- Name: death_id_seq; Type: SEQUENCE; Schema: dlq; Owner: -
--

ALTER TABLE dlq.death ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME dlq.death_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: death_notice; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.death_notice (
    death_id bigint NOT NULL
);


--
-- Name: TABLE death_notice; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.death_notice IS 'Deaths that were not sent to DLQ_DEATH_WEBHOOK_URL yet.';


--
-- Name: delivered_sample; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.delivered_sample (
    event_id bigint NOT NULL,
    event_created_at timestamp with time zone,
    event_type text NOT NULL,
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    payload text NOT NULL,
    kept_at timestamp with time zone NOT NULL
);


--
-- Name: TABLE delivered_sample; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.delivered_sample IS 'Payloads of events that were not dead, for a comparison with dead ones. Kept for thirty days.';


--
-- Name: discard; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.discard (
    death_id bigint NOT NULL,
    event_id bigint NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    discarded_at timestamp with time zone NOT NULL,
    CONSTRAINT discard_actor_check CHECK ((actor <> ''::text)),
    CONSTRAINT discard_reason_check CHECK ((reason <> ''::text))
);


--
-- Name: TABLE discard; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.discard IS 'Dead events that a person discarded: archived at once, restored only by their ids.';


--
-- Name: export_day; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.export_day (
    day date NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    rows bigint NOT NULL,
    first_id bigint,
    last_id bigint,
    files jsonb NOT NULL,
    exported_at timestamp with time zone NOT NULL,
    verified_at timestamp with time zone,
    purged bigint DEFAULT 0 NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT export_day_check CHECK ((ends_at > starts_at))
);


--
-- Name: TABLE export_day; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.export_day IS 'The export of each day: its bounds, and its files with sizes and checksums.';


--
-- Name: fix_id_seq; Type: SEQUENCE; Schema: dlq; Owner: -
--

ALTER TABLE dlq.fix ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME dlq.fix_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: fix_outcome; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.fix_outcome (
    fix_id bigint NOT NULL,
    stage integer NOT NULL,
    outcome text NOT NULL,
    events bigint NOT NULL,
    purged bigint DEFAULT 0 NOT NULL,
    CONSTRAINT fix_outcome_check CHECK ((purged <= events)),
    CONSTRAINT fix_outcome_events_check CHECK ((events >= 0)),
    CONSTRAINT fix_outcome_outcome_check CHECK ((outcome = ANY (ARRAY['delivered'::text, 'died_again'::text, 'timed_out'::text, 'deleted'::text, 'recalled'::text])))
);


--
-- Name: TABLE fix_outcome; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.fix_outcome IS 'Events of each stage by their outcome. Stays when the ledger is purged.';


--
-- Name: fix_stage; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.fix_stage (
    fix_id bigint NOT NULL,
    stage integer NOT NULL,
    size bigint NOT NULL,
    begun_at timestamp with time zone NOT NULL,
    released bigint DEFAULT 0 NOT NULL,
    CONSTRAINT fix_stage_released_check CHECK ((released >= 0)),
    CONSTRAINT fix_stage_size_check CHECK ((size > 0)),
    CONSTRAINT fix_stage_stage_check CHECK ((stage > 0))
);


--
-- Name: TABLE fix_stage; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.fix_stage IS 'One release of a fix. The first stage is the canary.';


--
-- Name: installation; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.installation (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);


--
-- Name: TABLE installation; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.installation IS 'Identifies this installation to receivers of webhooks. One row.';


--
-- Name: job_run; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.job_run (
    job text NOT NULL,
    day text DEFAULT ''::text NOT NULL,
    succeeded_at timestamp with time zone,
    failed_at timestamp with time zone,
    failed_run text
);


--
-- Name: TABLE job_run; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.job_run IS 'Last success and last failure of each job, and of each day of a partitioned job.';


--
-- Name: job_scan; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.job_scan (
    scanned_until timestamp with time zone DEFAULT now() NOT NULL
);


--
-- Name: TABLE job_scan; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.job_scan IS 'The scan of Dagster runs for failures: runs that ended before this time are done. One row.';


--
-- Name: metric_label; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.metric_label (
    name text NOT NULL,
    value text NOT NULL,
    CONSTRAINT metric_label_name_check CHECK ((name = ANY (ARRAY['event_type'::text, 'aggregate_type'::text])))
);


--
-- Name: TABLE metric_label; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.metric_label IS 'Event types and aggregate types with a time series of their own in the metrics. Never purged.';


--
-- Name: migration; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.migration (
    number integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);


--
-- Name: TABLE migration; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.migration IS 'Migrations that were applied, with the checksums of their files.';


--
-- Name: outbox_event; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.outbox_event (
    id bigint NOT NULL,
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    event_type text NOT NULL,
    payload jsonb NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    next_run_at timestamp with time zone DEFAULT now() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    last_error text,
    last_error_at timestamp with time zone
);


--
-- Name: outbox; Type: VIEW; Schema: dlq; Owner: -
--

CREATE VIEW dlq.outbox AS
 SELECT id,
    aggregate_type,
    aggregate_id,
    event_type,
    (payload)::text AS payload,
        CASE
            WHEN (attempts IS NOT NULL) THEN GREATEST(LEAST(attempts, 2147483647), 0)
            ELSE NULL::integer
        END AS attempts,
    next_run_at AS due_at,
    created_at,
    last_error AS error,
    NULL::timestamp with time zone AS died_at,
    last_error_at AS error_at,
    status,
    (status = 'dead'::text) AS dead,
    (status = 'done'::text) AS delivered,
    (status = ANY ('{pending,retry}'::text[])) AS waiting,
    false AS working,
    ARRAY[status, (attempts)::text, (next_run_at)::text] AS release_before
   FROM public.outbox_event o;


--
-- Name: VIEW outbox; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON VIEW dlq.outbox IS 'The outbox in the words of this project.';


--
-- Name: probe; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.probe (
    cause_id text NOT NULL,
    tries integer NOT NULL,
    death_id bigint,
    fix_id bigint,
    next_at timestamp with time zone NOT NULL,
    probed_at timestamp with time zone NOT NULL,
    CONSTRAINT probe_check CHECK ((num_nonnulls(death_id, fix_id) <= 1)),
    CONSTRAINT probe_tries_check CHECK ((tries >= 0))
);


--
-- Name: TABLE probe; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.probe IS 'Causes with probes: the event that was released, or the fix that a delivered one flagged.';


--
-- Name: purged; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.purged (
    death_id bigint NOT NULL,
    event_id bigint NOT NULL,
    audit_id bigint NOT NULL,
    purged_at timestamp with time zone NOT NULL,
    died_at timestamp with time zone NOT NULL,
    archived_at timestamp with time zone NOT NULL
);


--
-- Name: TABLE purged; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.purged IS 'Events that the purge deleted from the archive. Kept while the ledger has their deaths.';


--
-- Name: recalled; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.recalled (
    death_id bigint NOT NULL,
    event_id bigint NOT NULL,
    event_created_at timestamp with time zone,
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    fix_id bigint,
    stage integer,
    actor text NOT NULL,
    reason text NOT NULL,
    retried_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL,
    recalled_at timestamp with time zone NOT NULL,
    recalled_by text NOT NULL,
    recall_reason text NOT NULL,
    CONSTRAINT recalled_actor_check CHECK ((actor <> ''::text)),
    CONSTRAINT recalled_check CHECK (((fix_id IS NULL) = (stage IS NULL))),
    CONSTRAINT recalled_reason_check CHECK ((reason <> ''::text)),
    CONSTRAINT recalled_recall_reason_check CHECK ((recall_reason <> ''::text)),
    CONSTRAINT recalled_recalled_by_check CHECK ((recalled_by <> ''::text))
);


--
-- Name: TABLE recalled; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.recalled IS 'Retries that were recalled before a worker took their events. As dlq.retry, and by whom.';


--
-- Name: reconciliation; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.reconciliation (
    checked_at timestamp with time zone NOT NULL,
    missing bigint NOT NULL,
    duplicated bigint NOT NULL,
    missed bigint NOT NULL,
    event_ids text[] NOT NULL
);


--
-- Name: TABLE reconciliation; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.reconciliation IS 'Results of each reconciliation: events that are missing, or in both tables.';


--
-- Name: report_day; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.report_day (
    day date NOT NULL,
    headline text NOT NULL,
    figures jsonb NOT NULL,
    files jsonb NOT NULL,
    built_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone
);


--
-- Name: TABLE report_day; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.report_day IS 'The last report that was built for each day.';


--
-- Name: restored; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.restored (
    death_id bigint NOT NULL,
    event_id bigint NOT NULL,
    died_at timestamp with time zone NOT NULL,
    archived_at timestamp with time zone NOT NULL,
    restored_at timestamp with time zone NOT NULL
);


--
-- Name: TABLE restored; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.restored IS 'Past stays of restored events in the archive, for reports of the days in between.';


--
-- Name: retry; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.retry (
    death_id bigint NOT NULL,
    event_id bigint NOT NULL,
    event_created_at timestamp with time zone,
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    fix_id bigint,
    stage integer,
    actor text NOT NULL,
    reason text NOT NULL,
    retried_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL,
    payload_before text,
    row_before text[],
    outcome text,
    settled_at timestamp with time zone,
    late_at timestamp with time zone,
    CONSTRAINT retry_actor_check CHECK ((actor <> ''::text)),
    CONSTRAINT retry_check CHECK (((fix_id IS NULL) = (stage IS NULL))),
    CONSTRAINT retry_check1 CHECK (((outcome IS NULL) = (settled_at IS NULL))),
    CONSTRAINT retry_check2 CHECK (((late_at IS NULL) OR (outcome = 'timed_out'::text))),
    CONSTRAINT retry_outcome_check CHECK ((outcome = ANY (ARRAY['delivered'::text, 'died_again'::text, 'timed_out'::text, 'deleted'::text]))),
    CONSTRAINT retry_reason_check CHECK ((reason <> ''::text))
);


--
-- Name: TABLE retry; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.retry IS 'One row for each retry of an event: its death, due time and outcome.';


--
-- Name: retry_count; Type: TABLE; Schema: dlq; Owner: -
--

CREATE TABLE dlq.retry_count (
    outcome text NOT NULL,
    by_probe boolean NOT NULL,
    retries bigint NOT NULL,
    CONSTRAINT retry_count_retries_check CHECK ((retries > 0))
);


--
-- Name: TABLE retry_count; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON TABLE dlq.retry_count IS 'Outcomes of retries without a fix. fix_outcome has those of fixes.';


--
-- Name: shown_death; Type: VIEW; Schema: dlq; Owner: -
--

CREATE VIEW dlq.shown_death AS
 SELECT d.id,
    d.event_id,
    d.event_created_at,
    d.aggregate_type,
    d.aggregate_id,
    d.event_type,
    d.attempts,
    d.died_at,
    d.error,
    d.was_missed,
    COALESCE(c.merged_into, d.cause_id) AS cause_id,
    d.detail
   FROM (dlq.death d
     LEFT JOIN dlq.cause c ON ((c.id = d.cause_id)));


--
-- Name: VIEW shown_death; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON VIEW dlq.shown_death IS 'Every death with the cause that it is shown as.';


--
-- Name: shown_detail; Type: VIEW; Schema: dlq; Owner: -
--

CREATE VIEW dlq.shown_detail AS
 SELECT COALESCE(c.merged_into, c.id) AS cause_id,
    k.detail,
    min(k.first_seen) AS first_seen,
    max(k.last_seen) AS last_seen,
    (sum(k.deaths))::bigint AS deaths,
    COALESCE(max(k.status) FILTER (WHERE (c.merged_into IS NULL)), 'open'::text) AS status,
    max(k.fixed_at) FILTER (WHERE (c.merged_into IS NULL)) AS fixed_at
   FROM (dlq.cause_detail k
     JOIN dlq.cause c ON ((c.id = k.cause_id)))
  GROUP BY COALESCE(c.merged_into, c.id), k.detail
 HAVING (sum(k.deaths) > (0)::numeric);


--
-- Name: VIEW shown_detail; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON VIEW dlq.shown_detail IS 'The details of each cause with those of the causes that are merged into it.';


--
-- Name: wanted; Type: VIEW; Schema: dlq; Owner: -
--

CREATE VIEW dlq.wanted AS
 SELECT e.death_id
   FROM (dlq.dead_event e
     JOIN dlq.fix f ON (((f.closed_at IS NULL) AND dlq.selects(f.*, e.*))));


--
-- Name: VIEW wanted; Type: COMMENT; Schema: dlq; Owner: -
--

COMMENT ON VIEW dlq.wanted IS 'Deaths that an open fix targets: their events are not archived.';


--
-- Name: outbox_event_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.outbox_event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: outbox_event_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.outbox_event_id_seq OWNED BY public.outbox_event.id;


--
-- Name: outbox_event id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.outbox_event ALTER COLUMN id SET DEFAULT nextval('public.outbox_event_id_seq'::regclass);


--
-- Data for Name: alert; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: alert_channel; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: alert_delivery; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: alert_notice; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: archived; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.archived VALUES
	(21, 'order', '1', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 24, '2026-11-29 23:04:36.24574+00'),
	(22, 'order', '10', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 25, '2026-11-29 23:04:36.24574+00'),
	(23, 'order', '11', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 26, '2026-11-29 23:04:36.24574+00'),
	(24, 'order', '12', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 27, '2026-11-29 23:04:36.24574+00'),
	(25, 'order', '13', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 28, '2026-11-29 23:04:36.24574+00'),
	(26, 'order', '14', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 29, '2026-11-29 23:04:36.24574+00'),
	(27, 'order', '15', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 30, '2026-11-29 23:04:36.24574+00'),
	(28, 'order', '16', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 31, '2026-11-29 23:04:36.24574+00'),
	(29, 'order', '17', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 32, '2026-11-29 23:04:36.24574+00'),
	(30, 'order', '18', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 33, '2026-11-29 23:04:36.24574+00'),
	(31, 'order', '19', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 34, '2026-11-29 23:04:36.24574+00'),
	(32, 'order', '2', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 35, '2026-11-29 23:04:36.24574+00'),
	(33, 'order', '20', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 36, '2026-11-29 23:04:36.24574+00'),
	(34, 'order', '3', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 37, '2026-11-29 23:04:36.24574+00'),
	(35, 'order', '4', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 38, '2026-11-29 23:04:36.24574+00'),
	(36, 'order', '5', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 39, '2026-11-29 23:04:36.24574+00'),
	(37, 'order', '6', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 40, '2026-11-29 23:04:36.24574+00'),
	(38, 'order', '7', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 41, '2026-11-29 23:04:36.24574+00'),
	(39, 'order', '8', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 42, '2026-11-29 23:04:36.24574+00'),
	(40, 'order', '9', 'old', '{}', 'dead', 5, '2026-11-29 23:04:36.233531+00', '2026-11-29 23:04:36.233531+00', 'OldError: x', NULL, 43, '2026-11-29 23:04:36.24574+00'),
	(41, 'order', '1', 'useless', '{}', 'dead', 5, '2026-11-29 23:04:36.250392+00', '2026-11-29 23:04:36.250392+00', 'UselessError: x', NULL, 44, '2026-11-29 23:04:36.257306+00'),
	(42, 'order', '2', 'useless', '{}', 'dead', 5, '2026-11-29 23:04:36.250392+00', '2026-11-29 23:04:36.250392+00', 'UselessError: x', NULL, 45, '2026-11-29 23:04:36.257306+00');


--
-- Data for Name: attachment; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.attachment VALUES
	('9648accd90d30ce0ad1201c277bfb8a043a8ad95ddfc24908a4988e1e832c03c', '{"o_id": "(o.\"id\")", "new_id": "(new.\"id\")", "o_dead": "((o.\"status\" operator(pg_catalog.=) ''dead''))", "offers": "''{\"causes\": \"\", \"event_types\": \"\", \"payloads\": \"\", \"attempts\": \"\", \"queue_lag\": \"\", \"regressions\": \"\", \"archive\": \"\", \"retries\": \"\", \"pace\": \"\", \"order\": \"\", \"edited_payloads\": \"\", \"fixes\": \"\"}''", "old_id": "(old.\"id\")", "erasure": "\"payload\" = ''{}'', \"last_error\" = null", "release": "\"status\" = ''pending'', \"attempts\" = ''0'', \"next_run_at\" = (given.due)", "new_dead": "((new.\"status\" operator(pg_catalog.=) ''dead''))", "old_dead": "((old.\"status\" operator(pg_catalog.=) ''dead''))", "vanished": "''deleted''", "id_column": "\"id\"", "is_erased": "o.\"payload\"::pg_catalog.text in (''{}'', ''\\x'') and o.\"last_error\" is null", "new_death": "(new.\"created_at\"),\n            coalesce((new.\"aggregate_type\"::pg_catalog.text), ''''),\n            coalesce((new.\"aggregate_id\"::pg_catalog.text), ''''),\n            coalesce((new.\"event_type\"::pg_catalog.text), ''''),\n            coalesce((case when new.\"attempts\" is not null then greatest(least(new.\"attempts\", 2147483647), 0) end::pg_catalog.int4), 0),\n            (new.\"last_error\"::pg_catalog.text)", "can_recall": "true", "add_columns": "alter table \"public\".\"outbox_event\" add column if not exists last_error text, add column if not exists last_error_at timestamp with time zone;", "added_names": "''{last_error,last_error_at}''", "can_release": "true", "o_delivered": "((o.\"status\" operator(pg_catalog.=) ''done''))", "o_created_at": "(o.\"created_at\")", "payload_type": "pg_catalog.jsonb", "event_id_type": "bigint", "outbox_columns": "(o.\"id\") as id,\n    (o.\"aggregate_type\"::pg_catalog.text) as aggregate_type,\n    (o.\"aggregate_id\"::pg_catalog.text) as aggregate_id,\n    (o.\"event_type\"::pg_catalog.text) as event_type,\n    (o.\"payload\"::pg_catalog.text) as payload,\n    (case when o.\"attempts\" is not null then greatest(least(o.\"attempts\", 2147483647), 0) end::pg_catalog.int4) as attempts,\n    (o.\"next_run_at\") as due_at,\n    (o.\"created_at\") as created_at,\n    (o.\"last_error\"::pg_catalog.text) as error,\n    (null::pg_catalog.timestamptz) as died_at,\n    o.last_error_at as error_at,\n    o.\"status\"::pg_catalog.text as status,\n    ((o.\"status\" operator(pg_catalog.=) ''dead'')) as dead,\n    ((o.\"status\" operator(pg_catalog.=) ''done'')) as delivered,\n    ((o.\"status\" operator(pg_catalog.=) any (''{\"pending\",\"retry\"}''))) as waiting,\n    (false) as working,\n    array[o.\"status\"::pg_catalog.text, o.\"attempts\"::pg_catalog.text, o.\"next_run_at\"::pg_catalog.text] as release_before", "payload_change": "\"payload\" = new_payload::pg_catalog.jsonb", "archive_columns": "(a.\"id\") as id,\n    (a.\"aggregate_type\"::pg_catalog.text) as aggregate_type,\n    (a.\"aggregate_id\"::pg_catalog.text) as aggregate_id,\n    (a.\"event_type\"::pg_catalog.text) as event_type,\n    (a.\"payload\"::pg_catalog.text) as payload,\n    (case when a.\"attempts\" is not null then greatest(least(a.\"attempts\", 2147483647), 0) end::pg_catalog.int4) as attempts,\n    (a.\"next_run_at\") as due_at,\n    (a.\"created_at\") as created_at,\n    (a.\"last_error\"::pg_catalog.text) as error,\n    (null::pg_catalog.timestamptz) as died_at,\n    a.last_error_at as error_at,\n    a.\"status\"::pg_catalog.text as status,\n    ((a.\"status\" operator(pg_catalog.=) ''dead'')) as dead,\n    ((a.\"status\" operator(pg_catalog.=) ''done'')) as delivered,\n    ((a.\"status\" operator(pg_catalog.=) any (''{\"pending\",\"retry\"}''))) as waiting,\n    (false) as working", "written_columns": "''{\"status\",\"attempts\",\"next_run_at\",\"payload\"}''", "deletion_is_loss": "true", "released_columns": "''{\"status\",\"attempts\",\"next_run_at\"}''", "release_unchanged": "(o.\"status\" is not distinct from ''pending'' and o.\"attempts\" is not distinct from ''0'' and o.\"next_run_at\" is not distinct from (given.due)::timestamp with time zone and ((o.\"status\" operator(pg_catalog.=) ''dead'')) is not true and ((o.\"status\" operator(pg_catalog.=) ''done'')) is not true and (false) is not true)"}', '2026-11-29 23:04:35.948729+00', '2026-11-29 23:04:35.963375+00', '{last_error_at,last_error}');


--
-- Data for Name: audit; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.audit OVERRIDING SYSTEM VALUE VALUES
	(1, 'fix.flag', 'ann', 'fixed', '{"fix": 1}', 8, '2026-11-29 23:04:35.978409+00', NULL),
	(2, 'retry.stage', 'sensor', 'fix 1, stage 1: fixed', '{"fix": 1, "stage": 1}', 3, '2026-11-29 23:04:35.985148+00', 'run-1'),
	(3, 'retry.stage', 'sensor', 'fix 1, stage 2: fixed', '{"fix": 1, "stage": 2}', 5, '2026-11-29 23:04:36.019372+00', 'run-1'),
	(4, 'fix.verified', 'sensor', 'every stage passed; the last was stage 2', '{"fix": 1}', 0, '2026-11-29 23:04:36.059341+00', 'run-1'),
	(5, 'fix.flag', 'ann', 'fixed', '{"fix": 2}', 8, '2026-11-29 23:04:36.11541+00', NULL),
	(6, 'retry.stage', 'sensor', 'fix 2, stage 1: fixed', '{"fix": 2, "stage": 1}', 3, '2026-11-29 23:04:36.118303+00', 'run-1'),
	(7, 'fix.halted', 'sensor', 'stage 1: 3 of 3 failed (3 died again, 0 timed out, 0 deleted); at least 90% must be delivered', '{"fix": 2}', 0, '2026-11-29 23:04:36.148084+00', 'run-1'),
	(8, 'fix.flag', 'ann', 'fixed', '{"fix": 3}', 4, '2026-11-29 23:04:36.227215+00', NULL),
	(9, 'fix.withdrawn', 'ann', 'not yet', '{"fix": 3}', 0, '2026-11-29 23:04:36.229839+00', NULL),
	(10, 'archive.move', 'job', 'retention', '{"before": "2026-10-30T23:04:36.245740+00:00"}', 20, '2026-11-29 23:04:36.24574+00', NULL),
	(11, 'archive.discard', 'bob', 'asked', '{"event_type": "useless"}', 2, '2026-11-29 23:04:36.257306+00', NULL),
	(12, 'cause.merge', 'ann', 'the same', '{"changes": [{"after": {"merged_into": "v2-8cd5db88864c040e"}, "cause": "v2-df7ac52eee282ff2", "before": {"merged_into": null}}]}', 0, '2026-11-29 23:04:36.275488+00', NULL),
	(13, 'cause.mute', 'ann', 'known', '{"changes": [{"after": {"muted_until": "2026-12-06T23:04:36.277755+00:00"}, "cause": "v2-8cd5db88864c040e", "before": {"muted_until": null}}]}', 0, '2026-11-29 23:04:36.277766+00', NULL),
	(14, 'fix.flag', 'ann', 'it is open', '{"fix": 4}', 12, '2026-11-29 23:04:36.28874+00', NULL),
	(15, 'retry.stage', 'sensor', 'fix 4, stage 1: it is open', '{"fix": 4, "stage": 1}', 3, '2026-11-29 23:04:36.291446+00', 'run-1');


--
-- Data for Name: cause; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.cause VALUES
	('v2-3cf8038e074f4e5e', 'KeyError', '<name>', '2026-11-29 23:04:35.96544+00', '2026-11-29 23:04:35.966848+00', 'fixed', '2026-11-29 23:04:35.978409+00', NULL, NULL, NULL, NULL, NULL, false, NULL),
	('v2-44794416a5eb044a', 'HTTPError', 'HTTP Error 503', '2026-11-29 23:04:36.107876+00', '2026-11-29 23:04:36.10909+00', 'open', NULL, NULL, NULL, NULL, NULL, NULL, true, NULL),
	('v2-40a1ea647f833767', 'ValueError', 'bad', '2026-11-29 23:04:36.21959+00', '2026-11-29 23:04:36.220289+00', 'open', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL),
	('v2-699d30b13a356948', 'OldError', 'x', '2026-11-29 23:04:36.23442+00', '2026-11-29 23:04:36.237819+00', 'open', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL),
	('v2-63090a85ad0a2f41', 'UselessError', 'x', '2026-11-29 23:04:36.251166+00', '2026-11-29 23:04:36.251352+00', 'open', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL),
	('v2-df7ac52eee282ff2', 'OneError', 'x', '2026-11-29 23:04:36.262668+00', '2026-11-29 23:04:36.26302+00', 'open', NULL, NULL, NULL, NULL, NULL, NULL, false, 'v2-8cd5db88864c040e'),
	('v2-8cd5db88864c040e', 'OtherError', 'x', '2026-11-29 23:04:36.26952+00', '2026-11-29 23:04:36.26993+00', 'open', NULL, NULL, NULL, NULL, '2026-12-06 23:04:36.277755+00', NULL, false, NULL),
	('v2-b360256b28768f56', 'TimeoutError', 'no answer', '2026-11-29 23:04:36.144963+00', '2026-11-29 23:04:36.283382+00', 'open', NULL, NULL, NULL, NULL, NULL, NULL, true, NULL);


--
-- Data for Name: cause_alias; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.cause_alias VALUES
	('v2-3cf8038e074f4e5e', 'v2-3cf8038e074f4e5e'),
	('v2-44794416a5eb044a', 'v2-44794416a5eb044a'),
	('v2-b360256b28768f56', 'v2-b360256b28768f56'),
	('v2-40a1ea647f833767', 'v2-40a1ea647f833767'),
	('v2-699d30b13a356948', 'v2-699d30b13a356948'),
	('v2-63090a85ad0a2f41', 'v2-63090a85ad0a2f41'),
	('v2-df7ac52eee282ff2', 'v2-df7ac52eee282ff2'),
	('v2-8cd5db88864c040e', 'v2-8cd5db88864c040e');


--
-- Data for Name: cause_count; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.cause_count VALUES
	('v2-3cf8038e074f4e5e', 8, true),
	('v2-44794416a5eb044a', 8, true),
	('v2-40a1ea647f833767', 4, true),
	('v2-699d30b13a356948', 20, true),
	('v2-63090a85ad0a2f41', 2, true),
	('v2-df7ac52eee282ff2', 3, true),
	('v2-8cd5db88864c040e', 3, true),
	('v2-b360256b28768f56', 15, true);


--
-- Data for Name: cause_day; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.cause_day VALUES
	('2026-11-29', 'v2-3cf8038e074f4e5e', 'order.placed', 'order', 8),
	('2026-11-29', 'v2-44794416a5eb044a', 'order.placed', 'order', 8),
	('2026-11-29', 'v2-b360256b28768f56', 'order.placed', 'order', 3),
	('2026-11-29', 'v2-40a1ea647f833767', 'letter.sent', 'order', 4),
	('2026-11-29', 'v2-699d30b13a356948', 'old', 'order', 20),
	('2026-11-29', 'v2-63090a85ad0a2f41', 'useless', 'order', 2),
	('2026-11-29', 'v2-df7ac52eee282ff2', 'order.placed', 'order', 3),
	('2026-11-29', 'v2-8cd5db88864c040e', 'order.placed', 'order', 3),
	('2026-11-29', 'v2-b360256b28768f56', 'order.shipped', 'order', 12);


--
-- Data for Name: cause_detail; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.cause_detail VALUES
	('v2-3cf8038e074f4e5e', 'postcode', '2026-11-29 23:04:35.96544+00', '2026-11-29 23:04:35.966848+00', 8, 0, 'fixed', '2026-11-29 23:04:35.978409+00');


--
-- Data for Name: cause_successor; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: check_result; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: dead; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.dead VALUES
	(12, 12, '2026-11-29 23:04:36.107064+00', 'order', '4', 'order.placed', '2026-11-29 23:04:36.1084+00', 'v2-44794416a5eb044a', ''),
	(13, 13, '2026-11-29 23:04:36.107064+00', 'order', '5', 'order.placed', '2026-11-29 23:04:36.108564+00', 'v2-44794416a5eb044a', ''),
	(14, 14, '2026-11-29 23:04:36.107064+00', 'order', '6', 'order.placed', '2026-11-29 23:04:36.108725+00', 'v2-44794416a5eb044a', ''),
	(15, 15, '2026-11-29 23:04:36.107064+00', 'order', '7', 'order.placed', '2026-11-29 23:04:36.10889+00', 'v2-44794416a5eb044a', ''),
	(16, 16, '2026-11-29 23:04:36.107064+00', 'order', '8', 'order.placed', '2026-11-29 23:04:36.10909+00', 'v2-44794416a5eb044a', ''),
	(17, 9, '2026-11-29 23:04:36.107064+00', 'order', '1', 'order.placed', '2026-11-29 23:04:36.144963+00', 'v2-b360256b28768f56', ''),
	(18, 10, '2026-11-29 23:04:36.107064+00', 'order', '2', 'order.placed', '2026-11-29 23:04:36.145952+00', 'v2-b360256b28768f56', ''),
	(19, 11, '2026-11-29 23:04:36.107064+00', 'order', '3', 'order.placed', '2026-11-29 23:04:36.146561+00', 'v2-b360256b28768f56', ''),
	(20, 17, '2026-11-29 23:04:36.218849+00', 'order', '1', 'letter.sent', '2026-11-29 23:04:36.21959+00', 'v2-40a1ea647f833767', ''),
	(21, 18, '2026-11-29 23:04:36.218849+00', 'order', '2', 'letter.sent', '2026-11-29 23:04:36.219785+00', 'v2-40a1ea647f833767', ''),
	(22, 19, '2026-11-29 23:04:36.218849+00', 'order', '3', 'letter.sent', '2026-11-29 23:04:36.220012+00', 'v2-40a1ea647f833767', ''),
	(23, 20, '2026-11-29 23:04:36.218849+00', 'order', '4', 'letter.sent', '2026-11-29 23:04:36.220289+00', 'v2-40a1ea647f833767', ''),
	(46, 43, '2026-11-29 23:04:36.261965+00', 'order', '1', 'order.placed', '2026-11-29 23:04:36.262668+00', 'v2-df7ac52eee282ff2', ''),
	(47, 44, '2026-11-29 23:04:36.261965+00', 'order', '2', 'order.placed', '2026-11-29 23:04:36.262854+00', 'v2-df7ac52eee282ff2', ''),
	(48, 45, '2026-11-29 23:04:36.261965+00', 'order', '3', 'order.placed', '2026-11-29 23:04:36.26302+00', 'v2-df7ac52eee282ff2', ''),
	(49, 46, '2026-11-29 23:04:36.268729+00', 'order', '1', 'order.placed', '2026-11-29 23:04:36.26952+00', 'v2-8cd5db88864c040e', ''),
	(50, 47, '2026-11-29 23:04:36.268729+00', 'order', '2', 'order.placed', '2026-11-29 23:04:36.269709+00', 'v2-8cd5db88864c040e', ''),
	(51, 48, '2026-11-29 23:04:36.268729+00', 'order', '3', 'order.placed', '2026-11-29 23:04:36.26993+00', 'v2-8cd5db88864c040e', ''),
	(55, 49, '2026-11-29 23:04:36.280693+00', 'order', '1', 'order.shipped', '2026-11-29 23:04:36.281557+00', 'v2-b360256b28768f56', ''),
	(59, 53, '2026-11-29 23:04:36.280693+00', 'order', '2', 'order.shipped', '2026-11-29 23:04:36.282258+00', 'v2-b360256b28768f56', ''),
	(60, 54, '2026-11-29 23:04:36.280693+00', 'order', '3', 'order.shipped', '2026-11-29 23:04:36.28242+00', 'v2-b360256b28768f56', ''),
	(61, 55, '2026-11-29 23:04:36.280693+00', 'order', '4', 'order.shipped', '2026-11-29 23:04:36.282581+00', 'v2-b360256b28768f56', ''),
	(62, 56, '2026-11-29 23:04:36.280693+00', 'order', '5', 'order.shipped', '2026-11-29 23:04:36.282742+00', 'v2-b360256b28768f56', ''),
	(63, 57, '2026-11-29 23:04:36.280693+00', 'order', '6', 'order.shipped', '2026-11-29 23:04:36.282901+00', 'v2-b360256b28768f56', ''),
	(64, 58, '2026-11-29 23:04:36.280693+00', 'order', '7', 'order.shipped', '2026-11-29 23:04:36.283062+00', 'v2-b360256b28768f56', ''),
	(65, 59, '2026-11-29 23:04:36.280693+00', 'order', '8', 'order.shipped', '2026-11-29 23:04:36.283223+00', 'v2-b360256b28768f56', ''),
	(66, 60, '2026-11-29 23:04:36.280693+00', 'order', '9', 'order.shipped', '2026-11-29 23:04:36.283382+00', 'v2-b360256b28768f56', '');


--
-- Data for Name: death; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.death OVERRIDING SYSTEM VALUE VALUES
	(1, 1, '2026-11-29 23:04:35.964085+00', 'order', '1', 'order.placed', 5, '2026-11-29 23:04:35.96544+00', 'KeyError: ''postcode''', 'v2-3cf8038e074f4e5e', 'postcode', NULL, false, NULL),
	(2, 2, '2026-11-29 23:04:35.964085+00', 'order', '2', 'order.placed', 5, '2026-11-29 23:04:35.965785+00', 'KeyError: ''postcode''', 'v2-3cf8038e074f4e5e', 'postcode', NULL, false, NULL),
	(3, 3, '2026-11-29 23:04:35.964085+00', 'order', '3', 'order.placed', 5, '2026-11-29 23:04:35.965977+00', 'KeyError: ''postcode''', 'v2-3cf8038e074f4e5e', 'postcode', NULL, false, NULL),
	(4, 4, '2026-11-29 23:04:35.964085+00', 'order', '4', 'order.placed', 5, '2026-11-29 23:04:35.96616+00', 'KeyError: ''postcode''', 'v2-3cf8038e074f4e5e', 'postcode', NULL, false, NULL),
	(5, 5, '2026-11-29 23:04:35.964085+00', 'order', '5', 'order.placed', 5, '2026-11-29 23:04:35.966334+00', 'KeyError: ''postcode''', 'v2-3cf8038e074f4e5e', 'postcode', NULL, false, NULL),
	(6, 6, '2026-11-29 23:04:35.964085+00', 'order', '6', 'order.placed', 5, '2026-11-29 23:04:35.966511+00', 'KeyError: ''postcode''', 'v2-3cf8038e074f4e5e', 'postcode', NULL, false, NULL),
	(7, 7, '2026-11-29 23:04:35.964085+00', 'order', '7', 'order.placed', 5, '2026-11-29 23:04:35.966683+00', 'KeyError: ''postcode''', 'v2-3cf8038e074f4e5e', 'postcode', NULL, false, NULL),
	(8, 8, '2026-11-29 23:04:35.964085+00', 'order', '8', 'order.placed', 5, '2026-11-29 23:04:35.966848+00', 'KeyError: ''postcode''', 'v2-3cf8038e074f4e5e', 'postcode', NULL, false, NULL),
	(9, 9, '2026-11-29 23:04:36.107064+00', 'order', '1', 'order.placed', 5, '2026-11-29 23:04:36.107876+00', 'HTTPError: HTTP Error 503', 'v2-44794416a5eb044a', '', NULL, false, NULL),
	(10, 10, '2026-11-29 23:04:36.107064+00', 'order', '2', 'order.placed', 5, '2026-11-29 23:04:36.108068+00', 'HTTPError: HTTP Error 503', 'v2-44794416a5eb044a', '', NULL, false, NULL),
	(11, 11, '2026-11-29 23:04:36.107064+00', 'order', '3', 'order.placed', 5, '2026-11-29 23:04:36.108235+00', 'HTTPError: HTTP Error 503', 'v2-44794416a5eb044a', '', NULL, false, NULL),
	(12, 12, '2026-11-29 23:04:36.107064+00', 'order', '4', 'order.placed', 5, '2026-11-29 23:04:36.1084+00', 'HTTPError: HTTP Error 503', 'v2-44794416a5eb044a', '', NULL, false, NULL),
	(13, 13, '2026-11-29 23:04:36.107064+00', 'order', '5', 'order.placed', 5, '2026-11-29 23:04:36.108564+00', 'HTTPError: HTTP Error 503', 'v2-44794416a5eb044a', '', NULL, false, NULL),
	(14, 14, '2026-11-29 23:04:36.107064+00', 'order', '6', 'order.placed', 5, '2026-11-29 23:04:36.108725+00', 'HTTPError: HTTP Error 503', 'v2-44794416a5eb044a', '', NULL, false, NULL),
	(15, 15, '2026-11-29 23:04:36.107064+00', 'order', '7', 'order.placed', 5, '2026-11-29 23:04:36.10889+00', 'HTTPError: HTTP Error 503', 'v2-44794416a5eb044a', '', NULL, false, NULL),
	(16, 16, '2026-11-29 23:04:36.107064+00', 'order', '8', 'order.placed', 5, '2026-11-29 23:04:36.10909+00', 'HTTPError: HTTP Error 503', 'v2-44794416a5eb044a', '', NULL, false, NULL),
	(17, 9, '2026-11-29 23:04:36.107064+00', 'order', '1', 'order.placed', 1, '2026-11-29 23:04:36.144963+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(18, 10, '2026-11-29 23:04:36.107064+00', 'order', '2', 'order.placed', 1, '2026-11-29 23:04:36.145952+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(19, 11, '2026-11-29 23:04:36.107064+00', 'order', '3', 'order.placed', 1, '2026-11-29 23:04:36.146561+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(20, 17, '2026-11-29 23:04:36.218849+00', 'order', '1', 'letter.sent', 5, '2026-11-29 23:04:36.21959+00', 'ValueError: bad', 'v2-40a1ea647f833767', '', NULL, false, NULL),
	(21, 18, '2026-11-29 23:04:36.218849+00', 'order', '2', 'letter.sent', 5, '2026-11-29 23:04:36.219785+00', 'ValueError: bad', 'v2-40a1ea647f833767', '', NULL, false, NULL),
	(22, 19, '2026-11-29 23:04:36.218849+00', 'order', '3', 'letter.sent', 5, '2026-11-29 23:04:36.220012+00', 'ValueError: bad', 'v2-40a1ea647f833767', '', NULL, false, NULL),
	(23, 20, '2026-11-29 23:04:36.218849+00', 'order', '4', 'letter.sent', 5, '2026-11-29 23:04:36.220289+00', 'ValueError: bad', 'v2-40a1ea647f833767', '', NULL, false, NULL),
	(24, 21, '2026-11-29 23:04:36.233531+00', 'order', '1', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(25, 22, '2026-11-29 23:04:36.233531+00', 'order', '10', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(26, 23, '2026-11-29 23:04:36.233531+00', 'order', '11', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(27, 24, '2026-11-29 23:04:36.233531+00', 'order', '12', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(28, 25, '2026-11-29 23:04:36.233531+00', 'order', '13', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(29, 26, '2026-11-29 23:04:36.233531+00', 'order', '14', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(30, 27, '2026-11-29 23:04:36.233531+00', 'order', '15', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(31, 28, '2026-11-29 23:04:36.233531+00', 'order', '16', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(32, 29, '2026-11-29 23:04:36.233531+00', 'order', '17', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(33, 30, '2026-11-29 23:04:36.233531+00', 'order', '18', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(34, 31, '2026-11-29 23:04:36.233531+00', 'order', '19', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(35, 32, '2026-11-29 23:04:36.233531+00', 'order', '2', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(36, 33, '2026-11-29 23:04:36.233531+00', 'order', '20', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(37, 34, '2026-11-29 23:04:36.233531+00', 'order', '3', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(38, 35, '2026-11-29 23:04:36.233531+00', 'order', '4', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(39, 36, '2026-11-29 23:04:36.233531+00', 'order', '5', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(40, 37, '2026-11-29 23:04:36.233531+00', 'order', '6', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(41, 38, '2026-11-29 23:04:36.233531+00', 'order', '7', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(42, 39, '2026-11-29 23:04:36.233531+00', 'order', '8', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(43, 40, '2026-11-29 23:04:36.233531+00', 'order', '9', 'old', 5, '2026-09-30 23:04:36.244884+00', 'OldError: x', 'v2-699d30b13a356948', '', NULL, false, NULL),
	(44, 41, '2026-11-29 23:04:36.250392+00', 'order', '1', 'useless', 5, '2026-11-29 23:04:36.251166+00', 'UselessError: x', 'v2-63090a85ad0a2f41', '', NULL, false, NULL),
	(45, 42, '2026-11-29 23:04:36.250392+00', 'order', '2', 'useless', 5, '2026-11-29 23:04:36.251352+00', 'UselessError: x', 'v2-63090a85ad0a2f41', '', NULL, false, NULL),
	(46, 43, '2026-11-29 23:04:36.261965+00', 'order', '1', 'order.placed', 5, '2026-11-29 23:04:36.262668+00', 'OneError: x', 'v2-df7ac52eee282ff2', '', NULL, false, NULL),
	(47, 44, '2026-11-29 23:04:36.261965+00', 'order', '2', 'order.placed', 5, '2026-11-29 23:04:36.262854+00', 'OneError: x', 'v2-df7ac52eee282ff2', '', NULL, false, NULL),
	(48, 45, '2026-11-29 23:04:36.261965+00', 'order', '3', 'order.placed', 5, '2026-11-29 23:04:36.26302+00', 'OneError: x', 'v2-df7ac52eee282ff2', '', NULL, false, NULL),
	(49, 46, '2026-11-29 23:04:36.268729+00', 'order', '1', 'order.placed', 5, '2026-11-29 23:04:36.26952+00', 'OtherError: x', 'v2-8cd5db88864c040e', '', NULL, false, NULL),
	(50, 47, '2026-11-29 23:04:36.268729+00', 'order', '2', 'order.placed', 5, '2026-11-29 23:04:36.269709+00', 'OtherError: x', 'v2-8cd5db88864c040e', '', NULL, false, NULL),
	(51, 48, '2026-11-29 23:04:36.268729+00', 'order', '3', 'order.placed', 5, '2026-11-29 23:04:36.26993+00', 'OtherError: x', 'v2-8cd5db88864c040e', '', NULL, false, NULL),
	(52, 43, '2026-11-29 23:04:36.261965+00', 'order', '1', 'order.placed', 5, '2026-11-29 22:04:36.262668+00', 'OneError: x', 'v2-df7ac52eee282ff2', NULL, '2026-11-29 23:04:36.262668+00', false, NULL),
	(53, 43, '2026-11-29 23:04:36.261965+00', 'order', '1', 'order.placed', 5, '2026-11-29 21:04:36.262668+00', 'OneError: x', 'v2-df7ac52eee282ff2', NULL, '2026-11-29 23:04:36.262668+00', false, NULL),
	(54, 43, '2026-11-29 23:04:36.261965+00', 'order', '1', 'order.placed', 5, '2026-11-29 20:04:36.262668+00', 'OneError: x', 'v2-df7ac52eee282ff2', NULL, '2026-11-29 23:04:36.262668+00', false, NULL),
	(55, 49, '2026-11-29 23:04:36.280693+00', 'order', '1', 'order.shipped', 5, '2026-11-29 23:04:36.281557+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(56, 50, '2026-11-29 23:04:36.280693+00', 'order', '10', 'order.shipped', 5, '2026-11-29 23:04:36.28175+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(57, 51, '2026-11-29 23:04:36.280693+00', 'order', '11', 'order.shipped', 5, '2026-11-29 23:04:36.281925+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(58, 52, '2026-11-29 23:04:36.280693+00', 'order', '12', 'order.shipped', 5, '2026-11-29 23:04:36.282094+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(59, 53, '2026-11-29 23:04:36.280693+00', 'order', '2', 'order.shipped', 5, '2026-11-29 23:04:36.282258+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(60, 54, '2026-11-29 23:04:36.280693+00', 'order', '3', 'order.shipped', 5, '2026-11-29 23:04:36.28242+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(61, 55, '2026-11-29 23:04:36.280693+00', 'order', '4', 'order.shipped', 5, '2026-11-29 23:04:36.282581+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(62, 56, '2026-11-29 23:04:36.280693+00', 'order', '5', 'order.shipped', 5, '2026-11-29 23:04:36.282742+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(63, 57, '2026-11-29 23:04:36.280693+00', 'order', '6', 'order.shipped', 5, '2026-11-29 23:04:36.282901+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(64, 58, '2026-11-29 23:04:36.280693+00', 'order', '7', 'order.shipped', 5, '2026-11-29 23:04:36.283062+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(65, 59, '2026-11-29 23:04:36.280693+00', 'order', '8', 'order.shipped', 5, '2026-11-29 23:04:36.283223+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL),
	(66, 60, '2026-11-29 23:04:36.280693+00', 'order', '9', 'order.shipped', 5, '2026-11-29 23:04:36.283382+00', 'TimeoutError: no answer', 'v2-b360256b28768f56', '', NULL, false, NULL);


--
-- Data for Name: death_count; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.death_count VALUES
	('order.placed', 'order', 1, 3, 3),
	('letter.sent', 'order', 5, 4, 20),
	('old', 'order', 5, 20, 100),
	('useless', 'order', 5, 2, 10),
	('order.placed', 'order', 5, 22, 110),
	('order.shipped', 'order', 5, 12, 60);


--
-- Data for Name: death_hour; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.death_hour VALUES
	('2026-11-29 23:00:00+00', 'letter.sent', 4),
	('2026-11-29 23:00:00+00', 'old', 20),
	('2026-11-29 23:00:00+00', 'useless', 2),
	('2026-11-29 23:00:00+00', 'order.placed', 25),
	('2026-11-29 23:00:00+00', 'order.shipped', 12);


--
-- Data for Name: death_notice; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: delivered_sample; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: discard; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.discard VALUES
	(44, 41, 'bob', 'asked', '2026-11-29 23:04:36.257306+00'),
	(45, 42, 'bob', 'asked', '2026-11-29 23:04:36.257306+00');


--
-- Data for Name: export_day; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: fix; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.fix OVERRIDING SYSTEM VALUE VALUES
	(4, NULL, NULL, 'order.shipped', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, 'it is open', NULL, NULL, 'ann', '2026-11-29 23:04:36.28874+00', NULL, '2026-12-13 23:04:36.28874+00', 3, 10, 1000, 0.9, 60, 3, 'aggregate', NULL, NULL, 1, '2026-11-29 23:04:36.291446+00', '2026-11-29 23:04:36.293446+00', NULL, 1000, NULL, NULL, 'active', NULL, '[]', NULL),
	(1, 'v2-3cf8038e074f4e5e', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, 'fixed', NULL, NULL, 'ann', '2026-11-29 23:04:35.978409+00', NULL, '2026-12-13 23:04:35.978409+00', 3, 10, 1000, 0.9, 60, 3, 'aggregate', 'open', NULL, 2, '2026-11-29 23:04:36.059341+00', '2026-11-29 23:04:36.023372+00', 1000, 1000, '{"failed": 0, "recent": 8, "outcomes": 8, "grows_after": null, "halved_due_at": null, "ignored_until": null, "recent_failed": 0.0}', NULL, 'verified', 'every stage passed; the last was stage 2', '[]', '2026-11-29 23:04:36.059341+00'),
	(2, 'v2-44794416a5eb044a', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, 'fixed', NULL, NULL, 'ann', '2026-11-29 23:04:36.11541+00', NULL, '2026-12-13 23:04:36.11541+00', 3, 10, 1000, 0.9, 60, 3, 'aggregate', 'open', NULL, 1, '2026-11-29 23:04:36.148084+00', '2026-11-29 23:04:36.120303+00', 1000, 1000, '{"failed": 3, "recent": 3, "outcomes": 3, "grows_after": null, "halved_due_at": null, "ignored_until": null, "recent_failed": 3.0}', NULL, 'halted', 'stage 1: 3 of 3 failed (3 died again, 0 timed out, 0 deleted); at least 90% must be delivered', '[{"after": "TimeoutError: no answer", "before": "HTTPError: HTTP Error 503", "events": 3, "outcome": "died_again"}]', '2026-11-29 23:04:36.148084+00'),
	(3, NULL, NULL, 'letter.sent', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, 'fixed', NULL, NULL, 'ann', '2026-11-29 23:04:36.227215+00', NULL, NULL, 3, 10, 1000, 0.9, 60, 3, 'aggregate', NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, 'withdrawn', 'withdrawn by ann: not yet', '[]', '2026-11-29 23:04:36.229839+00');


--
-- Data for Name: fix_outcome; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.fix_outcome VALUES
	(1, 1, 'delivered', 3, 0),
	(1, 2, 'delivered', 5, 0),
	(2, 1, 'died_again', 3, 0);


--
-- Data for Name: fix_stage; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.fix_stage VALUES
	(1, 1, 3, '2026-11-29 23:04:35.985148+00', 3),
	(1, 2, 30, '2026-11-29 23:04:36.019372+00', 5),
	(2, 1, 3, '2026-11-29 23:04:36.118303+00', 3),
	(4, 1, 3, '2026-11-29 23:04:36.291446+00', 3);


--
-- Data for Name: installation; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.installation VALUES
	('bfae489a-79b6-4917-b565-5ff5cb4e3646', '2026-11-29 23:04:35.936185+00');


--
-- Data for Name: job_run; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: job_scan; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.job_scan VALUES
	('2026-11-29 23:04:35.936185+00');


--
-- Data for Name: metric_label; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.metric_label VALUES
	('aggregate_type', 'order'),
	('event_type', 'order.placed'),
	('event_type', 'letter.sent'),
	('event_type', 'old'),
	('event_type', 'useless'),
	('event_type', 'order.shipped');


--
-- Data for Name: migration; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.migration VALUES
	(1, '0001_schema', 'd71c4f5faebe4a654c0c2c76351c17390b571817790cda149fd73e2562d4876c', '2026-11-29 23:04:35.87929+00'),
	(2, '0002_ledger', '2975287406aff627c4ec0e27c027a0c06ae7648863e1f6e69d41e7f84fdc1979', '2026-11-29 23:04:35.884182+00'),
	(3, '0003_flag_fix', 'f8d3bd3cd02a44756e0ee1d594bc3236b96a80a591e70e60fe923b6216665e0e', '2026-11-29 23:04:35.924565+00'),
	(4, '0004_counts', 'f093205d8e2795f030e25bf0214a798844ca6184aa2c454f11b36dfcc5c2c395', '2026-11-29 23:04:35.928697+00'),
	(5, '0005_alerts', 'e05a30e0e19ac47907d70a65700c279907528d3fccc8cbe2d4cf11367fe2b40b', '2026-11-29 23:04:35.936185+00');


--
-- Data for Name: probe; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: purged; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: recalled; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: reconciliation; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: report_day; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: restored; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: retry; Type: TABLE DATA; Schema: dlq; Owner: -
--

INSERT INTO dlq.retry VALUES
	(1, 1, '2026-11-29 23:04:35.964085+00', 'order', '1', 1, 1, 'sensor', 'fix 1, stage 1: fixed', '2026-11-29 23:04:35.985148+00', '2026-11-29 23:04:35.985148+00', NULL, NULL, 'delivered', '2026-11-29 23:04:36.019372+00', NULL),
	(2, 2, '2026-11-29 23:04:35.964085+00', 'order', '2', 1, 1, 'sensor', 'fix 1, stage 1: fixed', '2026-11-29 23:04:35.985148+00', '2026-11-29 23:04:35.986148+00', NULL, NULL, 'delivered', '2026-11-29 23:04:36.019372+00', NULL),
	(3, 3, '2026-11-29 23:04:35.964085+00', 'order', '3', 1, 1, 'sensor', 'fix 1, stage 1: fixed', '2026-11-29 23:04:35.985148+00', '2026-11-29 23:04:35.987148+00', NULL, NULL, 'delivered', '2026-11-29 23:04:36.019372+00', NULL),
	(4, 4, '2026-11-29 23:04:35.964085+00', 'order', '4', 1, 2, 'sensor', 'fix 1, stage 2: fixed', '2026-11-29 23:04:36.019372+00', '2026-11-29 23:04:36.019372+00', NULL, NULL, 'delivered', '2026-11-29 23:04:36.059341+00', NULL),
	(5, 5, '2026-11-29 23:04:35.964085+00', 'order', '5', 1, 2, 'sensor', 'fix 1, stage 2: fixed', '2026-11-29 23:04:36.019372+00', '2026-11-29 23:04:36.020372+00', NULL, NULL, 'delivered', '2026-11-29 23:04:36.059341+00', NULL),
	(6, 6, '2026-11-29 23:04:35.964085+00', 'order', '6', 1, 2, 'sensor', 'fix 1, stage 2: fixed', '2026-11-29 23:04:36.019372+00', '2026-11-29 23:04:36.021372+00', NULL, NULL, 'delivered', '2026-11-29 23:04:36.059341+00', NULL),
	(7, 7, '2026-11-29 23:04:35.964085+00', 'order', '7', 1, 2, 'sensor', 'fix 1, stage 2: fixed', '2026-11-29 23:04:36.019372+00', '2026-11-29 23:04:36.022372+00', NULL, NULL, 'delivered', '2026-11-29 23:04:36.059341+00', NULL),
	(8, 8, '2026-11-29 23:04:35.964085+00', 'order', '8', 1, 2, 'sensor', 'fix 1, stage 2: fixed', '2026-11-29 23:04:36.019372+00', '2026-11-29 23:04:36.023372+00', NULL, NULL, 'delivered', '2026-11-29 23:04:36.059341+00', NULL),
	(9, 9, '2026-11-29 23:04:36.107064+00', 'order', '1', 2, 1, 'sensor', 'fix 2, stage 1: fixed', '2026-11-29 23:04:36.118303+00', '2026-11-29 23:04:36.118303+00', NULL, NULL, 'died_again', '2026-11-29 23:04:36.148084+00', NULL),
	(10, 10, '2026-11-29 23:04:36.107064+00', 'order', '2', 2, 1, 'sensor', 'fix 2, stage 1: fixed', '2026-11-29 23:04:36.118303+00', '2026-11-29 23:04:36.119303+00', NULL, NULL, 'died_again', '2026-11-29 23:04:36.148084+00', NULL),
	(11, 11, '2026-11-29 23:04:36.107064+00', 'order', '3', 2, 1, 'sensor', 'fix 2, stage 1: fixed', '2026-11-29 23:04:36.118303+00', '2026-11-29 23:04:36.120303+00', NULL, NULL, 'died_again', '2026-11-29 23:04:36.148084+00', NULL),
	(52, 43, '2026-11-29 23:04:36.261965+00', 'order', '1', NULL, NULL, 'ann', 'asked', '2026-11-29 22:04:36.262668+00', '2026-11-29 22:04:36.262668+00', NULL, NULL, 'died_again', '2026-11-29 22:04:36.262668+00', NULL),
	(53, 43, '2026-11-29 23:04:36.261965+00', 'order', '1', NULL, NULL, 'ann', 'asked', '2026-11-29 21:04:36.262668+00', '2026-11-29 21:04:36.262668+00', NULL, NULL, 'died_again', '2026-11-29 21:04:36.262668+00', NULL),
	(54, 43, '2026-11-29 23:04:36.261965+00', 'order', '1', NULL, NULL, 'ann', 'asked', '2026-11-29 20:04:36.262668+00', '2026-11-29 20:04:36.262668+00', NULL, NULL, 'died_again', '2026-11-29 20:04:36.262668+00', NULL),
	(56, 50, '2026-11-29 23:04:36.280693+00', 'order', '10', 4, 1, 'sensor', 'fix 4, stage 1: it is open', '2026-11-29 23:04:36.291446+00', '2026-11-29 23:04:36.291446+00', NULL, '{dead,5,"2026-11-29 23:04:36.280693+00"}', NULL, NULL, NULL),
	(57, 51, '2026-11-29 23:04:36.280693+00', 'order', '11', 4, 1, 'sensor', 'fix 4, stage 1: it is open', '2026-11-29 23:04:36.291446+00', '2026-11-29 23:04:36.292446+00', NULL, '{dead,5,"2026-11-29 23:04:36.280693+00"}', NULL, NULL, NULL),
	(58, 52, '2026-11-29 23:04:36.280693+00', 'order', '12', 4, 1, 'sensor', 'fix 4, stage 1: it is open', '2026-11-29 23:04:36.291446+00', '2026-11-29 23:04:36.293446+00', NULL, '{dead,5,"2026-11-29 23:04:36.280693+00"}', NULL, NULL, NULL);


--
-- Data for Name: retry_count; Type: TABLE DATA; Schema: dlq; Owner: -
--



--
-- Data for Name: outbox_event; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.outbox_event VALUES
	(1, 'order', '1', 'order.placed', '{}', 'done', 1, '2026-11-29 23:09:36.014948+00', '2026-11-29 23:04:35.964085+00', 'KeyError: ''postcode''', NULL),
	(2, 'order', '2', 'order.placed', '{}', 'done', 1, '2026-11-29 23:09:36.015027+00', '2026-11-29 23:04:35.964085+00', 'KeyError: ''postcode''', NULL),
	(3, 'order', '3', 'order.placed', '{}', 'done', 1, '2026-11-29 23:09:36.015033+00', '2026-11-29 23:04:35.964085+00', 'KeyError: ''postcode''', NULL),
	(4, 'order', '4', 'order.placed', '{}', 'done', 1, '2026-11-29 23:09:36.055069+00', '2026-11-29 23:04:35.964085+00', 'KeyError: ''postcode''', NULL),
	(5, 'order', '5', 'order.placed', '{}', 'done', 1, '2026-11-29 23:09:36.055152+00', '2026-11-29 23:04:35.964085+00', 'KeyError: ''postcode''', NULL),
	(6, 'order', '6', 'order.placed', '{}', 'done', 1, '2026-11-29 23:09:36.055159+00', '2026-11-29 23:04:35.964085+00', 'KeyError: ''postcode''', NULL),
	(7, 'order', '7', 'order.placed', '{}', 'done', 1, '2026-11-29 23:09:36.055163+00', '2026-11-29 23:04:35.964085+00', 'KeyError: ''postcode''', NULL),
	(8, 'order', '8', 'order.placed', '{}', 'done', 1, '2026-11-29 23:09:36.055166+00', '2026-11-29 23:04:35.964085+00', 'KeyError: ''postcode''', NULL),
	(12, 'order', '4', 'order.placed', '{}', 'dead', 5, '2026-11-29 23:04:36.107064+00', '2026-11-29 23:04:36.107064+00', 'HTTPError: HTTP Error 503', NULL),
	(13, 'order', '5', 'order.placed', '{}', 'dead', 5, '2026-11-29 23:04:36.107064+00', '2026-11-29 23:04:36.107064+00', 'HTTPError: HTTP Error 503', NULL),
	(14, 'order', '6', 'order.placed', '{}', 'dead', 5, '2026-11-29 23:04:36.107064+00', '2026-11-29 23:04:36.107064+00', 'HTTPError: HTTP Error 503', NULL),
	(15, 'order', '7', 'order.placed', '{}', 'dead', 5, '2026-11-29 23:04:36.107064+00', '2026-11-29 23:04:36.107064+00', 'HTTPError: HTTP Error 503', NULL),
	(16, 'order', '8', 'order.placed', '{}', 'dead', 5, '2026-11-29 23:04:36.107064+00', '2026-11-29 23:04:36.107064+00', 'HTTPError: HTTP Error 503', NULL),
	(9, 'order', '1', 'order.placed', '{}', 'dead', 1, '2026-11-29 23:09:36.142717+00', '2026-11-29 23:04:36.107064+00', 'TimeoutError: no answer', '2026-11-29 23:04:36.144164+00'),
	(10, 'order', '2', 'order.placed', '{}', 'dead', 1, '2026-11-29 23:09:36.142795+00', '2026-11-29 23:04:36.107064+00', 'TimeoutError: no answer', '2026-11-29 23:04:36.145876+00'),
	(11, 'order', '3', 'order.placed', '{}', 'dead', 1, '2026-11-29 23:09:36.142801+00', '2026-11-29 23:04:36.107064+00', 'TimeoutError: no answer', '2026-11-29 23:04:36.146489+00'),
	(17, 'order', '1', 'letter.sent', '{}', 'dead', 5, '2026-11-29 23:04:36.218849+00', '2026-11-29 23:04:36.218849+00', 'ValueError: bad', NULL),
	(18, 'order', '2', 'letter.sent', '{}', 'dead', 5, '2026-11-29 23:04:36.218849+00', '2026-11-29 23:04:36.218849+00', 'ValueError: bad', NULL),
	(19, 'order', '3', 'letter.sent', '{}', 'dead', 5, '2026-11-29 23:04:36.218849+00', '2026-11-29 23:04:36.218849+00', 'ValueError: bad', NULL),
	(20, 'order', '4', 'letter.sent', '{}', 'dead', 5, '2026-11-29 23:04:36.218849+00', '2026-11-29 23:04:36.218849+00', 'ValueError: bad', NULL),
	(43, 'order', '1', 'order.placed', '{}', 'dead', 5, '2026-11-29 23:04:36.261965+00', '2026-11-29 23:04:36.261965+00', 'OneError: x', NULL),
	(44, 'order', '2', 'order.placed', '{}', 'dead', 5, '2026-11-29 23:04:36.261965+00', '2026-11-29 23:04:36.261965+00', 'OneError: x', NULL),
	(45, 'order', '3', 'order.placed', '{}', 'dead', 5, '2026-11-29 23:04:36.261965+00', '2026-11-29 23:04:36.261965+00', 'OneError: x', NULL),
	(46, 'order', '1', 'order.placed', '{}', 'dead', 5, '2026-11-29 23:04:36.268729+00', '2026-11-29 23:04:36.268729+00', 'OtherError: x', NULL),
	(47, 'order', '2', 'order.placed', '{}', 'dead', 5, '2026-11-29 23:04:36.268729+00', '2026-11-29 23:04:36.268729+00', 'OtherError: x', NULL),
	(48, 'order', '3', 'order.placed', '{}', 'dead', 5, '2026-11-29 23:04:36.268729+00', '2026-11-29 23:04:36.268729+00', 'OtherError: x', NULL),
	(49, 'order', '1', 'order.shipped', '{}', 'dead', 5, '2026-11-29 23:04:36.280693+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(53, 'order', '2', 'order.shipped', '{}', 'dead', 5, '2026-11-29 23:04:36.280693+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(54, 'order', '3', 'order.shipped', '{}', 'dead', 5, '2026-11-29 23:04:36.280693+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(55, 'order', '4', 'order.shipped', '{}', 'dead', 5, '2026-11-29 23:04:36.280693+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(56, 'order', '5', 'order.shipped', '{}', 'dead', 5, '2026-11-29 23:04:36.280693+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(57, 'order', '6', 'order.shipped', '{}', 'dead', 5, '2026-11-29 23:04:36.280693+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(58, 'order', '7', 'order.shipped', '{}', 'dead', 5, '2026-11-29 23:04:36.280693+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(59, 'order', '8', 'order.shipped', '{}', 'dead', 5, '2026-11-29 23:04:36.280693+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(60, 'order', '9', 'order.shipped', '{}', 'dead', 5, '2026-11-29 23:04:36.280693+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(50, 'order', '10', 'order.shipped', '{}', 'pending', 0, '2026-11-29 23:04:36.291446+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(51, 'order', '11', 'order.shipped', '{}', 'pending', 0, '2026-11-29 23:04:36.292446+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(52, 'order', '12', 'order.shipped', '{}', 'pending', 0, '2026-11-29 23:04:36.293446+00', '2026-11-29 23:04:36.280693+00', 'TimeoutError: no answer', NULL),
	(61, 'order', '1', 'order.placed', '{}', 'pending', 0, '2026-11-29 23:04:36.302873+00', '2026-11-29 23:04:36.302873+00', NULL, NULL),
	(62, 'order', '2', 'order.placed', '{}', 'pending', 0, '2026-11-29 23:04:36.302873+00', '2026-11-29 23:04:36.302873+00', NULL, NULL),
	(63, 'order', '3', 'order.placed', '{}', 'pending', 0, '2026-11-29 23:04:36.302873+00', '2026-11-29 23:04:36.302873+00', NULL, NULL),
	(64, 'order', '4', 'order.placed', '{}', 'pending', 0, '2026-11-29 23:04:36.302873+00', '2026-11-29 23:04:36.302873+00', NULL, NULL),
	(65, 'order', '5', 'order.placed', '{}', 'pending', 0, '2026-11-29 23:04:36.302873+00', '2026-11-29 23:04:36.302873+00', NULL, NULL);


--
-- Name: alert_notice_id_seq; Type: SEQUENCE SET; Schema: dlq; Owner: -
--

SELECT pg_catalog.setval('dlq.alert_notice_id_seq', 1, false);


--
-- Name: audit_id_seq; Type: SEQUENCE SET; Schema: dlq; Owner: -
--

SELECT pg_catalog.setval('dlq.audit_id_seq', 15, true);


--
-- Name: death_id_seq; Type: SEQUENCE SET; Schema: dlq; Owner: -
--

SELECT pg_catalog.setval('dlq.death_id_seq', 66, true);


--
-- Name: fix_id_seq; Type: SEQUENCE SET; Schema: dlq; Owner: -
--

SELECT pg_catalog.setval('dlq.fix_id_seq', 1, false);


--
-- Name: outbox_event_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.outbox_event_id_seq', 65, true);


--
-- Name: alert_channel alert_channel_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.alert_channel
    ADD CONSTRAINT alert_channel_pkey PRIMARY KEY (id);


--
-- Name: alert_delivery alert_delivery_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.alert_delivery
    ADD CONSTRAINT alert_delivery_pkey PRIMARY KEY (notice_id, channel);


--
-- Name: alert_notice alert_notice_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.alert_notice
    ADD CONSTRAINT alert_notice_pkey PRIMARY KEY (id);


--
-- Name: alert alert_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.alert
    ADD CONSTRAINT alert_pkey PRIMARY KEY (key);


--
-- Name: archived archived_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.archived
    ADD CONSTRAINT archived_pkey PRIMARY KEY (dlq_death_id);


--
-- Name: audit audit_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);


--
-- Name: cause_alias cause_alias_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause_alias
    ADD CONSTRAINT cause_alias_pkey PRIMARY KEY (fingerprint);


--
-- Name: cause_count cause_count_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause_count
    ADD CONSTRAINT cause_count_pkey PRIMARY KEY (cause_id);


--
-- Name: cause_day cause_day_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause_day
    ADD CONSTRAINT cause_day_pkey PRIMARY KEY (day, cause_id, event_type, aggregate_type);


--
-- Name: cause_detail cause_detail_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause_detail
    ADD CONSTRAINT cause_detail_pkey PRIMARY KEY (cause_id, detail);


--
-- Name: cause cause_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause
    ADD CONSTRAINT cause_pkey PRIMARY KEY (id);


--
-- Name: cause_successor cause_successor_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause_successor
    ADD CONSTRAINT cause_successor_pkey PRIMARY KEY (cause_id, successor_id);


--
-- Name: check_result check_result_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.check_result
    ADD CONSTRAINT check_result_pkey PRIMARY KEY (name);


--
-- Name: dead dead_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.dead
    ADD CONSTRAINT dead_pkey PRIMARY KEY (death_id);


--
-- Name: death_count death_count_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.death_count
    ADD CONSTRAINT death_count_pkey PRIMARY KEY (event_type, aggregate_type, attempts_up_to);


--
-- Name: death_hour death_hour_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.death_hour
    ADD CONSTRAINT death_hour_pkey PRIMARY KEY (hour, event_type);


--
-- Name: death_notice death_notice_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.death_notice
    ADD CONSTRAINT death_notice_pkey PRIMARY KEY (death_id);


--
-- Name: death death_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.death
    ADD CONSTRAINT death_pkey PRIMARY KEY (id);


--
-- Name: delivered_sample delivered_sample_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.delivered_sample
    ADD CONSTRAINT delivered_sample_pkey PRIMARY KEY (event_id);


--
-- Name: discard discard_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.discard
    ADD CONSTRAINT discard_pkey PRIMARY KEY (death_id);


--
-- Name: export_day export_day_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.export_day
    ADD CONSTRAINT export_day_pkey PRIMARY KEY (day);


--
-- Name: fix fix_filters_or_all; Type: CHECK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE dlq.fix
    ADD CONSTRAINT fix_filters_or_all CHECK (("all" = (dlq.count_filters(fix.*) = 0)));


--
-- Name: fix_outcome fix_outcome_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.fix_outcome
    ADD CONSTRAINT fix_outcome_pkey PRIMARY KEY (fix_id, stage, outcome);


--
-- Name: fix fix_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.fix
    ADD CONSTRAINT fix_pkey PRIMARY KEY (id);


--
-- Name: fix_stage fix_stage_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.fix_stage
    ADD CONSTRAINT fix_stage_pkey PRIMARY KEY (fix_id, stage);


--
-- Name: installation installation_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (id);


--
-- Name: job_run job_run_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.job_run
    ADD CONSTRAINT job_run_pkey PRIMARY KEY (job, day);


--
-- Name: metric_label metric_label_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.metric_label
    ADD CONSTRAINT metric_label_pkey PRIMARY KEY (name, value);


--
-- Name: migration migration_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (number);


--
-- Name: probe probe_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.probe
    ADD CONSTRAINT probe_pkey PRIMARY KEY (cause_id);


--
-- Name: purged purged_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.purged
    ADD CONSTRAINT purged_pkey PRIMARY KEY (death_id);


--
-- Name: reconciliation reconciliation_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.reconciliation
    ADD CONSTRAINT reconciliation_pkey PRIMARY KEY (checked_at);


--
-- Name: report_day report_day_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.report_day
    ADD CONSTRAINT report_day_pkey PRIMARY KEY (day);


--
-- Name: retry_count retry_count_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.retry_count
    ADD CONSTRAINT retry_count_pkey PRIMARY KEY (outcome, by_probe);


--
-- Name: retry retry_pkey; Type: CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.retry
    ADD CONSTRAINT retry_pkey PRIMARY KEY (death_id);


--
-- Name: outbox_event outbox_event_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.outbox_event
    ADD CONSTRAINT outbox_event_pkey PRIMARY KEY (id);


--
-- Name: alert_delivery_open; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX alert_delivery_open ON dlq.alert_delivery USING btree (channel, notice_id) WHERE ((sent_at IS NULL) AND (given_up_at IS NULL));


--
-- Name: alert_firing; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX alert_firing ON dlq.alert USING btree (key) WHERE (resolved_at IS NULL);


--
-- Name: alert_notice_at; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX alert_notice_at ON dlq.alert_notice USING btree (at);


--
-- Name: alert_notice_digest; Type: INDEX; Schema: dlq; Owner: -
--

CREATE UNIQUE INDEX alert_notice_digest ON dlq.alert_notice USING btree (key) WHERE (kind = 'digest'::text);


--
-- Name: alert_resolved; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX alert_resolved ON dlq.alert USING btree (resolved_at);


--
-- Name: archived_event; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX archived_event ON dlq.archived USING btree (id);


--
-- Name: archived_time; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX archived_time ON dlq.archived USING btree (dlq_archived_at, dlq_death_id);


--
-- Name: audit_kind; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX audit_kind ON dlq.audit USING btree (kind, at) INCLUDE (events);


--
-- Name: cause_count_shown; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX cause_count_shown ON dlq.cause_count USING btree (cause_id) WHERE shown;


--
-- Name: cause_detail_new; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX cause_detail_new ON dlq.cause_detail USING btree (first_seen);


--
-- Name: cause_detail_regressed; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX cause_detail_regressed ON dlq.cause_detail USING btree (cause_id) WHERE (status = 'regressed'::text);


--
-- Name: cause_merged; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX cause_merged ON dlq.cause USING btree (merged_into) WHERE (merged_into IS NOT NULL);


--
-- Name: cause_muted; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX cause_muted ON dlq.cause USING btree (id) WHERE (muted_until IS NOT NULL);


--
-- Name: cause_new; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX cause_new ON dlq.cause USING btree (first_seen) WHERE (merged_into IS NULL);


--
-- Name: cause_probed; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX cause_probed ON dlq.cause USING btree (id) WHERE ((merged_into IS NULL) AND (is_transient OR (probe = 'on'::text)));


--
-- Name: cause_regressed; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX cause_regressed ON dlq.cause USING btree (id) WHERE (status = 'regressed'::text);


--
-- Name: cause_successor_of; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX cause_successor_of ON dlq.cause_successor USING btree (successor_id);


--
-- Name: dead_aggregate; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX dead_aggregate ON dlq.dead USING btree (hashtext(aggregate_id), COALESCE(event_created_at, '-infinity'::timestamp with time zone), event_id) WHERE (aggregate_id <> ''::text);


--
-- Name: dead_cause; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX dead_cause ON dlq.dead USING btree (cause_id, died_at, death_id);


--
-- Name: dead_detail; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX dead_detail ON dlq.dead USING btree (cause_id, detail, died_at, death_id) WHERE (detail <> ''::text);


--
-- Name: dead_event_id; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX dead_event_id ON dlq.dead USING btree (event_id);


--
-- Name: dead_time; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX dead_time ON dlq.dead USING btree (died_at, death_id);


--
-- Name: death_cause; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX death_cause ON dlq.death USING btree (cause_id, died_at, id) WHERE (cause_id IS NOT NULL);


--
-- Name: death_day; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX death_day ON dlq.death USING btree (died_at, id);


--
-- Name: death_erased; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX death_erased ON dlq.death USING btree (erased_at) WHERE (erased_at IS NOT NULL);


--
-- Name: death_event; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX death_event ON dlq.death USING btree (event_id);


--
-- Name: death_unclassified; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX death_unclassified ON dlq.death USING btree (died_at, id) WHERE (cause_id IS NULL);


--
-- Name: delivered_sample_type; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX delivered_sample_type ON dlq.delivered_sample USING btree (event_type, kept_at);


--
-- Name: discard_event; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX discard_event ON dlq.discard USING btree (event_id);


--
-- Name: fix_halted; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX fix_halted ON dlq.fix USING btree (closed_at) WHERE (status = 'halted'::text);


--
-- Name: fix_healed; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX fix_healed ON dlq.fix USING btree (closed_at) WHERE ((status = 'verified'::text) AND (flagged_by = 'probe'::text));


--
-- Name: fix_open; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX fix_open ON dlq.fix USING btree (cause_id) WHERE (closed_at IS NULL);


--
-- Name: fix_open_cause; Type: INDEX; Schema: dlq; Owner: -
--

CREATE UNIQUE INDEX fix_open_cause ON dlq.fix USING btree (cause_id, COALESCE(detail, ''::text)) WHERE ((closed_at IS NULL) AND (status_before IS NOT NULL));


--
-- Name: fix_stopped; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX fix_stopped ON dlq.fix USING btree (closed_at) WHERE (status = ANY (ARRAY['halted'::text, 'withdrawn'::text, 'expired'::text]));


--
-- Name: probe_running; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX probe_running ON dlq.probe USING btree (cause_id) WHERE ((death_id IS NOT NULL) OR (fix_id IS NOT NULL));


--
-- Name: purged_event; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX purged_event ON dlq.purged USING btree (event_id);


--
-- Name: purged_time; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX purged_time ON dlq.purged USING brin (purged_at) WITH (pages_per_range='32');


--
-- Name: recalled_death; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX recalled_death ON dlq.recalled USING btree (death_id);


--
-- Name: recalled_event; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX recalled_event ON dlq.recalled USING btree (event_id);


--
-- Name: recalled_time; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX recalled_time ON dlq.recalled USING brin (retried_at, recalled_at) WITH (pages_per_range='32');


--
-- Name: restored_death; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX restored_death ON dlq.restored USING btree (death_id);


--
-- Name: retry_aggregate; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX retry_aggregate ON dlq.retry USING btree (hashtext(aggregate_id)) WHERE ((aggregate_id <> ''::text) AND ((outcome IS NULL) OR (outcome = 'timed_out'::text)));


--
-- Name: retry_edited; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX retry_edited ON dlq.retry USING btree (event_id, death_id) WHERE (payload_before IS NOT NULL);


--
-- Name: retry_event; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX retry_event ON dlq.retry USING btree (event_id, event_created_at);


--
-- Name: retry_failed; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX retry_failed ON dlq.retry USING btree (fix_id, stage, event_id) WHERE (outcome = ANY (ARRAY['died_again'::text, 'timed_out'::text, 'deleted'::text]));


--
-- Name: retry_failed_event; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX retry_failed_event ON dlq.retry USING btree (event_id) WHERE (outcome = ANY (ARRAY['died_again'::text, 'timed_out'::text, 'deleted'::text]));


--
-- Name: retry_outstanding; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX retry_outstanding ON dlq.retry USING btree (fix_id, due_at) WHERE (outcome IS NULL);


--
-- Name: retry_time; Type: INDEX; Schema: dlq; Owner: -
--

CREATE INDEX retry_time ON dlq.retry USING brin (retried_at, settled_at) WITH (pages_per_range='32');


--
-- Name: outbox_event_next_run_at_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX outbox_event_next_run_at_idx ON public.outbox_event USING btree (next_run_at) WHERE (status = ANY (ARRAY['pending'::text, 'retry'::text]));


--
-- Name: outbox_event dlq_delete; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER dlq_delete AFTER DELETE ON public.outbox_event FOR EACH ROW WHEN (((old.status = 'dead'::text) AND (current_setting('dlq.moving'::text, true) IS DISTINCT FROM 'dlq'::text))) EXECUTE FUNCTION dlq.record_change();


--
-- Name: outbox_event dlq_insert; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER dlq_insert AFTER INSERT ON public.outbox_event FOR EACH ROW WHEN (((new.status = 'dead'::text) AND (current_setting('dlq.moving'::text, true) IS DISTINCT FROM 'dlq'::text))) EXECUTE FUNCTION dlq.record_change();


--
-- Name: outbox_event dlq_truncate; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER dlq_truncate AFTER TRUNCATE ON public.outbox_event FOR EACH STATEMENT EXECUTE FUNCTION dlq.record_change();


--
-- Name: outbox_event dlq_update; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER dlq_update AFTER UPDATE ON public.outbox_event FOR EACH ROW WHEN ((((COALESCE((new.status = 'dead'::text), false) <> COALESCE((old.status = 'dead'::text), false)) OR ((new.status = 'dead'::text) AND (new.id IS DISTINCT FROM old.id))) AND (current_setting('dlq.moving'::text, true) IS DISTINCT FROM 'dlq'::text))) EXECUTE FUNCTION dlq.record_change();


--
-- Name: alert_delivery alert_delivery_notice_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.alert_delivery
    ADD CONSTRAINT alert_delivery_notice_id_fkey FOREIGN KEY (notice_id) REFERENCES dlq.alert_notice(id) ON DELETE CASCADE;


--
-- Name: cause_alias cause_alias_cause_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause_alias
    ADD CONSTRAINT cause_alias_cause_id_fkey FOREIGN KEY (cause_id) REFERENCES dlq.cause(id);


--
-- Name: cause_day cause_day_cause_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause_day
    ADD CONSTRAINT cause_day_cause_id_fkey FOREIGN KEY (cause_id) REFERENCES dlq.cause(id);


--
-- Name: cause_detail cause_detail_cause_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause_detail
    ADD CONSTRAINT cause_detail_cause_id_fkey FOREIGN KEY (cause_id) REFERENCES dlq.cause(id);


--
-- Name: cause cause_merged_into_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause
    ADD CONSTRAINT cause_merged_into_fkey FOREIGN KEY (merged_into) REFERENCES dlq.cause(id);


--
-- Name: cause_successor cause_successor_cause_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause_successor
    ADD CONSTRAINT cause_successor_cause_id_fkey FOREIGN KEY (cause_id) REFERENCES dlq.cause(id);


--
-- Name: cause_successor cause_successor_successor_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.cause_successor
    ADD CONSTRAINT cause_successor_successor_id_fkey FOREIGN KEY (successor_id) REFERENCES dlq.cause(id);


--
-- Name: discard discard_death_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.discard
    ADD CONSTRAINT discard_death_id_fkey FOREIGN KEY (death_id) REFERENCES dlq.death(id);


--
-- Name: fix fix_cause_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.fix
    ADD CONSTRAINT fix_cause_id_fkey FOREIGN KEY (cause_id) REFERENCES dlq.cause(id);


--
-- Name: fix_outcome fix_outcome_fix_id_stage_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.fix_outcome
    ADD CONSTRAINT fix_outcome_fix_id_stage_fkey FOREIGN KEY (fix_id, stage) REFERENCES dlq.fix_stage(fix_id, stage);


--
-- Name: fix_stage fix_stage_fix_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.fix_stage
    ADD CONSTRAINT fix_stage_fix_id_fkey FOREIGN KEY (fix_id) REFERENCES dlq.fix(id);


--
-- Name: probe probe_cause_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.probe
    ADD CONSTRAINT probe_cause_id_fkey FOREIGN KEY (cause_id) REFERENCES dlq.cause(id);


--
-- Name: probe probe_fix_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.probe
    ADD CONSTRAINT probe_fix_id_fkey FOREIGN KEY (fix_id) REFERENCES dlq.fix(id);


--
-- Name: purged purged_audit_id_fkey; Type: FK CONSTRAINT; Schema: dlq; Owner: -
--

ALTER TABLE ONLY dlq.purged
    ADD CONSTRAINT purged_audit_id_fkey FOREIGN KEY (audit_id) REFERENCES dlq.audit(id);


--
-- Name: FUNCTION archive_batch(before timestamp with time zone, times tstzmultirange, after_time timestamp with time zone, after_id bigint, size integer, room integer, archived_at timestamp with time zone, OUT moved bigint, OUT locked bigint, OUT rows bigint, OUT last_time timestamp with time zone, OUT last_id bigint); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.archive_batch(before timestamp with time zone, times tstzmultirange, after_time timestamp with time zone, after_id bigint, size integer, room integer, archived_at timestamp with time zone, OUT moved bigint, OUT locked bigint, OUT rows bigint, OUT last_time timestamp with time zone, OUT last_id bigint) FROM PUBLIC;


--
-- Name: FUNCTION archive_dead_outbox_events(retention_days integer); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.archive_dead_outbox_events(retention_days integer) FROM PUBLIC;


--
-- Name: FUNCTION archive_events(deaths bigint[], archived_at timestamp with time zone); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.archive_events(deaths bigint[], archived_at timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION attempts_bucket(attempts integer); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.attempts_bucket(attempts integer) FROM PUBLIC;


--
-- Name: FUNCTION payload_predicate(given text); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.payload_predicate(given text) FROM PUBLIC;


--
-- Name: FUNCTION can_overlap(a dlq.fix, b dlq.fix); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.can_overlap(a dlq.fix, b dlq.fix) FROM PUBLIC;


--
-- Name: FUNCTION can_recall(); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.can_recall() FROM PUBLIC;


--
-- Name: FUNCTION choose_metric_labels(groups json, max_labels integer); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.choose_metric_labels(groups json, max_labels integer) FROM PUBLIC;


--
-- Name: FUNCTION count_filters(fix dlq.fix); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.count_filters(fix dlq.fix) FROM PUBLIC;


--
-- Name: FUNCTION count_movable(before timestamp with time zone, times tstzmultirange); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.count_movable(before timestamp with time zone, times tstzmultirange) FROM PUBLIC;


--
-- Name: FUNCTION dead_at(moment timestamp with time zone); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.dead_at(moment timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION deletion_is_loss(); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.deletion_is_loss() FROM PUBLIC;


--
-- Name: FUNCTION end_deaths(deaths bigint[]); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.end_deaths(deaths bigint[]) FROM PUBLIC;


--
-- Name: FUNCTION end_deaths_of(event bigint); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.end_deaths_of(event bigint) FROM PUBLIC;


--
-- Name: FUNCTION erase_event(event bigint, now timestamp with time zone, OUT emptied bigint, OUT kept bigint, OUT deaths bigint); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.erase_event(event bigint, now timestamp with time zone, OUT emptied bigint, OUT kept bigint, OUT deaths bigint) FROM PUBLIC;


--
-- Name: FUNCTION event_ids(given text[]); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.event_ids(given text[]) FROM PUBLIC;


--
-- Name: FUNCTION explain_expiry(given dlq.fix, targets bigint); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.explain_expiry(given dlq.fix, targets bigint) FROM PUBLIC;


--
-- Name: FUNCTION exported_times(before timestamp with time zone); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.exported_times(before timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION find_texts(patterns text[]); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.find_texts(patterns text[]) FROM PUBLIC;


--
-- Name: FUNCTION flag_fix(note text, cause text, event_type text, aggregate_type text, event_ids bigint[], error_contains text, since timestamp with time zone, until timestamp with time zone, "all" boolean, link text, owner text, not_before timestamp with time zone, expires_at timestamp with time zone, attempts integer, detail text, "where" text, aggregate_id text); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.flag_fix(note text, cause text, event_type text, aggregate_type text, event_ids bigint[], error_contains text, since timestamp with time zone, until timestamp with time zone, "all" boolean, link text, owner text, not_before timestamp with time zone, expires_at timestamp with time zone, attempts integer, detail text, "where" text, aggregate_id text) FROM PUBLIC;


--
-- Name: FUNCTION moved_columns(with_generated boolean); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.moved_columns(with_generated boolean) FROM PUBLIC;


--
-- Name: FUNCTION offers(); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.offers() FROM PUBLIC;


--
-- Name: FUNCTION outbox_table(); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.outbox_table() FROM PUBLIC;


--
-- Name: FUNCTION payload_matches(death dlq.death, predicate text); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.payload_matches(death dlq.death, predicate text) FROM PUBLIC;


--
-- Name: FUNCTION place_fix(given dlq.fix, run_id text); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.place_fix(given dlq.fix, run_id text) FROM PUBLIC;


--
-- Name: FUNCTION read_payload(payload text); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.read_payload(payload text) FROM PUBLIC;


--
-- Name: FUNCTION recall_events(deaths bigint[], recalled_at timestamp with time zone, recalled_by text, recall_reason text); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.recall_events(deaths bigint[], recalled_at timestamp with time zone, recalled_by text, recall_reason text) FROM PUBLIC;


--
-- Name: FUNCTION record_change(); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.record_change() FROM PUBLIC;


--
-- Name: FUNCTION release_events(deaths bigint[], due timestamp with time zone[]); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.release_events(deaths bigint[], due timestamp with time zone[]) FROM PUBLIC;


--
-- Name: FUNCTION released_columns(); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.released_columns() FROM PUBLIC;


--
-- Name: FUNCTION reopen_deaths(deaths bigint[]); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.reopen_deaths(deaths bigint[]) FROM PUBLIC;


--
-- Name: FUNCTION restore_events(deaths bigint[]); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.restore_events(deaths bigint[]) FROM PUBLIC;


--
-- Name: FUNCTION selects(fix dlq.fix, death dlq.death, cause text); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.selects(fix dlq.fix, death dlq.death, cause text) FROM PUBLIC;


--
-- Name: FUNCTION selects(fix dlq.fix, event dlq.dead_event); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.selects(fix dlq.fix, event dlq.dead_event) FROM PUBLIC;


--
-- Name: FUNCTION selects_whole_cause(fix dlq.fix); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.selects_whole_cause(fix dlq.fix) FROM PUBLIC;


--
-- Name: FUNCTION selects_whole_detail(fix dlq.fix); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.selects_whole_detail(fix dlq.fix) FROM PUBLIC;


--
-- Name: FUNCTION set_payload(event bigint, written_at timestamp with time zone, new_payload text); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.set_payload(event bigint, written_at timestamp with time zone, new_payload text) FROM PUBLIC;


--
-- Name: FUNCTION unreferenced(); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.unreferenced() FROM PUBLIC;


--
-- Name: FUNCTION validate_fix(given dlq.fix); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.validate_fix(given dlq.fix) FROM PUBLIC;


--
-- Name: FUNCTION vanished_outcome(); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.vanished_outcome() FROM PUBLIC;


--
-- Name: FUNCTION written_columns(); Type: ACL; Schema: dlq; Owner: -
--

REVOKE ALL ON FUNCTION dlq.written_columns() FROM PUBLIC;


--
-- PostgreSQL database dump complete
--


