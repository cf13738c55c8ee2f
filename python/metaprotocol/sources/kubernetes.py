"""A Kubernetes cluster as a source of resources: every kind of interest is listed and followed.

A kind that the cluster does not have is looked for again every few seconds, so that CRDs may come
later. As long as the API server cannot be reached, what it said last counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.kubernetes import ApiKind, Client, Json, Name, Pauses, Reflector
from metaprotocol.resources.base import Key
from metaprotocol.resources.inventory import Changes, Inventory
from metaprotocol.sources.files import Saver, Store
from metaprotocol.sources.kubernetes_objects import (
    FOLLOWED,
    ORIGIN,
    ObjectState,
    ReadObject,
    to_keep,
    told_of,
    without_managers,
)
from metaprotocol.sources.source import Batch, Health, Progress
from metaprotocol.worker import Worker

__all__ = ["KubernetesSource"]


class KubernetesSource:
    """Follows a cluster, or some of its namespaces. See the module's description.

    Nothing is said before every kind is known that the cluster has: a route that is not there yet
    must not be taken for one that nobody wants."""

    def __init__(
        self,
        client: Client,
        *,
        namespaces: Sequence[str] = (),
        kinds: Sequence[ApiKind] = FOLLOWED,
        quiet: float = 0.01,
        storm: float = 0.1,
        absent_seconds: float = 5.0,
        pauses: Callable[[], Pauses] = Pauses,
        store: Store | None = None,
    ) -> None:
        """All times in seconds. ``namespaces``: only these are followed, beside what belongs to no
        namespace; none: all. ``quiet``: objects are read when none changed for so long. ``storm``:
        they are read at the latest so long after the first change. ``absent_seconds``: how often
        kinds are looked for that are not there. ``store``: keeps what objects said when they were
        last right, over a restart, of kinds without which more may be possible."""
        self._state = ObjectState(store)
        self._store = store
        self._worker = Worker("kubernetes")
        self._saver: Saver[ReadObject | None] | None = None
        if store is not None:
            self._saver = Saver(store, self._worker, to_keep)
        self._batch = Batch(Inventory(), Changes(), ())
        self._quiet = quiet
        self._storm = storm
        self._news = asyncio.Event()
        self._changed: dict[str, tuple[Reflector, Name]] = {}
        self._problems: tuple[Diagnostic, ...] = ()
        self._reflectors = [
            Reflector(
                client,
                kind,
                self._note,
                namespace=namespace,
                pauses=pauses(),
                absent_seconds=absent_seconds,
                keep=without_managers,
            )
            for kind in kinds
            for namespace in (
                namespaces if namespaces and kind.namespaced and kind.only is None else ("",)
            )
        ]
        self._by_kind: dict[str, list[Reflector]] = {}
        for item in self._reflectors:
            self._by_kind.setdefault(item.kind.name, []).append(item)

    @property
    def name(self) -> str:
        """See ``Source``."""
        return "kubernetes"

    @property
    def snapshot(self) -> Batch:
        """See ``Source``."""
        return self._batch

    @property
    def health(self) -> Health:
        """See ``Source``."""
        found = [
            f"{item.kind}: {item.problem}"
            for item in self._reflectors
            if item.problem and item.kind.essential
        ]
        return Health(not found, True, found[0] if found else "")

    def kinds(self) -> dict[str, bool]:
        """Of each kind that is followed, whether the cluster has it."""
        return {str(item.kind): item.present for item in self._reflectors}

    def keys(self, kinds: Sequence[str]) -> list[Key]:
        """All objects of these kinds, also those that have errors."""
        return [
            Key(item.kind.name, *name)
            for item in self._reflectors
            if item.kind.name in kinds
            for name in item.objects
        ]

    def find(self, key: Key) -> Json | None:
        """Of an object as the API server has it, what it is called and the conditions of its
        status; of one that has not been read yet, all."""
        namespaced = Name(key.namespace, key.name)
        for reflector in self._by_kind.get(key.kind, ()):
            if namespaced in reflector.objects:
                return reflector.objects[namespaced]
        return None

    def path(self, key: Key, part: str = "") -> str | None:
        """Where an object is in the API, in the version that is read."""
        for reflector in self._by_kind.get(key.kind, ()):
            return reflector.kind.path(reflector.version, key.namespace, key.name, part)
        return None

    async def changes(self, progress: Progress | None = None) -> AsyncGenerator[Batch, None]:
        """See ``Source``."""
        tasks = [
            asyncio.create_task(item.run(), name=f"follow {item.kind}") for item in self._reflectors
        ]
        for task in tasks:
            task.add_done_callback(lambda _: self._news.set())
        try:
            await self._settled(tasks, progress)
            await self._take()
            yield self._batch
            await self._forget_others()
            if self._saver is not None:
                await self._saver.save()
            while True:
                await self._something(tasks)
                if await self._take():
                    yield self._batch
                if self._saver is not None:
                    await self._saver.save()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """See ``Source``."""
        self._worker.close(self._saver.close if self._saver is not None else None)

    # ---

    def _note(self, reflector: Reflector, name: Name | None) -> None:
        if name is not None:
            self._changed[_place(reflector.kind.name, name)] = (reflector, name)
        self._news.set()

    async def _forget_others(self) -> None:
        """Nothing is kept of objects that are gone."""
        store = self._store
        if store is None:
            return
        there = [_place(item.kind.name, name) for item in self._reflectors for name in item.objects]
        unknown = {item.kind.name for item in self._reflectors if item.problem or not item.present}

        def forget() -> None:
            kept = (name for name in store.files() if name.partition(" ")[0] in unknown)
            store.keep_only([*there, *kept])

        await self._worker.run(forget)

    async def _settled(self, tasks: list[asyncio.Task[None]], progress: Progress | None) -> None:
        while True:
            done = sum(item.settled for item in self._reflectors)
            if progress is not None:
                progress(done, len(self._reflectors))
            if done == len(self._reflectors):
                return
            await self._next_news(tasks)

    async def _something(self, tasks: list[asyncio.Task[None]]) -> None:
        """Returns when something has changed, and then nothing for a moment."""
        await self._next_news(tasks)
        end = time.monotonic() + self._storm
        while (left := end - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(min(left, self._quiet)):
                    await self._next_news(tasks)
            except TimeoutError:
                return

    async def _next_news(self, tasks: list[asyncio.Task[None]]) -> None:
        await self._news.wait()
        self._news.clear()
        for task in tasks:
            if task.done():
                task.result()  # raises what has ended it
                raise RuntimeError(f"{task.get_name()} has ended by itself")

    async def _take(self) -> bool:
        """Reads what has changed. Whether there is anything to tell."""
        changed, self._changed = self._changed, {}
        values = {
            place: (reflector.kind, reflector.objects.get(name))
            for place, (reflector, name) in changed.items()
        }
        try:
            found = await self._worker.run(self._state.read, values)
        except BaseException:
            self._changed = {**changed, **self._changed}
            raise
        for place, (reflector, name) in changed.items():
            value = values[place][1]
            if value is not None and reflector.objects.get(name) is value:
                reflector.objects[name] = told_of(value)
        if self._saver is not None:
            self._saver.add(found)
        before = self._batch
        inventory, changes = before.inventory, Changes()
        if made := self._state.take(found):
            inventory = inventory.copy()
            changes = inventory.replace_files(made)
        said = {*self._state.diagnostics, *inventory.diagnostics, *self._unread()}
        if self._store is not None:
            said.update(self._store.diagnostics)
        diagnostics = tuple(sorted(said, key=lambda item: item.sort_key))
        self._batch = Batch(inventory, changes, diagnostics)
        return bool(changes or changes.moved or diagnostics != before.diagnostics)

    def _unread(self) -> list[Diagnostic]:
        """The kinds that cannot be read."""
        found = []
        for item in self._reflectors:
            if item.lost is not None:
                message = f"the cluster has no {item.kind} any more; objects lost: {item.lost:,}"
                fix = "install the CRD, and apply what is to be in force"
                told = Diagnostic(Severity.WARNING, message, ORIGIN, fix=fix, code="kind-gone")
                found.append(told)
            if not item.problem:
                continue
            fix = ""
            if item.kind.essential:
                severity, outcome = Severity.ERROR, "what was read before stays in use"
            else:
                severity, outcome = Severity.INFO, item.kind.unread
                fix = "allow list and watch of it"
            message = f"{item.kind} cannot be read: {item.problem}; {outcome}"
            found.append(Diagnostic(severity, message, ORIGIN, fix=fix, code="unreadable"))
        return found


def _place(kind: str, name: Name) -> str:
    """What an object is called: ``MetaRouter shop/orders``."""
    return f"{kind} {name.namespace}/{name.name}" if name.namespace else f"{kind} {name.name}"
