"""Where does `dlq` begin? It can be stopped quietly from here on, also while it is still being imported."""

import os
import sys

# As of a program that SIGINT, or SIGPIPE, ends.
_INTERRUPTED, _NO_READER = 130, 141


def main() -> None:
    """Run a command. Whoever stops it, or reads no further, needs no explanation."""
    _open_streams()
    try:
        from dlq_pipelines.cli.app import run

        code = run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        # What Python still holds must not fail again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = _NO_READER
    sys.exit(code)


def _open_streams() -> None:
    """Have what was closed lead nowhere, or the next file or connection would get its number and our output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
