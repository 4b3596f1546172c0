-- Statements that only the demo runs.

-- name: state
-- Whether a demo began in this database, and whether it was played to its end.
select
    exists (select from :"dlq_schema".audit where kind = 'demo.begin') as begun,
    exists (select from :"dlq_schema".audit where kind = 'demo.end') as ended

-- name: other_table
-- A table or view of somebody else's, without those of extensions; null: the database is empty.
select (
    select format('%%I.%%I', n.nspname, c.relname)
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f')
        and n.nspname <> 'information_schema'
        and n.nspname !~ '^pg_'
        and not exists (
            select from pg_catalog.pg_depend d
            where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
                and d.deptype = 'e')
    order by n.nspname = :'dlq_schema', n.nspname, c.relname
    limit 1) as name

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

-- name: date_fixes
-- A fix is played in seconds, today; it must lie where its story needs it. Moves the open or ended fixes that were
-- flagged an hour after that time or later so that the first of them was flagged then, with their retries, outcomes
-- and deaths and with what they changed. Only run on a database that a demo began in. A second run moves nothing.
with moved as materialized (
    select min(flagged_at) as since, min(flagged_at) - %(at)s::timestamptz as back
    from :"dlq_schema".fix where flagged_at > %(at)s::timestamptz + interval '1 hour'
), fixes as (
    update :"dlq_schema".fix f
    set flagged_at = f.flagged_at - m.back,
        expires_at = f.expires_at - m.back,
        stepped_at = f.stepped_at - m.back,
        last_due_at = f.last_due_at - m.back,
        refill_at = f.refill_at - m.back,
        closed_at = f.closed_at - m.back
    from moved m where f.flagged_at >= m.since
), stages as (
    update :"dlq_schema".fix_stage s set begun_at = s.begun_at - m.back from moved m where s.begun_at >= m.since
), retries as (
    update :"dlq_schema".retry r
    set retried_at = r.retried_at - m.back, due_at = r.due_at - m.back, settled_at = r.settled_at - m.back
    from moved m where r.retried_at >= m.since
), recalls as (
    update :"dlq_schema".recalled r
    set retried_at = r.retried_at - m.back, due_at = r.due_at - m.back, recalled_at = r.recalled_at - m.back
    from moved m where r.retried_at >= m.since
), probes as (
    update :"dlq_schema".probe p set probed_at = p.probed_at - m.back from moved m where p.probed_at >= m.since
), deaths as (
    update :"dlq_schema".death d
    set died_at = d.died_at - case when d.died_at >= m.since then m.back else interval '0' end,
        ended_at = d.ended_at - case when d.ended_at >= m.since then m.back else interval '0' end
    from moved m where d.died_at >= m.since or d.ended_at >= m.since
), dead as (
    update :"dlq_schema".dead n set died_at = n.died_at - m.back from moved m where n.died_at >= m.since
), errors as (
    update :"outbox_schema".:"outbox_table" e set last_error_at = e.last_error_at - m.back
    from moved m where e.last_error_at >= m.since
), causes as (
    update :"dlq_schema".cause c set fixed_at = c.fixed_at - m.back from moved m where c.fixed_at >= m.since
), details as (
    update :"dlq_schema".cause_detail k set fixed_at = k.fixed_at - m.back from moved m where k.fixed_at >= m.since
), entries as (
    update :"dlq_schema".audit a set at = a.at - m.back
    from moved m where a.at >= m.since and a.kind not like 'demo.%%'
)
select count(*) as fixes from :"dlq_schema".fix f join moved m on f.flagged_at >= m.since

-- name: first_death
-- The first death of causes of an exception type and a message template.
select min(first_seen) as at from :"dlq_schema".cause
where exception_type like %(exception)s and template like %(template)s

-- name: date_deployments
-- A pipeline notes a deployment when it is done. Only run on a database that a demo began in.
update :"dlq_schema".deployment set noted_at = deployed_at where noted_at > deployed_at

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
