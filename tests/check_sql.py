"""Does every SQL file parse, and does every named statement take parameters that psycopg can bind?"""

import re
import sys

import pglast

from dlq_pipelines.postgres.migrate import load_migrations
from dlq_pipelines.postgres.queries import SQL_FOLDER, TableNames, bind_names, load_queries

_PARAMETER = re.compile(r"%\([a-z_]+\)s")


def main() -> int:
    """Parse with PostgreSQL's own parser; print what it refuses."""
    texts = {
        migration.label: bind_names(migration.text, TableNames()) for migration in load_migrations()
    }
    for file in (*SQL_FOLDER.glob("host/*.sql"), *SQL_FOLDER.glob("demo/*.sql")):
        texts[str(file.relative_to(SQL_FOLDER))] = bind_names(
            file.read_text(encoding="utf-8"), TableNames()
        )
    for name, statement in load_queries(TableNames()).items():
        texts[name] = _PARAMETER.sub("$1", statement.decode()).replace("%%", "%")
    refused = [f"{name}: {error}" for name, text in texts.items() if (error := _refusal(text))]
    print("\n".join([*refused, f"{len(texts)} SQL texts parsed, {len(refused)} refused"]))  # noqa: T201 - a command
    return 1 if refused else 0


def _refusal(text: str) -> str | None:
    try:
        pglast.parse_sql(text)
    except pglast.parser.ParseError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
