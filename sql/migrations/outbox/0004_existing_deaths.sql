-- transaction: none
-- The events that were dead before the trigger. Where the application wrote down when they died, that is when. Else
-- nobody knows: nearest to it is the time at which their last attempt fell due, and never a time to come. In batches of
-- their own transactions: a backlog of millions holds no lock for long, and a killed run goes on where it stopped.
-- Workers do not touch dead rows; one that somebody holds all the same is waited for, as long as a lock may take: passed
-- over, its death would be in no ledger.
select set_config('dlq.schema', :'dlq_schema', false), set_config('dlq.outbox_schema', :'outbox_schema', false),
       set_config('dlq.outbox_table', :'outbox_table', false);

-- Those with a time, by it. The trigger records what dies meanwhile, and that is passed over.
do $$
declare
    page record;
begin
    select '-infinity'::timestamptz as last_time, 0::bigint as last_id into page;
    loop
        execute format('
            with page as materialized (
                select id, dead_at from %2$I.%3$I where status = ''dead'' and (dead_at, id) > ($1, $2)
                order by dead_at, id limit 5000
            ), missing as (
                select e.* from %2$I.%3$I e join page p on p.id = e.id and p.dead_at = e.dead_at
                where e.status = ''dead''
                    and not exists (select from %1$I.death d where d.event_id = e.id and d.died_at = e.dead_at)
                order by e.id for update of e
            ), recorded as (
                insert into %1$I.death (event_id, aggregate_type, aggregate_id, event_type, attempts, died_at, error)
                select id, aggregate_type, aggregate_id, event_type, attempts, dead_at, last_error from missing
            )
            select dead_at as last_time, id as last_id from page order by dead_at desc, id desc limit 1',
            current_setting('dlq.schema'), current_setting('dlq.outbox_schema'), current_setting('dlq.outbox_table'))
        into page using page.last_time, page.last_id;
        commit;
        exit when page.last_id is null;
    end loop;
end
$$;

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
