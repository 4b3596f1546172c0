-- Moves of events. They write to the application's table by its key, and a setting of the
-- transaction shows the triggers that the ledger is written here, for all events at once. Functions
-- pin no search path: the application's own triggers fire and may look up names by it.

create or replace function :"dlq_schema".outbox_table() returns regclass
    language sql stable as $$ select :'outbox_regclass'::regclass $$;

-- The columns that an event takes with it. Generated ones are archived and not restored.
create or replace function :"dlq_schema".moved_columns(with_generated boolean) returns text
    language plpgsql stable
as $$
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
        on a.attrelid = :'archived_regclass'::regclass
        and a.attname = o.attname
        and not a.attisdropped
    where o.attrelid = :'outbox_regclass'::regclass and o.attnum > 0 and not o.attisdropped;
    if lacking is not null then
        raise exception 'The archive lacks the columns % of %, so events would lose them.',
            lacking, :'outbox_regclass'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Run `dlq migrate`.';
    end if;
    if changed is not null then
        raise exception
            'The archive has columns of % with their old types, so events would change.',
            :'outbox_regclass'
            using errcode = 'object_not_in_prerequisite_state',
                hint = format('Run `alter table %s %s`.', :'archived_regclass', changed);
    end if;
    return columns;
end
$$;

-- Conditions on a row `o` of the application's table under which no foreign key refuses its
-- deletion, such as `not exists (select from line r where r.event_id = o.id)`.
create or replace function :"dlq_schema".unreferenced() returns text
    language plpgsql stable
as $$
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
        where c.contype = 'f' and c.confrelid = :'outbox_regclass'::regclass
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

-- A function that forbids plans switches JIT off too: before PostgreSQL 18 a plan that cannot be
-- avoided is forbidden by its estimated cost, for which PostgreSQL compiles it, for a second each.
--
-- Archives the dead events of these deaths, which the caller has locked. Returns the deaths of the
-- events that it moved. An event stays if a row of the application refers to it. One statement
-- deletes and inserts, so an event is never in both tables or in neither.
create or replace function :"dlq_schema".archive_events(deaths bigint[], archived_at timestamptz)
    returns bigint[] language plpgsql
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
    set jit = off
as $$
declare
    columns constant text := :"dlq_schema".moved_columns(true);
    moved   bigint[];
begin
    perform set_config('dlq.moving', :'dlq_schema', true);
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
        :'dead_now_regclass', :'outbox_regclass', :'o_id', :'o_created_at', :'o_dead',
        :'archived_regclass', columns, :"dlq_schema".unreferenced())
    into moved using deaths, archived_at;
    perform set_config('dlq.moving', '', true);
    perform :"dlq_schema".end_deaths(moved);
    return moved;
end
$$;

-- Archives one batch: the next page of dead events, the oldest first, by keyset pagination, at most
-- `room` of them. An event stays if an open fix targets it, if another transaction holds it, or if
-- a row of the application refers to it. Of the rows that it read, `locked` are held by others.
-- The page has a branch for each table of dead_now, because PostgreSQL sorts all rows of a union
-- in a view before it takes the first ones: 150,000 rows a batch of the first 300,000 deaths.
create or replace function :"dlq_schema".archive_batch(
    before timestamptz,
    times tstzmultirange,
    after_time timestamptz,
    after_id bigint,
    size integer,
    room integer,
    archived_at timestamptz,
    out moved bigint,
    out locked bigint,
    out rows bigint,
    out last_time timestamptz,
    out last_id bigint
) language plpgsql
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
    set enable_bitmapscan = off set enable_sort = off set jit = off
as $$
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
        :'dead_regclass', :'outbox_regclass', :'o_id', :'o_created_at', :'o_dead',
        :"dlq_schema".unreferenced(), :'fix_regclass', :'wanted_regclass',
        :'death_regclass')
    into deaths, locked, rows, last_time, last_id
    using before, times, after_time, after_id, size, room;
    moved := cardinality(:"dlq_schema".archive_events(deaths, archived_at));
end
$$;

-- The number of events that `archive_batch` would move, for a dry run.
create or replace function :"dlq_schema".count_movable(before timestamptz, times tstzmultirange)
    returns bigint language plpgsql stable
as $$
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
        :'dead_now_regclass', :'outbox_regclass', :'o_id', :'o_created_at', :'o_dead',
        :"dlq_schema".unreferenced(), :'wanted_regclass')
    into events using before, times;
    return events;
