-- create
create table failed_jobs (
    id bigserial primary key,
    uuid varchar(255) not null unique,
    connection text not null,
    queue text not null,
    payload text not null,
    exception text not null,
    failed_at timestamp(0) not null default now()
);
-- give up
insert into failed_jobs (uuid, connection, queue, payload, exception)
values ('u', 'pgsql', 'default', '{"uuid":"u","displayName":"App\\Jobs\\order.placed"}',
        'KeyError: x');
