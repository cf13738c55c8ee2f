"""The module's configuration as Python messages."""

from __future__ import annotations

import datetime
import json
import math
from random import Random
from typing import Any

import pytest
from google.protobuf import json_format
from metaprotocol.config.v1 import (
    ClusterPolicy,
    Condition,
    KeyValue,
    Limits,
    Mutation,
    Protocol,
    ProxyConfig,
    Route,
    RouteTable,
    WeightedCluster,
    to_json,
)


def test_a_configuration_is_written_with_the_schemas_own_names() -> None:
    config = ProxyConfig(
        name="dubbo",
        protocol=Protocol(codec="dubbo"),
        default_timeout=datetime.timedelta(seconds=1.5),
        limits=Limits(max_message_bytes=4096),
        route_tables=[
            RouteTable(
                name="default",
                routes=[
                    Route(
                        match=[Condition(key="method", exact="")],
                        weighted_clusters=[WeightedCluster(name="a", weight=0)],
                        request_mutation=[Mutation(set=KeyValue(key="k", value="v"))],
                    )
                ],
            )
        ],
    )
    assert json.loads(to_json(config)) == {
        "name": "dubbo",
        "protocol": {"codec": "dubbo"},
        "default_timeout": "1.500s",
        "limits": {"max_message_bytes": "4096"},
        "route_tables": [
            {
                "name": "default",
                "routes": [
                    {
                        "match": [{"key": "method", "exact": ""}],
                        "weighted_clusters": [{"name": "a", "weight": 0}],
                        "request_mutation": [{"set": {"key": "k", "value": "v"}}],
                    }
                ],
            }
        ],
    }
    assert json_format.Parse(to_json(config), ProxyConfig()) == config


def test_enumerations_are_written_by_name() -> None:
    policy = ClusterPolicy(policy=ClusterPolicy.MAGLEV, maglev_table_size=251)
    assert json.loads(to_json(policy)) == {"policy": "MAGLEV", "maglev_table_size": 251}


def test_a_wrong_field_or_type_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="nmae"):
        ProxyConfig(nmae="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ProxyConfig(name=5)  # type: ignore[arg-type]


def filled(message: Any, random: Random, depth: int = 0) -> Any:
    """The message with any of its fields, at random."""
    for field in message.DESCRIPTOR.fields:
        if random.random() < 0.4 or (depth > 4 and field.message_type is not None):
            continue
        several = field.is_repeated
        for _ in range(random.randint(1, 3) if several else 1):
            if field.message_type is not None:
                part = getattr(message, field.name)
                if field.message_type.full_name == "google.protobuf.Struct":
                    part.update({"a": random.random(), "b": [True, None, "\u2028\x00"]})
                elif field.message_type.full_name == "google.protobuf.Duration":
                    part.FromNanoseconds(random.choice([0, 1, 10**9, -5 * 10**8, 123456789123]))
                elif field.message_type.GetOptions().map_entry:
                    part["key"].SetInParent() if hasattr(part["key"], "SetInParent") else None
                else:
                    filled(part.add() if several else part, random, depth + 1)
                    if not several:
                        part.SetInParent()
                continue
            value: Any
            if field.enum_type is not None:
                value = random.choice([item.number for item in field.enum_type.values])
            elif field.cpp_type == field.CPPTYPE_STRING:
                value = random.choice(["", "text", '\u00e9\u2028\x1b"\\', "\U0001f600"])
            elif field.cpp_type == field.CPPTYPE_BOOL:
                value = random.random() < 0.5
            elif field.cpp_type == field.CPPTYPE_DOUBLE:
                value = random.choice([0.0, 50.0, 0.1, math.inf, -math.inf, math.nan, 1e300])
            else:
                value = random.choice([0, 1, 2**31 - 1])
            if several:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


@pytest.mark.parametrize("kind", [ProxyConfig, ClusterPolicy])
def test_the_text_is_that_of_protobufs_own_writer(kind: type[Any]) -> None:
    random = Random(20)
    for _ in range(300):
        message = filled(kind(), random)
        theirs = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None)
        assert to_json(message) == theirs
