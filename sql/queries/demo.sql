-- Statements that only the demo runs.

-- name: state
-- Whether a demo began in this database, and whether it was played to its end.
select
    exists (select from :"dlq_schema".audit where kind = 'demo.begin') as begun,
    exists (select from :"dlq_schema".audit where kind = 'demo.end') as ended

-- name: empty_tables
-- Empty the outbox, its archive and every table of the schema. Kept: what describes the installation and not
-- its events. Only run on a database that a demo began in.
do $$
begin
    execute (
        select 'truncate ' || string_agg(c.oid::regclass::text, ', ') || ' restart identity'
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p')
            and (
                n.nspname = :'dlq_schema' and c.relname not in (
                    'migration', 'attachment', 'installation', 'job_scan')
                or n.nspname = :'outbox_schema' and c.relname = :'outbox_table'
            )
    );
end
$$

-- name: has_probes
-- Whether an event that a probe released has no outcome yet.
select exists (select from :"dlq_schema".probe where death_id is not null) as found

-- name: cause_of
-- The cause of an exception type and a message template: the demo knows what it raised.
select id from :"dlq_schema".cause where exception_type like %(exception)s and template like %(template)s

-- name: summary
-- The closing figures, each counted in the tables.
select
    (select count(*) from :"dlq_schema".death) as deaths,
    (select count(distinct event_id) from :"dlq_schema".death) as events_that_died,
    (select count(*) from :"dlq_schema".cause) as causes,
    (select coalesce(sum(rows), 0)::bigint from :"dlq_schema".export_day) as exported,
    (select count(*) from :"dlq_schema".export_day) as exported_days,
    (select count(*) from :"dlq_schema".retry) as retried,
    (select count(*) from :"dlq_schema".retry where outcome = 'delivered') as retried_done,
    (select count(*) from :"dlq_schema".retry where outcome = 'died_again') as retried_dead,
    (select count(*) from :"dlq_schema".archive) as archived,
    (select count(*) from :"outbox_schema".:"outbox_table" where status = 'dead') as still_dead,
    (select count(*) from :"outbox_schema".:"outbox_table" where status = 'done') as done,
    (select count(*) from :"outbox_schema".:"outbox_table" where status in ('pending', 'retry')) as waiting
