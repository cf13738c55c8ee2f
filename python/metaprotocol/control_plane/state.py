"""What files said when they were last right, kept on disk, so that a control plane that is started
again does not forget it.

What is kept is bytes of the files themselves. They are read, and checked, like any other file when
they are needed: nothing in the database is trusted but that it was once written in the folder. The
database is in a folder that belongs to nobody else, or it is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.errors import Error
from metaprotocol.resources import Key
from metaprotocol.sources.folder import Content

_LOG = logging.getLogger(__name__)

_FORMAT = 1
"""Of the database. One of another format is begun anew."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""What SQLite says of files that are no databases of ours. A disk that fails, or somebody else who
has the database, is no reason to remove what was good."""

_CONTENTS = 4
"""Contents of one file that are kept: the newest, and older ones of which objects are in force."""

_SCHEMA = """
CREATE TABLE file (name BLOB PRIMARY KEY, keys TEXT NOT NULL);
CREATE TABLE content (
  name BLOB NOT NULL, place INTEGER NOT NULL, digest BLOB NOT NULL, content BLOB NOT NULL,
  PRIMARY KEY (name, place)
);
"""


class StateError(Error, RuntimeError):
    """The state folder cannot be used; says why and what to do."""


class LastGoodStore:
    """One source's files. Used by one thread at a time. Failures are logged, and told as
    ``diagnostics``: a disk that is full costs what is new, and stops nothing."""

    def __init__(self, folder: Path, source: str, *, most_bytes: int = 512 << 20) -> None:
        """In a subfolder of ``folder`` for that source, by whatever name. StateError if that is not
        safe, or not possible. More than ``most_bytes`` are not kept."""
        digest = hashlib.blake2b(source.encode(errors="surrogateescape"))
        self._folder = folder / f"last-good-{digest.hexdigest()[:16]}"
        self._path = self._folder / "files.sqlite"
        self._most_bytes = most_bytes
        self._problem = ""
        _private_folder(self._folder)
        try:
            self._database = self._open()
        except (sqlite3.Error, OSError) as error:
            raise StateError(f"{self._path} cannot be used: {error}") from None
        self._bytes = self._size()

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What is wrong with it."""
        if not self._problem:
            return ()
        return (
            Diagnostic(
                Severity.WARNING,
                f"what is good now is not kept for the next start: {self._problem}",
                fix=f"see to {self._folder}",
                code="state",
            ),
        )

    def close(self) -> None:
        """Nothing is read or written afterwards."""
        self._database.close()

    # --- for the source

    def files(self) -> list[str]:
        """The files of which something is known."""
        with self._guarded():
            rows = self._database.execute("SELECT name FROM file ORDER BY name").fetchall()
            return [os.fsdecode(name) for (name,) in rows]
        return []

    def contents(self, file: str) -> tuple[tuple[bytes, ...], frozenset[Key]]:
        """See ``LastGood``."""
        name = os.fsencode(file)
        with self._guarded():
            row = self._database.execute("SELECT keys FROM file WHERE name = ?", (name,)).fetchone()
            if row is None:
                return (), frozenset()
            rows = self._database.execute(
                "SELECT digest, content FROM content WHERE name = ? ORDER BY place", (name,)
            ).fetchall()
            found = tuple(content for digest, content in rows if _digest(content) == digest)
            return found, frozenset(Key(*key) for key in json.loads(row[0]))
        return (), frozenset()

    def save(self, contents: Mapping[str, Content | None]) -> None:
        """See ``Store``."""
        with self._guarded(), self._database:
            for file, content in contents.items():
                if content is None:
                    self._forget(os.fsencode(file))
                else:
                    self._save(os.fsencode(file), content)

    def keep_only(self, files: Iterable[str]) -> None:
        """See ``Store``."""
        kept = set(files)
        with self._guarded(), self._database:
            for file in self.files():
                if file not in kept:
                    self._forget(os.fsencode(file))

    # --- inner parts

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError) as error:
            self._fail(str(error))
        else:
            self._problem = ""

    def _fail(self, problem: str) -> None:
        if problem != self._problem:
            _LOG.error("%s: %s", self._path, problem)
        self._problem = problem

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGED:
                raise  # it may be as it should be
            _LOG.warning("%s is begun anew: %s", self._path, error)
            for suffix in ("", "-journal", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        with contextlib.suppress(FileExistsError):
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
            os.close(os.open(self._path, flags, 0o600))
        if not stat.S_ISREG(os.lstat(self._path).st_mode):
            raise OSError(f"{self._path} is not a file")
        # Used by the thread that reads files, and closed by another.
        database = sqlite3.connect(self._path, timeout=5.0, check_same_thread=False)
        try:
            database.execute("PRAGMA synchronous = NORMAL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != _FORMAT and (version or tables):
                raise sqlite3.DatabaseError(f"it has format {version}, not {_FORMAT}")
            if not tables:
                database.executescript(_SCHEMA)
                database.execute(f"PRAGMA user_version = {_FORMAT}")
            database.execute("SELECT name, keys FROM file LIMIT 1").fetchall()
            database.execute("SELECT name, place, digest FROM content LIMIT 1").fetchall()
        except BaseException:
            database.close()
            raise
        return database

    def _size(self) -> int:
        with self._guarded():
            query = "SELECT coalesce(sum(length(content)), 0) FROM content"
            return int(self._database.execute(query).fetchone()[0])
        return 0

    def _save(self, name: bytes, new: Content) -> None:
        rows = self._database.execute(
            "SELECT digest, content FROM content WHERE name = ? ORDER BY place", (name,)
        ).fetchall()
        digest = _digest(new.content)
        older = [] if new.whole else [row for row in rows if row[0] != digest]
        contents = [(digest, new.content), *older[: _CONTENTS - 1]]
        if len(older) >= _CONTENTS:
            contents[-1] = older[-1]  # the oldest has most
        keys = json.dumps(sorted(new.keys))
        if contents != rows:
            grown = sum(len(row[1]) for row in contents) - sum(len(row[1]) for row in rows)
            if self._bytes + grown > self._most_bytes:
                raise ValueError(f"the files have more than {self._most_bytes:,} bytes")
            self._bytes += grown
            self._database.execute("DELETE FROM content WHERE name = ?", (name,))
            self._database.executemany(
                "INSERT INTO content VALUES (?, ?, ?, ?)",
                [(name, place, *row) for place, row in enumerate(contents)],
            )
        self._database.execute("INSERT OR REPLACE INTO file VALUES (?, ?)", (name, keys))

    def _forget(self, name: bytes) -> None:
        query = "SELECT coalesce(sum(length(content)), 0) FROM content WHERE name = ?"
        self._bytes -= int(self._database.execute(query, (name,)).fetchone()[0])
        self._database.execute("DELETE FROM content WHERE name = ?", (name,))
        self._database.execute("DELETE FROM file WHERE name = ?", (name,))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _private_folder(folder: Path) -> None:
    """Makes the folder, or checks that nobody else can have put anything there. StateError if that
    is not so."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = os.lstat(folder)
    except OSError as error:
        raise StateError(
            f"the state folder {folder} cannot be made: {error.strerror or error}"
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise StateError(f"{folder} is not a folder: remove it, or choose another state folder")
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StateError(
            f"{folder} belongs to somebody else, or others may write there: remove it, or choose "
            "another state folder"
        )
