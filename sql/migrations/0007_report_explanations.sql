-- What set the dead events of a cause apart when the report of a day was first built. A report that
-- is built again says the same, although its events may be delivered or archived by then.

create table :"dlq_schema".report_explanation (
    day                date        not null,
    cause_id           text        not null,
    condition          text,
    "where"            text,
    dead               integer     not null,
    compared_dead      integer     not null,
    delivered          integer     not null,
    compared_delivered integer     not null,
    explained_at       timestamptz not null,
    -- A report that was built before still has the text.
    erased_at          timestamptz,
    primary key (day, cause_id)
);
comment on table :"dlq_schema".report_explanation
    is 'What sets the events of a cause apart, by the report of a day. A null condition: nothing.';

-- As in 0006, but two notes of a deployment at once are one, only a link that differs is written,
-- and the audit entry names service and version.
create or replace function :"dlq_schema".place_deployment(
    given :"dlq_schema".deployment, reason text, run_id text default null
) returns bigint language plpgsql set search_path = :"dlq_schema", pg_temp
as $$
declare
    present    timestamptz;
    argument   text;
    value      text;
    most       integer;
    noted      bigint;
    known_link text;
begin
    for argument, value, most in
        values ('service', given.service, 200), ('version', given.version, 200),
            ('link', given.link, 2000)
    loop
        if coalesce(value, case argument when 'link' then '-' else '' end) !~ '\S' then
            raise exception '% must not be empty.', argument
                using errcode = 'invalid_parameter_value',
                    hint = case argument when 'link' then 'Pass an address, or leave link out.'
                        else 'Write it as dlq.note_deployment(''checkout'', ''v42'').' end;
        elsif length(value) > most then
            raise exception '% has % characters; the maximum is %.', argument, length(value), most
                using errcode = 'invalid_parameter_value', hint = 'Shorten it.';
        end if;
    end loop;
    -- Of two calls at once, the second finds what the first has noted. Reading goes on.
    lock table deployment in share row exclusive mode;
    present := clock_timestamp();
    given.service := btrim(given.service, E' \t\r\n');
    given.version := btrim(given.version, E' \t\r\n');
    given.deployed_at := coalesce(
        given.deployed_at,
        (
            select max(d.deployed_at) from deployment d
            where d.deployed_at > present - interval '10 minutes'
                and d.service = given.service
                and d.version = given.version),
        present);
    -- Clocks of pipelines are some seconds ahead at times.
    if given.deployed_at > present + interval '5 minutes' then
        raise exception 'deployed_at must not lie in the future, at %.', given.deployed_at
            using errcode = 'invalid_parameter_value',
                hint = 'Note a deployment once it is done, or leave deployed_at out.';
    elsif given.deployed_at < '1900-01-01Z' then
        raise exception 'deployed_at must lie in the years 1900 to 9000, not at %.',
            given.deployed_at
            using errcode = 'invalid_parameter_value', hint = 'Pass another time.';
    end if;
    insert into deployment (service, version, link, deployed_at, noted_by, noted_at)
    values (
        given.service, given.version, given.link, given.deployed_at, given.noted_by, present)
    on conflict (deployed_at, service, version) do nothing
    returning id into noted;
    if noted is null then
        select d.id, d.link into strict noted, known_link from deployment d
        where d.deployed_at = given.deployed_at
            and d.service = given.service
            and d.version = given.version;
        if given.link is null or given.link is not distinct from known_link then
            return noted;
        end if;
        update deployment d set link = given.link where d.id = noted;
    end if;
    insert into audit (kind, actor, reason, filter, events, at, run_id)
    values (
        'deployment.note',
        given.noted_by,
        place_deployment.reason,
        jsonb_build_object(
            'deployment', noted, 'service', given.service, 'version', given.version),
        0,
        present,
        place_deployment.run_id);
    return noted;
end
$$;
