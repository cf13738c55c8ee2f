"""Questions to a rate limit service: asked and answered through the bindings."""
# ruff: noqa: ARG002 (a host is told more than each test looks at)

from __future__ import annotations

import json
from typing import Any

import pytest
from metaprotocol.engine import Config, Engine

from tests.python.engine.world import HOSTS, World, request

LIMIT = {
    "domain": "prod",
    "cluster": "limiter",
    "timeout": "0.05s",
    "deny_on_fail": True,
    "descriptors": [{"key": "method", "descriptor_key": "m"}],
}
CONFIG = {
    "name": "asking",
    "protocol": {"codec": "dubbo"},
    "route_tables": [{"name": "t", "routes": [{"cluster": "one"}], "global_rate_limit": LIMIT}],
}
OK, OVER_LIMIT = b"\x08\x01", b"\x08\x02"


class Asked(World):
    """A host that only keeps what the engine does."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, str, str, bytes, int]] = []
        self.opened: list[str] = []
        self.written = b""
        self.engine = Engine(self)
        self.engine.set_cluster("one", 1, "{}", [(host, 1, True) for host in HOSTS])
        self.engine.open_session(Config(json.dumps(CONFIG)), 1)
        self.engine.session_data(1, [request(7, "token", "plain", one_way=False)])

    def start_call(self, *question: Any) -> None:
        self.calls.append(question)

    def open_lease(self, lease: int, cluster: str, address: str) -> None:
        self.opened.append(cluster)

    def write_session(self, session: int, data: bytes) -> None:
        self.written += data

    def metric(self, name: str, protocol: str, route: str, cluster: str, delta: int) -> None:
        pass


def test_the_question_names_the_service_and_what_it_is_about() -> None:
    host = Asked()
    ((_, session, cluster, path, message, timeout_us),) = host.calls
    assert (session, cluster, timeout_us) == (1, "limiter", 50_000)
    assert path == "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    assert message == b"\n\x04prod\x12\x0c\n\n\n\x01m\x12\x05plain\x18\x01"
    assert not host.opened
    assert not host.written


@pytest.mark.parametrize(("answer", "passes"), [(OK, True), (OVER_LIMIT, False), (None, False)])
def test_the_answer_says_what_becomes_of_the_request(answer: bytes | None, passes: bool) -> None:
    host = Asked()
    call = host.calls[0][0]
    host.engine.call_done(call, answer)
    assert bool(host.opened) is passes
    assert bool(host.written) is not passes
    host.engine.call_done(call, OK)
    host.engine.call_done(call + 1, OK)
    assert len(host.opened) == passes


def test_after_the_timeout_there_is_no_answer_any_more() -> None:
    host = Asked()
    host.engine.advance(60_000)
    assert host.written
    host.engine.call_done(host.calls[0][0], OK)
    assert not host.opened
