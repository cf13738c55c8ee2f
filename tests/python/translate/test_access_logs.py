"""Access logs, from the resources that ask for them to the engine's configuration."""

from __future__ import annotations

from typing import Any

from metaprotocol.resources import load_text
from metaprotocol.translate.access_logs import DEFAULT_FORMAT
from metaprotocol.translate.naming import CLUSTER, FILTER

from tests.python.translate.support import Translated, router, service, translated

PROTOCOL = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: dubbo}
spec:
  protocol: dubbo
  codec: dubbo
  accessLogs: [{}]
---
"""


def logs(made: Translated) -> Any:
    (name,) = made.names(FILTER)
    return made.proxy(name).get("access_logs")


def written(log: str) -> str:
    return router("[]", extra=f"  accessLogs: [{log}]")


def test_a_protocol_has_the_requests_of_all_its_services_logged() -> None:
    made = translated(service() + PROTOCOL)
    assert logs(made) == [{"path": "/dev/stdout", "text": DEFAULT_FORMAT}]
    assert made.codes == []


def test_a_metarouter_s_stand_in_place_of_the_protocol_s() -> None:
    made = translated(service() + PROTOCOL + written("{file: /var/log/shop.log, text: a}"))
    assert logs(made) == [{"path": "/var/log/shop.log", "text": "a"}]
    assert logs(translated(service() + PROTOCOL + written(""))) is None
    without = router("[]")
    assert logs(translated(service() + PROTOCOL + without)) == [
        {"path": "/dev/stdout", "text": DEFAULT_FORMAT}
    ]


def test_which_requests_are_logged_can_be_chosen() -> None:
    log = (
        "{json: {b: '%METHOD%', a: x}, match: {attributes: {method: {exact: buy}}},"
        " percentage: {value: 10}, failuresOnly: true, minDuration: 1500ms}"
    )
    made = translated(service() + written(log))
    fields = [{"name": "b", "value": "%METHOD%"}, {"name": "a", "value": "x"}]
    assert logs(made) == [
        {
            "path": "/dev/stdout",
            "json": {"fields": fields},
            "match": [{"key": "method", "exact": "buy"}],
            "percent": 10.0,
            "failures_only": True,
            "min_duration": "1.500s",
        }
    ]
    assert made.codes == []


def test_a_format_that_is_wrong_is_told_of_and_requests_go_on() -> None:
    for log, field in (
        ("{text: '%HTTP_CODE%'}", "spec.accessLogs[0].text"),
        ("{json: {a: b, c: '%REQ%'}}", "spec.accessLogs[0].json"),
    ):
        made = translated(service() + written(log))
        (said,) = made.said("rejected")
        assert (said.field, said.object) == (field, "MetaRouter shop/orders")
        assert logs(made) is None
        (name,) = made.names(FILTER)
        assert [route["cluster"] for route in made.routes(name)], "requests are routed"


def test_of_the_protocol_s_it_is_told_there() -> None:
    made = translated(service() + PROTOCOL.replace("[{}]", "[{text: '%'}]"))
    (said,) = made.said("rejected")
    assert said.object.startswith("ApplicationProtocol ")
    assert said.field == "spec.accessLogs[0].text"


def test_only_files_for_logs_can_be_written_to() -> None:
    for path in (
        "/etc/passwd", "/var/log/../etc/passwd", "/var/log", "/var/log/", "/var/log/.a",
        "log", "/dev/sda", "/var/log/a//b",
    ):  # fmt: skip
        loaded = load_text(written(f"{{file: {path}}}"), "all.yaml")
        assert [item.field for item in loaded.diagnostics] == ["spec.accessLogs[0].file"], path
    assert not load_text(written("{file: /var/log/a/b-c.log}"), "all.yaml").diagnostics


def test_there_is_one_format_for_each_log() -> None:
    loaded = load_text(written("{text: a, json: {a: b}}"), "all.yaml")
    assert [item.code for item in loaded.diagnostics] == ["two-formats"]


COLLECTOR = "outbound|4317||logs.shop.svc.cluster.local"
COLLECTED = f'{{otlp: {{collector: "{COLLECTOR}"}}, text: a}}'
AT_COLLECTOR = {"collector": {"cluster": COLLECTOR, "service_name": "metaprotocol"}, "text": "a"}


def test_a_collector_stands_in_place_of_a_file_and_is_a_cluster_for_grpc() -> None:
    others = service("logs", port=4317, port_name="grpc")
    made = translated(service() + others + written(COLLECTED))
    assert logs(made) == [AT_COLLECTOR]
    assert COLLECTOR in made.names(CLUSTER)
    assert made.codes == []
    missing = translated(service() + written(COLLECTED))
    (said,) = missing.said("no-host")
    assert said.field == "spec.accessLogs[0].otlp.collector"


def test_a_log_is_for_a_file_or_a_collector() -> None:
    both = "{otlp: {collector: otel}, file: /dev/stderr}"
    loaded = load_text(written(both), "all.yaml")
    assert [(item.code, item.field) for item in loaded.diagnostics] == [
        ("two-sinks", "spec.accessLogs[0].otlp")
    ]


def test_requests_without_an_id_get_one_where_it_is_asked_for() -> None:
    def asked(text: str) -> Any:
        made = translated(service() + text)
        (name,) = made.names(FILTER)
        return made.proxy(name).get("generate_request_ids")

    protocol = PROTOCOL.replace("accessLogs: [{}]", "generateRequestIds: true")
    assert asked("") is None
    assert asked(protocol) is True
    assert asked(protocol + router("[]", extra="  generateRequestIds: false")) is None
    assert asked(router("[]", extra="  generateRequestIds: true")) is True
