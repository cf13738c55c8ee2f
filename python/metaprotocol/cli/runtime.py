"""The Envoys that ``run`` has started on this machine, so that ``routes`` and ``clusters`` find
them: a small file for each, in a folder that is this user's alone.

Where $XDG_RUNTIME_DIR is not set the folder is in the one for temporary files, in which anybody may
put anything. So it is used only if it belongs to this user and nobody else can write into it, no
link is followed, and no file is written that was there before.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class RunningEnvoy:
    """An Envoy that ``run`` has started."""

    admin_port: int
    folder: str


@contextmanager
def announced(folder: str, admin_port: int) -> Iterator[str]:
    """Lets ``running`` find this process's Envoy while the context is open. Its value is why that
    is not possible, "" if it is."""
    name = f"{os.getpid()}.json"
    content = json.dumps({"pid": os.getpid(), "admin_port": admin_port, "folder": folder})
    with contextlib.ExitStack() as stack:
        try:
            parent = stack.enter_context(_opened(create=True))
            _write_new(parent, name, content)
        except OSError as error:
            yield error.strerror or str(error)
            return
        try:
            yield ""
        finally:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=parent)


def running() -> Iterator[RunningEnvoy]:
    """Those of this user, in the order of their process ids' texts."""
    with contextlib.suppress(OSError), _opened(create=False) as parent:
        for name in sorted(os.listdir(parent)):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                item = json.loads(_read_own(parent, name))
                # One that was killed left its file behind.
                os.kill(int(item["pid"]), 0)
                yield RunningEnvoy(int(item["admin_port"]), str(item["folder"]))


def _path() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base or tempfile.gettempdir()) / f"metaprotocol-{os.getuid()}"


@contextmanager
def _opened(*, create: bool) -> Iterator[int]:
    """The folder as a file descriptor, checked; OSError if it cannot be used."""
    path = _path()
    if create:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, mode=0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to somebody else")
        if stat.S_IMODE(status.st_mode) != 0o700:
            # It is ours, only too open; whatever is in it is looked at before it is used.
            os.fchmod(descriptor, 0o700)
        yield descriptor
    finally:
        os.close(descriptor)


def _write_new(parent: int, name: str, content: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        # Of a process that had this id before, or a link: what a link points to stays.
        os.unlink(name, dir_fd=parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=parent), "w") as file:
        file.write(content)


def _read_own(parent: int, name: str) -> str:
    # O_NONBLOCK: a pipe of that name would keep us waiting.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=parent), errors="replace") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
            raise PermissionError(f"{name} is not this user's file")
        return file.read(_MAX_BYTES)
