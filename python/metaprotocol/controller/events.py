"""Events of resources that are rejected, and of those that are accepted again, where
``kubectl describe`` shows them.

They are for people, and may be lost: what counts is the status. One is made when a status changes,
so that a control plane that starts again makes none, and no more than a bound.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from metaprotocol.diagnostics import cut
from metaprotocol.kubernetes import ApiError, Client, Json, Unreachable

_LOG = logging.getLogger(__name__)

COMPONENT = "metaprotocol"

_BURST = 60.0
_PER_SECOND = 0.5
_LONGEST = 1000
"""Characters of a message; the status has all of it."""
# A rejected resource is not programmed either, and that proxies do not have one yet passes.
_TOLD_OF = {"Accepted": None, "Programmed": ("NotWritten", "Rejected")}


@dataclass(frozen=True)
class Condition:
    """One statement about an object."""

    type: str
    status: str
    """"True", "False" or "Unknown"."""
    reason: str
    message: str = ""


class EventWriter:
    """See the module's description."""

    def __init__(
        self,
        client: Client,
        instance: str,
        *,
        burst: float = _BURST,
        per_second: float = _PER_SECOND,
    ) -> None:
        """``instance``: which replica it is."""
        self.dropped = 0
        """Events that were one too many."""
        self._client = client
        self._instance = instance
        self._burst = self._tokens = burst
        self._per_second = per_second
        self._filled_at = time.monotonic()
        self._refused = False

    async def tell(self, there: Json, before: Mapping[str, Json], now: Sequence[Condition]) -> None:
        """Of an object, as the API server has it, with its conditions ``before`` and ``now``."""
        for condition in now:
            kind = _kind(before.get(condition.type, {}), condition)
            if kind:
                await self._write(there, kind, condition)

    async def _write(self, there: Json, kind: str, condition: Condition) -> None:
        if not self._may():
            self.dropped += 1
            return
        metadata = there.get("metadata") or {}
        namespace = str(metadata.get("namespace") or "")
        where = namespace or "default"
        at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        message = condition.message or "it is in use"
        event: Json = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{str(metadata.get('name'))[:230]}.{secrets.token_hex(8)}",
                "namespace": where,
            },
            "involvedObject": {
                "apiVersion": there.get("apiVersion"),
                "kind": there.get("kind"),
                "name": metadata.get("name"),
                "namespace": namespace,
                "uid": metadata.get("uid"),
                "resourceVersion": metadata.get("resourceVersion"),
            },
            "type": kind,
            "reason": condition.reason,
            "message": cut(message, _LONGEST),
            "count": 1,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "source": {"component": COMPONENT, "host": self._instance},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
        }
        try:
            await self._client.create(f"/api/v1/namespaces/{where}/events", event)
        except (ApiError, Unreachable) as error:
            # The status says the same; whoever has not granted the right is told once.
            level = logging.DEBUG if self._refused else logging.WARNING
            self._refused = True
            _LOG.log(level, "an event could not be written: %s", error)
        else:
            self._refused = False

    def _may(self) -> bool:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _kind(before: Json, now: Condition) -> str:
    """The type of the event that a condition is worth; "": none."""
    reasons = _TOLD_OF.get(now.type, ())
    was_false = before.get("status") == "False"
    if now.status == "False":
        same = was_false and (before.get("reason"), before.get("message")) == (
            now.reason,
            now.message,
        )
        return "" if same or (reasons is not None and now.reason not in reasons) else "Warning"
    again = was_false and (reasons is None or before.get("reason") in reasons)
    return "Normal" if again else ""
