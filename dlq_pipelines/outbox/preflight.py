"""Decides whether an outbox can be served, from facts alone, and says why if it cannot.

A refused check means that the migration would fail half-way, or that an operation would later read
or write something else than the mapping says. Nothing is changed while a check is refused.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import sql

from dlq_pipelines.errors import SchemaError
from dlq_pipelines.outbox.adopt_words import DEAD_WORDS
from dlq_pipelines.outbox.inspect import (
    ColumnFacts,
    ForeignKeyFacts,
    SessionFacts,
    StateCounts,
    TableFacts,
)
from dlq_pipelines.outbox.mapping_offers import Offer
from dlq_pipelines.outbox.mapping_types import (
    CANONICAL_COLUMNS,
    AssignmentKind,
    ComparisonKind,
    Mapping,
    MappingError,
    list_column_sources,
    list_mapped_columns,
    list_tests,
)
from dlq_pipelines.outbox.shape import ADDED_COLUMNS, list_added_columns
from dlq_pipelines.text import format_count

CheckOutcome = Literal["ok", "warning", "refused"]
TRIGGER_NAMES = ("dlq_insert", "dlq_update", "dlq_delete", "dlq_truncate")
_OLDEST_VERSION = 14
SERVED_KINDS = ("table", "partitioned table")
_SYSTEM_SCHEMAS = ("pg_catalog", "pg_toast", "information_schema")
_ARCHIVE_COLUMNS = ("dlq_death_id", "dlq_archived_at")
_CONDITIONS = ("dead", "delivered", "waiting", "working")
# Foreign keys by what deleting a row of the outbox does to the rows that reference it.
_LOSING_ACTIONS = ("cascade", "set null", "set default")


@dataclass(frozen=True)
class PreflightCheck:
    """The result of one check.

    Attributes:
        name: of the check.
        outcome: `refused`: nothing is installed; `warning`: works, with a limit that `found` says.
        found: what the check found, such as the column and its type.
        remedy: what would work; empty if the check passed.
    """

    name: str
    outcome: CheckOutcome
    found: str
    remedy: str = ""


def check_session(session: SessionFacts) -> list[PreflightCheck]:
    """Check the session and its server."""
    return [
        _check_version(session),
        _check_encoding(session),
        _check_pooler(session),
        _check_primary(session),
        PreflightCheck(
            "session settings",
            "ok",
            f"DateStyle {session.date_style}, isolation {session.default_isolation}; "
            "connections of dlq-pipelines set their own",
        ),
    ]


def _check_version(session: SessionFacts) -> PreflightCheck:
    major = session.server_version // 10_000
    if major < _OLDEST_VERSION:
        return PreflightCheck(
            "server version",
            "refused",
            f"The server is PostgreSQL {major}.",
            f"Use PostgreSQL {_OLDEST_VERSION} or later.",
        )
    return PreflightCheck("server version", "ok", f"PostgreSQL {major}")


def _check_encoding(session: SessionFacts) -> PreflightCheck:
    encoding = session.server_encoding
    if encoding == "UTF8":
        return PreflightCheck("encoding", "ok", "UTF8")
    if encoding == "SQL_ASCII":
        return PreflightCheck(
            "encoding",
            "refused",
            f"The database {session.database} has the encoding SQL_ASCII, whose texts have no "
            "known characters.",
            "Restore a dump of it into a database with the encoding UTF8.",
        )
    return PreflightCheck(
        "encoding",
        "warning",
        f"The database {session.database} has the encoding {encoding}: it cannot store other "
        "characters, such as those of some error texts.",
        "A database with the encoding UTF8 stores all of them.",
    )


def _check_pooler(session: SessionFacts) -> PreflightCheck:
    match session.pooler:
        case "none":
            return PreflightCheck("pooler", "ok", "connected to the server itself")
        case "session":
            return PreflightCheck("pooler", "ok", "a pooler that keeps sessions apart")
        case "transaction":
            return PreflightCheck(
                "pooler",
                "refused",
                "The connection goes through a transaction pooler, which shares its server "
                "sessions with the application.",
                "Connect directly: set DLQ_DATABASE_URL to host and port of PostgreSQL itself.",
            )


def _check_primary(session: SessionFacts) -> PreflightCheck:
    if session.is_standby:
        return PreflightCheck(
            "primary",
            "refused",
            "The server is a standby, which accepts no writes.",
            "Set DLQ_DATABASE_URL to the primary.",
        )
    return PreflightCheck("primary", "ok", "the server accepts writes")


def build_missing_check(schema: str, table: str) -> PreflightCheck:
    """Return the refusal of a table that does not exist."""
    return PreflightCheck(
        "table",
        "refused",
        f"There is no outbox table {schema}.{table} in this database.",
        "Set DLQ_OUTBOX_MAPPING, or DLQ_OUTBOX_SCHEMA and DLQ_OUTBOX_TABLE.",
    )


def check_table(table: TableFacts, mapping: Mapping) -> list[PreflightCheck]:
    """Check the outbox table, but for what the mapping's rendering checks.

    Args:
        table: the outbox table.
        mapping: of its columns and states.
    """
    kind = check_kind(table)
    if kind.outcome == "refused":
        return [kind]
    return [
        kind,
        _check_inheritance(table),
        *_check_columns(table, mapping),
        *(_check_added_column(table, name) for name in list_added_columns(mapping)),
        *_check_reserved_columns(table),
        _check_key(table, mapping),
        _check_row_security(table),
        _check_foreign_keys(table),
        _check_triggers(table),
    ]


def _name_table(table: TableFacts) -> str:
    return f"{table.schema}.{table.name}"


def _quote_table(table: TableFacts) -> str:
    return f"{_quote_name(table.schema)}.{_quote_name(table.name)}"


def _quote_name(name: str) -> str:
    return name if name.isidentifier() and name.islower() else sql.Identifier(name).as_string(None)


def check_kind(table: TableFacts) -> PreflightCheck:
    """Check that it is a table, and one of an application."""
    if table.schema in _SYSTEM_SCHEMAS:
        return PreflightCheck(
            "table",
            "refused",
            f"{_name_table(table)} is a system catalog of PostgreSQL.",
            "Map a table of the application.",
        )
    if table.kind in SERVED_KINDS:
        article = "an ordinary" if table.kind == "table" else "a"
        return PreflightCheck("table", "ok", f"{_name_table(table)} is {article} {table.kind}")
    article = "an" if table.kind[0] in "aeiou" else "a"
    remedy = {
        "partition": "Map the partitioned table that it is part of.",
        "view": "Map the table that the view reads.",
        "temporary table": "Map a table that other sessions see too.",
        "foreign table": "Install in the database that has the table.",
    }
    return PreflightCheck(
        "table",
        "refused",
        f"{_name_table(table)} is {article} {table.kind}.",
        remedy.get(table.kind, "Map an ordinary or a partitioned table."),
    )


def _check_inheritance(table: TableFacts) -> PreflightCheck:
    relatives = [*table.parents, *table.children]
    if not relatives:
        return PreflightCheck("inheritance", "ok", "no table inherits from it")
    which = "inherits from" if table.parents else "has the inheritance children"
    return PreflightCheck(
        "inheritance",
        "refused",
        f"{_name_table(table)} {which} {', '.join(relatives)}: deaths in child tables would not be "
        "recorded, and statements would read the rows of several tables as one.",
        "Map a table without inheritance, or make it a partitioned table.",
    )


def _check_columns(table: TableFacts, mapping: Mapping) -> Iterator[PreflightCheck]:
    """Name each column that the mapping uses. Its type is checked by the mapping's rendering."""
    added = list_added_columns(mapping)
    for name in list_mapped_columns(mapping):
        column = table.find_column(name)
        if column is not None and name not in added:
            uses = ", ".join(_list_uses(mapping, name))
            yield PreflightCheck(f"column {name}", "ok", f"{_describe_type(column)}: {uses}")


