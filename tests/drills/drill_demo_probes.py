"""`dlq demo` with probes on: the outage of the other companies heals without a flag."""

import os
import subprocess
import sys
from pathlib import Path

from dlq_pipelines.installation import create_tables
from dlq_pipelines.postgres.connect import Database
from tests.databases import with_dagster
from tests.noon import find_noon_zone
from tests.rows import one

PLAY = """
from dlq_pipelines.demo.demo import play_demo
from dlq_pipelines.settings import read_settings
play_demo(read_settings(), reset=False, events=4000)
"""
HEALED = """
    select c.template, f.status
    from dlq.fix f join dlq.cause c on c.id = f.cause_id
    where f.flagged_by = 'probe'
    order by c.template
"""


def test_the_outage_heals_without_a_flag(server_url: str, tmp_path: Path) -> None:
    """What is throttled, down or slow is delivered; what refuses connections stays dead."""
    with with_dagster(server_url) as url:
        database = Database(url)
        create_tables(database)
        environment = dict(os.environ) | {
            "DLQ_DATABASE_URL": url,
            "DLQ_HOME": str(tmp_path / "dlq"),
            "DLQ_TIMEZONE": find_noon_zone(),
            "DLQ_PROBES": "true",
        }
        done = subprocess.run(
            [sys.executable, "-c", PLAY],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        with database.connect() as connection:
            healed = connection.execute(HEALED.encode()).fetchall()
            assert [(row["template"], row["status"]) for row in healed] == [
                ("HTTP Error 429: Too Many Requests", "verified"),
                ("HTTP Error 503: Service Unavailable", "verified"),
                ("timed out", "verified"),
            ]
            left = connection.execute(
                "select distinct c.template from dlq.dead n join dlq.cause c on c.id = n.cause_id"
                " where c.is_transient"
            ).fetchall()
            assert [row["template"] for row in left] == [
                "urlopen error [Errno 111] Connection refused"
            ]
            probes = one(
                connection,
                "select count(*) as released,"
                " count(*) filter (where outcome = 'delivered') as delivered"
                " from dlq.retry where actor = 'probe'",
            )
            assert probes == {"released": 4, "delivered": 3}
