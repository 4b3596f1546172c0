-- What the demo asks of the database besides what everybody may ask.

-- name: state
-- Whether this database is a demo's, and whether that demo was played to its end.
select exists (select from :"dlq_schema".audit where kind = 'demo.begin') as begun,
    exists (select from :"dlq_schema".audit where kind = 'demo.end') as ended

-- name: forget
-- Empty everything that the demo filled. Only ever run on a database that a demo began in.
truncate :"outbox_schema".:"outbox_table", :"outbox_schema".:"archive_table", :"dlq_schema".retry,
    :"dlq_schema".fix_outcome, :"dlq_schema".fix_stage, :"dlq_schema".fix, :"dlq_schema".death, :"dlq_schema".cause_day, :"dlq_schema".cause_alias, :"dlq_schema".cause,
    :"dlq_schema".export_day, :"dlq_schema".report_day, :"dlq_schema".books, :"dlq_schema".discard,
    :"dlq_schema".restored, :"dlq_schema".purged, :"dlq_schema".audit restart identity

-- name: cause_of
-- The cause whose sample ends so: the demo knows its failures by what was raised.
select id from :"dlq_schema".cause where exception_type like %(exception)s and template like %(template)s

-- name: summary
-- The closing figures, each from the tables and none from what the demo believes to have done.
select
    (select count(*) from :"dlq_schema".death) as deaths,
    (select count(distinct event_id) from :"dlq_schema".death) as events_that_died,
    (select count(*) from :"dlq_schema".cause) as causes,
    (select coalesce(sum(rows), 0)::bigint from :"dlq_schema".export_day) as exported,
    (select count(*) from :"dlq_schema".export_day) as exported_days,
    (select count(*) from :"dlq_schema".retry) as retried,
    (select count(*) from :"dlq_schema".retry where outcome = 'delivered') as retried_done,
    (select count(*) from :"dlq_schema".retry where outcome = 'died_again') as retried_dead,
    (select count(*) from :"outbox_schema".:"archive_table" where status = 'dead') as archived,
    (select count(*) from :"outbox_schema".:"outbox_table" where status = 'dead') as still_dead,
    (select count(*) from :"outbox_schema".:"outbox_table" where status = 'done') as done,
    (select count(*) from :"outbox_schema".:"outbox_table" where status in ('pending', 'retry')) as waiting
