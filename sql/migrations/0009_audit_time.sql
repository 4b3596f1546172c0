-- For the audit log since a time. Entries are written in the order of their times, so a small index
-- of ranges of pages finds them.
create index audit_time on :"dlq_schema".audit using brin (at) with (pages_per_range = 32);
