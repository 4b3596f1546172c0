-- The triggers' functions: they set dead_at and write the death in the worker's own transaction, so neither is ever
-- without the other. They run with the rights of their owner, because workers have none on this schema; their search
-- path is pinned, so nobody's objects can be slipped under them.

create function :"dlq_schema".record_death() returns trigger
    language plpgsql security definer set search_path = :"dlq_schema", pg_temp
as $$
begin
    -- The clock, not the transaction's start: a worker's transaction may span its handler's whole work.
    new.dead_at := pg_catalog.clock_timestamp();
    insert into death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)
    values (new.id, new.aggregate_type, new.aggregate_id, new.event_type, new.attempts, new.dead_at, new.last_error);
    return new;
end
$$;

create function :"dlq_schema".date_death() returns trigger language plpgsql as $$
begin
    new.dead_at := pg_catalog.clock_timestamp();
    return new;
end
$$;

-- Of an event that is inserted as dead. A restored one brings a death that is recorded already.
create function :"dlq_schema".record_inserted_death() returns trigger
    language plpgsql security definer set search_path = :"dlq_schema", pg_temp
as $$
begin
    insert into death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)
    values (new.id, new.aggregate_type, new.aggregate_id, new.event_type, new.attempts, new.dead_at, new.last_error)
    on conflict do nothing;
    return null;
end
$$;
