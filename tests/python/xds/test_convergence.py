"""Whatever the order of changes, answers, refusals and reconnects: in the end a client has exactly
what the server has. Sessions are driven without sockets and clocks, by a model of Envoy."""

from __future__ import annotations

from collections import deque
from typing import Any, TypeAlias

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from metaprotocol.audience import Audience
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.xds import CDS, ECDS, EDS, LDS, Limits
from metaprotocol.xds.cache import ResourceCache
from metaprotocol.xds.offered import Plain
from metaprotocol.xds.schema import Schema
from metaprotocol.xds.session import Session

from tests.python.xds.client import Messages, Response

TYPES = EnvoyTypes.from_binary(find_envoy().path)
MESSAGES = Messages(TYPES)
SCHEMA = Schema(TYPES)

BAD = 13
"""Resources with this mark are refused by every client."""

WILDCARD_TYPES = (CDS, LDS)
NAMED_TYPES = (EDS, ECDS)
NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
MARKS = st.sampled_from([None, 1, 2, 3, BAD])
AUDIENCES = st.sampled_from([None, frozenset({"ours"}), frozenset({"theirs"})])
LIMITS = Limits(response_bytes=150, in_flight=2, settle_seconds=5)

Held: TypeAlias = dict[str, tuple[int, str]]  # name -> mark, version


