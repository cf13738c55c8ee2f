"""Plans: what is to become of requests, apart from the kind of object that says so."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from metaprotocol import translate
from metaprotocol.config.v1 import Route, RouteTable
from metaprotocol.resources import MetaRouter
from metaprotocol.translate.meta_routers import route_plan
from metaprotocol.translate.reporting import Report

from .support import read, router, service, translated, written_at

EVERYTHING = """
  - name: all of it
    match:
      attributes:
        method: {exact: getOne}
        interface: {oneOf: [a, b]}
        number: {range: {start: 1, end: 5}}
    route:
    - {destination: {host: orders.shop.svc.cluster.local, subset: v1}, weight: 40}
    - {destination: {host: orders.shop.svc.cluster.local}, weight: 60}
    mirror: {host: orders.shop.svc.cluster.local}
    mirrors: [{destination: {host: orders.shop.svc.cluster.local}}]
    timeout: 2s
    retries: {attempts: 3, perTryTimeout: 1s, backoff: 10ms, retryOn: "lost,70"}
    fault:
      delay: {percentage: {value: 1}, fixedDelay: 1s}
      abort: {percentage: {value: 1}}
    requestMutation: [{key: a, value: b}]
    requestMutationAdd: [{key: c, value: d}]
    requestMutationRemove: [e]
    responseMutation: [{key: f, value: g}]
    responseMutationAdd: [{key: h, value: i}]
    responseMutationRemove: [j]
  - name: answered
    directReply: {kind: denied, text: not here}
"""
LIMITS = """
  localRateLimit:
    tokenBucket: {maxTokens: 5, fillInterval: 1s}
    conditions:
    - match: {attributes: {method: {prefix: get}, interface: {exact: a}}}
      tokenBucket: {maxTokens: 1, fillInterval: 1s}
  globalRateLimit:
    match: {attributes: {method: {suffix: One}, interface: {exact: a}}}
    domain: d
    rateLimitService: outbound|8081||rls
    descriptors: [{property: method, descriptorKey: m}, {property: interface, descriptorKey: i}]
    conditions:
    - match: {attributes: {method: {prefix: put}}}
      descriptors:
      - {value: writes, descriptorKey: kind, also: [{property: interface, descriptorKey: i}]}
"""


def meta_router(routes: str = EVERYTHING, extra: str = LIMITS) -> MetaRouter:
    (made,) = read(router(routes, extra=extra))
    assert isinstance(made, MetaRouter)
    return made


def paths(message: Message, here: str = "") -> Iterator[str]:
    """The engine's paths of all parts of a message."""
    for field, value in message.ListFields():
        many = field.is_repeated
        for index, item in enumerate(value) if many else [(0, value)]:
            path = f"{here}.{field.name}{f'[{index}]' if many else ''}".lstrip(".")
            yield path
            if isinstance(item, Message) and not isinstance(item, Duration):
                yield from paths(item, path)


