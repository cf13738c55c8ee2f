"""Scripts that hypothesis writes, run in the simulated world of the C++ tests: every kind of
protocol, bytes cut anywhere, servers that err in every way.

The world is C++ (``tests/cpp/support/sim_script.h``), so that a run takes well under a millisecond,
and checks by itself that the engine keeps its contract with its host, that bounds are kept and that
nothing is left in the end. Who got which reply is checked here once more, from what everybody saw.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

try:
    _sim: Any = importlib.import_module("metaprotocol._native._sim")
except ImportError:
    pytest.skip("the simulated world is not built (make test builds it)", allow_module_level=True)

PROFILE = settings(
    max_examples=20_000 if os.environ.get("HYPOTHESIS_PROFILE") == "search" else 1_500,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

Script = list[tuple[str, int, int]]

# What happens often, what happens now and then, and what changes everything.
TRAFFIC = ("connect", "request", "request", "request", "one_way", "wait", "wait", "server_answers")
TROUBLE = ("heartbeat", "finish", "reset", "reading", "server_mode", "server_close", "server_sends")
LIMITS = ("limiter",)
CHANGES = ("garbage", "server_connect", "hosts", "generation", "remove_cluster", "publish", "drain")

# Numbers in which each part that an action makes of them is small, and shrinks to nothing.
NUMBER = st.integers(min_value=0, max_value=255)


def small(most: int) -> st.SearchStrategy[int]:
    return st.integers(min_value=1, max_value=most)


SETTINGS = st.fixed_dictionaries(
    {"protocol": st.integers(min_value=0, max_value=_sim.PROTOCOLS - 1), "mode": NUMBER},
    optional={
        "seed": NUMBER,
        "max_piece": st.sampled_from([1, 7, 100, 3000, 50_000]),
        "timeout_ms": st.sampled_from([1, 50, 400, 3000]),
        "max_requests_in_flight": small(20),
        "max_kb_in_flight": small(200),
        "max_unread_kb": st.sampled_from([8, 64, 512]),
        "watermark_bytes": st.sampled_from([1, 1000, 30_000]),
        "stream_bytes": st.sampled_from([64, 1024, 100_000]),
        "max_leases_per_host": small(8),
        "exchanges_per_shared_lease": small(8),
        "max_shared_leases_per_host": small(4),
        "max_cluster_requests": small(40),
        "max_pending": st.integers(min_value=0, max_value=8),
        "max_lease_kb": small(64),
        "lease_idle_ms": st.sampled_from([1, 100, 3000]),
        "balance": st.integers(min_value=0, max_value=4),
        "mirror_percent": st.sampled_from([10, 100]),
        "bucket_tokens": small(20),
        "asks": small(2),
    },
)
SCRIPTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(TRAFFIC), NUMBER, NUMBER),
        st.tuples(st.sampled_from(TRAFFIC + TROUBLE + LIMITS), NUMBER, NUMBER),
        st.tuples(st.sampled_from(TRAFFIC + TROUBLE + CHANGES), NUMBER, NUMBER),
    ),
    max_size=80,
).map(lambda script: [("connect", 0, 0), *script])


def check(result: dict[str, Any]) -> None:
    """What must hold of any run."""
    assert result["violations"] == []
    if result["lied"]:
        return  # a server changed its replies' bytes, and so perhaps whose they are
    owner = {
        token: number
        for number, client in enumerate(result["clients"])
        for kind, _, token, _ in client["sent"]
        if kind != "H"
    }
    forwarded = Counter(
        token.decode(errors="replace")
        for requests in result["servers"]
        for kind, token in requests
        if kind in "QO" and b"garbage" not in token
    )
    assert all(count == 1 for count in forwarded.values()), "forwarded twice"
    copied = Counter(
        token
        for requests in result["mirrors"]
        for kind, token in requests
        if kind in "QO" and b"garbage" not in token
    )
    assert all(count == 1 for count in copied.values()), "copied twice"
    for number, client in enumerate(result["clients"]):
        check_client(number, client, owner, result)


def check_client(
    number: int, client: dict[str, Any], owner: dict[str, int], result: dict[str, Any]
) -> None:
    waiting = {ident: token for kind, ident, token, _ in client["sent"] if kind == "Q"}
    tokens = {token: ident for ident, token in waiting.items()}
    answered: list[int] = []
    for kind, ident, raw_token in client["received"]:
        token = raw_token.decode(errors="replace")
        if kind not in "RXE":
            assert kind in "Gh" or client["garbage"], kind
            continue
        assert owner.get(token, number) == number, f"{token} belongs to another client"
        if client["garbage"]:
            continue
        replied = ident if result["ids"] else tokens[token]
        assert replied in waiting, f"a reply to {replied}, which nobody asks for"
        assert token in ("", waiting[replied]) or kind == "E", "another request's reply"
        answered.append(replied)
    if client["garbage"]:
        return
    assert len(answered) == len(set(answered)), "answered twice"
    if result["ordered"]:
        assert answered == sorted(answered), "out of order"
    if client["left"] or client["refused"] or client["closed"] == "abort":
        return
    asked = {ident for kind, ident, _, delivered in client["sent"] if kind == "Q" and delivered}
    assert asked <= set(answered), f"never answered: {asked - set(answered)}"


@settings(PROFILE)
@given(setting=SETTINGS, script=SCRIPTS)
# Each of these was an error once.
@example(
    # The connection of an abandoned request broke before an earlier one-way message was on it.
    {"protocol": 5, "mode": 1, "max_piece": 14_850},
    [
        ("connect", 0, 0),
        ("connect", 0, 0),
        ("one_way", 1, 24),
        ("request", 0, 26),
        ("garbage", 0, 0),
    ],
)
@example(
    # A reply waited for a one-way message, which is never answered.
    {"protocol": 6, "mode": 1, "max_leases_per_host": 1, "max_piece": 5_796},
    [
        ("connect", 0, 0),
        ("connect", 0, 0),
        ("request", 1, 40),
        ("one_way", 0, 2),
        ("request", 0, 0),
        ("request", 0, 2),
    ],
)
def test_every_promise_is_kept(setting: dict[str, int], script: Script) -> None:
    check(_sim.run(setting, script))


@pytest.mark.parametrize("protocol", range(_sim.PROTOCOLS))
@pytest.mark.parametrize("mode", range(3))
def test_a_world_without_trouble_answers_everything(protocol: int, mode: int) -> None:
    script: Script = [("connect", 0, 0)] * 4
    # Sizes up to 20,000 bytes; the routes "a", "b", "w", "d" (denied) and "n" (none).
    script += [("request", number, number % 5 + 8 * (number % 6)) for number in range(120)]
    script += [("one_way", number, number % 3) for number in range(30)]
    # All of them at once, so every bound must hold that many.
    bounds = {"max_leases_per_host": 200, "max_pending": 200}
    result = _sim.run({"protocol": protocol, "mode": mode, "max_piece": 5000, **bounds}, script)
    check(result)
    counters = result["counters"]
    assert counters["requests"] == 120
    assert counters["responses_ok"] + counters["responses_exception"] == 72
    assert counters["local_reply_denied"] == counters["local_reply_no_route"] == 24
    assert counters["one_way"] == 30


@pytest.mark.parametrize("protocol", range(_sim.PROTOCOLS))
def test_every_forwarded_request_is_copied(protocol: int) -> None:
    script: Script = [("connect", 0, 0)] * 4
    script += [("request", number, number % 5 + 8 * (number % 4)) for number in range(40)]
    script += [("one_way", number, number % 3) for number in range(30)]
    bounds = {"max_leases_per_host": 100, "max_pending": 100, "stream_bytes": 100_000}
    result = _sim.run({"protocol": protocol, "mode": 0, "mirror_percent": 100, **bounds}, script)
    check(result)
    counters = result["counters"]
    assert counters["mirror_requests"] == 24 + 30
    assert counters["mirror_replies"] == 24
    assert counters["mirror_failures"] == counters["mirror_skipped"] == 0
    forwarded = sorted(itertools.chain(*result["servers"]))
    assert sorted(itertools.chain(*result["mirrors"])) == forwarded


@pytest.mark.parametrize("protocol", range(_sim.PROTOCOLS))
def test_requests_without_a_token_are_answered_and_messages_dropped(protocol: int) -> None:
    script: Script = [("connect", 0, 0)] * 4
    script += [("request", number, 0) for number in range(20)]
    script += [("one_way", number, 0) for number in range(5)]
    bounds = {"max_leases_per_host": 100, "max_pending": 100, "bucket_tokens": 12}
    result = _sim.run({"protocol": protocol, "mode": 0, **bounds}, script)
    check(result)
    counters = result["counters"]
    assert counters["responses_ok"] + counters["responses_exception"] == 12
    assert counters["local_rate_limited"] == counters["local_reply_over_limit"] == 13
    assert counters["one_way"] == 0


def test_the_checks_find_what_is_wrong() -> None:
    script: Script = [("connect", 0, 0), ("request", 0, 0), ("request", 0, 0)]
    for spoil in ("twice", "never", "another's"):
        result = _sim.run({"protocol": 0, "mode": 0}, script)
        check(result)
        received = result["clients"][0]["received"]
        if spoil == "twice":
            received.append(received[0])
        elif spoil == "never":
            received.pop()
        else:
            received[0] = (received[0][0], received[0][1], received[1][2])
        with pytest.raises(AssertionError):
            check(result)
