"""
Files: written atomically, opened only if they are regular, locked; and the versions of installed packages.

Locks end with the process that holds them, however it ends.
"""

import errno
import importlib.metadata
import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

#: How the names of files end that are still being written, or whose writer was killed
UNFINISHED = ".unfinished"
#: Seconds between two attempts to take a lock
RETRY_S = 0.02


def write_whole(path: Path, content: bytes) -> None:
    """
    Write a file atomically. Whatever happens, ``path`` holds its old content or the whole new one.

    :param path: of the file; its folder is created if necessary
    :param content: of the file
    :raises OSError: if it cannot be written
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        with open(unfinished, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def open_regular(path: str | os.PathLike[str], flags: int) -> int:
    """
    An ``opener`` for :func:`open` that refuses what is not a regular file. Opening a FIFO could block for ever.

    :param path: of the file
    :param flags: of :func:`os.open`
    :return: the file descriptor
    :raises OSError: if it is not a regular file
    """
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return handle


@contextmanager
def locked(file: Path, patience_s: float = 0.0) -> Iterator[bool]:
    """
    Hold an exclusive lock on a file for the time of the context.

    :param file: to be locked; created if it does not exist
    :param patience_s: seconds to wait for another holder of the lock
    :return: whether the lock was obtained
    """
    deadline = time.monotonic() + patience_s
    with open(file, "a", opener=open_regular) as handle:
        while not (obtained := try_to_lock(handle)) and time.monotonic() < deadline:
            time.sleep(RETRY_S)
        yield obtained


def is_locked(file: Path) -> bool:
    """
    Whether a process holds the lock. Read permission is enough.

    :param file: may be absent; a file that cannot be opened counts as not locked
    """
    try:
        with open(file, opener=open_regular) as handle:
            # Shared, so that two readers do not take each other for the holder
            return not try_to_lock(handle, shared=True)
    except OSError:
        return False


def try_to_lock(handle: IO[str], shared: bool = False) -> bool:
    """
    Lock an open file without waiting; the lock lasts until the file is closed.

    :param handle: the open file
    :param shared: whether other shared locks are compatible with this one
    :return: whether the lock was obtained; True on systems without locks
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def package_versions(*names: str) -> dict[str, str]:
    """
    :param names: distributions, such as ``"torch"``
    :return: the version of each that is installed
    """
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