end
$$;

-- Returns archived events to the outbox, as dead of the same death.
create or replace function :"dlq_schema".restore_events(deaths bigint[]) returns bigint
    language plpgsql
    set enable_seqscan = off
as $$
declare
    columns constant text := :"dlq_schema".moved_columns(false);
    moved   bigint[];
begin
    perform set_config('dlq.moving', :'dlq_schema', true);
    execute format('
        with moved as (
            delete from %1$s where dlq_death_id = any($1) returning *
        ), restored as (
            insert into %2$s (%3$s) overriding system value select %3$s from moved
        )
        select coalesce(array_agg(dlq_death_id), ''{}'') from moved',
        :'archived_regclass', :'outbox_regclass', columns)
    into moved using deaths;
    perform set_config('dlq.moving', '', true);
    perform :"dlq_schema".reopen_deaths(moved);
    return cardinality(moved);
end
$$;

-- Makes the dead events of these deaths due again, which the caller has locked. Returns the deaths
-- of the events that it released.
create or replace function :"dlq_schema".release_events(deaths bigint[], due timestamptz[])
    returns bigint[] language plpgsql
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
    set jit = off
as $$
declare
    released bigint[];
begin
    if not :can_release then
        raise exception 'The mapping of this outbox has no [retry].'
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    perform set_config('dlq.moving', :'dlq_schema', true);
    with given as materialized (
        select given.death_id, n.event_id, n.event_created_at, given.due
        from unnest(deaths, release_events.due) as given (death_id, due)
        cross join lateral (
            select n.event_id, n.event_created_at from :"dlq_schema".dead n
            where n.death_id = given.death_id
            union all
            -- `coalesce`: otherwise, without statistics, all deaths without a cause are read for
            -- each of these: 14 s for 30,000 of them instead of 1 s.
            select d.event_id, d.event_created_at from :"dlq_schema".death d
            where d.id = given.death_id and coalesce(d.cause_id, '') = '' and d.ended_at is null
            limit 1) n
    ), released_now as (
        update :"outbox_schema".:"outbox_table" o
        set :release
        from given
        where :o_id = given.event_id
            and (:o_created_at) is not distinct from given.event_created_at
            and (:o_dead)
        returning given.death_id
    )
    select coalesce(array_agg(death_id), '{}') into released from released_now;
    perform set_config('dlq.moving', '', true);
    perform :"dlq_schema".end_deaths(released);
    return released;
end
$$;

-- The columns that a release overwrites, in the order of dlq.retry.row_before.
create or replace function :"dlq_schema".released_columns() returns text[]
    language sql immutable as $$ select :released_columns::text[] $$;

-- Whether a worker waits for the due time of a released event. Otherwise it may hold the event
-- although its row shows nothing, and no event is recalled.
create or replace function :"dlq_schema".can_recall() returns boolean
    language sql immutable as $$ select :can_recall $$;

-- Makes released events dead of the same deaths again, with the values that the release overwrote.
-- An event stays with the worker if another transaction holds it, or if its row is not as the
-- release left it: the lock is taken first, and then the state decides. Returns the deaths of the
-- events that it recalled.
create or replace function :"dlq_schema".recall_events(
    deaths bigint[], recalled_at timestamptz, recalled_by text, recall_reason text
) returns bigint[] language plpgsql
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
    set jit = off
as $$
declare
    assignments text;
    recalled    bigint[];
begin
    if not :"dlq_schema".can_recall() or cardinality(deaths) = 0 then
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
    from unnest(:"dlq_schema".released_columns()) with ordinality as c (name, place)
    join pg_catalog.pg_attribute a
        on a.attrelid = :'outbox_regclass'::regclass
        and a.attname = c.name
        and not a.attisdropped;
    perform set_config('dlq.moving', :'dlq_schema', true);
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
        :'retry_regclass', :'outbox_regclass', :'o_id', :'o_created_at', :'release_unchanged',
        assignments)
    into recalled using deaths;
    perform set_config('dlq.moving', '', true);
    perform :"dlq_schema".reopen_deaths(recalled);
    with gone as (
        delete from :"dlq_schema".retry r where r.death_id = any(recalled) returning r.*
    ), by_fix as (
        insert into :"dlq_schema".fix_outcome as o (fix_id, stage, outcome, events)
        select fix_id, stage, 'recalled', count(*) from gone where fix_id is not null
        group by fix_id, stage order by fix_id, stage
        on conflict (fix_id, stage, outcome) do update set events = o.events + excluded.events
    ), by_hand as (
        insert into :"dlq_schema".retry_count as t (outcome, by_probe, retries)
        select 'recalled', actor = 'probe', count(*) from gone where fix_id is null
        group by 2 order by 2
        on conflict (outcome, by_probe) do update set retries = t.retries + excluded.retries
    )
    insert into :"dlq_schema".recalled
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
$$;

