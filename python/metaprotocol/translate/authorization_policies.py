"""Istio's authorization policies, and Aeraki's for Dubbo, to access policies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from metaprotocol.config.v1 import AuthorizationPolicy as EnginePolicy
from metaprotocol.config.v1 import Condition, StringList
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
from metaprotocol.translate.access import AccessPolicy, AccessRule, Clause, OneOf, Requirement
from metaprotocol.translate.patterns import any_of, expression, texts

Written: TypeAlias = AuthorizationPolicy | DubboAuthorizationPolicy
_Write: TypeAlias = Callable[[Sequence[str], bool], Condition]

_SOURCE = "connection.source_address"
_PEER = "connection.peer_uri_san"
_SNI = "connection.sni"
_SPIFFE = "spiffe://"
_HEADER = re.compile(r"request\.headers\[(.+)\]")


def access_policy(written: Written) -> AccessPolicy:
    """What an authorization policy says."""
    rules: Sequence[AuthorizationRule | DubboRule] = written.spec.rules
    reader = _Reader(written.key.namespace)
    asks = written.spec.action == "CUSTOM"
    made = AccessPolicy(
        written,
        # Who cannot be asked has said no.
        EnginePolicy.DENY if asks else getattr(EnginePolicy, written.spec.action),
        [reader.rule(rule, f"spec.rules[{index}]") for index, rule in enumerate(rules)],
    )
    if isinstance(written, DubboAuthorizationPolicy):
        return replace(made, codec="dubbo")
    selector = written.spec.selector
    provider = written.spec.provider
    targets = [*(written.spec.target_refs or ())]
    if written.spec.target_ref is not None:
        targets.append(written.spec.target_ref)
    return replace(
        made,
        labels=selector.match_labels if selector is not None else {},
        services=frozenset(
            # Few know which of the two describes a service.
            target.name
            for target in targets
            if target.kind in ("Service", "ServiceEntry")
        )
        if targets
        else None,
        provider=provider.name if provider is not None else "",
        known_to_istio=True,
    )


class _Reader:
    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._written_by: dict[str, _Write] = {
            "principals": _principals,
            "namespaces": _namespaces,
            "service_accounts": self._service_accounts,
            "ip_blocks": _addresses,
            "remote_ip_blocks": _addresses,
        }
        self._by_key: dict[str, _Write] = {
            "source.ip": _addresses,
            "remote.ip": _addresses,
            "source.principal": _principals,
            "source.namespace": _namespaces,
            "source.serviceAccount": self._service_accounts,
            "connection.sni": lambda values, invert: texts(_SNI, values, invert),
        }

    def rule(self, rule: AuthorizationRule | DubboRule, field: str) -> AccessRule:
        """A rule that is written at ``field``."""
        senders: Sequence[From | FromDubbo] = rule.from_ or ()
        operations: Sequence[To | ToDubbo] = rule.to or ()
        return AccessRule(
            field,
            [
                self._sender(item.source, f"{field}.from[{index}].source")
                for index, item in enumerate(senders)
            ],
            [
                _operation(item.operation, f"{field}.to[{index}].operation")
                for index, item in enumerate(operations)
            ],
            [
                self._condition(item, f"{field}.when[{index}]")
                for index, item in enumerate(getattr(rule, "when", None) or ())
            ],
        )

    def _sender(self, source: DubboSource, field: str) -> Clause:
        requirements = [
            Requirement(write(item.values, item.invert), item.field)
            for name, write in self._written_by.items()
            for item in _given(source, name, field)
        ]
        return Clause(requirements, untold=_fields(source, field, "request_principals"))

    def _condition(self, item: AuthorizationCondition, field: str) -> Clause:
        given = [
            one
            for one in (
                OneOf(item.values, False, f"{field}.values"),
                OneOf(item.not_values, True, f"{field}.notValues"),
            )
            if one.values
        ]
        if item.key == "destination.port":
            return Clause(ports=given)
        write = self._by_key.get(item.key)
        if header := _HEADER.fullmatch(item.key):
            write = partial(texts, header[1])
        if write is None:
            return Clause(untold=[f"{field}.key"])
        return Clause([Requirement(write(one.values, one.invert), one.field) for one in given])

    def _service_accounts(self, values: Sequence[str], invert: bool) -> Condition:
        wanted = []
        for value in values:
            own, slash, name = value.rpartition("/")
            place = expression(own if slash else self._namespace)
            wanted.append(f"spiffe://[^/]+/ns/{place}/sa/{expression(name)}")
        return Condition(key=_PEER, regex=any_of(wanted), invert=invert)


def _operation(operation: AuthorizationOperation | DubboOperation, field: str) -> Clause:
    return Clause(
        interfaces=list(_given(operation, "interfaces", field)),
        methods=list(_given(operation, "methods", field)),
        ports=list(_given(operation, "ports", field)),
        untold=_fields(operation, field, "hosts", "paths"),
    )


def _given(part: object, name: str, field: str) -> Iterator[OneOf]:
    """The values of ``name``, and those of its negation, as far as there are any."""
    for attribute, invert in ((name, False), (f"not_{name}", True)):
        if values := getattr(part, attribute, None):
            yield OneOf(values, invert, f"{field}.{_camel(attribute)}")


def _fields(part: object, field: str, *names: str) -> list[str]:
    return [item.field for name in names for item in _given(part, name, field)]


def _principals(values: Sequence[str], invert: bool) -> Condition:
    return texts(_PEER, values, invert, _SPIFFE)


def _namespaces(values: Sequence[str], invert: bool) -> Condition:
    wanted = (f"spiffe://[^/]+/ns/{expression(value)}/sa/[^/]+" for value in values)
    return Condition(key=_PEER, regex=any_of(wanted), invert=invert)


def _addresses(values: Sequence[str], invert: bool) -> Condition:
    return Condition(key=_SOURCE, ip_in=StringList(values=values), invert=invert)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
