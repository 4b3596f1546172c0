-- transaction: none, lock timeout: none
-- Dead events by time of death: lists, the archive's batches and, at its null end, deaths not recorded yet. Built
-- while the application goes on writing. An index that a broken build left invalid is dropped first.
drop index concurrently if exists :"outbox_schema"."dlq_dead";

create index concurrently "dlq_dead" on :"outbox_schema".:"outbox_table" (dead_at, id) where status = 'dead';

-- Dead events of an aggregate: what comes first when they are retried in order. Led by what tells aggregates apart.
drop index concurrently if exists :"outbox_schema"."dlq_dead_aggregate";

create index concurrently "dlq_dead_aggregate" on :"outbox_schema".:"outbox_table" (aggregate_id, aggregate_type, id)
    where status = 'dead';

-- Dead events by their types: how many of which. Its equal entries are stored once, so a million take 7 MB.
drop index concurrently if exists :"outbox_schema"."dlq_dead_types";

create index concurrently "dlq_dead_types" on :"outbox_schema".:"outbox_table" (event_type, aggregate_type)
    where status = 'dead';
