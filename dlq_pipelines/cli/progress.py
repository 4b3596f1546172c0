"""Shows the progress of long work on stderr, so that stdout stays clean for programs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dlq_pipelines.text import format_count

# Without a terminal, quick work prints nothing, and the log of an hour's work stays short.
_SECONDS_BETWEEN = 10.0


@contextmanager
def show_progress(
    title: str, unit: str, *, total: int | None = None
) -> Iterator[Callable[[int], None]]:
    """Yield a function to call after each batch with the number of units done so far.

    On a terminal it updates one line, which disappears at the end. Elsewhere it prints a line at
    most every ten seconds.

    Args:
        title: names the work, such as "Archive".
        unit: what is counted, such as "event".
        total: how many there are; None if nobody has counted them.
    """

    def describe(done: int) -> str:
        count = f"{done:,} of {format_count(total, unit)}" if total else format_count(done, unit)
        return f"{title}: {count}"

    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if console.is_terminal and not console.is_dumb_terminal:
        with console.status(title) as status:
            yield lambda done: status.update(describe(done))
        return
    printed_at = time.monotonic()

    def print_line(done: int) -> None:
        nonlocal printed_at
        if (now := time.monotonic()) - printed_at >= _SECONDS_BETWEEN:
            printed_at = now
            console.print(f"{describe(done)} so far")

    yield print_line