def _list_uses(mapping: Mapping, column: str) -> Iterator[str]:
    for key in CANONICAL_COLUMNS:
        source = getattr(mapping, key)
        columns = [source] if key == "id" else [s.column for s in list_column_sources(source)]
        if column in columns:
            yield key
    for key in _CONDITIONS:
        if any(column in (t.column, t.other_column) for t in list_tests(getattr(mapping, key))):
            yield key
    if any(assignment.column == column for assignment in mapping.retry or ()):
        yield "retry"


def _describe_type(column: ColumnFacts) -> str:
    type_ = f"{column.type} ({column.base_type})" if column.is_domain else column.type
    return type_ + (", nullable" if column.nullable else "")


def _check_added_column(table: TableFacts, name: str) -> PreflightCheck:
    """Check a column that the migration adds: one of that name must have the same type."""
    column, type_ = table.find_column(name), ADDED_COLUMNS[name]
    if column is None:
        return PreflightCheck(f"column {name}", "ok", f"is added: {type_}, nullable")
    if column.base_type == type_ and not column.generated:
        return PreflightCheck(f"column {name}", "ok", _describe_type(column))
    return PreflightCheck(
        f"column {name}",
        "refused",
        f"The column {name} of {_name_table(table)} is {column.type}, and a worker stores "
        f"{type_} in it.",
        f"`alter table {_quote_table(table)} alter column {name} type {type_};`, or map another "
        "column as the error.",
    )


