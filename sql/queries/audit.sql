-- The audit log.

-- name: record
insert into :"dlq_schema".audit (kind, actor, reason, filter, events, at, run_id)
values (%(kind)s, %(actor)s, %(reason)s, %(filter)s::jsonb, %(events)s, %(now)s, %(run_id)s)
returning id

-- name: list
select id, kind, actor, reason, filter, events, at, run_id from :"dlq_schema".audit
where (%(after)s::bigint is null or id < %(after)s)
    and (%(since)s::timestamptz is null or at >= %(since)s)
order by id desc limit %(limit)s
