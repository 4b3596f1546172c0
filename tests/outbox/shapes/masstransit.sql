-- create
create schema transport;
create table transport.message_delivery (
    message_delivery_id bigserial primary key,
    transport_message_id uuid not null,
    queue_id bigint not null,
    priority smallint not null,
    enqueue_time timestamptz not null,
    expiration_time timestamptz,
    partition_key text,
    routing_key text,
    consumer_id uuid,
    lock_id uuid,
    delivery_count integer not null,
    max_delivery_count integer not null,
    last_delivered timestamptz,
    transport_headers jsonb
);
-- write
insert into transport.message_delivery
    (transport_message_id, queue_id, priority, enqueue_time, delivery_count, max_delivery_count)
values (gen_random_uuid(), 1, 100, now(), 0, 10);
-- give up
update transport.message_delivery
set queue_id = 2, delivery_count = 1,
    transport_headers = '{"MT-Reason": "fault", "MT-Fault-ExceptionType": "KeyError",
                          "MT-Fault-Message": "x"}';
