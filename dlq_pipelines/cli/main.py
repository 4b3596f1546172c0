"""Starts `dlq`. From here on Ctrl-C ends it without a stack trace, even during its imports."""

import os
import sys

# The exit codes of a program that SIGINT or SIGPIPE ends. With 0, `dlq migrate --check | head -1`
# would report success.
_INTERRUPTED, _NO_READER = 130, 141


def main() -> None:
    """Run a command. An interrupt and a closed output end it silently."""
    _open_streams()
    try:
        from dlq_pipelines.cli.app import run

        code = run()
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        from dlq_pipelines.extras import describe_missing_package

        missing = describe_missing_package(error)
        if missing is None:
            raise
        sys.stderr.write(f"dlq: {missing}\n")
        code = 1
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        # The output that Python still buffers must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = _NO_READER
    sys.exit(code)


def _open_streams() -> None:
    """Point closed standard streams to /dev/null.

    Otherwise the next file or connection gets their number, and our output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115 - open until the process ends
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
