-- The archive: all columns of the application's table with their types, and two of ours. No
-- constraint of the application applies to what it has archived.
create table if not exists :"dlq_schema".archived (
    like :"outbox_schema".:"outbox_table",
    dlq_death_id    bigint      primary key,
    dlq_archived_at timestamptz not null
);
comment on table :"dlq_schema".archived
    is 'Archived events: the columns of the outbox table, the death, and when it was archived.';

create index if not exists archived_time on :"dlq_schema".archived (dlq_archived_at, dlq_death_id);
create index if not exists archived_event on :"dlq_schema".archived (:id_column);

-- Columns that the application has added since, and those that may be null there now.
do $$
declare
    changed record;
begin
    for changed in
        select format('alter table %s add column %I %s',
            :'archived_regclass',
            o.attname,
            pg_catalog.format_type(o.atttypid, o.atttypmod)) as statement
        from pg_catalog.pg_attribute o
        where o.attrelid = :'outbox_regclass'::regclass
            and o.attnum > 0
            and not o.attisdropped
            and not exists (
                select from pg_catalog.pg_attribute a
                where a.attrelid = :'archived_regclass'::regclass
                    and a.attname = o.attname
                    and not a.attisdropped)
        union all
        select format('alter table %s alter column %I drop not null',
            :'archived_regclass', a.attname)
        from pg_catalog.pg_attribute a
        where a.attrelid = :'archived_regclass'::regclass
            and a.attnum > 0
            and a.attnotnull
            and a.attname not in ('dlq_death_id', 'dlq_archived_at')
    loop
        execute changed.statement;
    end loop;
end
$$;
