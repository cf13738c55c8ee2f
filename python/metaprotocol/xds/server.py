"""The xDS server: puts cache, streams and gRPC together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.parts import ServerTls
from metaprotocol.versioned import differing
from metaprotocol.xds.cache import ResourceCache
from metaprotocol.xds.debounce import Debounce, Debouncer
from metaprotocol.xds.limits import Limits, StreamRefused, XdsError
from metaprotocol.xds.metrics import Metrics
from metaprotocol.xds.nodes import (
    Nack,
    NodeState,
    NodeStream,
    Refusals,
    ResourceStatus,
    node_states,
    resource_status,
)
from metaprotocol.xds.offered import Offered, Plain
from metaprotocol.xds.schema import LDS, SERVICES, TYPE_PREFIX, Schema, short_name
from metaprotocol.xds.session import Session
from metaprotocol.xds.stream import Stream
from metaprotocol.xds.tls import server_credentials
from metaprotocol.xds.versions import Versions
from metaprotocol.xds.watch import Explain, Outcome, SharedNames

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS = 1.0
_LISTED = 5
"""Refused resources that the log names; the others are counted."""
_CANNOT_BIND = "cannot bind"
"""In what Envoy says of a listener whose address it cannot have."""


_NOTHING: Mapping[str, Any] = {}


class XdsServer:
    """Serves resources to any number of Envoys, by ADS and by the separate services, in both
    protocols.

    All methods belong to the event loop that ``start`` was called in. ``port`` 0 takes a free one.
    Until the first ``apply`` nothing is answered, so that a control plane that has not read its
    files yet does not tell anyone that there is nothing. ``envoy_version`` ("1.40.0") is whose
    schema the resources are built with; nodes of another version get a warning. ``explain`` knows
    more about what is wrong with a refused resource than Envoy says. ``on_demand`` is called when a
    client comes before there is anything to serve, which then waits for what ``apply`` is given.
    """

    def __init__(
        self,
        types: EnvoyTypes,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ServerTls | None = None,
        debounce: Debounce | None = None,
        limits: Limits | None = None,
        registry: CollectorRegistry | None = None,
        envoy_version: str = "",
        explain: Explain | None = None,
        on_demand: Callable[[], None] | None = None,
    ) -> None:
        self._schema = Schema(types)
        self._cache = ResourceCache(self._schema)
        self.metrics = Metrics(registry or CollectorRegistry(), self._cache.counts)
        self.on_nack: Callable[[Nack], None] | None = None
        """Called for every refusal, once it is known which resources are meant."""
        self.on_recovered: Callable[[str, str, tuple[str, ...]], None] | None = None
        """Called with node id, type and names when what was refused is accepted, or gone."""
        self.envoy_version = envoy_version
        self.limits = limits or Limits()
        self._host = host
        self._port = port
        self._tls = tls
        self._debounce = debounce or Debounce()
        self._server: Any = None
        self._debouncer: Debouncer | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._explain = explain
        self._on_demand = on_demand
        self._streams: set[Stream] = set()
        self._refusals = Refusals(self.limits.remembered)
        self._shared_names = SharedNames()
        self._versions = Versions()
        self._generation = 0
        self._silent: set[Stream] = set()
        """Clients that are not waited for, since they do not answer."""
        self._replaced: Mapping[str, Mapping[str, Offered]] | None = None
        """What was last given as the whole; None: the cache has, or may have, something else."""
        self._pending: dict[str, dict[str, Offered | None]] = {}
        self._told = False
        self._applied = False
        self._stopping = False

    # --- life

    async def start(self) -> None:
        """Opens the port. XdsError if that is not possible."""
        if self._server is not None:
            raise XdsError("the xDS server was started already")
        self._debouncer = Debouncer(self._debounce, self._flush)
        if self._told:
            self._flush()
        server = grpc.aio.server(options=self._options())
        server.add_generic_rpc_handlers(tuple(self._handlers()))
        self._port = self._bind(server)
        self._server = server
        await server.start()
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self, grace: float = 2.0) -> None:
        """Ends all streams, each after what is being written, and closes the port. What has not
        gone after ``grace`` seconds is cut off. May be called again."""
        if self._server is None or self._stopping:
            return
        self._stopping = True
        if self._debouncer is not None:
            self._debouncer.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        for stream in list(self._streams):
            stream.end()
        await self._server.stop(grace)

    @property
    def port(self) -> int:
        """The TCP port; 0 before ``start`` if any will do."""
        return self._port

    @property
    def ready(self) -> bool:
        """Whether it answers: it is started, and was told what to serve, or asks for it when
        somebody comes."""
        asks = self._on_demand is not None and not self._stopping
        return self._server is not None and (self.serving or asks)

    @property
    def serving(self) -> bool:
        """For streams."""
        return self._applied and not self._stopping

    # --- resources

    def apply(
        self,
        changed: Mapping[str, Mapping[str, Message | None]],
        visible_to: Mapping[tuple[str, str], frozenset[str]] | None = None,
    ) -> None:
        """Takes over resources by type URL and name; None removes one.

        They are passed on a moment later, together with what else is changed then (``Debounce``).
        ``visible_to`` restricts a resource in ``changed``, by type URL and name, to nodes of these
        namespaces; what it does not name is for everyone. What has not really changed is not sent.
        TypeError, and nothing done, if a message is not of the type it is given as.
        """
        seen = visible_to or {}
        self._take(
            {
                type_url: {
                    name: _plain(message, seen.get((type_url, name)))
                    for name, message in messages.items()
                }
                for type_url, messages in changed.items()
            }
        )
        self._replaced = None

    def _take(self, changed: Mapping[str, Mapping[str, Offered | None]]) -> None:
        for type_url, offers in changed.items():
            for name, offered in offers.items():
                _check_type(type_url, name, offered)
        self._told = True
        for type_url, offers in changed.items():
            self._pending.setdefault(type_url, {}).update(offers)
        if self._debouncer is not None and not self._stopping:
            if self._applied:
                self._debouncer.touch()
            else:
                self._flush()  # the first is awaited

    def replace(self, resources: Mapping[str, Mapping[str, Offered]], generation: int = 0) -> None:
        """Takes these, by type URL and name, as all there is from now on.

        What is the same object as in the last call is passed over, and costs nothing where the
        mappings are ``Versioned``; what has not really changed is not sent. So whoever calls this
        with everything never has to know what the server has, nor what became of the calls before.
        ``generation`` is what the caller calls it, for ``NodeState.generation``. TypeError, and
        nothing done, as in ``apply``.
        """
        changed: dict[str, dict[str, Offered | None]] = {}
        before = self._replaced
        known = self._known() if before is None else before
        for type_url in resources.keys() | known.keys():
            new = resources.get(type_url, _NOTHING)
            names = differing(new, known.get(type_url, _NOTHING))
            if names:
                changed[type_url] = {name: new.get(name) for name in names}
        self._generation = generation
        self._take(changed)
        self._replaced = dict(resources)

    def _known(self) -> dict[str, dict[str, None]]:
        """Everything that the cache has or is about to have, by type URL and name."""
        known: dict[str, dict[str, None]] = {
            type_url: dict.fromkeys(names) for type_url, names in self._cache.all_names()
        }
        for type_url, offers in self._pending.items():
            known.setdefault(type_url, {}).update(dict.fromkeys(offers))
        return known

    @property
    def newest(self) -> int:
        """The number of the version with everything that was applied so far."""
        return self._versions.newest + bool(self._pending)

    async def wait_answered(self, version: int) -> int:
        """Returns when every connected node has answered for the version with that number; with
        the newest of which that is true. A node that does not answer for ``Limits.answer_seconds``
        is not waited for."""
        return await self._versions.wait(version)

    async def wait_settled(self, timeout: float = 10.0) -> bool:
        """Waits until every connected node that answers at all has everything and has answered.
        False if that takes longer than ``timeout`` seconds."""
        if self._debouncer is not None:
            self._debouncer.flush_now()
        try:
            async with asyncio.timeout(timeout):
                await self._versions.wait_for_all()
        except TimeoutError:
            return False
        return True

    def nodes(self) -> list[NodeState]:
        """The connected nodes, by id."""
        clock = time.time() - asyncio.get_running_loop().time()
        return node_states(self._in_order(), clock, self._answered)

    def status(self, type_url: str, name: str) -> ResourceStatus:
        """How far the newest version of a resource has come."""
        entry = self._cache.find(type_url, name)
        version = None if entry is None else entry.version
        return resource_status(self._streams, type_url, name, version)

    def counts(self) -> dict[str, int]:
        """How many resources there are, by type URL."""
        return self._cache.counts()

    # --- for streams

    def on_progress(self, stream: Stream) -> None:
        """The stream may be settled now, or no longer be."""
        self._see(stream, asyncio.get_running_loop().time())
        self._versions.tell()

    def on_outcome(self, stream: Stream, outcome: Outcome) -> None:
        """A client has answered."""
        counted = self.metrics.of(outcome.type_url)
        node = stream.session.node
        node_id = "" if node is None else node.id
        if outcome.accepted:
            counted.acks.inc()
            waited = asyncio.get_running_loop().time() - outcome.since
            counted.delay.observe(waited)
        else:
            counted.nacks.inc()
        if outcome.refused:
            names = tuple(outcome.refused)
            nack = Nack(
                node_id,
                outcome.type_url,
                names,
                outcome.refused[names[0]],
                outcome.message,
                dict(outcome.refused),
            )
            self._log_nack(nack, again=outcome.again)
            if outcome.type_url == LDS and _CANNOT_BIND in outcome.message:
                self._send_again(stream, names)
            if self.on_nack is not None:
                self.on_nack(nack)
        if outcome.recovered and self.on_recovered is not None:
            self.on_recovered(node_id, outcome.type_url, outcome.recovered)

    # --- inner parts

    def _log_nack(self, nack: Nack, *, again: bool) -> None:
        listed = ", ".join(nack.names[:_LISTED])
        more = len(nack.names) - _LISTED
        _LOG.log(
            logging.DEBUG if again else logging.WARNING,
            "%s rejects %s %s%s: %s",
            nack.node_id,
            short_name(nack.type_url),
            listed,
            f" and {more:,} more" if more > 0 else "",
            nack.message,
        )

    def _send_again(self, stream: Stream, names: tuple[str, ...]) -> None:
        """A listener's port may be another program's, and free in a moment: nobody tells Envoy, so
        it is asked again."""

        def again() -> None:
            watch = stream.session.watches.get(LDS)
            if stream not in self._streams or watch is None:
                return
            now = asyncio.get_running_loop().time()
            watch.refresh([name for name in names if name in watch.nacked], now)
            self.on_progress(stream)
            stream.wake()

        asyncio.get_running_loop().call_later(self.limits.retry_seconds, again)

    def _options(self) -> list[tuple[str, int]]:
        return [
            # Two servers on one port would each get some of the nodes.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self.limits.request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", int(self.limits.keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.max_pings_without_data", 0),
            # Envoys may ask as often whether we are alive.
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ]

    def _bind(self, server: Any) -> int:
        host = f"[{self._host}]" if ":" in self._host else self._host
        address = f"{host}:{self._port}"
        credentials = None if self._tls is None else server_credentials(self._tls)
        try:
            if credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, credentials)
        except RuntimeError:
            port = 0
        if port == 0:
            raise XdsError(f"the xDS server cannot listen on {address}: {self._why_not()}")
        return int(port)

    def _why_not(self) -> str:
        """gRPC only logs why; the kernel tells us."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._host, self._port))
            except OSError as error:
                return f"{error.strerror}; choose another port or address"
        return "another program may have it; choose another port"

    def _handlers(self) -> list[Any]:
        handlers = []
        for service in SERVICES:
            methods = {
                method: grpc.stream_stream_rpc_method_handler(
                    partial(self._serve, delta=delta, only=service.type_url)
                )
                for method, delta in ((service.stream, False), (service.delta, True))
            }
            handlers.append(grpc.method_handlers_generic_handler(service.name, methods))
        return handlers

    async def _serve(
        self, _requests: object, context: Any, *, delta: bool, only: str | None
    ) -> None:
        protocol = "delta" if delta else "sotw"
        if len(self._streams) >= self.limits.streams or self._stopping:
            full = not self._stopping
            self.metrics.refused.labels("streams" if full else "stopping").inc()
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.UNAVAILABLE,
                f"this server takes {self.limits.streams} streams" if full else "stopping",
            )
        if self._on_demand is not None and not self._applied:
            self._on_demand()
        session = Session(
            self._schema,
            self._cache,
            self.limits,
            delta=delta,
            only=only,
            explain=self._explain,
            remembered=self._refusals.of,
        )
        stream = Stream(self, session, context)
        self._streams.add(stream)
        self.metrics.streams.labels(protocol).inc()
        self.metrics.streams_total.labels(protocol).inc()
        try:
            # Else they go with the first response. If that is cut off half way, gRPC takes them for
            # not sent, fails to send them again with the error, and the call never ends.
            with contextlib.suppress(grpc.aio.InternalError):  # it has gone, as will be noticed
                await context.send_initial_metadata(())
            await stream.serve()
        except StreamRefused as refused:
            await self._refuse(stream, refused, context)
        except Exception as error:
            await self._refuse(stream, self._failed(stream, error), context)
        finally:
            self._streams.discard(stream)
            self._silent.discard(stream)
            self._refusals.remember(session)
            self._versions.not_behind(stream)
            self._versions.tell()
            self.metrics.streams.labels(protocol).dec()

    def _failed(self, stream: Stream, error: Exception) -> StreamRefused:
        """What is our fault: the client is told so, and comes back."""
        node = stream.session.node
        self.metrics.faults.labels("stream").inc()
        _LOG.error(
            "the stream of %s ends because of a fault of the control plane's",
            node.id if node is not None else stream.peer,
            exc_info=error,
        )
        return StreamRefused("INTERNAL", "the control plane has failed here; its log says why")

    async def _refuse(self, stream: Stream, refused: StreamRefused, context: Any) -> None:
        self.metrics.refused.labels(refused.code.lower()).inc()
        _LOG.warning("stream from %s ended: %s", stream.peer, refused)
        with contextlib.suppress(TimeoutError, grpc.aio.InternalError):  # it takes nothing, or went
            async with asyncio.timeout(self.limits.farewell_seconds):
                await context.abort(getattr(grpc.StatusCode, refused.code), str(refused))

    def _flush(self) -> None:
        changed, self._pending = self._pending, {}
        try:
            changes = self._cache.update(changed)
        except Exception as error:
            # Nothing was taken over. It stays due, and goes with what is changed next.
            for type_url, offers in changed.items():
                self._pending[type_url] = {**offers, **self._pending.get(type_url, {})}
            self.metrics.faults.labels("update").inc()
            _LOG.error("resources could not be taken over", exc_info=error)
            if not self._applied:
                raise
            return
        first, self._applied = not self._applied, True
        if changes:
            self.metrics.flushes.inc()
            for type_url, made in changes.items():
                self.metrics.changes.labels(self.metrics.label(type_url)).inc(len(made.pairs))
        now = asyncio.get_running_loop().time()
        self._versions.passed_on(now, self._generation)
        for stream in self._streams:
            if stream.session.on_changes(changes, now) or first:
                self._see(stream, now)
                stream.wake()
        self._versions.tell()

    def _see(self, stream: Stream, now: float) -> None:
        """Notes which version a stream is at, and whether it is waited for."""
        since = stream.session.owes_since
        if since is None:
            self._versions.not_behind(stream)
            self._silent.discard(stream)
            return
        latest = now - self.limits.answer_seconds
        asked = stream.asked_since
        if asked is None or asked > latest:
            self._versions.behind(stream, self._versions.before(since))
            self._silent.discard(stream)
        elif stream not in self._silent:
            self._silent.add(stream)
            self._versions.not_behind(stream)
            self.metrics.given_up.inc()
            node = stream.session.node
            _LOG.warning(
                "%s has not answered for %.3g s, and is not waited for any more",
                node.id if node is not None else stream.peer,
                now - asked,
            )

    def _answered(self, stream: NodeStream) -> tuple[int, bool]:
        """The generation that a stream has answered for, and whether it is waited for."""
        since = stream.session.owes_since
        return self._versions.generation(self._versions.before(since)), stream in self._silent

    async def _sweep(self) -> None:
        """Cuts off clients that take nothing, gives up those that do not answer, and lets those
        with the same names share them."""
        while True:
            await asyncio.sleep(min(_SWEEP_SECONDS, self.limits.write_seconds / 2))
            try:
                self._sweep_once(asyncio.get_running_loop().time())
            except Exception as error:
                self.metrics.faults.labels("sweep").inc()
                _LOG.error("clients could not be looked after", exc_info=error)

    def _sweep_once(self, now: float) -> None:
        latest = now - self.limits.write_seconds
        for stream in list(self._streams):
            stream.session.share_names(self._shared_names)
            self._see(stream, now)
            if stream.writing_since is not None and stream.writing_since < latest:
                stream.refuse(
                    StreamRefused(
                        "DEADLINE_EXCEEDED",
                        f"nothing was taken for {self.limits.write_seconds:g} s",
                    )
                )
        self._versions.tell()

    def _in_order(self) -> list[Stream]:
        return sorted(self._streams, key=lambda stream: stream.connected_at)


def _plain(message: Message | None, visible_to: frozenset[str] | None) -> Plain | None:
    return Plain(message, visible_to or None) if message is not None else None


def _check_type(type_url: str, name: str, offered: Offered | None) -> None:
    for message in (offered.message, *offered.variants.values()) if offered is not None else ():
        if message is not None and type_url != TYPE_PREFIX + message.DESCRIPTOR.full_name:
            actual = message.DESCRIPTOR.full_name
            raise TypeError(f"resource {name!r} is a {actual}, and was given as {type_url}")