-- The columns of the application's table that retries write. The roles get the right to update
-- these alone, and `dlq doctor` reads them from the catalog, which every role may read.
create or replace function :"dlq_schema".written_columns() returns text[]
    language sql immutable as $$ select :written_columns::text[] $$;

-- What became of a released event whose row is gone.
create or replace function :"dlq_schema".vanished_outcome() returns text
    language sql immutable as $$ select :vanished $$;

-- Whether a released event whose row is gone may be lost. Not if its worker deletes what it
-- delivers, and not if nothing says what is delivered: applications delete what they delivered.
create or replace function :"dlq_schema".deletion_is_loss() returns boolean
    language sql immutable as $$ select :deletion_is_loss $$;

-- Operations, each with the reason why it is not offered, or an empty text.
create or replace function :"dlq_schema".offers() returns jsonb
    language sql immutable as $$ select :offers::jsonb $$;

-- Fails if the text is no value of the payload's type.
create or replace function :"dlq_schema".read_payload(payload text) returns void
    language plpgsql stable
as $$
begin
    perform payload:::payload_type;
end
$$;

-- Replaces the payload of an event.
create or replace function :"dlq_schema".set_payload(
    event :event_id_type, written_at timestamptz, new_payload text
) returns void language sql
as $$
    update :"outbox_schema".:"outbox_table" o
    set :payload_change
    where :o_id = event and (:o_created_at) is not distinct from written_at
$$;

-- Empties payload and error of an event: in the ledger, in the archive, and in the outbox once it
-- is delivered. The caller has locked the event, and has archived it if it is dead. Returns the
-- number of rows and of deaths that it emptied, and of rows of the outbox that it left, because a
-- worker still needs them.
--
-- The operator may execute it and may not write an error or a payload otherwise, so it has the
-- rights of its owner. It therefore pins the search path, unlike the moves: a trigger of the
-- application looks up names in the schema of the outbox.
create or replace function :"dlq_schema".erase_event(
    event :event_id_type,
    now timestamptz,
    out emptied bigint,
    out kept bigint,
    out deaths bigint
) language plpgsql
    security definer
    set search_path = :"outbox_schema", pg_temp
    set enable_seqscan = off
as $$
declare
    stays_delivered boolean;
begin
    with erased as (
        update :"outbox_schema".:"outbox_table" o
        set :erasure
        where (:o_id) = erase_event.event and coalesce((:o_delivered), false) and not (:is_erased)
        returning coalesce((:o_delivered), false) as delivered
    )
    select count(*), coalesce(bool_and(delivered), true) into emptied, stays_delivered from erased;
    if not stays_delivered then
        raise exception 'By the mapping of this outbox, event % would no longer be delivered.',
            erase_event.event
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Let the condition `delivered` read another column than payload and error.';
    end if;
    select count(*) into kept
    from :"outbox_schema".:"outbox_table" o
    where (:o_id) = erase_event.event and not coalesce((:o_delivered), false) and not (:is_erased);
    with erased as (
        update :"dlq_schema".archived o
        set :erasure
        where (:o_id) = erase_event.event and not (:is_erased)
        returning 1
    )
    select emptied + count(*) into emptied from erased;
    delete from :"dlq_schema".delivered_sample s where s.event_id = erase_event.event;
    -- The cause stays: it counts deaths, and has no values of an event.
    update :"dlq_schema".death d
    set error = null, erased_at = erase_event.now
    where d.event_id = erase_event.event and d.erased_at is null;
    get diagnostics deaths = row_count;
    -- A detail that only erased deaths have goes too: it may be what has to be erased.
    with gone as materialized (
        select distinct d.cause_id, d.detail
        from :"dlq_schema".death d
        where d.event_id = erase_event.event
            and d.detail <> ''
            and not exists (
                select from :"dlq_schema".death other
                where other.cause_id = d.cause_id
                    and other.detail = d.detail
                    and other.erased_at is null)
    ), emptied as (
        update :"dlq_schema".death d
        set detail = ''
        from gone
        where d.cause_id = gone.cause_id and d.detail = gone.detail
    ), dead_emptied as (
        update :"dlq_schema".dead n
        set detail = ''
        from gone
        where n.cause_id = gone.cause_id and n.detail = gone.detail
    )
    delete from :"dlq_schema".cause_detail k
    using gone
    join :"dlq_schema".cause c on c.id = gone.cause_id
    where k.detail = gone.detail
        and (k.cause_id = gone.cause_id or k.cause_id = c.merged_into and k.deaths = 0);
