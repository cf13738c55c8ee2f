"""Says on each object of our kinds, of Aeraki's for Redis, and of Istio's that have routes of ours
what became of it.

The conditions are those of the CRDs: Accepted, Programmed, and Conflicted where there is a
conflict. Written by server-side apply to the status alone, only where something is another than is
there, and not faster than a bound; a status never changes what an object asks for, so that writing
one causes nothing here.

Istio's objects have conditions of others in the same list, which the API server takes as a whole:
ours carry a prefix, those of others are written again as they are, and where an object has nothing
to do with us any more ours are taken away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from metaprotocol.control_plane.status import State, state_of
from metaprotocol.controller.events import Condition, EventWriter
from metaprotocol.diagnostics import Diagnostic, Severity, cut
from metaprotocol.kubernetes import ApiError, Client, Json, Pauses, Unreachable
from metaprotocol.resources import Key
from metaprotocol.sources.kubernetes import KubernetesSource

_LOG = logging.getLogger(__name__)

MANAGER = "metaprotocol-status"
KINDS = ("ApplicationProtocol", "MetaRouter", "RedisDestination", "RedisService")
"""The kinds whose CRDs have our conditions."""
ROUTES = "VirtualService"
FOREIGN = (ROUTES, "DestinationRule", "Gateway", "ServiceEntry")
"""Those of Istio's kinds that say something about ports of ours."""
PREFIX = "metaprotocol.aeraki.io/"
"""Of the types of our conditions there."""

_LINES = 10
"""Problems that are told in one message."""
_LONGEST = 4000
"""Characters of a message."""
_PER_SECOND = 20.0
_LOOK_SECONDS = 60.0
"""Between two looks at statuses that nobody said anything new of."""


def accepted(diagnostics: Iterable[Diagnostic]) -> list[Condition]:
    """What follows from an object's diagnostics: Accepted, and Conflicted if it is."""
    found = [item for item in diagnostics if item.severity is not Severity.INFO]
    state = state_of(tuple(found), rejected=False)
    message = _message(found)
    match state:
        case State.CONFLICTED:
            return [
                Condition("Accepted", "False", "Conflicted", message),
                Condition("Conflicted", "True", "Conflicted", message),
            ]
        case State.INVALID:
            return [Condition("Accepted", "False", "Invalid", message)]
        case State.WARNED:
            return [Condition("Accepted", "True", "AcceptedWithWarnings", message)]
    return [Condition("Accepted", "True", "Accepted")]


def _message(found: list[Diagnostic]) -> str:
    found.sort(key=lambda item: (item.severity is not Severity.ERROR, item.sort_key))
    lines = []
    for item in found[:_LINES]:
        text = f"{item.field}: {item.message}" if item.field else item.message
        lines.append(f"{text} ({item.fix})" if item.fix else text)
    if len(found) > _LINES:
        lines.append(f"and {len(found) - _LINES} more")
    return cut("\n".join(lines), _LONGEST)


class StatusWriter:
    """See the module's description. ``run`` never ends by itself."""

    def __init__(
        self,
        client: Client,
        source: KubernetesSource,
        *,
        may_write: Callable[[], bool],
        events: EventWriter | None = None,
        per_second: float = _PER_SECOND,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self.writes = 0
        self._client = client
        self._source = source
        self._may_write = may_write
        self._events = events
        self._gap = 1.0 / per_second
        self._look_seconds = look_seconds
        self._wanted: Mapping[Key, list[Condition]] = {}
        self._alike: dict[Key, tuple[Json, list[Condition]]] = {}
        """Objects, and what is to be said of each, where that is there."""
        self._news = asyncio.Event()
        self._pauses = Pauses(0.5)
        self._next_at = 0.0

    def want(self, conditions: Mapping[Key, list[Condition]]) -> None:
        """From now on this is to be said of the objects; of one of Istio's without conditions,
        nothing."""
        self._wanted = conditions
        self._news.set()

    async def run(self) -> None:
        """Writes what differs."""
        again = False
        while True:
            try:
                async with asyncio.timeout(self._pauses.next() if again else self._look_seconds):
                    await self._news.wait()
            except TimeoutError:
                pass  # a failure is tried again, or others may have written
            self._news.clear()
            again = await self._write_all() > 0
            if not again:
                self._pauses.succeeded()

    async def _write_all(self) -> int:
        """Returns how many could not be written."""
        failed = 0
        before, self._alike = self._alike, {}
        for key, conditions in list(self._wanted.items()):
            if not self._may_write():
                return 0
            there = self._source.find(key)
            if there is None:
                continue
            known, said = before.get(key, (None, None))
            if (known is there and said == conditions) or (
                value := _status(key, there, conditions)
            ) is None:
                self._alike[key] = (there, conditions)
                continue
            path = self._source.path(key, "status")
            assert path is not None  # it is there
            await self._slowly()
            try:
                await self._client.apply(path, value, manager=MANAGER)
            except ApiError as error:
                if error.status == 404:  # it has gone, or its CRD has no status
                    continue
                failed += 1
                newer = error.status == 409  # which is to be seen in a moment
                level = logging.DEBUG if newer else logging.WARNING
                _LOG.log(level, "the status of %s cannot be written: %s", key, error)
            except Unreachable as error:
                _LOG.warning("the status of %s cannot be written: %s", key, error)
                return failed + 1
            else:
                self.writes += 1
                if self._events is not None:
                    await self._events.tell(there, _ours(key, there), conditions)
        return failed

    async def _slowly(self) -> None:
        now = time.monotonic()
        self._next_at = max(self._next_at, now - 1.0) + self._gap
        if self._next_at > now:
            await asyncio.sleep(self._next_at - now)


def _conditions(there: Json) -> list[Json]:
    found = (there.get("status") or {}).get("conditions") or ()
    return [item for item in found if isinstance(item, dict)]


def _ours(key: Key, there: Json) -> dict[str, Json]:
    """Those that are ours, by type."""
    prefix = PREFIX if key.kind in FOREIGN else ""
    return {
        name.removeprefix(prefix): item
        for item in _conditions(there)
        if (name := str(item.get("type"))).startswith(prefix)
    }


def _status(key: Key, there: Json, conditions: list[Condition]) -> Json | None:
    """What to apply; None if it is there already."""
    foreign = key.kind in FOREIGN
    metadata = there.get("metadata") or {}
    generation = metadata.get("generation")
    said = _ours(key, there)
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    made, same = [], True
    for condition in conditions:
        old = said.get(condition.type, {})
        value: Json = {
            "type": f"{PREFIX}{condition.type}" if foreign else condition.type,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
            "observedGeneration": generation,
        }
        same = same and all(old.get(name) == item for name, item in value.items())
        since = old.get("lastTransitionTime") if old.get("status") == condition.status else None
        made.append({**value, "lastTransitionTime": since or now})
    wanted = {condition.type for condition in conditions}
    gone = said.keys() - wanted if foreign else said.keys() & {"Conflicted"} - wanted
    if same and not gone:
        return None
    name: Json = {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
    status: Json = {"observedGeneration": generation, "conditions": made}
    if foreign:
        # Never without the list: the API server makes null of a status that is left empty, and
        # rejects it. And of no other version than this one, or what others have said since would
        # be lost.
        others = [it for it in _conditions(there) if it not in said.values()]
        status = {"conditions": [*others, *made]}
        name["resourceVersion"] = metadata.get("resourceVersion")
    return {
        "apiVersion": there["apiVersion"],
        "kind": key.kind,
        "metadata": name,
        "status": status,
    }
