-- The error of the last attempt, where the reference application's table has no column for it.
-- Nullable and without default: PostgreSQL rewrites nothing and holds its lock for milliseconds.
-- The attachment records which columns are ours, because a removal drops no others.
select set_config('dlq.added', array(
    select wanted.name from unnest(:added_names::text[]) as wanted (name)
    where not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = :'outbox_regclass'::regclass
            and a.attname = wanted.name
            and not a.attisdropped)
    union
    select unnest(x.added) from :"dlq_schema".attachment x)::text, true);

-- Only the owner may alter the table, also where the columns exist.
do $$
begin
    if exists (
        select from unnest(:added_names::text[]) as wanted (name)
        where not exists (
            select from pg_catalog.pg_attribute a
            where a.attrelid = :'outbox_regclass'::regclass
                and a.attname = wanted.name
                and not a.attisdropped)) then
        :add_columns
    end if;
end
$$;
