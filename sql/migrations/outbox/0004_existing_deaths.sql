-- transaction: none
-- The events that were dead before the trigger. When they died nobody wrote down; nearest to it is the time at which
-- their last attempt fell due, and never a time to come. In batches of their own transactions: a backlog of millions
-- holds no lock for long, and a killed run goes on where it stopped. Workers do not touch dead rows; one that somebody
-- holds all the same is waited for, as long as a lock may take: passed over, its death would be in no ledger.
select set_config('dlq.schema', :'dlq_schema', false), set_config('dlq.outbox_schema', :'outbox_schema', false),
       set_config('dlq.outbox_table', :'outbox_table', false);

do $$
declare
    recorded bigint;
begin
    loop
        execute format('
            with batch as (
                select id from %2$I.%3$I where status = ''dead'' and dead_at is null
                order by id limit 5000 for update
            ), dated as (
                update %2$I.%3$I e set dead_at = least(e.next_run_at, now())
                from batch where e.id = batch.id
                returning e.*
            )
            insert into %1$I.death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)
            select id, aggregate_type, aggregate_id, event_type, attempts, dead_at, last_error from dated order by id',
            current_setting('dlq.schema'), current_setting('dlq.outbox_schema'), current_setting('dlq.outbox_table'));
        get diagnostics recorded = row_count;
        commit;
        exit when recorded = 0;
    end loop;
end
$$;
