"""The control plane: files to resources, resources to Envoy's terms, Envoy's terms to Envoys, and
what became of each on the way back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from metaprotocol.control_plane.changelog import ChangeLog
from metaprotocol.control_plane.collector import collector_paused
from metaprotocol.control_plane.content import Content
from metaprotocol.control_plane.metrics import PipelineMetrics
from metaprotocol.control_plane.pipeline import Pipeline
from metaprotocol.control_plane.refusals import RefusalBook
from metaprotocol.control_plane.rejections import diagnostics_of
from metaprotocol.control_plane.secret_folder import SecretFolder
from metaprotocol.control_plane.services import ServedService, ServiceBook
from metaprotocol.control_plane.state import LastGoodStore
from metaprotocol.control_plane.status import (
    Change,
    ChangeState,
    Rejection,
    ResourceStatus,
    state_of,
)
from metaprotocol.control_plane.supervisor import Fault, Supervisor, Work, reason_of
from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.envoy.config import ServerTls
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.errors import Error
from metaprotocol.resources import Changes, Inventory
from metaprotocol.sources import Batch, FolderSource, Source
from metaprotocol.translate import Options, Snapshot, Translator
from metaprotocol.translate.naming import LISTENER
from metaprotocol.xds import Limits, NodeState, XdsServer, debug_app

_POLL_SECONDS = 0.005
_STOP_GRACE_SECONDS = 1.0
_TOLD_SECONDS = 0.1
"""Between two calls of ``on_progress``."""

_LOG = logging.getLogger(__name__)


class NotSynced(Error, TimeoutError):
    """The Envoys have not all acknowledged what they were sent; the text says who has not."""


class UpdateRejected(Error, RuntimeError):
    """An Envoy refuses the configuration; ``rejections`` say which and why."""

    def __init__(self, rejections: Iterable[Rejection]) -> None:
        self.rejections = tuple(rejections)
        refused = [(item.node, item.name, item.refused) for item in self.rejections]
        super().__init__("\n".join(map(str, diagnostics_of(refused))))


class ControlPlane:
    """See the module's description. An asynchronous context manager; everything happens in the loop
    that entered it, but for reading and translating, which have a thread each.

    Its resources are those of a ``source``, such as a ``folder``, which is followed, or a given
    ``content``. It serves them by xDS on ``host:port`` (0: any port, see ``port``) once the first
    ones are there, so that an Envoy that reconnects to a control plane that was started again never
    sees an empty world. ``http`` is where /metrics and /debug are served. ``envoy_version``
    ("1.40.0") is whose schema ``types`` are: Envoys of another version get a warning. ``limits`` is
    what one client may cost. ``state`` is a folder in which what the files said when they were last
    right is kept over a restart; StateError from ``start`` if it cannot be used. ``secrets`` is
    where passwords are written for Envoys; it is closed with the control plane. ``on_demand``: what
    is read is translated for Envoys when the first one connects, or at ``wake``; until then it is
    ``asleep``, and others may ``tell`` what they find wrong with the resources.

    What it reads may be read at any time, in the loop: it is always that of one moment.
    """

    def __init__(
        self,
        types: EnvoyTypes,
        options: Options | None = None,
        *,
        folder: Path | None = None,
        source: Source | None = None,
        content: Content | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ServerTls | None = None,
        http: tuple[str, int] | None = None,
        envoy_version: str = "",
        limits: Limits | None = None,
        state: Path | None = None,
        secrets: SecretFolder | None = None,
        on_demand: bool = False,
    ) -> None:
        self.types = types
        self.options = options or Options()
        if secrets is not None:
            self.options = replace(self.options, secrets=secrets.files)
        self.on_progress: Callable[[str, int, int], None] | None = None
        """Called in the loop while ``start`` reads and translates: with "reading" or "translating",
        how much is done, and of how much."""
        self.on_snapshot: list[Callable[[Snapshot], None]] = []
        """Called in the loop with each snapshot when it is served, and with an empty one when there
        are other resources while it sleeps; must not raise."""
        self.unready: list[Callable[[], str]] = []
        """Asked by /ready: why the program is not ready, although this control plane is; empty: it
        is."""
        self._refusals = RefusalBook(types, lambda: self.snapshot, self.nodes)
        self.server = XdsServer(
            types,
            host=host,
            port=port,
            tls=tls,
            limits=limits,
            envoy_version=envoy_version,
            explain=self._refusals.explain,
            on_demand=self.wake if on_demand else None,
        )
        """The xDS server: for metrics, and what is known of single resources."""
        self.server.on_nack = self._refusals.nacked
        self.server.on_recovered = self._refusals.recovered
        self.http_port = 0
        """The TCP port of /metrics and /debug; 0 if they are not served."""
        self._host = host
        self._http = http
        self._folder = folder
        self._source = source
        self._state = state
        self._secrets = secrets
        self._store: LastGoodStore | None = None
        self._batches: AsyncGenerator[Batch, None] | None = None
        """Begun, and not followed yet."""
        self._metrics = PipelineMetrics(self.server.metrics.registry)
        self._supervisor = Supervisor(self._fault)
        self._pipeline = Pipeline(
            Translator(types, self.options),
            self._publish,
            on_failure=self._failed,
            progress=partial(self._progress, "translating"),
            asleep=on_demand,
        )
        self._services = ServiceBook(types)
        self._log = ChangeLog(self.server, lambda: self.rejections)
        self._given = Content.copy_of(content) if content is not None else Content()
        self._content = Content()
        """What is published, and ``_published`` what was made of it."""
        self._published = Snapshot()
        self._first = True
        """Nothing was published yet."""
        self._beside: tuple[Diagnostic, ...] = ()
        """What others have found."""
        self._told: tuple[Diagnostic, ...] = ()
        """The diagnostics at the last change."""
        self._gathered: tuple[tuple[object, ...], tuple[Diagnostic, ...]] = ((), ())
        """What the diagnostics were made of, and those."""
        self._began = 0.0
        self._stage, self._told_at = "", 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
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
        if an address cannot be listened on, OSError if there is no such folder. Cancelled, it ends
        at once, whatever it has been doing."""
        self._loop = asyncio.get_running_loop()
        if self._folder is not None:
            if self._state is not None:
                self._store = LastGoodStore(self._state, os.path.realpath(self._folder))
            self._source = FolderSource(self._folder, store=self._store)
        if self._source is not None:
            self._stack.callback(self._source.close)
        try:
            with collector_paused():
                await self._load()
                await self.server.start()
            if self._http is not None:
                await self._serve_http(*self._http)
        except BaseException:
            await self.stop()
            raise
        self._supervisor.start("change log", self._log.follow)
        if self._source is not None:
            self._supervisor.start("source", self._follow)

    async def stop(self) -> None:
        """Ends the streams and stops following. Envoys keep what they have. May be called again."""
        self._pipeline.close()
        await self._supervisor.stop()
        if self._batches is not None:
            await self._batches.aclose()
            self._batches = None
        await self._stack.aclose()
        await self.server.stop(_STOP_GRACE_SECONDS)
        if self._secrets is not None:
            self._secrets.close()

    async def failed(self) -> Fault:
        """Returns when a part of the control plane does not run, and has not for long, although it
        was started again and again: the program should end with an error."""
        return await self._supervisor.given_up()

    def supervise(self, name: str, work: Work) -> None:
        """Runs something beside the control plane's own tasks, and like them: what fails is told
        and started again. It ends when the control plane stops."""
        self._supervisor.start(name, work)

    async def _load(self) -> None:
        content = self._given
        if self._source is not None:
            self._batches = self._source.changes(partial(self._progress, "reading"))
            batch = await anext(self._batches)
            content = Content(batch.inventory, batch.diagnostics)
            self._metrics.batch(self._source.health)
        number = self._pipeline.want(content)
        self._began = time.monotonic()
        self._supervisor.start("translation", self._pipeline.run)
        await self._pipeline.reached(number)

    async def _serve_http(self, host: str, port: int) -> None:
        runner = web.AppRunner(debug_app(self.server, self._unready), access_log=None)
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
    def health(self) -> tuple[str, ...]:
        """What is not as it should be with the control plane itself; nothing: it is well."""
        faults = [str(fault) for fault in self._supervisor.faults]
        if self._pipeline.error is not None:
            faults.append(f"translation: {reason_of(self._pipeline.error)}")
        return tuple(faults)

    @property
    def asleep(self) -> bool:
        """Whether nothing is translated for Envoys, since none has come."""
        return self._pipeline.asleep

    @property
    def source(self) -> Source | None:
        """Where the resources come from."""
        return self._source

    @property
    def snapshot(self) -> Snapshot:
        """What is served now."""
        return self._pipeline.snapshot

    @property
    def changes(self) -> deque[Change]:
        """The change log, the newest last."""
        return self._log.changes

    @property
    def on_change(self) -> list[Callable[[Change], None]]:
        """Called in the loop with each change, when it is sent and again when it is settled."""
        return self._log.listeners

    @property
    def inventory(self) -> Inventory:
        """The resources that are served. Not to be changed."""
        return self._content.inventory

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Everything that is wrong now: files, resources, what Envoys refuse, and the control plane
        itself. The same object as long as nothing of it is another."""
        refused = [(item.node, item.name, item.refused) for item in self.rejections]
        parts = (
            self._content.diagnostics,
            self._pipeline.snapshot.diagnostics,
            self._beside,
            self._pipeline.diagnostics,
            self._store.diagnostics if self._store is not None else (),
            tuple(map(_of_fault, self._supervisor.faults)),
            tuple(diagnostics_of(refused)),
        )
        if parts != self._gathered[0]:
            found = {item for part in parts for item in part}
            self._gathered = parts, tuple(sorted(found, key=lambda item: item.sort_key))
        return self._gathered[1]

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """What Envoys that are connected refuse now."""
        return self._refusals.rejections

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
        """What Envoys listen for, sorted by name; also where one cannot, since another program has
        the port: it is tried again until it can, and ``listening`` is False until then."""
        refused = {item.name for item in self.rejections if item.type_url == LISTENER}
        return [
            replace(service, listening=False) if service.listener in refused else service
            for service in self._services.services(self._pipeline.snapshot)
        ]

    def nodes(self) -> list[NodeState]:
        """The Envoys that are connected."""
        return self.server.nodes()

    # --- changes

    def wake(self) -> None:
        """What is read is translated for Envoys from now on."""
        if self.asleep:
            _LOG.info("what is read is translated for Envoys from now on")
            self._began = time.monotonic()
            self._pipeline.wake()

    def tell(self, diagnostics: tuple[Diagnostic, ...], seconds: float | None = None) -> None:
        """Notes that somebody else has translated the resources: what is wrong with them, in place
        of what was told before, and how long it took; without ``seconds``, that nobody does any
        more."""
        if seconds is not None:
            self._metrics.translated(len(self.inventory), seconds)
        if diagnostics is not self._beside:
            self._beside = diagnostics
            self._metrics.found(diagnostics + self.snapshot.diagnostics)
            self._note((), frozenset(), time.monotonic())

    async def replace(self, content: Content) -> None:
        """Other resources in place of all there are; a source is no longer followed. Returns when
        they are translated, and raises what that raises; then they are tried again all the same."""
        await self._supervisor.end("source")
        self._began = time.monotonic()
        number = self._pipeline.want(Content.copy_of(content))
        await self._pipeline.reached(number)

    async def wait_synced(self, timeout: float = 30.0, *, nodes: int = 0) -> None:
        """Returns when every connected Envoy has what there is now in use, and at least ``nodes``
        are connected.

        UpdateRejected if one refuses it, NotSynced (a TimeoutError) after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._pipeline.reached()  # what is being translated counts
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

    async def _follow(self) -> None:
        assert self._source is not None
        batches, self._batches = self._batches or self._source.changes(), None
        async with contextlib.aclosing(batches):
            async for batch in batches:
                self._began = time.monotonic()
                self._metrics.batch(self._source.health)
                self._pipeline.want(Content(batch.inventory, batch.diagnostics))
        raise RuntimeError("the source has ended by itself")

    def _publish(self, content: Content, changes: Changes, snapshot: Snapshot) -> None:
        """A snapshot is there: in the loop."""
        began = self._began
        changed = snapshot.changed_since(self._published)
        first, self._first = self._first, False
        self._published = snapshot
        self._content = content
        if snapshot.generation > 0:
            seconds = time.monotonic() - began
            self._metrics.translated(len(snapshot.inventory), seconds, snapshot.generation)
            self._metrics.found(self._beside + snapshot.diagnostics)
            if self._secrets is not None:
                self._secrets.write(snapshot.secrets)
            self.server.replace(snapshot.made, snapshot.generation)
        names = frozenset((url, name) for url, made in changed.items() for name in made)
        if first:
            self._told = self.diagnostics
        else:
            self._note(_objects(changes), names, began)
        for listener in self.on_snapshot:
            listener(snapshot)

    def _failed(self) -> None:
        self._metrics.failed()
        self._note((), frozenset(), time.monotonic())

    def _fault(self, fault: Fault) -> None:
        self._metrics.faults.labels(fault.task).inc()
        self._note((), frozenset(), time.monotonic())

    def _note(
        self, objects: tuple[str, ...], names: frozenset[tuple[str, str]], began: float
    ) -> None:
        """Puts a change into the log, if there is anything to tell."""
        before, after = self._told, self.diagnostics
        self._told = after
        problems, fixed = _differing(before, after)
        if self.asleep and not (problems or fixed):
            return  # what becomes of the objects is told by somebody else
        if not (objects or names or problems or fixed):
            return
        change = Change(
            number=self.changes[-1].number + 1 if self.changes else 1,
            at=time.time(),
            objects=objects,
            resources=len(names),
            problems=problems,
            fixed=fixed,
            state=ChangeState.SENT if names else ChangeState.NOTHING,
        )
        self._log.add(change, names, began)

    def _progress(self, stage: str, done: int, total: int) -> None:
        """In the thread that reads or translates."""
        now = time.monotonic()
        if self.on_progress is None or self._loop is None:
            return
        if stage != self._stage or done == total or now - self._told_at >= _TOLD_SECONDS:
            self._stage, self._told_at = stage, now
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._tell_progress, stage, done, total)

    def _tell_progress(self, stage: str, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(stage, done, total)

    def _unready(self) -> tuple[str, ...]:
        return (*self.health, *filter(None, (ask() for ask in self.unready)))


def _differing(
    before: tuple[Diagnostic, ...], after: tuple[Diagnostic, ...]
) -> tuple[tuple[Diagnostic, ...], tuple[Diagnostic, ...]]:
    """What is new, and what is gone."""
    if after is before:  # as for most changes, and there may be thousands
        return (), ()
    held, holds = set(before), set(after)
    new = tuple(item for item in after if item not in held)
    return new, tuple(item for item in before if item not in holds)


def _of_fault(fault: Fault) -> Diagnostic:
    return Diagnostic(
        Severity.ERROR,
        f"a part of the control plane does not run: {fault.task}: {fault.reason}",
        fix="it is started again and again; the log has more",
        code="control-plane-fault",
    )


def _objects(changes: Changes) -> tuple[str, ...]:
    marks = (("+", changes.added), ("~", changes.updated), ("-", changes.removed))
    return tuple(
        f"{mark}{key}" for mark, keys in marks for key in sorted(keys) if key.kind != "Unreadable"
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