end
$$;

-- The columns of this schema that match one of these patterns, with the number of rows. Reads every
-- column of every table whose type can hold a text, also those that later releases add.
create or replace function :"dlq_schema".find_texts(patterns text[])
    returns table (place text, rows bigint) language plpgsql stable
as $$
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
        where n.nspname = :'dlq_schema'
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
$$;

-- The times of the days before that moment whose export was verified and still holds every death,
-- also those that the ledger has purged since; neighbours are one range. A death that committed
-- late makes its day incomplete until it is exported again.
create or replace function :"dlq_schema".exported_times(before timestamptz)
    returns tstzmultirange language sql stable
as $$
    select coalesce(range_agg(tstzrange(x.starts_at, x.ends_at)), '{}')
    from :"dlq_schema".export_day x
    where x.starts_at < before and x.verified_at is not null
        and x.ends_at > (select min(n.died_at) from :"dlq_schema".dead_now n)
        and x.rows = x.purged + (
            select count(*) from :"dlq_schema".death d
            where d.died_at >= x.starts_at and d.died_at < x.ends_at)
$$;

-- For people who schedule with pg_cron: archives events of days that are exported, in one
-- transaction. `select dlq.archive_dead_outbox_events(30)` returns how many events it moved, at
-- most 100,000 a call.
create or replace function :"dlq_schema".archive_dead_outbox_events(
    retention_days integer default 30
) returns bigint language plpgsql
as $$
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
    times := :"dlq_schema".exported_times(before);
    select '-infinity'::timestamptz as last_time, 0::bigint as last_id into batch;
    loop
        select * from :"dlq_schema".archive_batch(
            before, times, batch.last_time, batch.last_id, 5000, 5000, now())
        into batch;
        total := total + batch.moved;
        exit when batch.rows < 5000 or total >= 100000;
    end loop;
    if total > 0 then
        insert into :"dlq_schema".audit (kind, actor, reason, filter, events, at)
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

-- What was dead in the outbox at a moment, by where it is now or how it has left since: still dead,
-- retried, archived, or archived and purged. What was in the archive then and was restored later,
-- or was released then and was recalled later, had left already. So a past day's backlog is counted
-- back from now, and costs what has happened since.
create or replace function :"dlq_schema".dead_at(moment timestamptz)
    returns table (death_id bigint, event_id :event_id_type, died_at timestamptz)
    language sql stable
as $$
    select s.death_id, s.event_id, s.died_at
    from (
        select n.death_id, n.event_id, n.died_at
        from :"dlq_schema".dead_now n
        where n.died_at < moment
        union all
        select d.id, d.event_id, d.died_at
        from :"dlq_schema".retry r
        join :"dlq_schema".death d on d.id = r.death_id
        where r.retried_at >= moment and d.died_at < moment
        union all
        select d.id, d.event_id, d.died_at
        from :"dlq_schema".archived a
        join :"dlq_schema".death d on d.id = a.dlq_death_id
        where a.dlq_archived_at >= moment and d.died_at < moment
        union all
        select p.death_id, p.event_id, p.died_at
        from :"dlq_schema".purged p
        where p.purged_at >= moment and p.archived_at >= moment and p.died_at < moment
    ) s
    where not exists (
        select from :"dlq_schema".restored b
        where b.death_id = s.death_id and b.archived_at < moment and b.restored_at >= moment)
        and not exists (
            select from :"dlq_schema".recalled b
            where b.death_id = s.death_id and b.retried_at < moment and b.recalled_at >= moment)
$$;

revoke all on all functions in schema :"dlq_schema" from public;
