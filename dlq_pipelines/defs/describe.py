"""Builds the descriptions of definitions: what each does, when, what it changes, how to rerun it.

The UI renders the Markdown of assets, checks and jobs. It shows the text of schedules and sensors
unrendered, in one line.
"""

from dlq_pipelines.alerts.checks import CHECK_DESCRIPTIONS
from dlq_pipelines.defs.outbox import Outbox


def describe_definition(outbox: Outbox, what: str, *, when: str, changes: str, rerun: str) -> str:
    """Return the description of a job as Markdown. Docstrings of assets and jobs have this form.

    Args:
        outbox: fills in the names of its jobs and the hours of its schedules.
        what: what the job does, in a sentence or two.
        when: when it runs.
        changes: the tables and files that it writes.
        rerun: how to run it again, and what differs the second time.
    """
    text = f"{what}\n\n- **When:** {when}\n- **Changes:** {changes}\n- **Rerun:** {rerun}"
    return outbox.fill_in_names(text)


def describe_automation(outbox: Outbox, what: str, *, when: str, changes: str, rerun: str) -> str:
    """Return the description of a schedule or a sensor, without markup."""
    return outbox.fill_in_names(f"{what} When: {when} Changes: {changes} Rerun: {rerun}")


def describe_check(outbox: Outbox, name: str) -> str:
    """Return the description of an asset check as Markdown."""
    check = CHECK_DESCRIPTIONS[name]
    text = f"{check.promise}\n\n- **Failure:** {check.failure}\n- **To do:** {check.next}"
    return outbox.settings.name_settings(text)
