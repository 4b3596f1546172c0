"""How far is work that takes long? On stderr, so that what a program reads stays clean."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from dlq_pipelines.text import format_count

# Where stderr is no terminal: quick work says nothing, and a log of an hour's work stays short.
_SECONDS_BETWEEN = 10.0


@contextmanager
def show_progress(
    doing: str, what: str, *, of: int | None = None
) -> Iterator[Callable[[int], None]]:
    """A function that is told how many are done so far, after each batch, for the length of a `with` block.

    On a terminal that is one line, gone at the end; elsewhere a line at most every ten seconds.

    Args:
        doing: what is being done, such as "archive".
        what: to what, such as "event".
        of: how many there are; None: nobody has counted them.
    """

    def so_far(done: int) -> str:
        return f"{doing}: {format_count(done, what) if of is None else f'{done:,} of {format_count(of, what)}'}"

    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if console.is_terminal and not console.is_dumb_terminal:
        with console.status(doing) as status:
            yield lambda done: status.update(so_far(done))
        return
    said = time.monotonic()

    def say(done: int) -> None:
        nonlocal said
        if (now := time.monotonic()) - said >= _SECONDS_BETWEEN:
            said = now
            console.print(f"{so_far(done)} so far")

    yield say
