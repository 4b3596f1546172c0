"""How does a definition describe itself in the UI? First what it does, then what people ask next.

The UI renders the Markdown of assets, checks and jobs. Of schedules and sensors it shows the text as it stands, in one
line.
"""

from dlq_pipelines.alerts.checks import CHECK_DESCRIPTIONS


def describe_definition(what: str, *, when: str, changes: str, rerun: str) -> str:
    """The description of a job, as Markdown. Docstrings of assets and jobs have the same form.

    Args:
        what: it does, in a sentence or two.
        when: it runs.
        changes: which tables and files it writes.
        rerun: how, and what is different the second time.
    """
    return f"{what}\n\n- **When:** {when}\n- **Changes:** {changes}\n- **Rerun:** {rerun}"


def describe_automation(what: str, *, when: str, changes: str, rerun: str) -> str:
    """The same of a schedule or a sensor, without markup."""
    return f"{what} When: {when} Changes: {changes} Rerun: {rerun}"


def describe_check(name: str) -> str:
    """The description of an asset check, as Markdown."""
    check = CHECK_DESCRIPTIONS[name]
    return f"{check.promise}\n\n- **Failure:** {check.failure}\n- **To do:** {check.next}"
