"""The files in which Envoys find passwords, where the control plane writes them.

They are in a folder that nobody else can read, and are there before an Envoy is told of them. Those
of the configuration before stay, for who is still about to read it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from metaprotocol.control_plane.state import StateError
from metaprotocol.translate.secret_files import SecretFiles

_LOG = logging.getLogger(__name__)

_KEY = "key"
_KEY_BYTES = 32
_NAME = re.compile(r"[0-9a-f]{32}")
"""Of files that are ours to remove."""


class SecretFolder:
    """See the module's description. Not for several threads at once."""

    def __init__(self, path: Path | None = None) -> None:
        """``path`` is made if it is not there, and stays; without it a temporary folder is used,
        which is made when there is something to write. StateError if it is not safe, or not
        possible."""
        self._temporary = path is None
        self._kept: set[str] = set()
        if path is None:
            name = f"metaprotocol-secrets-{secrets.token_hex(16)}"
            self._path = Path(tempfile.gettempdir()).resolve() / name
            self.files = SecretFiles(self._path, secrets.token_bytes(_KEY_BYTES))
            return
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = path.stat()
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise StateError(
                    f"{path} must belong to this user, and be closed to all others (mode 0700)"
                )
            self.files = SecretFiles(path.resolve(), _key(path / _KEY))
        except OSError as error:
            raise StateError(f"the folder {path} cannot be used: {error}") from None
        self._path = path.resolve()

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Makes these the files, by their paths. What cannot be written is logged: an Envoy then
        refuses what names it, and keeps what it has."""
        if not contents and not self._path.exists():
            return
        try:
            if self._temporary and not self._path.exists():
                self._path.mkdir(mode=0o700)  # and fails if somebody else has made it
            for path, content in contents.items():
                _write(Path(path), content)
            names = {Path(path).name for path in contents}
            for file in os.scandir(self._path):
                if _NAME.fullmatch(file.name) and file.name not in names | self._kept:
                    os.unlink(file.path)
            self._kept = names
        except OSError as error:
            _LOG.error("a password cannot be written for Envoy: %s", error)

    def close(self) -> None:
        """Removes a temporary folder."""
        if self._temporary:
            shutil.rmtree(self._path, ignore_errors=True)


def _key(path: Path) -> bytes:
    """What is in the file, which is made if it is not there."""
    with contextlib.suppress(FileNotFoundError):
        found = path.read_bytes()
        if len(found) == _KEY_BYTES:
            return found
    made = secrets.token_bytes(_KEY_BYTES)
    _write(path, made)
    return made


def _write(path: Path, content: bytes) -> None:
    """Writes a file at once, which only its owner can read."""
    with contextlib.suppress(OSError):
        if path.read_bytes() == content:
            return
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
    with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
        file.write(content)
    temporary.replace(path)