class Client(RuleBasedStateMachine):
    """One Envoy on an aggregated stream."""

    delta = True

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.cache = ResourceCache(SCHEMA, least=1)
        self.wants: dict[str, set[str]] = {type_url: set() for type_url in NAMED_TYPES}
        self.has: dict[str, Held] = {type_url: {} for type_url in WILDCARD_TYPES + NAMED_TYPES}
        self.version: dict[str, str] = {}
        self.connect()

    # --- what may happen

    @rule(
        changes=st.lists(
            st.tuples(st.sampled_from(WILDCARD_TYPES + NAMED_TYPES), NAMES, MARKS, AUDIENCES),
            min_size=1,
            max_size=6,
        )
    )
    def change(self, changes: list[tuple[str, str, int | None, frozenset[str] | None]]) -> None:
        changed: dict[str, dict[str, Plain | None]] = {}
        for type_url, name, mark, visible_to in changes:
            offered = None
            if mark is not None:
                offered = Plain(MESSAGES.make(type_url, name, mark), visible_to)
            changed.setdefault(type_url, {})[name] = offered
        self.session.on_changes(self.cache.update(changed), self.now)

    @rule()
    def deliver(self) -> None:
        response = self.session.next_response(self.now)
        if response is not None:
            message = "DeltaDiscoveryResponse" if self.delta else "DiscoveryResponse"
            parsed = TYPES.message_class(f"envoy.service.discovery.v3.{message}")
            self.wire.append(Response(TYPES, parsed.FromString(response.payload)))

    @precondition(lambda self: self.wire)
    @rule()
    def answer(self) -> None:
        response = self.wire.popleft()
        self.nonce[response.type_url] = response.nonce
        bad = {name for name, mark in response.marks.items() if mark == BAD}
        error = self.refusal(response.type_url, bad) if bad else None
        self.take(response, bad)
        self.request(response.type_url, nonce=response.nonce, error=error)

    @rule(type_url=st.sampled_from(NAMED_TYPES), name=NAMES)
    def subscribe(self, type_url: str, name: str) -> None:
        if name not in self.wants[type_url]:
            self.wants[type_url].add(name)
            self.request(type_url, nonce=self.current(type_url), subscribe=[name])

    @rule(type_url=st.sampled_from(NAMED_TYPES), name=NAMES)
    def unsubscribe(self, type_url: str, name: str) -> None:
        if name in self.wants[type_url]:
            self.wants[type_url].discard(name)
            self.has[type_url].pop(name, None)
            self.request(type_url, nonce=self.current(type_url), unsubscribe=[name])

    @rule(seconds=st.sampled_from([0.1, 6.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def connect(self) -> None:
        """To the same server, or to another one with the same content."""
        self.session = Session(SCHEMA, self.cache, LIMITS, delta=self.delta)
        self.wire: deque[Response] = deque()
        self.nonce: dict[str, str] = {}
        self.known: set[str] = set()
        for type_url in WILDCARD_TYPES:
            self.request(type_url)
        for type_url in NAMED_TYPES:
            if self.wants[type_url]:
                self.request(type_url, subscribe=sorted(self.wants[type_url]))

    # --- what must hold

    @invariant()
    def what_waits_for_an_answer_is_bounded(self) -> None:
        for watch in self.session.watches.values():
            assert sum(1 for _ in watch.unanswered) <= LIMITS.in_flight

    def teardown(self) -> None:
        if not hasattr(self, "cache"):
            return
        # All that is bad is fixed, and all that is under way arrives.
        for type_url in self.has:
            for name in "abcde":
                entry = self.cache.find(type_url, name)
                if entry is not None and self.mark(type_url, name) == BAD:
                    self.change([(type_url, name, 4, entry.visible_to)])
        for _ in range(300):
            self.deliver()
            if self.wire:
                self.answer()
            else:
                self.now += 1.0
            if self.session.settled and not self.wire and self.now > 20:
                break
        assert self.session.settled, "the session comes to rest"
        assert not any(watch.nacked for watch in self.session.watches.values())
        for type_url, held in self.has.items():
            there = {
                name: self.mark(type_url, name)
                for name in "abcde"
                if self.cache.get(type_url, name, Audience("ours")) is not None
            }
            if type_url in NAMED_TYPES:
                there = {n: mark for n, mark in there.items() if n in self.wants[type_url]}
                if not self.delta:  # which has no way to remove these
                    held = {name: value for name, value in held.items() if name in there}
            assert {name: mark for name, (mark, _) in held.items()} == there, type_url
        # And a client that comes back is sent nothing (in the older protocol: nothing new).
        self.connect()
        self.deliver()
        for response in self.wire:
            held = self.has[response.type_url] if not self.delta else {}
            assert response.marks.items() <= {(name, mark) for name, (mark, _) in held.items()}

    # --- the client

    def take(self, response: Response, bad: set[str]) -> None:
        type_url, held = response.type_url, self.has[response.type_url]
        whole = not self.delta and type_url in WILDCARD_TYPES
        if bad and type_url == EDS:
            return  # takes nothing of it
        if whole:
            for name in held.keys() - response.marks.keys():
                del held[name]
        for name in response.removed:
            held.pop(name, None)
        for name, mark in response.marks.items():
            if mark != BAD and (type_url in WILDCARD_TYPES or name in self.wants[type_url]):
                held[name] = (mark, response.versions[name])
        if not bad:
            self.version[type_url] = response.version

    @staticmethod
    def refusal(type_url: str, bad: set[str]) -> str:
        if type_url in NAMED_TYPES:
            return "something is wrong"
        kind = "cluster" if type_url == CDS else "listener"
        return f"Error adding/updating {kind}(s) " + ", ".join(f"{name}: bad" for name in bad)

    def request(
        self,
        type_url: str,
        nonce: str = "",
        error: str | None = None,
        subscribe: list[str] | None = None,
        unsubscribe: list[str] | None = None,
    ) -> None:
        first = type_url not in self.known
        self.known.add(type_url)
        content: dict[str, Any] = {"type_url": type_url, "response_nonce": nonce}
        if len(self.known) == 1:
            content["node"] = {"id": "n", "metadata": {"NAMESPACE": "ours"}}
        if error is not None:
            content["error_detail"] = {"code": 13, "message": error}
        if self.delta:
            content["resource_names_subscribe"] = subscribe or []
            content["resource_names_unsubscribe"] = unsubscribe or []
            if first:
                held = self.has[type_url]
                versions = {name: version for name, (_, version) in held.items()}
                content["initial_resource_versions"] = versions
        else:
            content["resource_names"] = sorted(self.wants.get(type_url, ()))
            content["version_info"] = self.version.get(type_url, "")
        kind = "Delta" if self.delta else ""
        name = f"envoy.service.discovery.v3.{kind}DiscoveryRequest"
        self.session.receive(TYPES.parse(name, content).SerializeToString(), self.now)

    def current(self, type_url: str) -> str:
        """A change of subscriptions is no answer; in the older protocol it bears the last nonce."""
        return "" if self.delta else self.nonce.get(type_url, "")

    def mark(self, type_url: str, name: str) -> int:
        entry = self.cache.find(type_url, name)
        assert entry is not None
        for mark in (1, 2, 3, 4, BAD):
            content = MESSAGES.make(type_url, name, mark).SerializeToString(deterministic=True)
            if content == entry.content:
                return mark
        raise AssertionError(name)


class SotwClient(Client):
    """The same in the state-of-the-world protocol."""

    delta = False


_SETTINGS = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestDelta = Client.TestCase
TestDelta.settings = _SETTINGS
TestSotw = SotwClient.TestCase
TestSotw.settings = _SETTINGS
