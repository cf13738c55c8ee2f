"""Access policies to the engine's, for one port of one service.

What a rule says and nothing here can tell (of HTTP, of tokens) has in it no value that a request
could have: with ALLOW the rule lets nothing through, with DENY it denies whatever the rest of it is
about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, product
from typing import TypeAlias

from metaprotocol.config.v1 import AuthorizationPolicy as EnginePolicy
from metaprotocol.config.v1 import AuthorizationRule as EngineRule
from metaprotocol.config.v1 import Condition
from metaprotocol.resources import Resource
from metaprotocol.translate.access import AccessPolicy, AccessRule, Clause, OneOf, Requirement
from metaprotocol.translate.faults import about
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.patterns import any_name_in_brpc, expression, texts
from metaprotocol.translate.plan import Place
from metaprotocol.translate.protocols import CodecInfo
from metaprotocol.translate.reporting import Report

_GENERIC = ("$invoke", "$invokeAsync")
"""Methods whose calls say as their first argument which one they mean."""
_METHOD = "method"
_CALLED_IN_BRPC = ("interface", "service", _METHOD)
_MOST_RULES = 10_000
"""Of one policy, once the senders are combined with the operations."""

_Way: TypeAlias = list[Requirement]
"""What must hold: one of several ways to meet something."""


@dataclass
class MadePolicy:
    """A policy of the engine's, and where it comes from."""

    owner: Resource
    message: EnginePolicy
    provider: str = ""
    """Who is asked about requests that meet it; empty: nobody."""
    rules: list[tuple[str, list[str]]] = field(default_factory=list)
    """Of each of its rules the field, and those of its conditions."""

    def add(self, rule: AccessRule, way: Sequence[Requirement]) -> None:
        """Adds a way to meet a rule."""
        self.message.rules.append(EngineRule(match=[item.condition for item in way]))
        self.rules.append((rule.field, [item.field for item in way]))

    def place(self, rule: int | None, condition: int | None) -> Place:
        """Where something is written, by its position in the message."""
        if rule is None or rule >= len(self.rules):
            return Place(self.owner, "spec.rules")
        whole, parts = self.rules[rule]
        known = condition is not None and condition < len(parts)
        return Place(self.owner, parts[condition or 0] if known else whole)


def selects(policy: AccessPolicy, service: Service, port: Port, codec: CodecInfo) -> bool | None:
    """Whether a policy of the service's namespace is for a port; None: perhaps, or for some of its
    pods."""
    return policy.codec in ("", codec.name) and selects_in_any_protocol(policy, service, port)


def selects_in_any_protocol(policy: AccessPolicy, service: Service, port: Port) -> bool | None:
    """The same, whatever is spoken at the port."""
    if policy.services is not None:
        return any(
            key.namespace == policy.owner.key.namespace and key.name in policy.services
            for key in (owner.key for owner in service.owners)
        )
    return not policy.labels or pods_have(policy.labels, service, port)


def pods_have(labels: Mapping[str, str], service: Service, port: Port) -> bool | None:
    """Whether the pods that serve a port have these labels; None: perhaps, or some of them."""
    if port.pods:  # which may have more labels
        known = {name: port.pods.get(name) for name in labels}
        if any(value not in (None, labels[name]) for name, value in known.items()):
            return False
        return None if None in known.values() else True
    selected = {labels.items() <= set(endpoint) for endpoint in service.endpoint_labels}
    return selected.pop() if len(selected) == 1 else None


def authorization(
    policies: Sequence[AccessPolicy],
    service: Service,
    port: Port,
    codec: CodecInfo,
    report: Report,
) -> list[MadePolicy]:
    """The engine's policies for a port."""
    made = []
    for policy in policies:
        with about(policy.owner):
            whole = selects(policy, service, port, codec)
            if whole is not False:
                translator = _PolicyTranslator(policy, port, codec, report)
                made.append(translator.translate() if whole else translator.for_some_pods())
    return made


