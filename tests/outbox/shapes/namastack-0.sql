-- create
create table outbox_record (
    id varchar(255) primary key,
    status varchar(20) not null,
    aggregate_id varchar(255) not null,
    event_type varchar(255) not null,
    payload text not null,
    created_at timestamp not null,
    completed_at timestamp,
    retry_count integer not null,
    next_retry_at timestamp not null,
    partition_no integer not null
);
-- write
insert into outbox_record
values ('a', 'NEW', '7', 'order.placed', '{"total": 3}', now() at time zone 'utc', null, 0,
        now() at time zone 'utc', 1);
-- give up
update outbox_record set status = 'FAILED', retry_count = 3;
-- take
select from outbox_record
where status = 'NEW' and next_retry_at <= now() at time zone 'utc' for update skip locked;
-- deliver
update outbox_record set status = 'COMPLETED', completed_at = now() at time zone 'utc'
where status = 'NEW' and next_retry_at <= now() at time zone 'utc';