def _check_reserved_columns(table: TableFacts) -> Iterator[PreflightCheck]:
    """Refuse columns whose names the archive table has for its own."""
    for name in _ARCHIVE_COLUMNS:
        if table.find_column(name) is not None:
            yield PreflightCheck(
                f"column {name}",
                "refused",
                f"{_name_table(table)} has a column {name}, whose name the archive table needs.",
                f"`alter table {_quote_table(table)} rename column {name} to "
                f"{name.removeprefix('dlq_')};`",
            )


def _check_key(table: TableFacts, mapping: Mapping) -> PreflightCheck:
    """Check that a unique key finds an event: by its id alone, or with what partitions need."""
    keys, column = [table.primary_key, *table.unique_keys], mapping.id
    if (column,) in keys:
        return PreflightCheck("key", "ok", column)
    first = [key for key in keys if key and key[0] == column]
    if first:
        return PreflightCheck(
            "key",
            "warning",
            f"The key is ({', '.join(first[0])}): {column} alone may repeat, and then created_at "
            "distinguishes the events.",
            f"Write each {column} once.",
        )
    later = [key for key in keys if column in key]
    if later and table.kind == "partitioned table":
        return PreflightCheck(
            "key",
            "warning",
            f"The key is ({', '.join(later[0])}): a look-up by {column} may read every row of "
            "every partition.",
            f"`create index on {_quote_table(table)} ({_quote_name(column)});`",
        )
    return PreflightCheck(
        "key",
        "refused",
        f"No primary key and no unique index of {_name_table(table)} begins with {column}.",
        f"`alter table {_quote_table(table)} add unique ({_quote_name(column)});`, or map another "
        "column as the id.",
    )


def _check_row_security(table: TableFacts) -> PreflightCheck:
    name, security, role = "row level security", table.row_security, table.rights.role
    if security.applies:
        return PreflightCheck(
            name,
            "refused",
            f"Row level security of {_name_table(table)} applies to {role}: its policies hide rows "
            "without an error.",
            f"Use a role that it does not apply to: `alter role {_quote_name(role)} bypassrls;`",
        )
    if security.enabled:
        return PreflightCheck(name, "ok", f"enabled, and does not apply to {role}")
    return PreflightCheck(name, "ok", "not enabled")


def _check_foreign_keys(table: TableFacts) -> PreflightCheck:
    """Warn of foreign keys: they decide what becomes of an event that the archive takes."""
    name = "foreign keys"
    keys = table.foreign_keys
    if not keys:
        return PreflightCheck(name, "ok", "no table references it")
    losing = [key for key in keys if key.on_delete in _LOSING_ACTIONS]
    if losing:
        return PreflightCheck(
            name,
            "warning",
            f"{_describe_keys(losing)}: archiving would change these rows, so the archive refuses.",
            "Change the constraint to `on delete restrict`, or keep dead events in the outbox.",
        )
    return PreflightCheck(
        name,
        "warning",
        f"{_describe_keys(keys)}: an event that is referenced is not archived.",
        "Delete the rows that reference it before the archive's retention ends.",
    )


def _describe_keys(keys: Sequence[ForeignKeyFacts]) -> str:
    return ", ".join(
        f"{key.name} of {key.table} ({', '.join(key.columns)}) on delete {key.on_delete}"
        for key in keys
    )


def _check_triggers(table: TableFacts) -> PreflightCheck:
    """Refuse triggers that have the names of ours; what others do is seen by AFTER triggers."""
    name = "triggers"
    taken = [trigger.name for trigger in table.triggers if trigger.name in TRIGGER_NAMES]
    if taken:
        return PreflightCheck(
            name,
            "refused",
            f"{_name_table(table)} has {format_count(len(taken), 'trigger')} with the name of ours "
            f"and another function: {', '.join(taken)}.",
            "Remove the other installation with its own `dlq migrate --remove`, or rename the "
            "trigger.",
        )
    own = [trigger.name for trigger in table.triggers if trigger.enabled]
    if not own:
        return PreflightCheck(name, "ok", "none of the application's own")
    return PreflightCheck(
        name, "ok", f"of the application: {', '.join(own)}; AFTER triggers see their result"
    )


def check_mapping_error(error: MappingError) -> PreflightCheck:
    """Return the refusal of a mapping that does not fit its table."""
    return PreflightCheck("mapping", "refused", error.message, error.hint)


def check_mapping(
    mapping: Mapping, offers: Iterable[Offer], bad_patterns: dict[str, str]
) -> list[PreflightCheck]:
    """Check a mapping that fits its table.

    Args:
        mapping: of the table.
        offers: what is possible with it.
        bad_patterns: the regular expressions that PostgreSQL does not read, with its reasons.
    """
    patterns = [
        PreflightCheck(
            "pattern",
            "refused",
            f"{mapping.name}: PostgreSQL does not read the regular expression {pattern!r}: "
            f"{reason}.",
            "Correct the pattern in the mapping.",
        )
        for pattern, reason in bad_patterns.items()
    ]
    lacking = [
        PreflightCheck(f"offer {offer.operation}", "warning", f"Not offered. {offer.reason}")
        for offer in offers
        if not offer.is_offered
    ]
    fits = PreflightCheck("mapping", "ok", f"{mapping.name} fits the table")
    return [*(patterns or [fits]), *lacking]


