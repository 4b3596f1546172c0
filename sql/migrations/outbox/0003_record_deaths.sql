-- Record every death from now on. PostgreSQL evaluates the condition before it calls the function, so an update that
-- is not a death costs one comparison.
create or replace trigger dlq_death_update before update of status on :"outbox_schema".:"outbox_table"
    for each row when (new.status = 'dead' and old.status is distinct from 'dead')
    execute function :"dlq_schema".record_death();

-- An insert of a dead event that says when it died (a restore) keeps that time.
create or replace trigger dlq_death_insert before insert on :"outbox_schema".:"outbox_table"
    for each row when (new.status = 'dead' and new.dead_at is null)
    execute function :"dlq_schema".date_death();

-- After the insert: `on conflict do nothing` may still have dropped the row before.
create or replace trigger dlq_death_inserted after insert on :"outbox_schema".:"outbox_table"
    for each row when (new.status = 'dead')
    execute function :"dlq_schema".record_inserted_death();
