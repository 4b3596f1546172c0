-- The schema of dlq-pipelines and the migrations that were applied.
create schema if not exists :"dlq_schema";

create table :"dlq_schema".migration (
    number     integer     primary key,
    name       text        not null,
    checksum   text        not null,  -- SHA-256 of the file
    applied_at timestamptz not null default now()
);
comment on table :"dlq_schema".migration
    is 'Migrations that were applied, with the checksums of their files.';

create table :"dlq_schema".attachment (
    checksum    text        not null,  -- SHA-256 of sql/outbox
    shape       jsonb       not null,  -- the SQL that stands for the application's columns
    attached_at timestamptz not null default now(),
    -- When the deaths of events that were dead before were all recorded.
    recorded_at timestamptz,
    -- The columns that sql/outbox has added to the application's table.
    added       text[]      not null
        default coalesce(nullif(current_setting('dlq.added', true), ''), '{}')::text[]
);
comment on table :"dlq_schema".attachment
    is 'What is installed on the application''s table. One row.';

-- Ids of events as the faces pass them. The key of the application's table is a number, a uuid or a
-- text, and the ledger has its type.
create function :"dlq_schema".event_ids(given text[]) returns :event_id_type[]
    language plpgsql immutable strict parallel safe
as $$
begin
    return given:::event_id_type[];
exception when invalid_text_representation or numeric_value_out_of_range then
    raise exception 'Not an event id of this outbox: %.', sqlerrm
        using errcode = 'invalid_parameter_value',
            hint = format('Ids of this outbox have the type %s.', ':event_id_type');
end
$$;

-- The predicate of a filter of payloads, by the language that PostgreSQL has for JSON.
create function :"dlq_schema".payload_predicate(given text) returns jsonpath
    language plpgsql immutable strict
as $$
begin
    -- A path that is no predicate, such as `$.a`, fails on every document.
    perform jsonb_path_match('{}', given::jsonpath);
    return given::jsonpath;
exception when others then
    raise exception 'where is no jsonpath predicate: %.', sqlerrm
        using errcode = 'invalid_parameter_value',
            hint = 'Compare a path with a value: $.acquirer == "northbank".';
end
$$;
