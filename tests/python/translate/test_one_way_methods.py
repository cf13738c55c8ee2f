"""Methods without a reply, which Thrift's messages do not tell: said by a MetaRouter, or for all
services of a protocol."""

from __future__ import annotations

from typing import Any

from metaprotocol.translate.naming import FILTER

from tests.python.translate.support import Translated, router, service, translated

THRIFT = "tcp-metaprotocol-thrift"
ROUTER = router("[]", extra="  oneWayMethods: [note, 'Stock:tell']")


def options(made: Translated) -> Any:
    (name,) = made.names(FILTER)
    return made.proxy(name)["protocol"].get("options")


def test_a_metarouter_names_them() -> None:
    made = translated(service(port_name=THRIFT) + ROUTER)
    assert options(made) == {"one_way_methods": ["note", "Stock:tell"]}
    assert made.codes == []


def test_they_are_added_to_those_of_the_protocol() -> None:
    protocol = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: thrift}
spec:
  protocol: thrift
  codec: thrift
  options: {check_frames: false, one_way_methods: [log, note]}
---
"""
    made = translated(service(port_name=THRIFT) + ROUTER + protocol)
    assert options(made) == {
        "check_frames": False,
        "one_way_methods": ["log", "note", "Stock:tell"],
    }


def test_a_protocol_that_says_it_itself_needs_none() -> None:
    made = translated(service() + ROUTER)
    assert options(made) is None
    assert made.codes == ["one-way-methods"]
