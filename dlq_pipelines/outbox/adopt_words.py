"""Lists the names of columns and the words of states by which `adopt` recognizes a table.

Names are compared without case and underscores.
"""

# Words of states, most certain first. Compared in lower case, without underscores.
DEAD_WORDS = (
    "dead",
    "deadletter",
    "deadlettered",
    "discarded",
    "abandoned",
    "exhausted",
    "poisoned",
    "parked",
    "blocked",
    "failed",
    "failure",
    "error",
    "errored",
)
DELIVERED_WORDS = (
    "done",
    "delivered",
    "sent",
    "published",
    "completed",
    "complete",
    "processed",
    "succeeded",
    "success",
    "finished",
    "dispatched",
    "relayed",
)
WORKING_WORDS = ("processing", "working", "running", "inprogress", "executing", "doing", "locked")
PENDING_WORDS = (
    "pending",
    "new",
    "created",
    "ready",
    "queued",
    "available",
    "waiting",
    "scheduled",
    "todo",
    "open",
    "retry",
    "retrying",
    "retryable",
    "unsent",
    "unpublished",
    "notsent",
)

# Names of columns, most certain first.
STATE_COLUMNS = ("status", "state", "statusname", "eventstatus", "messagestatus", "outboxstatus")
DEAD_TIMES = (
    "deadat",
    "diedat",
    "abandonedat",
    "discardedat",
    "deadletteredat",
    "failedat",
    "blockedat",
    "exhaustedat",
)
DEAD_FLAGS = ("dead", "isdead", "blocked", "isblocked", "failed", "isfailed", "abandoned")
DELIVERED_TIMES = (
    "processedat",
    "publishedat",
    "sentat",
    "deliveredat",
    "completedat",
    "dispatchedat",
    "finishedat",
    "processed",
    "processedon",
    "processedonutc",
)
DELIVERED_FLAGS = ("processed", "published", "sent", "delivered", "completed", "isprocessed")
MAX_ATTEMPTS = ("maxattempts", "maxretries", "maxretrycount", "attemptslimit", "retrylimit")
CANONICAL_NAMES = {
    "aggregate_type": ("aggregatetype", "entitytype", "aggregate", "resourcetype"),
    "aggregate_id": (
        "aggregateid",
        "aggregateidentifier",
        "entityid",
        "recordkey",
        "partitionkey",
        "orderingkey",
        "messagekey",
        "groupid",
        "resourceid",
    ),
    "event_type": (
        "eventtype",
        "messagetype",
        "eventname",
        "type",
        "kind",
        "topic",
        "destination",
        "name",
        "routingkey",
        "jobtype",
        "taskname",
    ),
    "payload": (
        "payload",
        "body",
        "data",
        "content",
        "message",
        "eventdata",
        "eventpayload",
        "serializedevent",
        "args",
        "value",
        "event",
    ),
    "attempts": (
        "attempts",
        "attempt",
        "attemptcount",
        "retrycount",
        "retries",
        "retry",
        "failurecount",
        "tries",
        "deliveryattempts",
        "publishattempts",
        "attemptsmade",
    ),
    "due_at": (
        "nextrunat",
        "nextrun",
        "nextattemptat",
        "nextattempttime",
        "nextretryat",
        "nextretry",
        "availableat",
        "scheduledat",
        "runat",
        "dueat",
        "retryat",
        "visibleat",
        "processafter",
    ),
    "created_at": (
        "createdat",
        "created",
        "occurredat",
        "occurredon",
        "occurredonutc",
        "insertedat",
        "addedat",
        "added",
        "createtime",
        "creationtime",
        "createdon",
        "timestamp",
    ),
    "error": (
        "lasterror",
        "error",
        "errormessage",
        "lasterrormessage",
        "failurereason",
        "exception",
        "errordetails",
        "errortext",
        "reason",
        "lastexception",
        "errors",
    ),
}
LABEL_TYPES = frozenset(
    {"text", "character varying", "character", "uuid", "smallint", "integer", "bigint", "name"}
)
INTEGER_TYPES = frozenset({"smallint", "integer", "bigint"})
TIME_TYPES = frozenset({"timestamp with time zone", "timestamp without time zone"})
TYPES = {
    "aggregate_type": LABEL_TYPES,
    "aggregate_id": LABEL_TYPES,
    "event_type": LABEL_TYPES,
    "payload": frozenset({"json", "jsonb", "text", "character varying", "bytea"}),
    "attempts": INTEGER_TYPES | {"numeric"},
    "due_at": TIME_TYPES,
    "created_at": TIME_TYPES,
    "error": frozenset({"text", "character varying", "jsonb"}),
}
KEY_TYPES = INTEGER_TYPES | {"uuid", "text", "character varying"}
