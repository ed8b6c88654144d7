"""One process at a time writes a folder: two with the same run would mix their lines and lose each other's checkpoints."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from .errors import DataError

LOCK_FILE = ".lock"


def lock_folder(folder: Path, doing: str = "writes this run") -> IO[str]:
    """Make the folder if it is not there, and keep other processes out of it.

    Returns:
        The lock, which is given back when it is closed, or when the process ends however it ends. On a file system that
        knows no locks nobody is kept out.

    Raises:
        DataError: it is not a folder, or another process has it; `doing` says what that one does.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{folder}: not a folder; name another one") from None
    lock = (folder / LOCK_FILE).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise DataError(f"{folder}: another process {doing} now; wait for it or name another folder") from None
    except OSError:
        pass
    return lock
