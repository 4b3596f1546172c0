"""Erases personal data: the payloads and errors of events, and every copy in the database.

One event is one transaction, so a run that is killed leaves whole events erased, and the next run
goes on. The row of the event in the outbox is locked first, and its state decides. A dead event is
discarded, because a retry would deliver an empty payload, and the archive keeps its row without
payload and error. A delivered event is emptied where it is. Any other event keeps its payload,
which a worker still needs; it is erased by the next run after its worker has ended.

What stays, on purpose: the deaths with their times, causes, and the details that other deaths have
too, so that all counts and the reconciliation still hold; and the texts that people wrote, such as
notes and reasons. With a text, every column of every table of our schema is searched for what is
left.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from zoneinfo import ZoneInfo

import psycopg

from dlq_pipelines.archive.archive import discard_events
from dlq_pipelines.audit import AuditContext, RunOptions, record_audit_entry
from dlq_pipelines.causes.classify import extract_excerpt
from dlq_pipelines.errors import NotFoundError, RefusedError, SchemaError
from dlq_pipelines.outbox.selection import Selection
from dlq_pipelines.postgres.conflicts import retry_after_conflict
from dlq_pipelines.postgres.connect import Connection
from dlq_pipelines.text import sanitize_line
from dlq_pipelines.validate import (
    EventId,
    parse_event_id,
    validate_event_ids,
    validate_not_blank,
    validate_storable,
)

# Shorter texts are parts of many others.
_MIN_TEXT_LENGTH = 4
_MAX_TEXT_LENGTH = 1_000
# Events of one run.
MAX_EVENTS = 10_000


@dataclass(frozen=True)
class ErasedEvent:
    """What was erased of one event.

    Attributes:
        rows: number of rows of the outbox and of the archive whose payload and error were emptied.
        kept: number of rows of the outbox that keep them, because a worker still needs them, or
            because a row of the application refers to the dead event.
        deaths: number of deaths whose error was erased.
    """

    event_id: EventId
    rows: int
    kept: int
    deaths: int


@dataclass(frozen=True)
class TextPlace:
    """A column that still has the text, such as `cause.note`, and the number of its rows."""

    place: str
    rows: int


@dataclass(frozen=True)
class ErasureResult:
    """Result of an erasure; of a dry run, what a real run would erase.

    Attributes:
        events: the events whose payloads and errors were erased.
        files: files of exports and reports that still have erased data, also of earlier erasures.
            A file that is written again has none.
        left: columns of our schema that still have the text: what people wrote, and what names
            causes. In a dry run, what a real run would erase is among them.
    """

    events: tuple[ErasedEvent, ...]
    files: tuple[str, ...]
    left: tuple[TextPlace, ...] = ()


@dataclass(frozen=True)
class ErasureTerms:
    """What an erasure needs of the installation.

    Attributes:
        zone: the time zone of the days of reports.
        exports_uri: where the files of exports are.
        reports_uri: where the files of reports are.
    """

    zone: ZoneInfo
    exports_uri: str
    reports_uri: str


def list_erasable_events(
    connection: Connection, event_ids: Sequence[EventId], text: str | None = None
) -> list[EventId]:
    """Return the given events, and those whose payload or error contains the text.

    Reads everything if there is a text. JSON may write a character as an escape; such spellings of
    the text are found too.

    Raises:
        ValueError: there are neither ids nor a text, an id is invalid, or the text is blank, not
            storable, or has less than 4 or more than 1,000 characters.
        NotFoundError: the outbox, the archive and the ledger do not know one of the ids.
        RefusedError: more than 10,000 events contain the text.
    """
    if not event_ids and text is None:
        raise ValueError("nothing to erase was given: pass the id of an event, or a text")
    given = validate_event_ids("event_ids", event_ids) if event_ids else []
    texts = [str(id_) for id_ in given]
    unknown = connection.run("erase.unknown", event_ids=texts).fetchone() if given else None
    if unknown is not None:
        raise NotFoundError(
            f"There is no event {unknown['event_id']}: "
            "neither the outbox nor the archive nor the ledger has it.",
            "Check the id, or search by a text of its payload with `dlq erase --text`.",
        )
    found: list[EventId] = []
    if text is not None:
        rows = connection.run("erase.find", patterns=_list_patterns(text), limit=MAX_EVENTS + 1)
        found = [parse_event_id(row["event_id"]) for row in rows]
    if len(found) > MAX_EVENTS:
        raise RefusedError(
            f"More than {MAX_EVENTS:,} events contain this text. Nothing was erased.",
            "Pass a longer text, or erase events by their ids.",
        )
    return list(dict.fromkeys([*given, *found]))


def erase_events(
    connection: Connection,
    event_ids: Sequence[EventId],
    *,
    terms: ErasureTerms,
    audit: AuditContext,
    text: str | None = None,
    options: RunOptions = RunOptions(),
) -> ErasureResult:
    """Erase payload and error of events from outbox, archive, ledger, fixes and alerts.

    Args:
        connection: in autocommit mode.
        event_ids: these events, also earlier ones of the same ids; see `list_erasable_events`.
        terms: of the installation.
        audit: who erases, and why. The audit log keeps the ids, and no text.
        text: fixes and alerts that contain it are emptied too, and what is left is searched.
        options: how the change runs.

    Raises:
        ValueError: the reason or the actor contains the text: the audit log would keep it.
        RefusedError: the role may not erase.
        SchemaError: the application's table accepts no empty payload or error, or see
            `discard_events`.
    """
    patterns = [] if text is None else _list_patterns(text)
    if text is not None and (text in audit.reason or text in audit.actor):
        raise ValueError(
            "reason and actor must not contain the text to erase: the audit log keeps them"
        )
    done: list[ErasedEvent] = []
    files: set[str] = set()
    for event_id in event_ids:
        erase = partial(_erase_event, connection, event_id, terms, audit, options)
        with _explain_refusal(connection, event_id):
            erased, its_files = retry_after_conflict(erase)
        done.append(erased)
        files.update(its_files)
        options.progress(len(done))
    with (
        _explain_refusal(connection, None),
        connection.transaction(force_rollback=options.dry_run),
    ):
        _erase_copies(connection, patterns, audit)
        files.update(_list_files(connection, terms, None))
        left = connection.run("erase.left", patterns=patterns) if patterns else ()
        places = tuple(TextPlace(**row) for row in left)
    return ErasureResult(tuple(done), tuple(sorted(files)), places)


def _erase_event(
    connection: Connection,
    event_id: EventId,
    terms: ErasureTerms,
    audit: AuditContext,
    options: RunOptions,
) -> tuple[ErasedEvent, list[str]]:
    id_ = str(event_id)
    with connection.transaction(force_rollback=options.dry_run):
        if connection.fetch_one("erase.lock", event_id=id_)["is_dead"]:
            discard_events(connection, Selection(event_ids=(event_id,)), audit=audit)
        errors = [row["error"] for row in connection.run("erase.errors", event_id=id_)]
        done = connection.fetch_one("erase.event", event_id=id_, now=audit.now)
        edited = connection.run("erase.payloads", event_id=id_).rowcount
        texts = {*errors, *map(extract_excerpt, errors)}
        _erase_copies(connection, [_build_pattern(text) for text in sorted(texts)], audit)
        connection.run("erase.explanations_of_event", event_id=id_, zone=terms.zone.key)
        if done["emptied"] or done["deaths"] or edited:
            record_audit_entry(connection, "event.erase", {"event": id_}, audit=audit, events=1)
        files = _list_files(connection, terms, id_)
    return ErasedEvent(event_id, done["emptied"], done["kept"], done["deaths"]), files


def _erase_copies(connection: Connection, patterns: list[str], audit: AuditContext) -> None:
    """Empty what matches in the evidence of fixes, the explanations of reports, and alerts."""
    if patterns:
        connection.run("erase.evidence", patterns=patterns, now=audit.now)
        connection.run("erase.explanations", patterns=patterns, now=audit.now)
        connection.run("erase.alerts", patterns=patterns)


def _list_files(connection: Connection, terms: ErasureTerms, event_id: str | None) -> list[str]:
    """List the files that still have erased data: of one event, or of all events."""
    folders: Mapping[str, str] = {"export": terms.exports_uri, "report": terms.reports_uri}
    rows = connection.run("erase.files", event_id=event_id, zone=terms.zone.key)
    return [f"{folders[row['kind']]}/{row['name']}" for row in rows]


def _list_patterns(text: str) -> list[str]:
    """Return a pattern of `like` for each spelling of a text: as itself, in JSON, and in bytes.

    Raises:
        ValueError: see `list_erasable_events`.
    """
    validate_storable("text", validate_not_blank("text", text), most=_MAX_TEXT_LENGTH)
    if len(text) < _MIN_TEXT_LENGTH:
        raise ValueError(f"text must have at least {_MIN_TEXT_LENGTH} characters, not {text!r}")
    escaped = [json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True)]
    # The view of the outbox shows a payload of bytes as hexadecimal digits.
    spellings = dict.fromkeys([text, *escaped, text.encode().hex()])
    return [_build_pattern(spelling) for spelling in spellings]


def _build_pattern(text: str) -> str:
    for character in "\\%_":
        text = text.replace(character, f"\\{character}")
    return f"%{text}%"


@contextmanager
def _explain_refusal(connection: Connection, event_id: EventId | None) -> Iterator[None]:
    """Turn an error of PostgreSQL into one that says what to do.

    Raises:
        RefusedError: the role may not erase.
        SchemaError: the table does not accept what would be written.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise RefusedError(
            f"The role {connection.info.user} may not erase: {error.diag.message_primary}.",
            "Erase as the owner of the tables, or as a member of the role operator of "
            "`dlq migrate --print roles`.",
        ) from None
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise SchemaError(error.diag.message_primary or "", error.diag.message_hint or "") from None
    except (psycopg.errors.IntegrityError, psycopg.errors.DataError) as error:
        reason = sanitize_line(error.diag.message_primary or type(error).__name__, 300)
        raise SchemaError(
            f"The application's table accepts no empty payload or error of event {event_id}: "
            f"{reason}.",
            "Delete the row or change the constraint, and run the command again.",
        ) from None
