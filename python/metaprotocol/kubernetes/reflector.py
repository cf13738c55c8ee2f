"""All objects of one kind, as the API server has them: listed once, then followed.

A list says everything; a watch goes on from there. What interrupts it (the server's own limit, a
restart, a network) is gone on from where it was; only if the server has forgotten that (410) is
everything listed again. Meanwhile, what was known last counts.

That a list is answered 404 says nothing: it may be a proxy's. Objects are gone with their kind only
when discovery, of a server that has read all its CRDs, says again and again that there is no such
kind.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from metaprotocol.kubernetes.client import ApiError, Client, Json, TooLong, Unreachable
from metaprotocol.kubernetes.pauses import Pauses

_LOG = logging.getLogger(__name__)

_PAGE = 500
"""Objects that are listed at once."""
_WATCH_SECONDS = (60.0, 120.0)
"""How long the server is asked to go on with a watch; at random between these."""
_ABSENT_SECONDS = 5.0
"""How soon a kind that the server does not have is looked for again."""
_GONE = 3
"""A kind that was there is gone when discovery has said so as often in a row."""
_OTHER_VERSION = 406
"""The status of a kind that is not there in any version that is understood."""


@dataclass(frozen=True)
class ApiKind:
    """A kind of object."""

    group: str
    name: str
    plural: str
    versions: tuple[str, ...]
    """Those that are understood, the preferred one first."""
    namespaced: bool = True
    essential: bool = True
    """Whether nothing can be done before it is known; otherwise it may be forbidden to read it."""
    selector: str = ""
    """Labels of those that count, as in the query of a list; all if empty."""
    only: tuple[str, str] | None = None
    """Namespace and name of the one object that counts, whatever else is followed; None: all."""
    unread: str = "what such objects ask for is not told of"
    """Of one that is not essential: what it means that it cannot be read."""

    def path(self, version: str, namespace: str = "", name: str = "", part: str = "") -> str:
        """Of an object, or of the collection."""
        path = f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"
        if namespace and self.namespaced:
            path += f"/namespaces/{namespace}"
        return "/".join(step for step in (f"{path}/{self.plural}", name, part) if step)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


class Name(NamedTuple):
    """An object's name among those of its kind."""

    namespace: str
    name: str


class _Absent(Exception):
    """By discovery there is no such kind."""


