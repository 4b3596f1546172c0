-- Our own schema and the list of the migrations applied to it and to the application's tables.
create schema if not exists :"dlq_schema";

create table :"dlq_schema".migration (
    line       text        not null check (line in ('outbox', 'dlq')),
    number     integer     not null,
    name       text        not null,
    checksum   text        not null,  -- sha256 of the file
    applied_at timestamptz not null default now(),
    primary key (line, number)
);
comment on table :"dlq_schema".migration is 'Which files were applied, with their sums.';
