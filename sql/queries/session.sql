-- Statements about the connection itself.

-- name: configure
-- For the session, and a row, if this is the process that the client logged in to. Otherwise it
-- sets nothing: a pooler gives the session to the application next. Local: for the transaction.
--
-- One statement instead of libpq's `options`, which poolers such as PgBouncer reject. On Linux the
-- server checks every 5 s whether the client of a running statement is connected; TCP keepalives
-- start after a minute. Otherwise the locks of a killed process would be held until its statement
-- ends, and those of a lost machine for two hours. Encoding, isolation level and the style of dates
-- are what the drivers expect, whatever the database or the role is set to.
select set_config('TimeZone', 'UTC', local),
    set_config('DateStyle', 'ISO, MDY', local),
    set_config('IntervalStyle', 'postgres', local),
    set_config('client_encoding', 'UTF8', local),
    set_config('default_transaction_isolation', 'read committed', local),
    set_config('statement_timeout', %(statement_timeout)s, local),
    set_config('lock_timeout', %(lock_timeout)s, local),
    case when version() like '%%linux%%'
        then set_config('client_connection_check_interval', '5s', local) end,
    set_config('tcp_keepalives_idle', '60', local),
    set_config('tcp_keepalives_interval', '10', local),
    set_config('tcp_keepalives_count', '6', local)
from (select %(local)s::boolean as local) given
where local or pg_backend_pid() = %(process)s::integer

-- name: use_one_snapshot
-- The first statement of a transaction of a driver without `Connection.snapshot`.
set transaction isolation level repeatable read, read only

-- name: set_statement_timeout
-- Set the statement timeout for the rest of the transaction.
select set_config('statement_timeout', %(timeout)s, true)

-- name: clock
-- The clock that sets the time of deaths.
select clock_timestamp() as now

-- name: ping
select 1

-- name: database_exists
select exists (select from pg_catalog.pg_database where datname = %(name)s) as found

-- name: table
-- The columns of a table, in their order.
select json_agg(
    json_build_object(
        'name', a.attname,
        'type', format_type(a.atttypid, a.atttypmod),
        'nullable', not a.attnotnull,
        'description', coalesce(col_description(a.attrelid, a.attnum), '')
    ) order by a.attnum
) as columns
from pg_attribute a
where a.attrelid = format('%%I.%%I', %(schema)s::text, %(table)s::text)::regclass
    and a.attnum > 0
    and not a.attisdropped
group by a.attrelid