def check_rights(table: TableFacts, session: SessionFacts, dlq_schema: str) -> PreflightCheck:
    """Check what the role that migrates may do; other roles need less."""
    role, rights = table.rights.role, table.rights
    place = _quote_table(table)
    needed = [
        (rights.may_use_schema, f"usage on schema {_quote_name(table.schema)}"),
        (rights.may_select, f"select on {place}"),
        (rights.may_update, f"update on {place}"),
        (rights.may_trigger, f"trigger on {place}"),
        (session.may_create_in_database, f"create on database {_quote_name(session.database)}")
        if session.may_create_in_dlq_schema is None
        else (session.may_create_in_dlq_schema, f"create on schema {_quote_name(dlq_schema)}"),
    ]
    lacking = [grant for given, grant in needed if not given]
    if lacking:
        commands = "; ".join(f"grant {grant} to {_quote_name(role)}" for grant in lacking)
        return PreflightCheck(
            "rights", "refused", f"{role} lacks {', '.join(lacking)}.", f"`{commands};`"
        )
    return PreflightCheck("rights", "ok", f"{role} may create what is missing")


def check_owner(table: TableFacts, mapping: Mapping) -> PreflightCheck:
    """Check the owner, whom only added columns need."""
    role, rights = table.rights.role, table.rights
    if rights.is_owner:
        as_what = "superuser" if rights.is_superuser else f"the owner {table.owner}"
        return PreflightCheck("owner", "ok", f"{role} has the rights of {as_what}")
    missing = [name for name in list_added_columns(mapping) if table.find_column(name) is None]
    if not missing:
        return PreflightCheck(
            "owner", "ok", f"{table.owner}, which is not needed: {role} may create triggers"
        )
    return PreflightCheck(
        "owner",
        "refused",
        f"{_name_table(table)} belongs to {table.owner}, and {role} is not a member of that role, "
        f"so it cannot add {' and '.join(missing)}.",
        f"Run `dlq migrate` as the owner of the outbox table, {table.owner}.",
    )


def list_known_states(mapping: Mapping, column: str) -> set[str]:
    """Return the values of a column that the mapping names, as texts."""
    values = {
        value
        for key in _CONDITIONS
        for test in list_tests(getattr(mapping, key))
        if test.column == column and test.kind is ComparisonKind.EQUALS
        for value in test.values
    }
    values |= {
        assignment.value
        for assignment in mapping.retry or ()
        if assignment.column == column and assignment.kind is AssignmentKind.CONSTANT
    }
    return {str(value).lower() if isinstance(value, bool) else str(value) for value in values}


def check_states(mapping: Mapping, column: str, counts: StateCounts) -> PreflightCheck:
    """Compare the values of the state column with the states of the mapping."""
    known = list_known_states(mapping, column)
    unknown = [state for state, _ in counts.states if state not in known]
    named_dead = [
        state for state in unknown if state and state.lower().replace("_", "") in DEAD_WORDS
    ]
    listed = describe_states(column, counts)
    if not unknown:
        return PreflightCheck("states", "ok", listed)
    names = ", ".join("null" if state is None else repr(state) for state in unknown)
    if named_dead or len(unknown) == len(counts.states):
        return PreflightCheck(
            "states",
            "warning",
            f"{listed}. {names} {'are no states' if unknown[1:] else 'is no state'} of the "
            f"mapping {mapping.name}, so these events are not dead.",
            f"Name it in [dead] of the mapping. The mapping knows {', '.join(sorted(known))}.",
        )
    return PreflightCheck("states", "ok", f"{listed}; not named by the mapping: {names}")


def describe_states(column: str, counts: StateCounts) -> str:
    """Return the states with their counts in one line."""
    if not counts.states:
        return "the table is empty"
    listed = ", ".join(
        f"{'null' if state is None else state}: {events:,}" for state, events in counts.states
    )
    where = f"{column} in a sample" if counts.is_sample else column
    return f"{where}: {listed}"


def require_no_refusal(checks: Iterable[PreflightCheck]) -> None:
    """Raise one error with everything that was refused.

    Raises:
        SchemaError: a check was refused.
    """
    refused = [check for check in checks if check.outcome == "refused"]
    if refused:
        reasons = " ".join(f"{check.found} {check.remedy}".rstrip() for check in refused)
        raise SchemaError(
            f"The outbox cannot be served; nothing was changed. {reasons}",
            "`dlq migrate --plan` lists every check. Then run `dlq migrate` again.",
        )
