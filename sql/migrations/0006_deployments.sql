-- Deployments of the services that write and deliver events. A cause whose first death follows one
-- within the hour is shown with it.

create table :"dlq_schema".deployment (
    id          bigint generated always as identity primary key,
    service     text        not null check (service ~ '\S' and length(service) <= 200),
    version     text        not null check (version ~ '\S' and length(version) <= 200),
    link        text        check (link ~ '\S' and length(link) <= 2000),
    deployed_at timestamptz not null
        check (deployed_at between '1900-01-01Z' and '9000-12-31 23:59:59.999999Z'),
    noted_by    text        not null,
    -- A report of a past day does not know what was noted later.
    noted_at    timestamptz not null,
    unique (deployed_at, service, version)
);
comment on table :"dlq_schema".deployment is 'Deployments that a person or a pipeline noted.';

-- Notes a deployment, and returns its id. The same deployment is noted once: a pipeline may repeat
-- the call. Without a time, the same version of the service within ten minutes is the same.
create function :"dlq_schema".place_deployment(
    given :"dlq_schema".deployment, reason text, run_id text default null
) returns bigint language plpgsql set search_path = :"dlq_schema", pg_temp
as $$
declare
    present  constant timestamptz := clock_timestamp();
    argument text;
    value    text;
    most     integer;
    noted    bigint;
begin
    for argument, value, most in
        values ('service', given.service, 200), ('version', given.version, 200),
            ('link', given.link, 2000)
    loop
        if coalesce(value, case argument when 'link' then '-' else '' end) !~ '\S' then
            raise exception '% must not be empty.', argument
                using errcode = 'invalid_parameter_value',
                    hint = 'Write it as dlq.note_deployment(''checkout'', ''v42'').';
        elsif length(value) > most then
            raise exception '% has % characters; the maximum is %.', argument, length(value), most
                using errcode = 'invalid_parameter_value', hint = 'Shorten it.';
        end if;
    end loop;
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
        update deployment d set link = coalesce(given.link, d.link)
        where d.deployed_at = given.deployed_at
            and d.service = given.service
            and d.version = given.version
        returning id into noted;
        return noted;
    end if;
    insert into audit (kind, actor, reason, filter, events, at, run_id)
    values (
        'deployment.note',
        given.noted_by,
        place_deployment.reason,
        jsonb_build_object('deployment', noted),
        0,
        present,
        place_deployment.run_id);
    return noted;
end
$$;

-- For pipelines of other teams: a role that may execute this function and flag_fix needs no other
-- right.
create function :"dlq_schema".note_deployment(
    service text,
    version text,
    link text default null,
    deployed_at timestamptz default null
) returns bigint
    language plpgsql security definer set search_path = :"dlq_schema", pg_temp
as $$
declare
    given deployment;
begin
    given.service := service;
    given.version := version;
    given.link := link;
    given.deployed_at := deployed_at;
    given.noted_by := session_user;
    return place_deployment(given, 'deployed');
end
$$;
comment on function :"dlq_schema".note_deployment
    is 'Note a deployment: select dlq.note_deployment(''checkout'', ''v42'').';

-- The last deployment within the hour before a time; null: there was none. Later, something else is
-- as likely to be the reason.
create function :"dlq_schema".deployment_before(
    at timestamptz, noted_before timestamptz default 'infinity'
) returns :"dlq_schema".deployment language sql stable set search_path = :"dlq_schema", pg_temp
as $$
    select d from deployment d
    where d.deployed_at <= at
        and d.deployed_at > at - interval '1 hour'
        and d.noted_at < noted_before
    order by d.deployed_at desc, d.id desc
    limit 1
$$;

-- The deployment that carries a fix.
alter table :"dlq_schema".fix add deployment bigint;

create function :"dlq_schema".check_fix_deployment() returns trigger
    language plpgsql set search_path = :"dlq_schema", pg_temp
as $$
begin
    if not exists (select from deployment where id = new.deployment) then
        raise exception 'There is no deployment %.', new.deployment
            using errcode = 'no_data_found',
                hint = '`dlq deployments list` lists the deployments.';
    end if;
    return new;
end
$$;
create trigger check_deployment before insert on :"dlq_schema".fix
    for each row when (new.deployment is not null)
    execute function :"dlq_schema".check_fix_deployment();

-- flag_fix takes the deployment too. Roles that may execute the one of 0.1.0 may execute this one.
create function :"dlq_schema".flag_fix(
    note text,
    cause text default null,
    event_type text default null,
    aggregate_type text default null,
    event_ids :event_id_type[] default null,
    error_contains text default null,
    since timestamptz default null,
    until timestamptz default null,
    "all" boolean default false,
    link text default null,
    owner text default null,
    not_before timestamptz default null,
    expires_at timestamptz default null,
    attempts integer default null,
    detail text default null,
    "where" text default null,
    aggregate_id text default null,
    deployment bigint default null
) returns bigint
    language plpgsql security definer set search_path = :"dlq_schema", pg_temp
as $$
declare
    given fix;
begin
    given.note := note;
    given.cause_id := cause;
    given.detail := detail;
    given.event_type := event_type;
    given.aggregate_type := aggregate_type;
    given.aggregate_id := aggregate_id;
    given.event_ids := event_ids;
    given.attempts := attempts;
    given.error_contains := error_contains;
    given."where" := "where";
    given.since := since;
    given.until := until;
    given."all" := coalesce("all", false);
    given.link := link;
    given.owner := owner;
    given.not_before := not_before;
    given.expires_at := expires_at;
    given.deployment := deployment;
    given.flagged_by := session_user;
    given.flagged_at := clock_timestamp();
    return place_fix(given);
end
$$;
do $$
declare
    earlier regprocedure;
    later   regprocedure;
    grantee regrole;
begin
    select max(p.oid) filter (where p.pronargs = 17), max(p.oid) filter (where p.pronargs = 18)
    into strict earlier, later
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = :'dlq_schema' and p.proname = 'flag_fix';
    for grantee in
        select granted.grantee from pg_catalog.pg_proc p
        cross join lateral aclexplode(p.proacl) granted
        where p.oid = earlier and granted.grantee not in (0, p.proowner)
    loop
        execute format('grant execute on function %s to %s', later, grantee);
    end loop;
    execute format('drop function %s', earlier);
end
$$;
comment on function :"dlq_schema".flag_fix
    is 'Flag a fix: select dlq.flag_fix(''fixed in v42'', cause => ''v2-...'').';

revoke all on function :"dlq_schema".place_deployment,
    :"dlq_schema".note_deployment,
    :"dlq_schema".deployment_before,
    :"dlq_schema".check_fix_deployment,
    :"dlq_schema".flag_fix
    from public;
