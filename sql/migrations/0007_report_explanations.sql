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
    primary key (day, cause_id)
);
comment on table :"dlq_schema".report_explanation
    is 'What sets the events of a cause apart, by the report of a day. A null condition: nothing.';
