"""Lists the columns of an export, without importing what writes them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ExportColumn:
    """A column of an export.

    Attributes:
        name: in the files.
        type: its Arrow type.
        nullable: whether it may be null.
        description: what it holds, in a sentence.
    """

    name: str
    type: str
    nullable: bool
    description: str


EXPORT_COLUMNS = (
    ExportColumn(
        "death_id",
        "int64",
        nullable=False,
        description="The death's id in the ledger; each row is one death.",
    ),
    ExportColumn(
        "event_id",
        "int64",
        nullable=False,
        description="The event that died: a number, or a text if the key of the outbox is a uuid "
        "or a text. It may have other deaths.",
    ),
    ExportColumn(
        "aggregate_type",
        "string",
        nullable=False,
        description="The type of the aggregate that the event belongs to.",
    ),
    ExportColumn(
        "aggregate_id",
        "string",
        nullable=False,
        description="The aggregate's id.",
    ),
    ExportColumn(
        "event_type",
        "string",
        nullable=False,
        description="The type of the event.",
    ),
    ExportColumn(
        "payload",
        "string",
        nullable=True,
        description="The event's payload when it died, as text: JSON as it is stored, bytes as \\x "
        "and hexadecimal digits.",
    ),
    ExportColumn(
        "created_at",
        "timestamp[us, tz=UTC]",
        nullable=True,
        description="When the application wrote the event; null if unknown or outside of the years "
        "1 to 9999.",
    ),
    ExportColumn(
        "attempts",
        "int32",
        nullable=False,
        description="The number of attempts before the death.",
    ),
    ExportColumn(
        "died_at",
        "timestamp[us, tz=UTC]",
        nullable=False,
        description="The time of the death.",
    ),
    ExportColumn(
        "error",
        "string",
        nullable=True,
        description="The error of the last attempt.",
    ),
    ExportColumn(
        "fingerprint",
        "string",
        nullable=True,
        description="The cause that the classification gave the death.",
    ),
    ExportColumn(
        "cause_id",
        "string",
        nullable=True,
        description="The cause that this cause is merged into, or the same.",
    ),
    ExportColumn(
        "exception_type",
        "string",
        nullable=True,
        description="The exception type of the cause.",
    ),
    ExportColumn(
        "template",
        "string",
        nullable=True,
        description="The message of the cause without values.",
    ),
    ExportColumn(
        "detail",
        "string",
        nullable=True,
        description="What the error names, such as a missing key; empty if it names nothing.",
    ),
)
