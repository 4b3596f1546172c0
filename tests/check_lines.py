"""Reports lines of SQL and documentation of more than 100 characters; ruff reports those of Python.

Rows of tables and links are exempt, because they cannot be broken.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LONGEST = 100
_UNBREAKABLE = re.compile(r"\||!?\[[^\]]*\]\(\S+\)$")
# Files that do not comply yet. The list may only shrink.
LEFT = {
    "sql/queries/alert.sql",
    "sql/queries/demo.sql",
    "sql/queries/migration.sql",
    "sql/queries/report.sql",
    "sql/queries/shop.sql",
    "sql/roles.sql",
}


def find_long_lines(text: str) -> list[int]:
    """Return the numbers of the lines that are too long."""
    return [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > _LONGEST and not _UNBREAKABLE.match(line)
    ]


def main() -> int:
    """Print each long line as `file:line`, and how `LEFT` can shrink; return 1 for long lines."""
    files = [
        *ROOT.glob("sql/**/*.sql"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("*.md"),
        *ROOT.glob("deploy/*.md"),
    ]
    names = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}
    found = {name: lines for name, text in names.items() if (lines := find_long_lines(text))}
    errors = [
        f"{name}:{line}: more than {_LONGEST} characters"
        for name, lines in found.items()
        for line in lines
        if name not in LEFT
    ]
    notes = [f"{name} complies: remove it from LEFT" for name in sorted(LEFT - found.keys())]
    print("\n".join([*errors, *notes, f"{len(names)} files measured, {len(errors)} errors"]))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
