-- What is dead now, with its death and the cause that it is shown as. In the outbox line, because the columns that it
-- reads come with it.
create view :"dlq_schema".dead_event as
select d.id as death_id, d.event_id, d.aggregate_type, d.aggregate_id, d.event_type, d.attempts, d.died_at, d.error,
    d.cause_id as own_cause_id, coalesce(c.merged_into, d.cause_id) as cause_id
from :"outbox_schema".:"outbox_table" e
join :"dlq_schema".death d on d.event_id = e.id and d.died_at = e.dead_at
left join :"dlq_schema".cause c on c.id = d.cause_id
where e.status = 'dead';
comment on view :"dlq_schema".dead_event is 'Dead events with their last death and its cause.';

-- Whether a fix selects a dead event.
create function :"dlq_schema".selects(fix :"dlq_schema".fix, event :"dlq_schema".dead_event)
    returns boolean language sql immutable parallel safe
    return :"dlq_schema".selects(
        fix,
        row(
            event.death_id,
            event.event_id,
            event.aggregate_type,
            event.aggregate_id,
            event.event_type,
            event.attempts,
            event.died_at,
            event.error,
            event.own_cause_id
        ):::"dlq_schema".death,
        event.cause_id);
