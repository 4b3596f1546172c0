-- The only place that knows the columns of the application's table: statements read these views.
-- PostgreSQL replaces a view by its query, so a look-up by id uses the application's index, and a
-- lock locks the application's row.
drop view if exists :"dlq_schema".outbox;

create view :"dlq_schema".outbox as
select :outbox_columns,
    -- Where the row is now, to read the last pages of the table. It identifies nothing.
    o.ctid as place
from :"outbox_schema".:"outbox_table" o;
comment on view :"dlq_schema".outbox is 'The outbox in the words of this project.';

drop view if exists :"dlq_schema".archive;

create view :"dlq_schema".archive as
select :archive_columns,
    a.dlq_death_id as death_id,
    a.dlq_archived_at as archived_at
from :"dlq_schema".archived a;
comment on view :"dlq_schema".archive is 'Archived events in the words of this project.';
