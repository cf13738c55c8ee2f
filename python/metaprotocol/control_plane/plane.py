"""The control plane: files to resources, resources to Envoy's terms, Envoy's terms to Envoys, and
what became of each on the way back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from metaprotocol.control_plane.content import Content
from metaprotocol.control_plane.rejections import diagnostics_of, engine_reasons, reason_for, trace
from metaprotocol.control_plane.services import ServedService, ServiceBook
from metaprotocol.control_plane.status import (
    Change,
    ChangeState,
    Rejection,
    ResourceStatus,
    state_of,
)
from metaprotocol.diagnostics import Diagnostic
from metaprotocol.envoy.config import ServerTls
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.resources import Changes, Inventory, Resource
from metaprotocol.sources.files import Batch, FolderSource
from metaprotocol.translate import Options, Translator
from metaprotocol.xds import Nack, NodeState, XdsServer, debug_app

KEPT_CHANGES = 1000
"""Changes that the log holds; older ones are forgotten."""

KEPT_REJECTIONS = 10_000
"""Above so many, those of nodes that have gone are forgotten."""

_POLL_SECONDS = 0.005
_SETTLE_SECONDS = 60.0
_STOP_GRACE_SECONDS = 1.0

_LOG = logging.getLogger(__name__)


class NotSynced(TimeoutError):
    """The Envoys have not all acknowledged what they were sent; the text says who has not."""


class UpdateRejected(RuntimeError):
    """An Envoy refuses the configuration; ``rejections`` say which and why."""

    def __init__(self, rejections: Iterable[Rejection]) -> None:
        self.rejections = tuple(rejections)
        refused = [(item.node, item.name, item.refused) for item in self.rejections]
        super().__init__("\n".join(map(str, diagnostics_of(refused))))


class ControlPlane:
    """See the module's description. An asynchronous context manager; everything happens in the loop
    that entered it, but for reading and translating, which have a thread.

    Its resources are those of a ``folder``, which is followed, or a given ``content``. It serves
    them by xDS on ``host:port`` (0: any port, see ``port``) once the first ones are there, so that
    an Envoy that reconnects to a control plane that was started again never sees an empty world.
    ``http`` is where /metrics and /debug are served. ``envoy_version`` ("1.40.0") is whose schema
    ``types`` are: Envoys of another version get a warning.
    """

    def __init__(
        self,
        types: EnvoyTypes,
        options: Options | None = None,
        *,
        folder: Path | None = None,
        content: Content | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ServerTls | None = None,
        http: tuple[str, int] | None = None,
        envoy_version: str = "",
    ) -> None:
        self.types = types
        self.options = options or Options()
        self.on_change: list[Callable[[Change], None]] = []
        """Called in the loop with each change, when it is sent and again when it is settled."""
        self.changes: deque[Change] = deque(maxlen=KEPT_CHANGES)
        """The change log, the newest last."""
        self._translator = Translator(types, self.options)
        self._services = ServiceBook(types)
        self.server = XdsServer(
            types, host=host, port=port, tls=tls, envoy_version=envoy_version, explain=self._explain
        )
        """The xDS server: for metrics, and what is known of single resources."""
        self.server.on_nack = self._nacked
        self.server.on_recovered = self._recovered
        self._host = host
        self._http = http
        self.http_port = 0
        """The TCP port of /metrics and /debug; 0 if they are not served."""
        self._folder = folder
        self._content = Content.copy_of(content) if content is not None else Content()
        self._following: asyncio.Task[None] | None = None
        self._translate_all = False
        self._translated: tuple[Diagnostic, ...] = ()
        self._rejections: dict[tuple[str, str, str], Rejection] = {}
        self._unsettled: list[_Sent] = []
        self._settling: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = contextlib.AsyncExitStack()

    # --- life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Reads and translates everything, then begins to serve and to follow. XdsError or OSError
        if an address cannot be listened on, OSError if there is no such folder."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends the streams and stops following. Envoys keep what they have. May be called again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._stack.aclose()
        await self.server.stop(_STOP_GRACE_SECONDS)

    async def _start(self) -> None:
        batches = None
        if self._folder is not None:
            batches = FolderSource(self._folder).changes()
            self._stack.push_async_callback(batches.aclose)
            inventory, _, diagnostics = await anext(batches)
            self._content = Content(inventory, diagnostics)
        update = await asyncio.to_thread(self._translator.update, self.inventory, None)
        self._translated = update.diagnostics
        self.server.apply(update.changed, update.visible_to)
        await self.server.start()
        if self._http is not None:
            await self._serve_http(*self._http)
        if batches is not None:
            self._following = self._spawn(self._follow(batches))

    async def _serve_http(self, host: str, port: int) -> None:
        runner = web.AppRunner(debug_app(self.server), access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, host, port)
        await site.start()
        self.http_port = int(runner.addresses[0][1])

    @property
    def port(self) -> int:
        """The TCP port Envoys connect to."""
        return self.server.port

    @property
    def address(self) -> str:
        """Where Envoys connect to: "127.0.0.1:15010"."""
        return _address(self._host, self.port)

    @property
    def http_address(self) -> str:
        """Where /metrics and /debug are served; "" if they are not."""
        return _address(self._http[0], self.http_port) if self._http is not None else ""

    # --- what there is

    @property
    def inventory(self) -> Inventory:
        """The resources, as they are now."""
        return self._content.inventory

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Everything that is wrong now: files, resources, and what Envoys refuse."""
        refused = [(item.node, item.name, item.refused) for item in self.rejections]
        found = {*self._content.diagnostics, *self._translated, *diagnostics_of(refused)}
        return tuple(sorted(found, key=lambda item: item.sort_key))

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """What Envoys that are connected refuse now."""
        if not self._rejections:
            return ()
        now = {
            (node.id, type_url, nack.name) for node in self.nodes() for type_url, nack in node.nacks
        }
        return tuple(item for key, item in self._rejections.items() if key in now)

    def status(self) -> tuple[ResourceStatus, ...]:
        """What became of each object, sorted by name; also of those whose errors keep them from
        being read."""
        by_object: dict[str, list[Diagnostic]] = {}
        for item in self.diagnostics:
            if item.object:
                by_object.setdefault(item.object, []).append(item)
        refused: dict[str, set[str]] = {}
        for rejection in self.rejections:
            for place in rejection.refused:
                refused.setdefault(place.object, set()).add(rejection.node)
        files = {str(item.key): item.origin.file for item in self.inventory.values()}
        made = []
        for name in sorted({*files, *by_object}):
            found = tuple(by_object.get(name, ()))
            nodes = tuple(sorted(refused.get(name, ())))
            told = next((item.origin.file for item in found if item.origin is not None), "")
            state = state_of(found, bool(nodes))
            made.append(ResourceStatus(name, files.get(name, told), state, found, nodes))
        return tuple(made)

    def services(self) -> list[ServedService]:
        """What Envoys listen for, sorted by name."""
        return self._services.services(self._translator.resources)

    def nodes(self) -> list[NodeState]:
        """The Envoys that are connected."""
        return self.server.nodes()

    # --- changes

    async def replace(self, content: Content) -> None:
        """Other resources in place of all there are; a folder is no longer followed."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
            self._following = None
        async with self._lock:
            new = content.inventory
            files = {file: new.in_file(file) for file in new.files}
            gone: dict[str, list[Resource]] = {file: [] for file in self.inventory.files}
            before = self.diagnostics
            changes = self.inventory.replace_files({**gone, **files})
            self._content = Content(self.inventory, content.diagnostics)
            await self._take(changes, before)

    async def wait_synced(self, timeout: float = 30.0, *, nodes: int = 0) -> None:
        """Returns when every connected Envoy has what there is now in use, and at least ``nodes``
        are connected.

        UpdateRejected if one refuses it, NotSynced (a TimeoutError) after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        async with self._lock:  # what is being translated counts
            pass
        while len(self.nodes()) < nodes and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        settled = await self.server.wait_settled(max(deadline - time.monotonic(), 0.0))
        if rejections := self.rejections:
            raise UpdateRejected(rejections)
        connected = self.nodes()
        if len(connected) < nodes:
            raise NotSynced(f"{len(connected)} of {nodes} Envoys connected within {timeout:g} s")
        if not settled:
            waiting = ", ".join(node.id for node in connected if not node.settled)
            raise NotSynced(f"not acknowledged within {timeout:g} s by {waiting}")

    async def _follow(self, batches: AsyncGenerator[Batch, None]) -> None:
        async for inventory, changes, diagnostics in batches:
            async with self._lock:
                before = self.diagnostics
                self._content = Content(inventory, diagnostics)
                try:
                    await self._take(changes, before)
                except Exception:  # whatever one change does, the next one is followed
                    _LOG.exception("a change could not be translated; the last good one stays")
                    self._translate_all = True

    async def _take(self, changes: Changes, diagnostics: tuple[Diagnostic, ...]) -> None:
        """Translates what has changed and passes it on. With the lock held; ``diagnostics`` are
        those from before."""
        began = time.monotonic()
        before = set(diagnostics)
        wanted = None if self._translate_all else changes
        self._translate_all = False
        update = await asyncio.to_thread(self._translator.update, self.inventory, wanted)
        self._translated = update.diagnostics
        after = self.diagnostics
        held = set(after)
        names = frozenset(
            (type_url, name) for type_url, made in update.changed.items() for name in made
        )
        change = Change(
            number=self.changes[-1].number + 1 if self.changes else 1,
            at=time.time(),
            objects=_objects(changes),
            resources=len(names),
            problems=tuple(item for item in after if item not in before),
            mended=tuple(item for item in diagnostics if item not in held),
            state=ChangeState.SENT if names else ChangeState.NOTHING,
        )
        if not change.objects and not names and held == before:
            return
        self.changes.append(change)
        self._tell(change)
        if not names:
            return
        self.server.apply(update.changed, update.visible_to)
        self._unsettled.append(_Sent(change, names, began))
        if self._settling is None or self._settling.done():
            self._settling = self._spawn(self._settle())

    async def _settle(self) -> None:
        """Notes when what was sent is in use everywhere."""
        while self._unsettled:
            await asyncio.sleep(0)  # a change by itself is passed on in the loop's next turn
            waiting = list(self._unsettled)
            if not await self.server.wait_settled(_SETTLE_SECONDS):
                continue
            now = time.monotonic()
            for sent in waiting:
                self._unsettled.remove(sent)
                change = sent.change
                change.seconds = now - sent.began
                change.rejections = tuple(
                    item for item in self.rejections if (item.type_url, item.name) in sent.names
                )
                refused = bool(change.rejections)
                change.state = ChangeState.REJECTED if refused else ChangeState.ACCEPTED
                self._tell(change)

    def _nacked(self, nack: Nack) -> None:
        if len(self._rejections) >= KEPT_REJECTIONS:
            # Of nodes that never came back.
            self._rejections = {
                (item.node, item.type_url, item.name): item for item in self.rejections
            }
        for name in nack.names:
            message = self._translator.resources.get(nack.type_url, {}).get(name)
            resources = self._translator.origins(nack.type_url, name)
            reasons = engine_reasons(self.types, message)
            if not reasons:
                reasons = (reason_for(name, nack.names, nack.message),)
            self._rejections[nack.node_id, nack.type_url, name] = Rejection(
                node=nack.node_id,
                type_url=nack.type_url,
                name=name,
                version=nack.version,
                message="\n".join(reasons),
                refused=trace(name, reasons, resources),
            )

    def _explain(self, type_url: str, name: str, _content: bytes) -> str:
        """What the engine says of a refused resource, for the server, which has no engine."""
        message = self._translator.resources.get(type_url, {}).get(name)
        return "; ".join(engine_reasons(self.types, message))

    def _recovered(self, node: str, type_url: str, names: tuple[str, ...]) -> None:
        for name in names:
            self._rejections.pop((node, type_url, name), None)

    def _tell(self, change: Change) -> None:
        for told in list(self.on_change):
            try:
                told(change)
            except Exception:  # a listener's fault must not stop the control plane
                _LOG.exception("a listener of changes has failed")

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@dataclass(frozen=True, eq=False)
class _Sent:
    """A change on its way, with the Envoy resources it touches."""

    change: Change
    names: frozenset[tuple[str, str]]
    began: float


def _objects(changes: Changes) -> tuple[str, ...]:
    marks = (("+", changes.added), ("~", changes.updated), ("-", changes.removed))
    return tuple(f"{mark}{key}" for mark, keys in marks for key in sorted(keys))


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
