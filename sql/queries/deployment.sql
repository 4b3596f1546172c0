-- Deployments of services.

-- name: place
select :"dlq_schema".place_deployment(
    jsonb_populate_record(null:::"dlq_schema".deployment, %(deployment)s::jsonb),
    %(reason)s,
    %(run_id)s) as id

-- name: get
select id, service, version, link, deployed_at, noted_by
from :"dlq_schema".deployment
where id = %(id)s

-- name: list
-- The one that was noted last first. `service` and `after` are null where they do not apply.
select id, service, version, link, deployed_at, noted_by
from :"dlq_schema".deployment
where (%(service)s::text is null or service = %(service)s)
    and (%(after)s::bigint is null or id < %(after)s)
order by id desc
limit %(limit)s

-- name: between
-- The latest first.
select id, service, version, link, deployed_at, noted_by
from :"dlq_schema".deployment
where deployed_at between %(since)s and %(until)s
order by deployed_at desc, id desc
limit %(limit)s
