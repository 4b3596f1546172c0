-- Why and when an event died. All nullable without default: no rewrite, a lock of milliseconds. A column of that name
-- which the application has already is used as it is, if it has the type.
alter table :"outbox_schema".:"outbox_table"
    add column if not exists last_error    text,
    add column if not exists last_error_at timestamptz,
    add column if not exists dead_at       timestamptz;

create table if not exists :"outbox_schema".:"archive_table" (
    id             bigint      primary key,
    aggregate_type text        not null,
    aggregate_id   text        not null,
    event_type     text        not null,
    payload        jsonb       not null,
    status         text        not null,
    attempts       integer     not null,
    next_run_at    timestamptz not null,
    created_at     timestamptz not null,
    archived_at    timestamptz default now()
);

alter table :"outbox_schema".:"archive_table"
    add column if not exists last_error    text,
    add column if not exists last_error_at timestamptz,
    add column if not exists dead_at       timestamptz;

select set_config('dlq.outbox_schema', :'outbox_schema', true), set_config('dlq.outbox_table', :'outbox_table', true),
       set_config('dlq.archive_table', :'archive_table', true);

do $$
declare
    other record;
begin
    select format('%I.%I', current_setting('dlq.outbox_schema'), c.relname) as place, a.attname as name,
        pg_catalog.format_type(a.atttypid, a.atttypmod) as type, wanted.type as wanted
    into other
    from (values ('last_error', 'text'), ('last_error_at', 'timestamptz'), ('dead_at', 'timestamptz')) as wanted (name, type)
    join pg_catalog.pg_attribute a on a.attname = wanted.name and a.atttypid <> wanted.type::regtype
    join pg_catalog.pg_class c on c.oid = a.attrelid
        and c.relname in (current_setting('dlq.outbox_table'), current_setting('dlq.archive_table'))
    where c.relnamespace = to_regnamespace(quote_ident(current_setting('dlq.outbox_schema')))
    limit 1;
    if found then
        raise exception 'The column % of % is %, and has to be %. Run `alter table % alter column % type % using %::%;` '
            'or give it another name, then run `dlq migrate` again.', other.name, other.place, other.type, other.wanted,
            other.place, other.name, other.wanted, other.name, other.wanted
            using errcode = 'object_not_in_prerequisite_state';
    end if;
end
$$;