def test_every_part_of_a_plan_knows_the_field_it_comes_from() -> None:
    written = meta_router()
    report = Report()
    plan = route_plan(written, report)
    assert not report.diagnostics
    table = RouteTable(routes=[planned.message for planned in plan.routes])
    assert plan.local_rate_limit is not None
    assert plan.global_rate_limit is not None
    table.local_rate_limit.CopyFrom(plan.local_rate_limit)
    table.global_rate_limit.CopyFrom(plan.global_rate_limit.message)
    table.routes[0].mirrors.add(cluster="x")
    table.routes[0].weighted_clusters.add(name="x")
    content = written.to_dict()
    found = {}
    for path in paths(table):
        route = None
        if match := re.match(r"routes\[(\d+)\]", path):
            route = table.routes[int(match[1])]
        place = plan.place(path, route)
        assert place.owner is written
        assert written_at(content, place.field), f"{path} is said to be at {place.field}"
        found[path] = place.field
    assert found["routes[0].match[0].one_of"] == "spec.routes[0].match.attributes.interface.oneOf"
    assert found["routes[0].match[2].range.start"] == (
        "spec.routes[0].match.attributes.number.range"
    )
    assert found["routes[0].request_mutation[0].remove"] == "spec.routes[0].requestMutationRemove"
    assert found["routes[0].request_mutation[1].set.key"] == "spec.routes[0].requestMutation"
    assert found["routes[0].response_mutation[2].add_if_absent"] == (
        "spec.routes[0].responseMutationAdd"
    )
    assert found["routes[0].retry.per_try_timeout"] == "spec.routes[0].retries"
    assert found["routes[1].direct_reply.kind"] == "spec.routes[1].directReply"
    assert found["local_rate_limit.rules[0].match[1].prefix"] == (
        "spec.localRateLimit.conditions[0].match.attributes.method.prefix"
    )
    assert found["global_rate_limit.match[0].exact"] == (
        "spec.globalRateLimit.match.attributes.interface.exact"
    )
    rule, written_in = "global_rate_limit.rules[0]", "spec.globalRateLimit.conditions[0]"
    assert found[f"{rule}.match[0].prefix"] == f"{written_in}.match.attributes.method.prefix"
    assert found[f"{rule}.descriptors[0].value"] == f"{written_in}.descriptors[0].value"
    assert found[f"{rule}.descriptors[0].also[0].key"] == (
        f"{written_in}.descriptors[0].also[0].property"
    )


def test_destinations_are_planned_as_they_are_written() -> None:
    plan = route_plan(meta_router(), Report())
    first, second = plan.routes[0].destinations
    assert (first.host, first.subset, first.port, first.weight) == (
        "orders.shop.svc.cluster.local", "v1", 0, 40,
    )  # fmt: skip
    assert second.field == "spec.routes[0].route[1].destination"
    assert [mirror.field for mirror in plan.routes[0].mirrors] == [
        "spec.routes[0].mirror",
        "spec.routes[0].mirrors[0].destination",
    ]
    assert not plan.routes[1].destinations


@pytest.mark.parametrize(
    "path",
    ["", "routes", "routes[7].match[0]", "routes[0].match[99].regex", "local_rate_limit.rules[5]",
     "global_rate_limit.what[3]", "nothing[1].at.all", "routes[0].", "[3]"],
)  # fmt: skip
def test_what_the_plan_has_not_is_at_the_nearest_field(path: str) -> None:
    written = meta_router()
    place = route_plan(written, Report()).place(path, Route())
    assert written_at(written.to_dict(), place.field)


def test_a_limits_condition_that_the_engine_rejects_is_told_of_its_field() -> None:
    extra = """
  localRateLimit:
    conditions:
    - match: {attributes: {interface: {exact: a}, method: {regex: "a{1001}"}}}
      tokenBucket: {maxTokens: 1, fillInterval: 1s}
"""
    result = translated(service() + router("[]", extra=extra))
    (found,) = result.said("rejected")
    assert found.field == "spec.localRateLimit.conditions[0].match.attributes.method.regex"
    assert found.fix == "every request gets an error until it is fixed"


def test_what_is_made_of_plans_and_policies_knows_no_kind_of_resource_that_says_them() -> None:
    """So that another kind is one more reader, and nothing else."""
    folder = Path(translate.__file__).parent
    kinds = {
        "MetaRouter", "MetaRoute", "meta_router",
        "DestinationRule", "destination_rule", "TrafficPolicy",
        "AuthorizationPolicy", "DubboAuthorizationPolicy",
    }  # fmt: skip
    for name in (
        "plan", "policy", "access", "routes", "filters", "istio", "clusters", "authorization",
        "translator",
    ):  # fmt: skip
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module != "metaprotocol.config.v1"
            for alias in node.names
        }
        modules = {
            (node.module or "").rpartition(".")[2]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
        }
        assert not kinds & (names | imported | modules), name
