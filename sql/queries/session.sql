-- The connection itself.

-- name: configure
-- One statement instead of libpq's `options`, which poolers such as PgBouncer refuse.
select set_config('TimeZone', 'UTC', false), set_config('statement_timeout', %(statement_timeout)s, false),
    set_config('lock_timeout', %(lock_timeout)s, false)

-- name: ping
select 1

-- name: database_exists
select exists (select from pg_catalog.pg_database where datname = %(name)s) as found
