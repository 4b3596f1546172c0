-- The schema of dlq-pipelines and the migrations that were applied.
create schema if not exists :"dlq_schema";

create table :"dlq_schema".migration (
    series     text        not null check (series in ('outbox', 'dlq')),
    number     integer     not null,
    name       text        not null,
    checksum   text        not null,  -- SHA-256 of the file
    applied_at timestamptz not null default now(),
    primary key (series, number)
);
comment on table :"dlq_schema".migration
    is 'Migrations that were applied, with the checksums of their files.';
