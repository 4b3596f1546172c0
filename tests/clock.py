"""Runs a command with a shifted clock.

`python -m tests.clock '2027-10-31 00:59' -- COMMAND ...` runs the command, and all processes that
it starts, with a clock that starts at that time in UTC. With `midnight`
as the time it starts half a minute before the next midnight. It needs a C compiler.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


def main() -> int:
    """Run the command; return its exit code."""
    split = sys.argv.index("--")
    (start,) = sys.argv[1:split]
    now = datetime.now(UTC)
    if start == "midnight":
        night = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        clock = night - timedelta(seconds=30)
    else:
        clock = datetime.fromisoformat(start).replace(tzinfo=UTC)
    # Every account can read it: the server runs as another one.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        library = folder / "clock.so"
        compiler = shutil.which("cc") or sys.exit("A C compiler is missing: apt-get install gcc")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE], check=True)
        shifted = {
            "LD_PRELOAD": str(library),
            "CLOCK_OFFSET": f"{(clock - now).total_seconds():.0f}",
        }
        return subprocess.run(
            sys.argv[split + 1 :], env=os.environ | shifted, check=False
        ).returncode
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
