-- create
create table dead_letter_entry (
    dead_letter_id varchar(255) primary key,
    cause_message varchar(1023),
    cause_type varchar(255),
    diagnostics oid,
    enqueued_at timestamptz not null,
    last_touched timestamptz,
    aggregate_identifier varchar(255),
    event_identifier varchar(255) not null,
    message_type varchar(255) not null,
    meta_data oid,
    payload oid not null,
    payload_revision varchar(255),
    payload_type varchar(255) not null,
    sequence_number bigint,
    time_stamp varchar(255) not null,
    token oid,
    token_type varchar(255),
    type varchar(255),
    processing_group varchar(255) not null,
    processing_started timestamptz,
    sequence_identifier varchar(255) not null,
    sequence_index bigint not null
);
-- give up
insert into dead_letter_entry
values ('a', 'x', 'KeyError', null, now(), null, '7', 'e', 'event', null, 1, null, 'order.placed',
        0, '', null, null, 'Order', 'order', null, '7', 0);
