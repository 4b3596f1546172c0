-- create
create table event_publication (
    id uuid primary key,
    listener_id text not null,
    event_type text not null,
    serialized_event text not null,
    publication_date timestamptz not null,
    completion_date timestamptz,
    status text,
    completion_attempts integer,
    last_resubmission_date timestamptz
);
-- write
insert into event_publication
values (gen_random_uuid(), 'mail', 'order.placed', '{"total": 3}', now(), null, 'PUBLISHED', 1);
-- give up
update event_publication set status = 'FAILED', completion_attempts = 3;
-- take
update event_publication
set status = 'RESUBMITTED', completion_attempts = completion_attempts + 1,
    last_resubmission_date = now()
where completion_date is null and status <> 'RESUBMITTED' and status <> 'FAILED';
-- deliver
update event_publication set status = 'COMPLETED', completion_date = now()
where completion_date is null and status = 'RESUBMITTED';
