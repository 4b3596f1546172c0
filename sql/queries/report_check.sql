-- The totals of a report, counted by statements that share nothing with those of report.sql.

-- name: totals
-- PostgreSQL computes when the day begins and ends in the time zone of the report.
select
    count(*) as deaths,
    count(distinct (d.event_id, d.event_created_at)) as events,
    count(*) - count(d.cause_id) as unclassified,
    count(distinct d.cause_id) as causes
from :"dlq_schema".shown_death d
where d.died_at >= (%(day)s::date)::timestamp at time zone %(zone)s
    and d.died_at < (%(day)s::date + 1)::timestamp at time zone %(zone)s
