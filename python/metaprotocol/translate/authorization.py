"""Authorization policies to the engine's, for one port of one service.

What a rule says and nothing here can tell (of HTTP, of tokens) has in it no value that a request
could have: with ALLOW the rule lets nothing through, with DENY it denies whatever the rest of it is
about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import TypeAlias

from metaprotocol.config.v1 import (
    Authorization,
    Condition,
    StringList,
)
from metaprotocol.config.v1 import (
    AuthorizationPolicy as EnginePolicy,
)
from metaprotocol.config.v1 import (
    AuthorizationRule as EngineRule,
)
from metaprotocol.resources.authorization import (
    AuthorizationCondition,
    AuthorizationOperation,
    AuthorizationPolicy,
    AuthorizationRule,
    DubboAuthorizationPolicy,
    DubboOperation,
    DubboRule,
    DubboSource,
    From,
    FromDubbo,
    To,
    ToDubbo,
)
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.protocols import CodecInfo
from metaprotocol.translate.reporting import Report

Policy: TypeAlias = AuthorizationPolicy | DubboAuthorizationPolicy
_Write: TypeAlias = Callable[[Sequence[str], bool], Condition]

SOURCE = "connection.source_address"
PEER = "connection.peer_uri_san"
SNI = "connection.sni"
_SPIFFE = "spiffe://"
_GENERIC = ("$invoke", "$invokeAsync")
"""Methods whose calls say as their first argument which one they mean."""
_HEADER = re.compile(r"request\.headers\[(.+)\]")
_MOST_RULES = 10_000
"""Of one policy, once the senders are combined with the operations."""


def labels_of(policy: Policy) -> dict[str, str]:
    """Which pods it is for: the labels that they have."""
    selector = policy.spec.selector if isinstance(policy, AuthorizationPolicy) else None
    return selector.match_labels if selector is not None else {}


def selects(policy: Policy, service: Service, port: Port, codec: CodecInfo) -> bool | None:
    """Whether a policy of the service's namespace is for a port; None: perhaps, or for some of its
    pods."""
    if isinstance(policy, DubboAuthorizationPolicy):
        return codec.name == "dubbo"
    if policy.spec.target_ref is not None or policy.spec.target_refs is not None:
        return False  # for gateways
    labels = labels_of(policy)
    if port.pods:  # which may have more labels
        known = {name: port.pods.get(name) for name in labels}
        if any(value not in (None, labels[name]) for name, value in known.items()):
            return False
        return None if None in known.values() else True
    selected = {labels.items() <= set(endpoint) for endpoint in service.endpoint_labels}
    if not labels:
        return True
    return selected.pop() if len(selected) == 1 else None


def authorization(
    policies: Sequence[Policy], service: Service, port: Port, codec: CodecInfo, report: Report
) -> Authorization | None:
    """What the policies for a port come to; None if there is none."""
    made = Authorization()
    for policy in policies:
        translator = _PolicyTranslator(policy, port, codec, report)
        whole = selects(policy, service, port, codec)
        made.policies.append(translator.translate() if whole else translator.for_some_pods())
    return made if policies else None


class _PolicyTranslator:
    def __init__(self, policy: Policy, port: Port, codec: CodecInfo, report: Report) -> None:
        self._policy = policy
        self._port = port
        self._codec = codec
        self._report = report
        self._denies = policy.spec.action == "DENY"

    def translate(self) -> EnginePolicy:
        made = self._empty()
        rules: Sequence[AuthorizationRule | DubboRule] = self._policy.spec.rules
        if not rules:
            what = "denies nothing" if self._denies else "lets no request through"
            if made.action != EnginePolicy.AUDIT:
                self._report.warning(
                    self._policy, "no-rules", "spec.rules",
                    f"there are none: it {what}", fix="`rules: [{}]` is for every request",
                )  # fmt: skip
        for index, rule in enumerate(rules):
            for match in self._rule(rule, f"spec.rules[{index}]"):
                if len(made.rules) >= _MOST_RULES:
                    self._report.error(
                        self._policy, "too-many-rules", "spec.rules",
                        f"more than {_MOST_RULES} combinations of senders and operations",
                        fix="split the policy",
                    )  # fmt: skip
                    del made.rules[:]
                    if self._denies:
                        made.rules.append(EngineRule())
                    return made
                made.rules.append(EngineRule(match=match))
        return made

    def for_some_pods(self) -> EnginePolicy:
        """The same where it cannot be told whether it is for a request: which pod that goes to is
        not known yet."""
        self._report.warning(
            self._policy, "part-of-a-service", "spec.selector",
            f"may be for some of the pods of {self._port.owner.key} alone; "
            + ("it denies all requests" if self._denies else "it lets none through"),
            fix="select all pods of a service, by labels that it selects them by",
        )  # fmt: skip
        made = self._empty()
        if self._denies:
            made.rules.append(EngineRule())
        return made

    def _empty(self) -> EnginePolicy:
        key = self._policy.key
        return EnginePolicy(
            name=f"{key.namespace}/{key.name}"[:255],
            action=self._policy.spec.action,
        )

    # --- rules

    def _rule(self, rule: AuthorizationRule | DubboRule, place: str) -> Iterator[list[Condition]]:
        """What must hold, in each of the ways to meet the rule."""
        written_from: Sequence[From | FromDubbo] = rule.from_ or ()
        written_to: Sequence[To | ToDubbo] = rule.to or ()
        senders = [
            self._source(item.source, f"{place}.from[{index}].source")
            for index, item in enumerate(written_from)
        ]
        operations = [
            way
            for index, item in enumerate(written_to)
            for way in self._operation(item.operation, f"{place}.to[{index}].operation")
        ]
        when = [
            self._condition(item, f"{place}.when[{index}]")
            for index, item in enumerate(getattr(rule, "when", None) or ())
        ]
        for sender, operation in product(senders or [[]], operations or [[]]):
            parts = [sender, operation, *when]
            if all(part is not None for part in parts):
                yield [condition for part in parts if part is not None for condition in part]

    def _source(self, source: DubboSource, place: str) -> list[Condition] | None:
        made: list[Condition] = []
        for name, key, write in (
            ("principals", PEER, _principals),
            ("namespaces", PEER, _namespaces),
            ("service_accounts", PEER, self._service_accounts),
            ("ip_blocks", SOURCE, _addresses),
            ("remote_ip_blocks", SOURCE, _addresses),
        ):
            for field, invert in ((name, False), (f"not_{name}", True)):
                values = getattr(source, field, None)
                if values:
                    made.append(write(key, values, invert))
        return self._without(source, ("request_principals",), made, place)

    def _operation(
        self, operation: AuthorizationOperation | DubboOperation, place: str
    ) -> list[list[Condition] | None]:
        """The ways to meet it."""
        parts: list[list[list[Condition]]] = []
        for name, write in (("interfaces", self._interfaces), ("methods", self._methods)):
            for field, invert in ((name, False), (f"not_{name}", True)):
                values = getattr(operation, field, None)
                if values:
                    parts.append(write(values, invert))
        here = str(self._port.number)
        ports = getattr(operation, "ports", None)
        not_ports = getattr(operation, "not_ports", None)
        if (ports and here not in ports) or (not_ports and here in not_ports):
            return [None]
        ways = [[condition for part in way for condition in part] for way in product(*parts)]
        if self._without(operation, ("hosts", "paths"), [], place) is None:
            return [None]
        return list(ways)

    def _methods(self, values: Sequence[str], invert: bool) -> list[list[Condition]]:
        """A generic call of Dubbo's is one of the method ``$invoke``, and at the server one of the
        method that it names. What is denied is denied under either name."""
        method = texts("method", values, invert)
        if self._codec.name != "dubbo":
            return [[method]]
        called = texts("called_method", values, invert)
        if invert:
            return [[method]] if self._denies else [[method, called]]
        if not self._denies:
            return [[method]]
        return [[method], [called]] if any(map(_may_be_generic, values)) else [[called]]

    def _interfaces(self, values: Sequence[str], invert: bool) -> list[list[Condition]]:
        """Dubbo's servers for Java look for the interface in the attachment ``path``, if there is
        one, and not where everybody else does."""
        interface = texts("interface", values, invert)
        if self._codec.name != "dubbo":
            return [[interface]]
        path = texts("path", values, invert)
        there = Condition(key="path", present=True)
        if self._denies:
            return [[interface], [there, path] if invert else [path]]
        if invert:
            return [[interface, path]]
        return [[interface, Condition(key="path", absent=True)], [interface, path]]

    def _without(
        self, part: object, fields: Iterable[str], made: list[Condition], place: str
    ) -> list[Condition] | None:
        """``made``, or None where something besides must hold that cannot be told."""
        possible: list[Condition] | None = made
        for name in fields:
            for field in (name, f"not_{name}"):
                if getattr(part, field, None):
                    possible = self._cannot_tell(f"{place}.{_camel(field)}", possible)
        return possible

    def _cannot_tell(self, place: str, made: list[Condition] | None) -> list[Condition] | None:
        what = (
            "the rule denies whatever the rest is about"
            if self._denies
            else "it lets nothing through"
        )
        self._report.warning(
            self._policy, "not-in-protocol", place,
            f"{self._codec.name} does not say this; {what}", fix="take it away",
        )  # fmt: skip
        return made if self._denies else None

    # --- conditions

    def _condition(self, item: AuthorizationCondition, place: str) -> list[Condition] | None:
        header = _HEADER.fullmatch(item.key)
        key = item.key
        if header is not None:
            return _both(item, lambda values, invert: texts(header[1], values, invert))
        if key in ("source.ip", "remote.ip"):
            return _both(item, lambda values, invert: _addresses(SOURCE, values, invert))
        if key == "source.principal":
            return _both(item, lambda values, invert: _principals(PEER, values, invert))
        if key == "source.namespace":
            return _both(item, lambda values, invert: _namespaces(PEER, values, invert))
        if key == "source.serviceAccount":
            return _both(item, lambda values, invert: self._service_accounts(PEER, values, invert))
        if key == "connection.sni":
            return _both(item, lambda values, invert: texts(SNI, values, invert))
        if key == "destination.port":
            here = str(self._port.number)
            holds = (not item.values or here in item.values) and here not in item.not_values
            return [] if holds else None
        return self._cannot_tell(f"{place}.key", [])

    def _service_accounts(self, key: str, values: Sequence[str], invert: bool) -> Condition:
        namespace = self._policy.key.namespace
        wanted = []
        for value in values:
            own, slash, name = value.rpartition("/")
            place = _expression(own if slash else namespace)
            wanted.append(f"spiffe://[^/]+/ns/{place}/sa/{_expression(name)}")
        return Condition(key=key, regex=_any_of(wanted), invert=invert)


def _both(item: AuthorizationCondition, write: _Write) -> list[Condition]:
    made = []
    if item.values:
        made.append(write(item.values, False))
    if item.not_values:
        made.append(write(item.not_values, True))
    return made


def texts(key: str, values: Sequence[str], invert: bool, before: str = "") -> Condition:
    """That a value is one of some, each exact, ``abc*``, ``*abc`` or ``*``, with ``before`` before
    it."""
    made = Condition(key=key, invert=invert)
    if "*" in values:
        made.present = True
    elif not any(value.startswith("*") or value.endswith("*") for value in values):
        made.one_of.CopyFrom(StringList(values=[before + value for value in values]))
    elif len(values) > 1:
        made.regex = _any_of(re.escape(before) + _expression(value) for value in values)
    elif values[0].endswith("*"):
        made.prefix = before + values[0][:-1]
    elif before:
        made.regex = _any_of([re.escape(before) + _expression(values[0])])
    else:
        made.suffix = values[0][1:]
    return made


def _principals(key: str, values: Sequence[str], invert: bool) -> Condition:
    return texts(key, values, invert, _SPIFFE)


def _namespaces(key: str, values: Sequence[str], invert: bool) -> Condition:
    wanted = (f"spiffe://[^/]+/ns/{_expression(value)}/sa/[^/]+" for value in values)
    return Condition(key=key, regex=_any_of(wanted), invert=invert)


def _addresses(key: str, values: Sequence[str], invert: bool) -> Condition:
    return Condition(key=key, ip_in=StringList(values=values), invert=invert)


def _expression(value: str) -> str:
    """Of a part of a value between two slashes, or of all of it."""
    if value == "*":
        return ".+"
    if value.endswith("*"):
        return re.escape(value[:-1]) + ".*"
    if value.startswith("*"):
        return ".*" + re.escape(value[1:])
    return re.escape(value)


def _may_be_generic(value: str) -> bool:
    return any(re.fullmatch(_expression(value), name) for name in _GENERIC)


def _any_of(expressions: Iterable[str]) -> str:
    # A newline is a character like any other: it must not lead past a denial.
    return f"(?s:{'|'.join(expressions)})"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
