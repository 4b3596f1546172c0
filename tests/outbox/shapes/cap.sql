-- create
create schema cap;
create table cap.published (
    "Id" bigint primary key,
    "Version" varchar(20) not null,
    "Name" varchar(200) not null,
    "Content" text,
    "Retries" integer not null,
    "Added" timestamp not null,
    "ExpiresAt" timestamp,
    "StatusName" varchar(50) not null
);
-- write
insert into cap.published
values (1, 'v1', 'order.placed', '{"Headers":{"cap-msg-id":"1"},"Value":{"total": 3}}', 0,
        now() at time zone 'utc', null, 'Scheduled');
-- give up
update cap.published
set "StatusName" = 'Failed', "Retries" = 50, "ExpiresAt" = now() + interval '15 days',
    "Content" = '{"Headers":{"cap-msg-id":"1","cap-exception":"KeyError--\u003Ex"},"Value":{}}';
-- take
select from cap.published
where "Retries" < 50 and "StatusName" in ('Failed', 'Scheduled') for update skip locked;
-- deliver
update cap.published
set "StatusName" = 'Succeeded', "ExpiresAt" = now() at time zone 'utc' + interval '1 day'
where "Retries" < 50 and "StatusName" in ('Failed', 'Scheduled');
