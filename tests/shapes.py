"""Three outboxes of different shapes, behind one adapter: what an application and its worker do.

Events have numbers, which stand for keys of any type. The shapes are the reference table; one with
uuid keys, other names, an enum of states, a state of events that a worker holds and timestamps
without time zone; and one with text keys and without aggregates, whose worker deletes what it has
delivered.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg import sql

from dlq_pipelines.causes.classify import classify_deaths
from dlq_pipelines.outbox.install import install_outbox
from dlq_pipelines.outbox.mapping import DEFAULT_PRESET, Mapping, load_mapping, parse_mapping
from dlq_pipelines.postgres.connect import Connection, Database
from dlq_pipelines.postgres.queries import TableNames
from dlq_pipelines.repository import OutboxRepository
from dlq_pipelines.validate import EventId
from tests.rows import one

ERROR = "TimeoutError: no answer"
_QUOTE = '"'

_UUID_TABLE = """
create schema shop;
create type shop."Phase" as enum ('queued', 'sending', 'sent', 'given up');
create table shop."Message" (
    "MessageId" uuid primary key,
    "Entity" varchar(40) not null,
    "EntityId" varchar(300) not null,
    "Kind" varchar(100) not null,
    "Body" json not null,
    "Phase" shop."Phase" not null default 'queued',
    "Tries" smallint not null default 0,
    "Claimed by" text,
    "NotBefore" timestamp not null default timezone('Asia/Kolkata', now()),
    "WrittenAt" timestamp not null default timezone('Asia/Kolkata', now()),
    "Failure" varchar(20000)
);
create index on shop."Message" ("NotBefore") where "Phase" = 'queued';
"""
_UUID_MAPPING = """
table = "shop.Message"
time_zone = "Asia/Kolkata"

[columns]
id = "MessageId"
aggregate_type = "Entity"
aggregate_id = "EntityId"
event_type = "Kind"
payload = "Body"
attempts = "Tries"
due_at = "NotBefore"
created_at = "WrittenAt"
error = "Failure"

[dead]
Phase = "given up"

[delivered]
Phase = "sent"

[waiting]
Phase = "queued"

[working]
Phase = "sending"

[retry]
Phase = "queued"
Tries = 0
NotBefore = { due = true }
"Claimed by" = { null = true }
"""
_TEXT_TABLE = """
create table job (
    key varchar(60) primary key,
    name text,
    body text,
    state integer not null default 0,
    tries integer not null default 0,
    due timestamptz not null default now(),
    written timestamptz default now(),
    problem text
);
create index on job (due);
"""
_TEXT_MAPPING = """
table = "public.job"
delivered = "deleted"

[columns]
id = "key"
event_type = "name"
payload = "body"
attempts = "tries"
due_at = "due"
created_at = "written"
error = "problem"

[dead]
state = 9

