-- The error of the last attempt, where the reference application's table has no column for it.
-- Nullable and without default: PostgreSQL rewrites nothing and holds its lock for milliseconds.
:add_columns
