-- create
create table published (
    id uuid primary key,
    version varchar(100),
    destination varchar(255) not null,
    body jsonb not null,
    added timestamptz not null,
    expires_at timestamptz not null,
    retry integer not null,
    status integer not null,
    headers jsonb not null
);
-- write
insert into published
values (gen_random_uuid(), null, 'order.placed', '{"total": 3}', now(), now() + interval '1 day',
        0, 1, '{}');
-- give up
update published set status = -1, retry = 50, expires_at = now() - interval '1 day';
-- take
select from published where status = 1 and expires_at >= now() for update skip locked;
-- deliver
update published set status = 2, retry = 1 where status = 1 and expires_at >= now();
