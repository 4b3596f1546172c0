-- create
create table outbox_kafka (
    id bigserial primary key,
    created timestamp not null,
    processed timestamp,
    topic varchar(128) not null,
    key varchar(128),
    value bytea not null,
    headers jsonb
);
-- write
insert into outbox_kafka (created, topic, value) values (now(), 'orders', '\x00');
