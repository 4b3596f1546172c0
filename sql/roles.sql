-- Creates four roles with least privileges. Run it as the owner of the tables with the right to create roles, and again
-- after every `dlq migrate`: it revokes all rights on the schema from the four roles and grants them again. `alter
-- default privileges` cannot express that a table is append-only.
--
--     dlq migrate --print roles | psql
--
-- operator: Dagster's jobs, and people who use the command line or the HTTP API. reader: reports, dashboards, queries.
-- flagger: flags fixes and notes deployments, and nothing else. worker: takes events and records their outcomes.
-- None of the roles can log in: create accounts for people and processes and make them members.

select format('create role %I', name) from (values (:'operator'), (:'reader'), (:'flagger'), (:'worker')) as r (name)
where not exists (select from pg_catalog.pg_roles where rolname = name)
\gexec

begin;

revoke all on schema :"dlq_schema" from :"operator", :"reader", :"flagger", :"worker";
revoke all on all tables in schema :"dlq_schema" from :"operator", :"reader", :"flagger", :"worker";
revoke all on all functions in schema :"dlq_schema" from :"operator", :"reader", :"flagger", :"worker";
revoke all on :"outbox_schema".:"outbox_table"
    from :"operator", :"reader", :"flagger", :"worker";

-- The operator writes our tables and moves events between the outbox and the archive.
grant usage on schema :"outbox_schema", :"dlq_schema" to :"operator";
select format('grant %s on %s to %I',
    case when relkind in ('r', 'p') then 'select, insert, update, delete' else 'select' end, c.oid::regclass, :'operator')
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = relnamespace
where n.nspname = :'dlq_schema' and relkind in ('r', 'p', 'v', 'm')
\gexec
-- Not the triggers' functions: on a table of one's own they would write deaths that nobody died.
select format('grant execute on function %s to %I', p.oid::regprocedure, :'operator')
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = pronamespace
where n.nspname = :'dlq_schema' and prokind = 'f' and prorettype <> 'trigger'::regtype
\gexec
-- Append-only tables: the audit log, the migrations and the ledger. In the ledger the trigger adds deaths, jobs fill in
-- the cause, and the purge deletes the oldest. `dlq erase` empties errors and payloads by dlq.erase_event alone, which
-- has the rights of its owner: the operator may empty them, and not write others.
revoke update, delete on :"dlq_schema".audit from :"operator";
revoke insert, update, delete on :"dlq_schema".migration, :"dlq_schema".attachment from :"operator";
revoke update on :"dlq_schema".death from :"operator";
grant update (cause_id, detail, ended_at) on :"dlq_schema".death to :"operator";
-- What is never deleted.
revoke delete on :"dlq_schema".cause, :"dlq_schema".cause_alias, :"dlq_schema".cause_day, :"dlq_schema".fix,
    :"dlq_schema".fix_stage, :"dlq_schema".fix_outcome, :"dlq_schema".export_day, :"dlq_schema".deployment from :"operator";
-- To lock an event through the view, PostgreSQL wants the right to update some column of it: an
-- expression, which nobody can update. The view has the rights of its owner.
grant update (dead) on :"dlq_schema".outbox to :"operator";
grant update (dead) on :"dlq_schema".archive to :"operator";
-- A retry makes events pending; with DLQ_ALLOW_EDIT it may replace the payload.
select format('grant select, insert, delete, update (%s) on %I.%I to %I',
    string_agg(quote_ident(name), ', '), :'outbox_schema', :'outbox_table', :'operator')
from unnest(:"dlq_schema".written_columns()) as written (name)
\gexec

-- The reader reads, payloads included, and may call what changes nothing.
grant usage on schema :"outbox_schema", :"dlq_schema" to :"reader";
grant select on all tables in schema :"dlq_schema" to :"reader";
grant select on :"outbox_schema".:"outbox_table" to :"reader";
select format('grant execute on function %s to %I', p.oid::regprocedure, :'reader')
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = pronamespace
where n.nspname = :'dlq_schema' and prokind = 'f' and provolatile <> 'v' and not prosecdef
\gexec

grant usage on schema :"dlq_schema" to :"flagger";
grant execute on function :"dlq_schema".flag_fix, :"dlq_schema".note_deployment to :"flagger";

-- The worker sees nothing of ours: the trigger that records deaths has the rights of its owner.
grant usage on schema :"outbox_schema" to :"worker";
-- These are the columns that OutboxRepository writes; a worker of another table has rights of its own.
select format('grant select%s on %I.%I to %I',
    coalesce(', update (' || string_agg(quote_ident(a.attname), ', ') || ')', ''),
    :'outbox_schema', :'outbox_table', :'worker')
from pg_catalog.pg_attribute a
where a.attrelid = :"dlq_schema".outbox_table() and not a.attisdropped
    and a.attname in ('status', 'attempts', 'next_run_at', 'last_error', 'last_error_at')
\gexec

commit;
