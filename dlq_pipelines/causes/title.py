"""Builds the title of a cause: its exception type and message, with the detail of most deaths."""

import re
from collections.abc import Sequence

# From this share of the deaths on, a title says the detail instead of a placeholder.
_MIN_SHARE = 0.8
# A function of the application, which is the detail of an error that names nothing.
_PLACE = re.compile(r"\S+\.\w+ in \S+")
# The placeholder of a name, as templates write it, with or without quotes.
_NAME = re.compile(r"""(["'`]?)<(?:name|word)>\1""")


def build_title(
    exception_type: str, template: str, details: Sequence[tuple[str, int]], *, deaths: int
) -> str:
    """Return the title of a cause in one line, such as `KeyError: 'postcode'`.

    Args:
        exception_type: empty if the errors name none.
        template: the message with placeholders.
        details: details with their deaths, the one with most deaths first.
        deaths: all deaths of the cause.
    """
    detail, most = details[0] if details else ("", 0)
    message = template
    if detail and detail != "other" and most >= _MIN_SHARE * deaths:
        message = _name_detail(template, detail)
    return ": ".join(part for part in (exception_type, message) if part)


def _name_detail(template: str, detail: str) -> str:
    """Put the detail in place of the only name of a template, otherwise after it."""
    if _PLACE.fullmatch(detail):
        return f"{template} ({detail})".lstrip()
    if _NAME.fullmatch(template):
        return f"'{detail}'"
    if len(_NAME.findall(template)) == 1:
        return _NAME.sub(lambda found: f"{found[1]}{detail}{found[1]}", template)
    return f"{template} ({detail})".lstrip() if detail not in template else template
