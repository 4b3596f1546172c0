"""Checks that every SQL file and every named statement parses with PostgreSQL's own parser."""

import re
import sys

import pglast

from dlq_pipelines.postgres.migrate import load_migrations
from dlq_pipelines.postgres.queries import SQL_FOLDER, TableNames, bind_names, load_queries
from dlq_pipelines.postgres.shape import REFERENCE_SHAPE

_PARAMETER = re.compile(r"%\([a-z_]+\)s")


def main() -> int:
    """Parse all SQL texts; print the errors and return 1 if there are any."""
    texts = {
        migration.name: bind_names(migration.text, TableNames(), REFERENCE_SHAPE)
        for migration in load_migrations()
    }
    for file in (*SQL_FOLDER.glob("host/*.sql"), *SQL_FOLDER.glob("demo/*.sql")):
        texts[str(file.relative_to(SQL_FOLDER))] = bind_names(
            file.read_text(encoding="utf-8"), TableNames()
        )
    for name, statement in load_queries(TableNames()).items():
        texts[name] = _PARAMETER.sub("$1", statement.decode()).replace("%%", "%")
    errors = [f"{name}: {error}" for name, text in texts.items() if (error := _find_error(text))]
    print("\n".join([*errors, f"{len(texts)} SQL texts parsed, {len(errors)} with errors"]))
    return 1 if errors else 0


def _find_error(text: str) -> str | None:
    try:
        pglast.parse_sql(text)
    except pglast.parser.ParseError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