class Reflector:
    """See the module's description. ``run`` never ends by itself."""

    def __init__(
        self,
        client: Client,
        kind: ApiKind,
        on_change: Callable[[Reflector, Name | None], None],
        *,
        namespace: str = "",
        pauses: Pauses | None = None,
        absent_seconds: float = _ABSENT_SECONDS,
        keep: Callable[[Json], Json] = lambda item: item,
    ) -> None:
        """``on_change`` is called in the loop with the object that is new, other or gone; with None
        when ``settled``, ``present`` or ``problem`` is other than before. ``namespace``: only the
        objects there. ``keep`` says what is kept of an object; its version and name must be."""
        self.kind = kind
        self.objects: dict[Name, Json] = {}
        """What there is. An object is never changed; a new one takes its place. Whoever has no more
        need of all of it may put less in its place, with its version and name."""
        self.settled = False
        """Whether all is known: they were listed, or there is no such kind."""
        self.present = True
        """Whether the server has the kind."""
        self.problem = ""
        """Why it cannot be read now."""
        self.lost: int | None = None
        """The objects that have gone with the kind, while one that was there is not; else None."""
        self.version = kind.versions[0]
        """The one that is read."""
        self.lists = 0
        """How often everything was listed."""
        self._client = client
        self._on_change = on_change
        self._namespace = namespace if kind.namespaced else ""
        self._keep = keep
        self._query: dict[str, str] = {}
        if kind.selector:
            self._query["labelSelector"] = kind.selector
        if kind.only is not None:
            self._namespace, name = kind.only
            self._query["fieldSelector"] = f"metadata.name={name}"
        self._pauses = pauses or Pauses()
        self._absent_seconds = absent_seconds
        self._absences = 0
        self._page = _PAGE
        self._at = ""
        """The resourceVersion to go on from; empty: list."""

    async def run(self) -> None:
        """Follows the kind."""
        while True:
            try:
                if not self._at:
                    await self._list()
                await self._watch()
            except _Absent:
                await self._absent()
            except TooLong as error:
                await self._too_long(error)
            except ApiError as error:
                await self._refused(error)
            except Unreachable as error:
                await self._failed(error)
            except (AttributeError, TypeError, ValueError) as error:
                # From where it was, the same answer might come again.
                self._at = ""
                await self._failed(Unreachable(f"the answer is none of an API server's: {error}"))

    async def _failed(self, error: Unreachable) -> None:
        pause = self._pauses.next()
        if self._pauses.failures > 1:  # one watch that breaks off is nothing to tell of
            self._tell(problem=str(error))
        await asyncio.sleep(pause)

    async def _list(self) -> None:
        self.version = await self._find_version()
        path = self.kind.path(self.version, self._namespace)
        found: dict[Name, Json] = {}
        group = f"{self.kind.group}/" if self.kind.group else ""
        typed = {"apiVersion": group + self.version, "kind": self.kind.name}
        query: dict[str, str | int] = {"limit": self._page, **self._query}
        while True:
            page = await self._client.get(path, **query)
            metadata = page.get("metadata")
            if "items" not in page or not isinstance(metadata, dict):
                # It must not be taken for a list of nothing: no policy would be in force.
                raise Unreachable("the API server has answered what is no list")
            for item in page.get("items") or ():
                # Items of a list do not always say what they are.
                found[_name_of(item)] = self._keep({**item, **typed})
            following = str(metadata.get("continue") or "")
            if not following:
                break
            if following == query.get("continue"):
                raise Unreachable("a page of a list is followed by itself")
            query["continue"] = following
        self.lists += 1
        self._at = str(metadata.get("resourceVersion") or "")
        self._absences, self.lost = 0, None
        before, self.objects = self.objects, found
        self._tell(settled=True, present=True, problem="")
        for name in before.keys() | found.keys():
            old, new = before.get(name), found.get(name)
            if old is not None and new is not None and _version_of(old) == _version_of(new):
                found[name] = old
            else:
                self._on_change(self, name)

    async def _find_version(self) -> str:
        """The first version of ours in which the server has the kind."""
        if not self.kind.group:
            return self.kind.versions[0]
        group = await self._discovered(f"/apis/{self.kind.group}")
        served = [str(item.get("version")) for item in group.get("versions") or ()]
        ours = [version for version in self.kind.versions if version in served]
        for version in (*ours, *(item for item in served if item not in ours)):
            found = await self._discovered(f"/apis/{self.kind.group}/{version}")
            if any(item.get("name") == self.kind.plural for item in found.get("resources") or ()):
                if version in ours:
                    return version
                raise ApiError(
                    _OTHER_VERSION, f"is there as {version} alone, which is not read here"
                )
        raise _Absent

    async def _discovered(self, path: str) -> Json:
        try:
            return await self._client.get(path)
        except ApiError as error:
            if error.status == 404:
                raise _Absent from error
            raise

    async def _watch(self) -> None:
        path = self.kind.path(self.version, self._namespace)
        query: dict[str, str | int] = {
            "allowWatchBookmarks": "true",
            "resourceVersion": self._at,
            **self._query,
        }
        async for event in self._client.watch(path, random.uniform(*_WATCH_SECONDS), **query):
            if self._pauses.failures or self.problem:
                self._pauses.succeeded()
                self._tell(problem="")
            self._take(event)
        self._pauses.succeeded()
        self._tell(problem="")

    def _take(self, event: Json) -> None:
        kind, item = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            raise ApiError(
                int(item.get("code") or 500),
                str(item.get("message") or "the watch has failed"),
                str(item.get("reason") or ""),
            )
        self._at = _version_of(item) or self._at
        if kind == "BOOKMARK":
            return
        name = _name_of(item)
        if kind == "DELETED":
            if self.objects.pop(name, None) is None:
                return
        else:
            self.objects[name] = self._keep(item)
        self._on_change(self, name)

    async def _absent(self) -> None:
        """Discovery knows no such kind."""
        self._at = ""
        try:
            sure = await self._client.ready()
        except Unreachable as error:
            await self._failed(error)
            return
        if sure:
            self._absences += 1
        if sure and (self._absences >= _GONE or not self.settled):
            before, self.objects = self.objects, {}
            if self.lists and self.lost is None:
                self.lost = len(before)
                _LOG.warning("%s: the kind is gone, objects lost: %d", self.kind, self.lost)
            self._tell(settled=True, present=False, problem="")
            for name in before:
                self._on_change(self, name)
        await asyncio.sleep(self._absent_seconds * random.uniform(0.8, 1.2))

    async def _too_long(self, error: TooLong) -> None:
        """A page that is too long is asked for in smaller ones."""
        self._at = ""
        if self._page == 1:
            await self._failed(error)
            return
        self._page = max(1, self._page // 8)
        _LOG.info("%s: %s; pages of %d are asked for", self.kind, error, self._page)

    async def _refused(self, error: ApiError) -> None:
        if error.expired:
            self._at = ""
            if self._pauses.failures:
                await asyncio.sleep(self._pauses.next(error.retry_after))
            self._pauses.failures += 1  # a server that always says so is not asked without a pause
            return
        if error.status == 404:
            self._at = ""  # discovery is asked what that means
        if error.status in (403, _OTHER_VERSION) and not self.kind.essential:
            self._tell(settled=True, present=True, problem=str(error))
        else:
            self._tell(problem=str(error))
        await asyncio.sleep(self._pauses.next(error.retry_after))

    def _tell(
        self, *, settled: bool | None = None, present: bool | None = None, problem: str
    ) -> None:
        before = (self.settled, self.present, self.problem)
        self.settled = self.settled if settled is None else settled
        self.present = self.present if present is None else present
        self.problem = problem
        if before == (self.settled, self.present, self.problem):
            return
        if problem and problem != before[2]:
            _LOG.warning("%s cannot be read: %s; it is tried again", self.kind, problem)
        elif before[2] and not problem:
            _LOG.info("%s can be read again", self.kind)
        self._on_change(self, None)


def _name_of(item: Json) -> Name:
    metadata = item.get("metadata") or {}
    return Name(str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))


def _version_of(item: Json) -> str:
    return str((item.get("metadata") or {}).get("resourceVersion") or "")
