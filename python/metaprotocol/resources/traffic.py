"""What a route may do to requests besides sending them somewhere: faults and retries, in words of
Istio's VirtualService."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from metaprotocol.resources.base import Checked, Model, Problem
from metaprotocol.resources.types import Duration, PositiveDuration

__all__ = ["RETRY_ON", "AbortFault", "DelayFault", "Fault", "LocalReplyKind", "Percent", "Retries"]

LocalReplyKind = Literal[
    "no_content",
    "no_route",
    "cluster_not_found",
    "no_healthy_upstream",
    "timeout",
    "over_limit",
    "denied",
    "fault",
    "upstream_lost",
    "too_large",
    "malformed",
    "shutting_down",
    "bad_response",
]

_RESET = ("CONNECT_FAILURE", "NOT_WRITTEN", "LOST", "TIMEOUT")
RETRY_ON: dict[str, tuple[str, ...]] = {
    "connect-failure": ("CONNECT_FAILURE",),
    "refused-stream": ("NOT_WRITTEN",),
    "reset-before-request": ("NOT_WRITTEN",),
    "reset": _RESET,
    "gateway-error": _RESET,
    "5xx": (*_RESET, "ERROR"),
    "lost": ("LOST",),
    "timeout": ("TIMEOUT",),
    "error": ("ERROR",),
    "exception": ("EXCEPTION",),
}
"""Conditions of ``retryOn``, most of them Envoy's, to the engine's causes."""

_LARGEST_STATUS = 2**31 - 1

FaultKey = Annotated[str, Field(min_length=1, max_length=1000)]
"""A metadata key that has room for more behind it."""


class Percent(Model):
    """A share in percent."""

    value: Annotated[float, Field(ge=0, le=100)]
    """From 0 to 100."""


class DelayFault(Model):
    """Requests that wait before they go on."""

    percentage: Percent
    """How many of them."""
    fixed_delay: PositiveDuration
    """How long."""


class AbortFault(Model):
    """Requests that get an error in place of a reply."""

    percentage: Percent
    """How many of them."""
    kind: LocalReplyKind = "fault"
    """The kind of reply, as in `directReply`."""
    text: Annotated[str, Field(max_length=4096)] = ""
    """For the human at the other end, where the protocol's errors carry text."""


class RequestedFault(Model):
    """Faults that requests ask for, by their metadata, as those of HTTP ask Envoy by headers."""

    delay_key: FaultKey = "x-envoy-fault-delay-request"
    """The key whose value is how many milliseconds the request waits; the same key with
    `-percentage` behind it says with what chance, in percent."""
    abort_key: FaultKey = "x-envoy-fault-abort-request"
    """The key whose value is the kind of error that it gets, as in `abort.kind`; `-percentage`
    likewise."""
    max_delay: PositiveDuration = timedelta(seconds=10)
    """Who asks for more waits as long as this."""
    percentage: Percent | None = None
    """The greatest chance that a request can ask for; default: it is certain."""


class Fault(Checked):
    """Faults on purpose. Those that are delayed may be aborted, too, after their delay."""

    delay: DelayFault | None = None
    """Requests that wait."""
    abort: AbortFault | None = None
    """Requests that fail."""
    requested: RequestedFault | None = None
    """Faults that requests ask for themselves, in place of the other two for those that do; without
    it none may."""

    def doubts(self) -> Iterator[Problem]:
        """Faults that never happen."""
        if self.delay is None and self.abort is None and self.requested is None:
            yield Problem("", "no-fault", "nothing is delayed or aborted", "add delay or abort")


class Retries(Checked):
    """When requests are sent once more: to another host if there is one."""

    attempts: Annotated[int, Field(ge=0, le=100)] = 2
    """Retries at most, after the first attempt; 0: none."""
    per_try_timeout: PositiveDuration | None = None
    """How long each attempt may take; default: as long as all of them together."""
    retry_on: Annotated[str, Field(max_length=1024)] = ""
    """What is a reason for a retry, separated by commas: `connect-failure` (no connection),
    `refused-stream` (nothing of the request had left), `lost` (the connection went before a reply),
    `timeout` (of `perTryTimeout`), `reset` (all of these), `error` (the server failed), `exception`
    (the application's own), `5xx` (`reset` and `error`), or numbers of the protocol's statuses. By
    default only what no server can have seen is sent again: `connect-failure,refused-stream`."""
    reply_metadata: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1024)]], Field(max_length=16)
    ] = Field(default_factory=list)
    """Metadata keys of replies: one that has a value under one of them is a reason as well,
    whatever `retryOn` says."""
    backoff: Duration | None = None
    """The pause before a retry is a random part of this, doubled with each further one up to ten
    times as much; default: 25ms. 0: no pause."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """The parts of `retry_on`."""
        return tuple(part.strip() for part in self.retry_on.split(",") if part.strip())

    @property
    def causes(self) -> list[str]:
        """The engine's causes for them, each once."""
        found = (cause for part in self.conditions for cause in RETRY_ON.get(part, ()))
        return list(dict.fromkeys(found))

    @property
    def statuses(self) -> list[int]:
        """The numbers among them."""
        return [int(part) for part in self.conditions if _is_status(part)]

    def problems(self) -> Iterator[Problem]:
        """Conditions that are none: if they were passed over, nothing or something else would be
        sent again."""
        for part in self.conditions:
            if part not in RETRY_ON and not _is_status(part):
                known = ", ".join(RETRY_ON)
                yield Problem(
                    "retryOn", "unknown-condition", f'"{part}" is no condition',
                    f"known are {known}, and numbers of statuses",
                )  # fmt: skip

    def doubts(self) -> Iterator[Problem]:
        """Conditions that never hold."""
        if "timeout" in self.conditions and self.per_try_timeout is None:
            message = "timeout has no meaning without perTryTimeout"
            yield Problem("retryOn", "no-timeout", message, "add perTryTimeout")


def _is_status(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text[:12]) <= _LARGEST_STATUS
