-- Moving dead events between the two tables, whatever columns the application has added to them. Functions, because
-- the list of columns is known only when they run.

-- The application's tables, for functions that run without a caller who knows their names.
create function :"dlq_schema".outbox_table() returns regclass language sql stable
    return format('%I.%I', :'outbox_schema', :'outbox_table')::regclass;

create function :"dlq_schema".archive_table() returns regclass language sql stable
    return format('%I.%I', :'outbox_schema', :'archive_table')::regclass;

-- Deaths that an open fix targets: their events stay in the hot table.
create view :"dlq_schema".wanted as
select d.event_id, d.died_at
from :"dlq_schema".death d
left join :"dlq_schema".cause c on c.id = d.cause_id
join :"dlq_schema".fix f on f.closed_at is null
    and :"dlq_schema".selects(f, d, coalesce(c.merged_into, d.cause_id));
comment on view :"dlq_schema".wanted is 'Deaths that an open fix targets: their events are not archived.';

-- The columns that an event takes with it: all that the outbox table has and does not compute itself.
create function :"dlq_schema".moved_columns() returns text
    language plpgsql stable set search_path = :"dlq_schema", pg_temp
as $$
declare
    outbox  constant regclass := outbox_table();
    archive constant regclass := archive_table();
    columns text;
    lacking text;
begin
    select string_agg(format('%I', o.attname), ', ' order by o.attnum),
        string_agg(format('%I', o.attname), ', ' order by o.attnum) filter (where a.attname is null)
    into columns, lacking
    from pg_catalog.pg_attribute o
    left join pg_catalog.pg_attribute a
        on a.attrelid = archive and a.attname = o.attname and a.attnum > 0 and not a.attisdropped
    where o.attrelid = outbox and o.attnum > 0 and not o.attisdropped and o.attgenerated = '';
    if lacking is not null then
        raise exception 'The archive table % lacks the columns % of %, so events would lose them. Add them to it, nullable.',
            archive, lacking, outbox using errcode = 'object_not_in_prerequisite_state';
    end if;
    return columns;
end
$$;

-- Deleted and inserted by one statement, so an event is never in both tables or in neither. What moves the
-- application's rows runs its triggers, which find what they name by the caller's search path; so these functions pin
-- none, and what they need of ours is an argument with a default, because psql fills no name into a body. An id is the
-- application's also where it is generated always.
create function :"dlq_schema".move_to_archive(
    ids bigint[], archived_at timestamptz, outbox regclass default :"dlq_schema".outbox_table(),
    archive regclass default :"dlq_schema".archive_table(), columns text default :"dlq_schema".moved_columns()
) returns bigint language plpgsql
as $$
declare
    moved bigint;
begin
    execute format('with moved as (delete from %1$s where id = any($1) and status = ''dead'' returning %3$s)'
        ' insert into %2$s (%3$s, archived_at) overriding system value select %3$s, $2 from moved',
        outbox, archive, columns)
    using ids, archived_at;
    get diagnostics moved = row_count;
    return moved;
end
$$;

-- Archives one batch: the next page of dead events, the oldest first, by keyset pagination, at most `room` of them. An
-- event stays if an open fix targets it or if the archive has its id, which would stop every run; the reconciliation
-- names it. Ids are compared only after a duplicate key: that takes 0.9 of 7 µs an event. A join on the rows takes 1.36
-- times one bare statement, an array of row locations 1.17 times.
create function :"dlq_schema".archive_batch(
    before timestamptz, times tstzmultirange, after_time timestamptz, after_id bigint, size integer, room integer,
    archived_at timestamptz, outbox regclass default :"dlq_schema".outbox_table(),
    archive regclass default :"dlq_schema".archive_table(), columns text default :"dlq_schema".moved_columns(),
    ours name default :'dlq_schema',
    out moved bigint, out rows bigint, out last_time timestamptz, out last_id bigint
) language plpgsql
as $$
declare
    statement constant text := '
        with page as materialized (
            -- First, and of so many rows: the planner takes the test of times for one that few rows pass, and would sort
            -- all that is left each time.
            select e.ctid as place, e.id, e.dead_at from %1$s e
            where e.status = ''dead'' and e.dead_at < $1 and (e.dead_at, e.id) > ($3, $4)
            order by e.dead_at, e.id limit $5
            for update skip locked
        ), moved as (
            -- By place: the rows are locked, so it is as good as the id and found without an index. In a list: a join
            -- would look for each on its own and cost a fifth more.
            delete from %1$s e where e.ctid = any(array(
                select page.place from page
                where ($2 is null or page.dead_at <@ $2)
                    and not (
                        -- While no fix is open nobody is asked; while all name their events, only those are asked about.
                        (exists (select from %4$I.fix f where f.closed_at is null and f.event_ids is null)
                            or page.id in (select unnest(f.event_ids) from %4$I.fix f where f.closed_at is null))
                        -- `offset 0` has them looked up event by event, where the planner would hash all deaths there are.
                        and exists (
                            select from %4$I.wanted w where w.event_id = page.id and w.died_at = page.dead_at
                            offset 0))
                    %5$s
                limit $7))
            returning %3$s
        ), archived as (
            insert into %2$s (%3$s, archived_at) overriding system value select moved.*, $6 from moved returning 1
        ), last as (
            select dead_at, id from page order by dead_at desc, id desc limit 1
        )
        select (select count(*) from archived), (select count(*) from page), last.dead_at, last.id
        from (values (1)) one left join last on true';
