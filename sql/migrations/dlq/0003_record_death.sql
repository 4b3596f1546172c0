-- Functions of the triggers. They set dead_at and write the death in the worker's transaction, so
-- both exist or neither. They are security definer, because workers have no rights on this schema,
-- and pin the search path, so that no other objects can be put in their way.
--
-- record_death is a BEFORE trigger, so that `dead_at` is set in the row that the worker writes
-- anyway. Measured: an AFTER trigger with an update of its own saves a success 5 %, but costs a
-- death 35 % instead of 15 to 20 %.

create function :"dlq_schema".record_death() returns trigger
    language plpgsql security definer set search_path = :"dlq_schema", pg_temp
as $$
begin
    -- Not now(): a worker's transaction may include all the work of its handler.
    new.dead_at := pg_catalog.clock_timestamp();
    insert into death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)
    values (new.id, new.aggregate_type, new.aggregate_id, new.event_type, new.attempts, new.dead_at,
        new.last_error);
    return new;
end
$$;

create function :"dlq_schema".date_death() returns trigger language plpgsql as $$
begin
    new.dead_at := pg_catalog.clock_timestamp();
    return new;
end
$$;

-- For an event that is inserted as dead. The death of a restored event is recorded already.
create function :"dlq_schema".record_inserted_death() returns trigger
    language plpgsql security definer set search_path = :"dlq_schema", pg_temp
as $$
begin
    insert into death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)
    values (new.id, new.aggregate_type, new.aggregate_id, new.event_type, new.attempts, new.dead_at,
        new.last_error)
    on conflict do nothing;
    return null;
end
$$;
