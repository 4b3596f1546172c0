-- Statements about the connection itself.

-- name: configure
-- One statement instead of libpq's `options`, which poolers such as PgBouncer reject. On Linux the
-- server checks every 5 s whether the client of a running statement is connected; TCP keepalives
-- start after a minute. Otherwise the locks of a killed process would be held until its statement
-- ends, and those of a lost machine for two hours. Encoding, isolation level and the style of dates
-- are what the drivers expect, whatever the database or the role is set to.
select set_config('TimeZone', 'UTC', false),
    set_config('DateStyle', 'ISO, MDY', false),
    set_config('IntervalStyle', 'postgres', false),
    set_config('client_encoding', 'UTF8', false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('statement_timeout', %(statement_timeout)s, false),
    set_config('lock_timeout', %(lock_timeout)s, false),
    case when version() like '%%linux%%'
        then set_config('client_connection_check_interval', '5s', false) end,
    set_config('tcp_keepalives_idle', '60', false),
    set_config('tcp_keepalives_interval', '10', false),
    set_config('tcp_keepalives_count', '6', false)

-- name: use_one_snapshot
-- The first statement of a transaction: all later ones see the same snapshot.
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
