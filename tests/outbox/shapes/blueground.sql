-- create
create table outbox_item (
    id bigint primary key,
    type text not null,
    status text not null,
    payload text not null,
    group_id text,
    retries bigint not null,
    next_run timestamp not null,
    last_execution timestamp,
    rerun_after timestamp,
    delete_after timestamp,
    created_at timestamp not null,
    updated_at timestamp not null
);
-- write
insert into outbox_item
values (1, 'order.placed', 'PENDING', '{"total": 3}', '7', 0, now() at time zone 'utc', null, null,
        null, now() at time zone 'utc', now());
-- give up
update outbox_item set status = 'FAILED', retries = 5;
-- take
update outbox_item
set status = 'RUNNING', last_execution = now() at time zone 'utc',
    rerun_after = now() at time zone 'utc' + interval '1 hour'
where status = 'PENDING' and next_run <= now() at time zone 'utc';
-- deliver
update outbox_item
set status = 'COMPLETED', delete_after = now() at time zone 'utc' + interval '10 days'
where status = 'RUNNING';
