"""Chooses the account that runs the server when the caller is root.

PostgreSQL refuses to run as root. No account is created for it.
"""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlq_pipelines.errors import DatabaseUnavailableError


@dataclass(frozen=True)
class ServerAccount:
    """The account that runs the server in place of root."""

    uid: int
    gid: int


def choose_server_account() -> ServerAccount:
    """Return the account `postgres`, or `nobody` on a machine without it.

    Raises:
        DatabaseUnavailableError: the machine has neither account.
    """
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerAccount(entry.pw_uid, entry.pw_gid)
    raise DatabaseUnavailableError(
        "PostgreSQL does not run as root, and this machine has no account `postgres` or `nobody`.",
        "Run as another account, or set DLQ_DATABASE_URL.",
    )


def find_server_account(data: Path) -> ServerAccount | None:
    """Return the owner of the data folder; None when the caller is not root.

    The group is the owner's login group, or the folder's group for an owner without an account.

    Raises:
        DatabaseUnavailableError: the data folder belongs to root.
    """
    if os.geteuid() != 0:
        return None
    status = data.stat()
    if status.st_uid == 0:
        raise DatabaseUnavailableError(
            f"{data} belongs to root, and PostgreSQL does not run as root.",
            f"Run `chown -R nobody {data}` (or another account), or set DLQ_DATABASE_URL.",
        )
    try:
        return ServerAccount(status.st_uid, pwd.getpwuid(status.st_uid).pw_gid)
    except KeyError:
        return ServerAccount(status.st_uid, status.st_gid)


def build_process_options(account: ServerAccount | None) -> dict[str, Any]:
    """Return the `subprocess` options with which every program of PostgreSQL runs.

    A program runs as the account, in a folder that every account can enter, without the caller's
    PG* variables, and in a session of its own, so that Ctrl-C in the terminal does not reach it.
    """
    options: dict[str, Any] = {
        "cwd": "/",
        "env": {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"},
        "stdin": subprocess.DEVNULL,
        "start_new_session": True,
    }
    if account:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options
