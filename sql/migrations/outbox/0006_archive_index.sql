-- transaction: none, lock timeout: none
-- Archived dead events by age, for the purge. Not what the application itself has put there: it has no time of death.
drop index concurrently if exists :"outbox_schema"."dlq_archived";

create index concurrently "dlq_archived" on :"outbox_schema".:"archive_table" (archived_at, id)
    where status = 'dead' and dead_at is not null;
