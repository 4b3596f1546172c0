"""Builds the descriptions of definitions: what each does, when, what it changes, how to rerun it.

The UI renders the Markdown of assets, checks and jobs. It shows the text of schedules and sensors
unrendered, in one line.
"""

from dlq_pipelines.alerts.checks import CHECK_DESCRIPTIONS


def describe_definition(what: str, *, when: str, changes: str, rerun: str) -> str:
    """Return the description of a job as Markdown. Docstrings of assets and jobs have this form.

    Args:
        what: what the job does, in a sentence or two.
        when: when it runs.
        changes: the tables and files that it writes.
        rerun: how to run it again, and what differs the second time.
    """
    return f"{what}\n\n- **When:** {when}\n- **Changes:** {changes}\n- **Rerun:** {rerun}"


def describe_automation(what: str, *, when: str, changes: str, rerun: str) -> str:
    """Return the description of a schedule or a sensor, without markup."""
    return f"{what} When: {when} Changes: {changes} Rerun: {rerun}"


def describe_check(name: str) -> str:
    """Return the description of an asset check as Markdown."""
    check = CHECK_DESCRIPTIONS[name]
    return f"{check.promise}\n\n- **Failure:** {check.failure}\n- **To do:** {check.next}"