[retry]
state = 0
tries = 0
due = { due = true }
"""


@dataclass(frozen=True)
class OutboxShape:
    """A table, its mapping, and the words of its application in SQL, for rows of the table.

    Attributes:
        key: the key column.
        number: the number of an event, from its key.
        key_of: the key of an event, from its number `n`.
        insert: columns of an insert: key, aggregate, type and payload; the latter as text.
        aggregate: the aggregate of an event.
        states: the condition of each state.
        sets: what its worker sets when it gives up, takes, delivers, or will try again. Without
            `done` it deletes what it has delivered.
        due_column: the column of the due time.
        due: the due time.
        created_column: the column of the time at which an event was written.
        zone: the time zone of these columns, if they have none.
    """

    name: str
    table: str
    create: str
    mapping: Mapping
    key: str
    number: str
    key_of: str
    insert: str
    aggregate: str
    columns: dict[str, str]
    states: dict[str, str]
    sets: dict[str, str]
    due_column: str
    due: str
    created_column: str
    zone: str = ""

    @property
    def has_aggregates(self) -> bool:
        """Whether its events have aggregates, so that they are retried in order."""
        return self.mapping.aggregate_id is not None

    @property
    def deletes_delivered(self) -> bool:
        """Whether its worker deletes what it has delivered."""
        return "done" not in self.sets

    def event_id(self, number: int) -> EventId:
        """Return the id of an event as commands accept it and as lists show it."""
        if self.name == "reference":
            return number
        return str(UUID(int=number)) if self.name == "uuid" else f"job/{number:06}"

    def event_ids(self, numbers: Iterable[int]) -> list[EventId]:
        """Return the ids of events."""
        return [self.event_id(number) for number in numbers]


REFERENCE = OutboxShape(
    name="reference",
    table="outbox_event",
    create="",
    mapping=load_mapping(DEFAULT_PRESET),
    key="id",
    number="id",
    key_of="n",
    insert="(id, aggregate_type, aggregate_id, event_type, payload)"
    " select n, 'order', {aggregate}, {event_type}, {payload}::jsonb",
    aggregate="aggregate_id",
    columns={
        "attempts": "attempts",
        "error": "last_error",
        "payload": "payload::text",
        "event_type": "event_type",
        "created_at": "created_at",
    },
    states={"dead": "status = 'dead'", "waiting": "status in ('pending', 'retry')"}
    | {"done": "status = 'done'", "working": "false"},
    sets={
        "dead": "status = 'dead', attempts = {attempts}, last_error = {error}",
        "done": "status = 'done', attempts = attempts + 1",
        "waiting": "status = 'retry', attempts = attempts + 1, next_run_at = {due}",
    },
    due_column="next_run_at",
    due="next_run_at",
    created_column="created_at",
)
UUID_KEYS = OutboxShape(
    name="uuid",
    table='shop."Message"',
    create=_UUID_TABLE,
    mapping=parse_mapping(_UUID_MAPPING, "uuid.toml"),
    key='"MessageId"',
    number="('x' || right(\"MessageId\"::text, 12))::bit(48)::bigint",
    key_of="lpad(to_hex(n), 32, '0')::uuid",
    insert='("MessageId", "Entity", "EntityId", "Kind", "Body")'
    " select lpad(to_hex(n), 32, '0')::uuid, 'order', {aggregate}, {event_type}, {payload}::json",
    aggregate='"EntityId"',
    columns={
        "attempts": '"Tries"',
        "error": '"Failure"',
        "payload": '"Body"::text',
        "event_type": '"Kind"',
        "created_at": "timezone('Asia/Kolkata', \"WrittenAt\")",
    },
    states={"dead": "\"Phase\" = 'given up'", "waiting": "\"Phase\" = 'queued'"}
    | {"done": "\"Phase\" = 'sent'", "working": "\"Phase\" = 'sending'"},
    sets={
        "dead": '"Phase" = \'given up\', "Tries" = {attempts}, "Failure" = {error}',
        "done": "\"Phase\" = 'sent'",
        "working": '"Phase" = \'sending\', "Claimed by" = \'worker 1\', "Tries" = "Tries" + 1',
        "waiting": '"Phase" = \'queued\', "Claimed by" = null,'
        " \"NotBefore\" = timezone('Asia/Kolkata', {due})",
    },
    due_column='"NotBefore"',
    due="timezone('Asia/Kolkata', \"NotBefore\")",
    created_column='"WrittenAt"',
    zone="Asia/Kolkata",
)
TEXT_KEYS = OutboxShape(
    name="text",
    table="job",
    create=_TEXT_TABLE,
    mapping=parse_mapping(_TEXT_MAPPING, "text.toml"),
    key="key",
    number="substr(key, 5)::bigint",
    key_of="'job/' || lpad(n::text, 6, '0')",
    insert="(key, name, body) select 'job/' || lpad(n::text, 6, '0'), {event_type}, {payload}",
    aggregate="''",
    columns={"attempts": "tries", "error": "problem", "payload": "body"}
    | {"event_type": "name", "created_at": "written"},
    states={"dead": "state = 9", "waiting": "state = 0", "done": "false", "working": "false"},
    sets={
        "dead": "state = 9, tries = {attempts}, problem = {error}",
        "waiting": "state = 0, tries = tries + 1, due = {due}",
    },
    due_column="due",
    due="due",
    created_column="written",
)
SHAPES = {shape.name: shape for shape in (REFERENCE, UUID_KEYS, TEXT_KEYS)}


def adapt_connection(connection: Connection) -> "ShapedOutbox":
    """Return the adapter of the reference table for a test that has a connection to it."""
    found = one(connection, "select coalesce(max(id), 0) as id from outbox_event")
    database = Database(connection.info.dsn)
    return ShapedOutbox(REFERENCE, database, connection, written=found["id"])


def name_database(url: str, shape: OutboxShape) -> Database:
    """Return the database of a shape's installation."""
    return Database(url, TableNames(shape.mapping.schema, shape.mapping.table))


