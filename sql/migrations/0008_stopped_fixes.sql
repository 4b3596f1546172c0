-- A fix that cannot be advanced is rejected, and recalls what it had released, as other stopped
-- fixes do: the index for these has its status too.

drop index :"dlq_schema".fix_stopped;
create index fix_stopped on :"dlq_schema".fix (closed_at)
    where status in ('halted', 'withdrawn', 'expired', 'rejected');
