-- create
create table txno_outbox (
    id varchar(36) primary key,
    invocation text,
    nextattempttime timestamp(6),
    attempts integer,
    blocked boolean,
    version integer,
    uniquerequestid varchar(250) unique,
    processed boolean,
    lastattempttime timestamp(6),
    topic varchar(250) not null default '*',
    seq bigint
);
-- write
insert into txno_outbox (id, invocation, nextattempttime, attempts, blocked, version, processed)
values ('a', '{"total": 3}', now() at time zone 'utc', 0, false, 0, false);
-- give up
update txno_outbox set blocked = true, attempts = 5;
-- take
select from txno_outbox
where nextattempttime <= now() at time zone 'utc' and not blocked and not processed
for update skip locked;
-- deliver
delete from txno_outbox
where nextattempttime <= now() at time zone 'utc' and not blocked and not processed;