class _PolicyTranslator:
    def __init__(self, policy: AccessPolicy, port: Port, codec: CodecInfo, report: Report) -> None:
        self._policy = policy
        self._port = port
        self._codec = codec
        self._report = report
        self._denies = policy.denies

    def translate(self) -> MadePolicy:
        policy = self._policy
        made = self._empty()
        if not policy.rules and policy.action != EnginePolicy.AUDIT:
            what = (
                "asks about nothing" if policy.provider
                else "denies nothing" if self._denies
                else "lets no request through"
            )  # fmt: skip
            self._report.warning(
                policy.owner, "no-rules", "spec.rules",
                f"there are none: it {what}", fix="`rules: [{}]` is for every request",
            )  # fmt: skip
        for rule in policy.rules:
            for way in self._rule(rule):
                if len(made.rules) >= _MOST_RULES:
                    self._report.error(
                        policy.owner, "too-many-rules", "spec.rules",
                        f"more than {_MOST_RULES} combinations of senders and operations",
                        fix="split the policy",
                    )  # fmt: skip
                    return self._for_everything()
                made.add(rule, way)
        return made

    def for_some_pods(self) -> MadePolicy:
        """The same where it cannot be told whether it is for a request: which pod that goes to is
        not known yet."""
        self._report.warning(
            self._policy.owner, "part-of-a-service", "spec.selector",
            f"may be for some of the pods of {self._port.owner.key} alone; "
            + (
                "it is asked about all requests" if self._policy.provider
                else "it denies all requests" if self._denies
                else "it lets none through"
            ),
            fix="select all pods of a service, by labels that it selects them by",
        )  # fmt: skip
        return self._for_everything()

    def _empty(self) -> MadePolicy:
        key = self._policy.owner.key
        name = f"{key.namespace}/{key.name}"[:255]
        message = EnginePolicy(name=name, action=self._policy.action)
        return MadePolicy(self._policy.owner, message, self._policy.provider)

    def _for_everything(self) -> MadePolicy:
        """One that denies every request, or lets none through."""
        made = self._empty()
        if self._denies:
            made.add(AccessRule("spec.rules"), ())
        return made

    # --- rules

    def _rule(self, rule: AccessRule) -> Iterator[_Way]:
        """The ways to meet a rule."""
        senders = [self._ways(clause) for clause in rule.senders]
        operations = [self._ways(clause) for clause in rule.operations]
        besides = [self._ways(clause) for clause in rule.besides]
        anything: list[list[_Way]] = [[[]]]
        for parts in product(
            chain.from_iterable(senders or anything),
            chain.from_iterable(operations or anything),
            *besides,
        ):
            yield [requirement for part in parts for requirement in part]

    def _ways(self, clause: Clause) -> list[_Way]:
        """The ways to meet a clause; none: it cannot be met."""
        here = str(self._port.number)
        if any((here in ports.values) == ports.invert for ports in clause.ports):
            return []
        untold = [*clause.untold, *self._methods_untold(clause)]
        for place in untold:
            what = (
                "the rule asks about whatever the rest is about"
                if self._policy.provider
                else "the rule denies whatever the rest is about"
                if self._denies
                else "it lets nothing through"
            )
            self._report.warning(
                self._policy.owner, "not-in-protocol", place,
                f"{self._codec.name} does not say this; {what}", fix="take it away",
            )  # fmt: skip
        if untold and not self._denies:
            return []
        parts = [[[self._besides(item) for item in clause.requirements]]]
        parts += [self._interfaces(wanted) for wanted in clause.interfaces]
        if _METHOD in self._codec.metadata_keys:
            parts += [self._methods(wanted) for wanted in clause.methods]
        return [[requirement for part in way for requirement in part] for way in product(*parts)]

    def _methods_untold(self, clause: Clause) -> list[str]:
        """Where methods are written, if the protocol has none: whatever clients call so is theirs
        to choose."""
        known = _METHOD in self._codec.metadata_keys
        return [] if known else [wanted.field for wanted in clause.methods]

    def _besides(self, wanted: Requirement) -> Requirement:
        """A condition on the request's metadata. Servers of bRPC know a method by other names."""
        condition = wanted.condition
        if self._codec.name != "brpc" or condition.key not in _CALLED_IN_BRPC:
            return wanted
        # What is denied, or all but allowed, is so under each name.
        if self._denies == condition.invert:
            return wanted
        return Requirement(any_name_in_brpc(condition), wanted.field)

    def _methods(self, wanted: OneOf) -> list[_Way]:
        """A generic call of Dubbo's is one of the method ``$invoke``, and at the server one of the
        method that it names. What is denied is denied under either name."""
        method = self._besides(_texts(_METHOD, wanted))
        if self._codec.name != "dubbo":
            return [[method]]
        called = _texts("called_method", wanted)
        if wanted.invert:
            return [[method]] if self._denies else [[method, called]]
        if not self._denies:
            return [[method]]
        return [[method], [called]] if any(map(_may_be_generic, wanted.values)) else [[called]]

    def _interfaces(self, wanted: OneOf) -> list[_Way]:
        """Dubbo's servers for Java look for the interface in the attachment ``path``, if there is
        one, and not where everybody else does."""
        interface = _texts("interface", wanted)
        if self._codec.name != "dubbo":
            return [[interface]]
        path = _texts("path", wanted)
        there = Requirement(Condition(key="path", present=True), wanted.field)
        absent = Requirement(Condition(key="path", absent=True), wanted.field)
        if self._denies:
            return [[interface], [there, path] if wanted.invert else [path]]
        if wanted.invert:
            return [[interface, path]]
        return [[interface, absent], [interface, path]]


def _texts(key: str, wanted: OneOf) -> Requirement:
    return Requirement(texts(key, wanted.values, wanted.invert), wanted.field)


def _may_be_generic(value: str) -> bool:
    return any(re.fullmatch(expression(value), name) for name in _GENERIC)
