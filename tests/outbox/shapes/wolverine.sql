-- create
create schema wolverine;
create table wolverine.wolverine_dead_letters (
    id uuid primary key,
    execution_time timestamptz,
    body bytea not null,
    message_type varchar not null,
    received_at varchar,
    source varchar,
    exception_type varchar,
    exception_message varchar,
    sent_at timestamptz,
    replayable boolean
);
-- give up
insert into wolverine.wolverine_dead_letters
values (gen_random_uuid(), null, '\x7b5c', 'order.placed', 'local://orders', 'shop', 'KeyError',
        'x', now(), false);
-- take
select from wolverine.wolverine_dead_letters where replayable for update skip locked;
-- deliver
delete from wolverine.wolverine_dead_letters where replayable;
