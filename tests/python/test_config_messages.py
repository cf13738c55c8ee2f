"""The module's configuration as Python messages."""

from __future__ import annotations

import datetime
import json

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
