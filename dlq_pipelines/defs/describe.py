"""How does a definition describe itself in the UI? First what it does, then in a line each what people ask next."""


def described(what: str, *, when: str, changes: str, rerun: str) -> str:
    """The description of a job, a schedule or a sensor, as Markdown. Docstrings of assets have the same form.

    Args:
        what: it does, in a sentence or two.
        when: it runs.
        changes: which tables and files it writes.
        rerun: how, and what is different the second time.
    """
    return f"{what}\n\n- **When:** {when}\n- **Changes:** {changes}\n- **Rerun:** {rerun}"


def described_check(what: str, *, failure: str, todo: str) -> str:
    """The description of an asset check, as Markdown.

    Args:
        what: holds where it passes.
        failure: what one means.
        todo: after one.
    """
    return f"{what}\n\n- **Failure:** {failure}\n- **To do:** {todo}"
