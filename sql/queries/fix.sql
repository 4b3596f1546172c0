-- Flagged fixes.

-- name: lock_cause
select id, merged_into from :"dlq_schema".cause where id = %(cause_id)s for update

-- name: causes
-- The cause and what is merged into it: what a fix for it targets.
select id from :"dlq_schema".cause where id = %(cause_id)s or merged_into = %(cause_id)s order by id

-- name: active_for_cause
select id from :"dlq_schema".fix where cause_id = %(cause_id)s and status = 'active'

-- name: count_targets
select count(*) as events
from :"dlq_schema".death d
join :"outbox_schema".:"outbox_table" e on e.id = d.event_id and e.dead_at = d.died_at
where e.status = 'dead' and d.cause_id = any(%(cause_ids)s::text[]) and d.died_at < %(flagged_at)s
    and (%(event_type)s::text is null or d.event_type = %(event_type)s)

-- name: flag
insert into :"dlq_schema".fix
    (cause_id, event_type, note, flagged_by, flagged_at, canary, rate, min_success, settle_seconds)
values (%(cause_id)s, %(event_type)s, %(note)s, %(actor)s, %(now)s, %(canary)s, %(rate)s, %(min_success)s,
    %(settle_seconds)s)
returning *

-- name: get
select * from :"dlq_schema".fix where id = %(fix_id)s

-- name: list
select * from :"dlq_schema".fix order by id desc limit %(limit)s

-- name: lock
-- No row: another run holds the fix. It does the work; this one leaves.
select * from :"dlq_schema".fix where id = %(fix_id)s for update skip locked

-- name: due
-- Active fixes with something to do: nothing outstanding (not begun, or all settled), or a due event with an outcome
-- that nobody has written down. Whether dead events are left is for the step to ask: a stage that could go on
-- releasing has outcomes sooner or later. So only the stage's outstanding retries are read, never the cause's deaths.
select f.* from :"dlq_schema".fix f
where f.status = 'active' and (
    not exists (select from :"dlq_schema".retry r
                where r.fix_id = f.id and r.stage = f.stage and r.outcome is null)
    or exists (select from :"dlq_schema".retry r
               left join :"outbox_schema".:"outbox_table" e on e.id = r.event_id
               where r.fix_id = f.id and r.stage = f.stage and r.outcome is null and r.due_at <= %(now)s
                   and (e.id is null or e.status in ('done', 'dead')
                        or r.due_at + make_interval(secs => f.settle_seconds) <= %(now)s))
)
order by f.id limit %(limit)s

-- name: begin_stage
update :"dlq_schema".fix set stage = %(stage)s, stage_size = %(size)s where id = %(fix_id)s

-- name: close
update :"dlq_schema".fix set status = %(status)s, verdict = %(verdict)s, closed_at = %(now)s
where id = %(fix_id)s and status = 'active'

-- name: set_cause_status
-- Fixed since the fix was flagged: what was written later met the mended upstream.
update :"dlq_schema".cause set status = %(status)s, fixed_at = case %(status)s when 'fixed' then %(flagged_at)s end
where id = %(cause_id)s
