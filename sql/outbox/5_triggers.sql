-- Recording deaths. The function is security definer, because workers have no rights on this
-- schema. It pins no search path, which would cost a death 7 of 60 microseconds: every name and
-- operator in it is qualified instead, so that no other object can be put in its way.
--
-- It never refuses the application's write. A row that cannot be recorded in full, for example
-- after a mapped column was dropped, is recorded by its id. What is not recorded at all is found by
-- the reconciliation.
-- Ends the deaths of an event. It reads by the index of events alone. A sequential scan, which the
-- planner prefers for a small or unanalyzed table, or the index of unclassified deaths, reads the
-- deaths of other events too: each costs time, and fails transactions of the application that are
-- SERIALIZABLE, because their predicate locks cover all of them. So the condition on the cause is
-- written in a way that the partial index does not match.
create or replace function :"dlq_schema".end_deaths_of(event :event_id_type) returns void
    language plpgsql set enable_seqscan = off
as $$
begin
    -- The update first: see dlq.end_deaths.
    update :"dlq_schema".death set ended_at = pg_catalog.clock_timestamp()
    where event_id operator(pg_catalog.=) event
        and coalesce(cause_id, '') operator(pg_catalog.=) ''
        and ended_at is null;
    delete from :"dlq_schema".dead where event_id operator(pg_catalog.=) event;
end
$$;

create or replace function :"dlq_schema".record_change() returns trigger
    language plpgsql security definer
as $$
begin
    if tg_op operator(pg_catalog.=) 'TRUNCATE' then
        update :"dlq_schema".death set ended_at = pg_catalog.clock_timestamp()
        where cause_id is null and ended_at is null;
        delete from :"dlq_schema".dead;
    elsif tg_op operator(pg_catalog.=) 'DELETE' or not coalesce((:new_dead), false) then
        perform :"dlq_schema".end_deaths_of(:old_id);
    else
        -- The key of a dead event was changed: the old event is gone, and the new one is dead.
        if tg_op operator(pg_catalog.=) 'UPDATE' and coalesce((:old_dead), false) then
            perform :"dlq_schema".end_deaths_of(:old_id);
        end if;
        -- Not now(): a worker's transaction may include all the work of its handler.
        insert into :"dlq_schema".death (
            event_id,
            event_created_at,
            aggregate_type,
            aggregate_id,
            event_type,
            attempts,
            error,
            died_at)
        values (
            :new_id,
            :new_death,
            pg_catalog.clock_timestamp());
    end if;
    return null;
exception when others then
    begin
        if not tg_op operator(pg_catalog.=) any (array['TRUNCATE', 'DELETE'])
            and coalesce((:new_dead), false) then
            insert into :"dlq_schema".death (
                event_id, aggregate_type, aggregate_id, event_type, attempts, error, died_at)
            values (
                :new_id, '', '', '', 0, null, pg_catalog.clock_timestamp());
        end if;
    exception when others then
        raise warning 'dlq-pipelines did not record a change of %: %',
            tg_relid::pg_catalog.regclass, sqlerrm;
    end;
    return null;
end
$$;

revoke all on function :"dlq_schema".record_change() from public;
revoke all on function :"dlq_schema".end_deaths_of(:event_id_type) from public;

-- PostgreSQL evaluates the condition before it calls the function, so a write that makes no event
-- dead or alive costs one comparison. AFTER triggers see the row as the application's own triggers
-- have left it. An update that moves a row to another partition is a delete and an insert.
create or replace trigger dlq_insert after insert on :"outbox_schema".:"outbox_table"
    for each row when (
        (:new_dead)
        and pg_catalog.current_setting('dlq.moving', true) is distinct from :'dlq_schema')
    execute function :"dlq_schema".record_change();

create or replace trigger dlq_update after update on :"outbox_schema".:"outbox_table"
    for each row when (
        (coalesce((:new_dead), false) operator(pg_catalog.<>) coalesce((:old_dead), false)
            or (:new_dead) and :new_id is distinct from :old_id)
        and pg_catalog.current_setting('dlq.moving', true) is distinct from :'dlq_schema')
    execute function :"dlq_schema".record_change();

create or replace trigger dlq_delete after delete on :"outbox_schema".:"outbox_table"
    for each row when (
        (:old_dead)
        and pg_catalog.current_setting('dlq.moving', true) is distinct from :'dlq_schema')
    execute function :"dlq_schema".record_change();

create or replace trigger dlq_truncate after truncate on :"outbox_schema".:"outbox_table"
    for each statement execute function :"dlq_schema".record_change();
