-- create
create table outbox_record (
    id varchar(255) primary key,
    status varchar(20) not null,
    record_key varchar(255) not null,
    record_type varchar(255) not null,
    payload text not null,
    context text,
    created_at timestamptz not null,
    completed_at timestamptz,
    failure_count integer not null,
    failure_reason varchar(1000),
    next_retry_at timestamptz not null,
    partition_no integer not null,
    handler_id varchar(1000) not null
);
-- write
insert into outbox_record
values ('a', 'NEW', '7', 'order.placed', '{"total": 3}', null, now(), null, 0, null, now(), 1, 'h');
-- give up
update outbox_record set status = 'FAILED', failure_count = 3, failure_reason = 'KeyError: x';
-- take
select from outbox_record
where status = 'NEW' and next_retry_at <= now() for update skip locked;
-- deliver
update outbox_record set status = 'COMPLETED', completed_at = now()
where status = 'NEW' and next_retry_at <= now();