begin
    begin
        execute format(statement, outbox, archive, columns, ours, '')
        into moved, rows, last_time, last_id using before, times, after_time, after_id, size, archived_at, room;
    exception when unique_violation then
        execute format(statement, outbox, archive, columns, ours,
            format('and not exists (select from %s a where a.id = page.id)', archive))
        into moved, rows, last_time, last_id using before, times, after_time, after_id, size, archived_at, room;
    end;
end
$$;

-- Back as dead. The trigger finds the death of that moment in the ledger and records none.
create function :"dlq_schema".move_to_outbox(
    ids bigint[], outbox regclass default :"dlq_schema".outbox_table(),
    archive regclass default :"dlq_schema".archive_table(), columns text default :"dlq_schema".moved_columns()
) returns bigint language plpgsql
as $$
declare
    moved bigint;
begin
    execute format('with moved as (delete from %2$s where id = any($1) and status = ''dead'' returning %3$s)'
        ' insert into %1$s (%3$s) overriding system value select %3$s from moved',
        outbox, archive, columns)
    using ids;
    get diagnostics moved = row_count;
    return moved;
end
$$;

-- The times of the days before that moment whose export was verified and still holds every death, also those that the
-- ledger has purged since; neighbours are one range. A death that committed late makes its day incomplete until it is
-- exported again.
create function :"dlq_schema".exported_times(before timestamptz) returns tstzmultirange language sql stable
begin atomic
    select coalesce(range_agg(tstzrange(x.starts_at, x.ends_at)), '{}')
    from :"dlq_schema".export_day x
    where x.starts_at < before and x.verified_at is not null
        and x.ends_at > (select min(e.dead_at) from :"outbox_schema".:"outbox_table" e where e.status = 'dead')
        and x.rows = x.purged + (
            select count(*) from :"dlq_schema".death d where d.died_at >= x.starts_at and d.died_at < x.ends_at);
end;

-- The archive's batch, for people who schedule with pg_cron: the same move, of days that are exported, in one
-- transaction. `select archive_dead_outbox_events(30)` returns how many events it moved, at most 100,000 a call.
create function :"outbox_schema".archive_dead_outbox_events(
    retention_days integer default 30, ours name default :'dlq_schema'
) returns bigint language plpgsql
as $$
declare
    before constant timestamptz := now() - make_interval(days => retention_days);
    times  tstzmultirange;
    batch  record;
    total  bigint := 0;
begin
    if retention_days is null or retention_days < 0 then
        raise exception 'retention_days must be 0 or more' using errcode = 'invalid_parameter_value';
    end if;
    execute format('select %I.exported_times($1)', ours) into times using before;
    select '-infinity'::timestamptz as last_time, 0::bigint as last_id into batch;
    loop
        execute format('select * from %I.archive_batch($1, $2, $3, $4, 5000, 5000, now())', ours)
        into batch using before, times, batch.last_time, batch.last_id;
        total := total + batch.moved;
        exit when batch.rows < 5000 or total >= 100000;
    end loop;
    if total > 0 then
        execute format('insert into %I.audit (kind, actor, reason, filter, events, at)'
            ' values (''archive.move'', session_user, $1, jsonb_build_object(''before'', $2), $3, now())', ours)
        using format('archive_dead_outbox_events(%s)', retention_days), before, total;
    end if;
    return total;
end
$$;

-- What was dead in the outbox at a moment, by where it is now or how it has left since: still dead, retried, archived,
-- or archived and purged. What was in the archive then and was restored later had left already. So a past day's backlog
-- is counted back from now, and costs what has happened since.
create function :"dlq_schema".dead_at(moment timestamptz) returns table (event_id bigint, died_at timestamptz)
    language sql stable
begin atomic
    select s.event_id, s.died_at
    from (
        select e.id as event_id, e.dead_at as died_at from :"outbox_schema".:"outbox_table" e
        where e.status = 'dead' and e.dead_at < moment
        union all
        select r.event_id, d.died_at from :"dlq_schema".retry r join :"dlq_schema".death d on d.id = r.death_id
        where r.retried_at >= moment and d.died_at < moment
        union all
        select a.id, a.dead_at from :"outbox_schema".:"archive_table" a
        where a.status = 'dead' and a.archived_at >= moment and a.dead_at < moment
        union all
        select p.event_id, p.died_at from :"dlq_schema".purged p
        where p.purged_at >= moment and p.archived_at >= moment and p.died_at < moment
    ) s
    where not exists (
        select from :"dlq_schema".restored b
        where b.event_id = s.event_id and b.died_at = s.died_at and b.archived_at < moment and b.restored_at >= moment);
end;

revoke all on all functions in schema :"dlq_schema" from public;
