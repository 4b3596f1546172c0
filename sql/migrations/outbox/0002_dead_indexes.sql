-- transaction: none, lock timeout: none
-- Dead events by time of death: for lists, the batches of the archive and, at its null end, unrecorded deaths. The index
-- is built while the application writes. An invalid index of an interrupted build is dropped first.
drop index concurrently if exists :"outbox_schema"."dlq_dead";

create index concurrently "dlq_dead" on :"outbox_schema".:"outbox_table" (dead_at, id) where status = 'dead';

-- Dead events by aggregate, for retries in order. The id of the aggregate leads, because it is the most selective.
drop index concurrently if exists :"outbox_schema"."dlq_dead_aggregate";

create index concurrently "dlq_dead_aggregate" on :"outbox_schema".:"outbox_table" (aggregate_id, aggregate_type, id)
    where status = 'dead';

-- Dead events by type, for counts. Equal entries are stored once (deduplication), so a million take 7 MB.
drop index concurrently if exists :"outbox_schema"."dlq_dead_types";

create index concurrently "dlq_dead_types" on :"outbox_schema".:"outbox_table" (event_type, aggregate_type)
    where status = 'dead';