def install_other_shape(url: str, shape: OutboxShape) -> None:
    """Create the table of a shape in an empty database, and install on it."""
    with name_database(url, shape).connect() as connection:
        connection.execute(shape.create.encode())
        install_outbox(connection, shape.mapping)


@dataclass
class ShapedOutbox:
    """An installed outbox: writes events, and does with them what its worker does.

    Attributes:
        written: how many events were written; numbers begin with 1.
        deleted: how many delivered events the worker deleted.
    """

    shape: OutboxShape
    database: Database
    connection: Connection
    written: int = 0
    deleted: int = field(default=0)

    def event_id(self, number: int) -> EventId:
        """Return the id of an event as commands accept it and as lists show it."""
        return self.shape.event_id(number)

    def event_ids(self, *numbers: int) -> list[EventId]:
        """Return the ids of events."""
        return self.shape.event_ids(numbers)

    # What the application writes.

    def add_events(
        self,
        count: int,
        *,
        event_type: str = "order.placed",
        aggregate: str | None = None,
        aggregates: int = 1_000_000,
        payload: str = "{}",
    ) -> list[int]:
        """Write events that are due now, of one aggregate or of so many in turn."""
        first, self.written = self.written + 1, self.written + count
        aggregate_sql = f"mod(n, {aggregates})::text" if aggregate is None else _literal(aggregate)
        columns = self.shape.insert.format(
            aggregate=aggregate_sql, event_type=_literal(event_type), payload=_literal(payload)
        )
        self.connection.execute(
            f"insert into {self.shape.table} {columns}"
            f" from generate_series({first}, {self.written}) n order by 1".encode()
        )
        if self.shape is REFERENCE:  # events that a test inserts without an id follow
            last = f"select setval(pg_get_serial_sequence('outbox_event', 'id'), {self.written})"
            self.connection.execute(last.encode())
        return list(range(first, self.written + 1))

    def add_dead(
        self,
        count: int,
        *,
        error: str = ERROR,
        event_type: str = "order.placed",
        aggregate: str | None = None,
        payload: str = "{}",
        classified: bool = True,
    ) -> list[int]:
        """Write events and let their worker give up; classify their deaths."""
        numbers = self.add_events(
            count, event_type=event_type, aggregate=aggregate, payload=payload
        )
        self.give_up(numbers, error)
        if classified:
            classify_deaths(self.connection, zone=ZoneInfo("UTC"))
        return numbers

    def date_events(self, numbers: Sequence[int], created: str, due: str) -> None:
        """Set when events were written and when they are due, to SQL expressions over `n`."""
        times = {self.shape.created_column: created, self.shape.due_column: due}
        sets = ", ".join(f"{column} = {self._write_time(at)}" for column, at in times.items())
        table, number = self.shape.table, self.shape.number
        self.connection.execute(
            f"update {table} t set {sets} from (select {self.shape.key} as id, {number} as n"
            f" from {table}) o where t.{self.shape.key} = o.id"
            f" and n between {numbers[0]} and {numbers[-1]}".encode()
        )

    # What its worker does.

    def give_up(self, numbers: Iterable[int], error: str | None = ERROR, attempts: int = 5) -> None:
        """Let events die one by one in this order."""
        with self.connection.transaction():
            for number in numbers:
                self.give_up_together([number], error, attempts)

    def give_up_together(
        self, numbers: Collection[int], error: str | None = ERROR, attempts: int = 5
    ) -> None:
        """Let events die in one statement."""
        self._update(
            self.shape.sets["dead"].format(attempts=attempts, error=_literal(error)), numbers
        )

    def give_up_all(self, error: str, *, where: str = "true") -> None:
        """Let waiting events die, with an error as an SQL expression over the number `n`."""
        sets = self.shape.sets["dead"].format(attempts=5, error=error)
        number, table, key = self.shape.number, self.shape.table, self.shape.key
        self.connection.execute(
            f"update {table} t set {sets} from (select {key} as id, {number} as n from {table}"
            f" where {self.shape.states['waiting']}) o where t.{key} = o.id and {where}".encode()
        )

    def take(self, limit: int = 1000, *, now: datetime | None = None) -> list[int]:
        """Take due events, the oldest first; where the table shows it, they are under way."""
        at = "now()" if now is None else _literal(now.isoformat())
        rows = self.connection.execute(
            f"select {self.shape.number} as n from {self.shape.table} where"
            f" {self.shape.states['waiting']} and {self.shape.due} <= {at}"
            f" order by {self.shape.due}, n limit {limit}".encode()
        ).fetchall()
        numbers = [row["n"] for row in rows]
        if "working" in self.shape.sets:
            self._update(self.shape.sets["working"], numbers)
        return numbers

    def deliver(self, numbers: Collection[int]) -> None:
        """Mark events as delivered, or delete them."""
        if self.shape.deletes_delivered:
            where = self._where(numbers)
            statement = f"delete from {self.shape.table} where {where}".encode()
            self.deleted += self.connection.execute(statement).rowcount
        else:
            self._update(self.shape.sets["done"], numbers)

    def try_again(
        self, numbers: Collection[int], *, due: datetime, through: Connection | None = None
    ) -> None:
        """Record a failed attempt that is not the last; `through`: the worker's own connection."""
        sets = self.shape.sets["waiting"].format(due=f"timestamptz {_literal(due.isoformat())}")
        self._update(sets, numbers, through)

    def date_due(self, at: str) -> None:
        """Set the due time of waiting events to an SQL expression."""
        due = f"{self.shape.due_column} = {self._write_time(at)}"
        self.connection.execute(
            f"update {self.shape.table} set {due} where {self.shape.states['waiting']}".encode()
        )

    def run_worker(self, *, delivers: bool, error: str = ERROR) -> int:
        """Run a worker that delivers all waiting events or lets them die; return how many."""
        self.date_due("now()")
        if self.shape is REFERENCE:
            return _run_repository(self.database, delivers=delivers, error=error)
        numbers = self.take()
        if delivers:
            self.deliver(numbers)
        else:
            self.give_up(numbers, error)
        return len(numbers)

    # What a person sees in the table.

    def read_row(self, number: int) -> dict[str, Any]:
        """Return an event: its state, attempts, error, payload, type and times."""
        (row,) = self.read_rows(f"where {self._where([number])}")
        return row

    def read_rows(self, clauses: str = "") -> list[dict[str, Any]]:
        """Return events in the order of their numbers."""
        columns = ", ".join(f"{text} as {name}" for name, text in self.shape.columns.items())
        return self.connection.execute(
            f"select {self.shape.number} as n, {self.state} as state, {columns},"
            f" {self.shape.due} as due_at from {self.shape.table} {clauses} order by n".encode()
        ).fetchall()

    def read_text(self) -> list[str]:
        """Return the rows as PostgreSQL writes them, in the order of their numbers."""
        rows = self.connection.execute(
            f"select t::text as row from {self.shape.table} t order by {self.shape.number}".encode()
        ).fetchall()
        return [row["row"] for row in rows]

    def list_numbers(self, state: str) -> list[int]:
        """Return the numbers of the events in a state."""
        return [row["n"] for row in self.read_rows(f"where {self.shape.states[state]}")]

    def count_states(self) -> dict[str, int]:
        """Count the events by state; what the worker delivered and deleted is done too."""
        statement = (
            f"select {self.state} as state, count(*) as n from {self.shape.table} group by 1"
        )
        rows = self.connection.execute(statement.encode()).fetchall()
        counts = {row["state"]: row["n"] for row in rows}
        if self.deleted:
            counts["done"] = self.deleted
        return counts

    def count_rows(self) -> tuple[int, int]:
        """Return the numbers of events in the outbox and in the archive."""
        counts = one(
            self.connection,
            f"select (select count(*) from {self.shape.table}) as outbox,"
            " (select count(*) from dlq.archived) as archive",
        )
        return counts["outbox"], counts["archive"]

    @property
    def state(self) -> str:
        """The expression of a row's state in the words of this adapter."""
        cases = (f"when {text} then '{state}'" for state, text in self.shape.states.items())
        return f"case {' '.join(cases)} end"

    @property
    def table_name(self) -> str:
        """The table as a plan names it, without its schema."""
        return self.shape.table.rpartition(".")[2]

    @property
    def key_index(self) -> str:
        """The index of the key as a plan names it."""
        name = f"{self.table_name.strip(_QUOTE)}_pkey"
        return f"{_QUOTE}{name}{_QUOTE}" if self.table_name.startswith(_QUOTE) else name

    @property
    def scan(self) -> str:
        """A regular expression for a plan that reads the whole table, or one of the ledger."""
        table = re.escape(self.table_name)
        return rf"Seq Scan on (death|dead|retry|recalled|archived|{table})(\s|$)"

    def explain(self, statement: str, **values: object) -> str:
        """Return the plan of a named statement."""
        text = self.connection.render_query(statement, **values)
        rows = self.connection.execute(f"explain {text}".encode()).fetchall()
        return "\n".join(row["QUERY PLAN"] for row in rows)

    def lock_rows(self, other: Connection, numbers: Collection[int] | None = None) -> None:
        """Lock events, or all of them, in the transaction of another connection."""
        where = "true" if numbers is None else self._where(numbers)
        other.execute(f"select from {self.shape.table} where {where} for update".encode())

    def delete_rows(self, numbers: Collection[int]) -> None:
        """Delete events, as a person would."""
        self.connection.execute(
            f"delete from {self.shape.table} where {self._where(numbers)}".encode()
        )

    def _update(
        self, sets: str, numbers: Collection[int], through: Connection | None = None
    ) -> None:
        (through or self.connection).execute(
            f"update {self.shape.table} set {sets} where {self._where(numbers)}".encode()
        )

    def _where(self, numbers: Collection[int]) -> str:
        if not numbers:
            return "false"
        ids = ", ".join(_literal(id_) for id_ in self.shape.event_ids(numbers))
        return f"{self.shape.key} in ({ids})"

    def _write_time(self, text: str) -> str:
        return f"timezone('{self.shape.zone}', {text})" if self.shape.zone else text


def _literal(value: object) -> str:
    return sql.Literal(value).as_string(None)


def _run_repository(database: Database, *, delivers: bool, error: str) -> int:
    """Run a worker that uses this project's repository."""
    with OutboxRepository(database.url, max_attempts=1) as repository:
        events = repository.fetch_pending(1000)
        for event in events:
            if delivers:
                repository.mark_success(event.id)
            else:
                repository.mark_retry(event.id, error)
    return len(events)
