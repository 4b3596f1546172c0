"""Generates the table of variables in deploy/README.md from `Settings`.

`make docs` writes it between two markers, and a test compares it with the settings.
"""

import re
import sys
from pathlib import Path

from pydantic_core import PydanticUndefined

from dlq_pipelines.settings import PREFIX, Settings

README = Path(__file__).parents[1] / "deploy" / "README.md"
BETWEEN = re.compile(
    r"(<!-- settings: made by `make docs` -->\n).*?(<!-- end of settings -->)", re.DOTALL
)


def settings_table() -> str:
    """The table: one row a variable, in the order of settings.py."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        assert default is not PydanticUndefined, f"{name} has no default"
        variable = f"{PREFIX}{str(field.validation_alias or name).upper()}"
        rows.append(f"| `{variable}` | {_shown(default)} | {_escaped(field.description or '')} |")
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows, ""])


def _shown(default: object) -> str:
    match default:
        case None | "" | ():
            return ""
        case bool():
            return f"`{str(default).lower()}`"
        case tuple():
            return f"`{','.join(map(str, default))}`"
        case _:
            return f"`{default}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def main() -> int:
    """Write the table."""
    text = README.read_text(encoding="utf-8")
    made, places = BETWEEN.subn(lambda found: f"{found[1]}{settings_table()}{found[2]}", text)
    if places != 1:
        sys.exit(f"{README} must contain the two markers of the table exactly once.")
    README.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
