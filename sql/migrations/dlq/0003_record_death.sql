-- The trigger's function: sets dead_at and writes the death in the worker's own transaction, so neither is ever
-- without the other. It runs with the rights of its owner, because workers have none on this schema; its search path
-- is pinned, so nobody's objects can be slipped under it.
create function :"dlq_schema".record_death() returns trigger
    language plpgsql security definer set search_path = :"dlq_schema", pg_temp
as $$
begin
    if tg_when = 'BEFORE' then
        -- The clock, not the transaction's start: a worker's transaction may span its handler's whole work.
        new.dead_at := pg_catalog.clock_timestamp();
        if tg_op = 'INSERT' then
            return new;  -- recorded AFTER: `on conflict do nothing` may still drop the row
        end if;
    end if;
    insert into death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)
    values (new.id, new.aggregate_type, new.aggregate_id, new.event_type, new.attempts, new.dead_at, new.last_error)
    on conflict (event_id, died_at) do nothing;
    return new;
end
$$;
