"""Builds the addresses of what `dlq serve` and Dagster's UI show: one place for all paths."""

from dataclasses import dataclass
from datetime import date
from urllib.parse import quote

# The tag of every run of an outbox's jobs in Dagster; its value is the outbox's label.
OUTBOX_TAG = "dlq/outbox"


@dataclass(frozen=True)
class Links:
    """Where people reach `dlq serve` and Dagster's UI.

    Each method returns an address, or None if the address that it begins with is not set.

    Attributes:
        public_url: of `dlq serve`, without a slash at its end; None: not set.
        dagster_ui_url: of Dagster's UI, in the same form; None: not set.
        outbox_tag: the tag of the outbox's runs in Dagster, such as `dlq/outbox=orders`.
        report_url: of the files of the reports, in the same form; None: `dlq serve` shows them.
    """

    public_url: str | None = None
    dagster_ui_url: str | None = None
    outbox_tag: str | None = None
    report_url: str | None = None

    def link_alerts(self) -> str | None:
        """Return the address of the alerts."""
        return self._link("/alerts")

    def link_causes(self) -> str | None:
        """Return the address of the causes: new, regressed and rising ones first."""
        return self._link("/causes")

    def link_cause(self, cause_id: str) -> str | None:
        """Return the address of a cause."""
        return self._link(f"/causes/{quote(cause_id, safe='')}")

    def link_event(self, event_id: object) -> str | None:
        """Return the address of an event that died."""
        return self._link(f"/events/{quote(str(event_id), safe='')}")

    def link_fix(self, fix_id: int) -> str | None:
        """Return the address of a fix."""
        return self._link(f"/fixes/{fix_id}")

    def link_parked_events(self) -> str | None:
        """Return the address of the parked events."""
        return self._link("/parked")

    def link_report(self, day: date) -> str | None:
        """Return the address of the report of a day."""
        page = f"{day.isoformat()}.html"
        return f"{self.report_url}/{page}" if self.report_url else self._link(f"/reports/{page}")

    def link_run(self, run_id: str | None) -> str | None:
        """Return the address of a run in Dagster's UI; None without a run."""
        return self.dagster_ui_url and run_id and f"{self.dagster_ui_url}/runs/{run_id}"

    def link_runs(self) -> str | None:
        """Return the address of the outbox's runs in Dagster's UI."""
        if self.dagster_ui_url is None or self.outbox_tag is None:
            return None
        return f"{self.dagster_ui_url}/runs?q%5B0%5D={quote(f'tag:{self.outbox_tag}', safe='')}"

    def _link(self, path: str) -> str | None:
        return None if self.public_url is None else f"{self.public_url}{path}"


# Of pages of the same server, as paths.
PATHS = Links(public_url="")
# Of an installation whose addresses are not set.
NO_LINKS = Links()
