"""Istio's Telemetry: what is recorded, by whom it is for, and what of it is told of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.resources import load_text
from metaprotocol.resources.telemetry import LABELS
from metaprotocol.translate.access_logs import DEFAULT_FORMAT
from metaprotocol.translate.naming import FILTER
from metaprotocol.translate.options import Options, Target

from tests.python.translate.support import Translated, router, service, translated

HEADER = Path(__file__).parents[3] / "src" / "observe" / "request_series.h"
PROTOCOL = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: ApplicationProtocol
metadata: {name: dubbo}
spec:
  protocol: dubbo
  codec: dubbo
  tracing: {collector: otel, attributes: {zone: {literal: east}}}
---
"""
SERVERS = Options(target=Target.ISTIO)
STDOUT = {"path": "/dev/stdout", "text": DEFAULT_FORMAT}


def telemetry(spec: str, name: str = "it", namespace: str = "shop") -> str:
    return (
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )


def of(text: str, part: str) -> Any:
    made = translated(service() + text)
    (name,) = made.names(FILTER)
    return made.proxy(name).get(part)


def told(spec: str) -> list[str]:
    """The fields of which something is said when it is read."""
    loaded = load_text(telemetry(spec), "all.yaml")
    assert loaded.ok, loaded.diagnostics
    assert {item.code for item in loaded.diagnostics} <= {"no-effect"}
    return [item.field for item in loaded.diagnostics]


LOGGED = "{accessLogging: [{}]}"


def test_requests_are_logged_to_the_standard_output_as_istio_does() -> None:
    assert of("", "access_logs") is None
    assert of(telemetry(LOGGED), "access_logs") == [STDOUT]
    named = "{accessLogging: [{providers: [{name: envoy}]}]}"
    assert of(telemetry(named), "access_logs") == [STDOUT]


def test_the_most_specific_one_counts() -> None:
    mesh = telemetry(LOGGED, namespace="istio-system")
    assert of(mesh, "access_logs") == [STDOUT]
    assert of(mesh + telemetry("{accessLogging: [{disabled: true}]}"), "access_logs") is None
    assert of(mesh + telemetry("{tracing: [{}]}"), "access_logs") == [STDOUT]
    other = telemetry("{accessLogging: [{disabled: true}]}", namespace="other")
    assert of(mesh + other, "access_logs") == [STDOUT]


def test_a_selector_chooses_the_pods_of_a_service() -> None:
    text = telemetry("{selector: {matchLabels: {version: v1}}, accessLogging: [{}]}")

    def logs(services: str) -> Any:
        made = translated(services + text)
        (name,) = made.names(FILTER)
        return made.proxy(name).get("access_logs"), [item.field for item in made.diagnostics]

    assert logs(service().replace("version: v2", "version: v1")) == ([STDOUT], [])
    assert logs(service().replace("version: v1", "version: v3")) == (None, [])
    assert logs(service()) == (None, ["spec.selector"])


def test_a_metarouter_s_stand_over_all_of_them() -> None:
    own = router("[]", extra="  accessLogs: []")
    assert of(telemetry(LOGGED) + own, "access_logs") is None
    own = router("[]", extra="  requestMetrics: {disabled: true}")
    assert of(telemetry("{metrics: [{}]}") + own, "request_metrics") is None


def test_failures_alone_are_logged_if_the_expression_says_so() -> None:
    spec = '{accessLogging: [{filter: {expression: "response.code >= 400"}}]}'
    assert of(telemetry(spec), "access_logs") == [{**STDOUT, "failures_only": True}]
    assert told(spec) == []
    odd = "{accessLogging: [{filter: {expression: \"request.path == '/'\"}}]}"
    assert of(telemetry(odd), "access_logs") == [STDOUT]
    assert told(odd) == ["spec.accessLogging[0].filter.expression"]


def test_an_expression_says_which_requests_are_logged() -> None:
    expression = (
        "response.code >= 500 && request.duration > duration('1s') "
        "&& request.headers['user'] != 'ann' && 'lane' in request.headers"
    )
    spec = f'{{accessLogging: [{{filter: {{expression: "{expression}"}}}}]}}'
    assert told(spec) == []
    assert of(telemetry(spec), "access_logs") == [
        {
            **STDOUT,
            "match": [
                {"key": "user", "one_of": {"values": ["ann"]}, "invert": True},
                {"key": "user", "present": True},
                {"key": "lane", "present": True},
            ],
            "response_codes": [{"start": "500", "end": "1000"}],
            "min_duration": "1.000001s",
        }
    ]


def test_a_provider_has_the_logs_that_the_protocol_names_after_it() -> None:
    named = "{accessLogging: [{providers: [{name: otel}]}]}"
    other = '{provider: otel, otlp: {collector: otel}, text: "%METHOD%"}'
    protocol = PROTOCOL.replace(
        "  tracing:", f"  accessLogs: [{{file: /dev/stderr, text: a}}, {other}]\n  tracing:"
    )
    plain = {"path": "/dev/stderr", "text": "a"}
    collected = {
        "collector": {"cluster": "otel", "service_name": "metaprotocol"},
        "text": "%METHOD%",
    }
    assert of(protocol, "access_logs") == [plain]
    assert of(telemetry(LOGGED) + protocol, "access_logs") == [plain]
    assert of(telemetry(named) + protocol, "access_logs") == [collected]
    both = "{accessLogging: [{providers: [{name: envoy}, {name: otel}]}]}"
    assert of(telemetry(both) + protocol, "access_logs") == [plain, collected]
    assert of(telemetry(named) + PROTOCOL, "access_logs") is None
    made = translated(service() + telemetry(named) + PROTOCOL)
    (said,) = made.said("no-effect")
    assert said.field == "spec.accessLogging[0].providers[0].name"


def test_sampling_and_tags_change_the_protocol_s_tracing() -> None:
    spec = (
        "{tracing: [{randomSamplingPercentage: 5, customTags: "
        "{user: {header: {name: user}}, zone: {literal: {value: west}}}}]}"
    )
    made = of(telemetry(spec) + PROTOCOL, "tracing")
    assert made["percent"] == 5
    assert made["attributes"] == [
        {"name": "zone", "value": "west"},
        {"name": "user", "key": "user"},
    ]
    mesh = telemetry("{tracing: [{randomSamplingPercentage: 1}]}", namespace="istio-system")
    assert of(mesh + PROTOCOL, "tracing")["percent"] == 1
    assert of(mesh + telemetry(spec) + PROTOCOL, "tracing")["percent"] == 5
    off = telemetry("{tracing: [{disableSpanReporting: true}]}")
    assert of(mesh + off + PROTOCOL, "tracing") is None


def test_tags_have_all_of_istio_s_sources() -> None:
    spec = (
        "{tracing: [{customTags: {pod: {environment: {name: POD_NAME, defaultValue: none}}, "
        "lane: {header: {name: lane, defaultValue: base}}, "
        "took: {formatter: {value: '%DURATION%'}}, bad: {formatter: {value: '%COLOUR%'}}}}]}"
    )
    assert of(telemetry(spec) + PROTOCOL, "tracing")["attributes"][1:] == [
        {"name": "pod", "environment": {"name": "POD_NAME", "default_value": "none"}},
        {"name": "lane", "key": "lane", "default_value": "base"},
        {"name": "took", "format": "%DURATION%"},
    ]
    made = translated(service() + telemetry(spec) + PROTOCOL)
    (said,) = made.said("no-effect")
    assert said.field == "spec.tracing[0].customTags.bad.formatter.value"
    assert "COLOUR" in said.message


def test_tags_that_spans_have_no_room_for_are_named() -> None:
    own = ", ".join(f"a{number}: {{literal: x}}" for number in range(29))
    protocol = PROTOCOL.replace("attributes: {", f"attributes: {{{own}, ")
    tags = ", ".join(f"{name}: {{literal: {{value: y}}}}" for name in ("a3", "b", "c", "d", "e"))
    made = translated(
        service() + telemetry(f"{{tracing: [{{customTags: {{{tags}}}}}]}}") + protocol
    )
    (said,) = made.said("too-many-attributes")
    assert said.field == "spec.tracing[0].customTags"
    assert "'d', 'e'" in said.message
    assert "'c'" not in said.message
    (name,) = made.names(FILTER)
    attributes = {item["name"]: item for item in made.proxy(name)["tracing"]["attributes"]}
    assert len(attributes) == 32
    assert attributes["a3"]["value"] == "y", "one that is there is another value"
    assert "c" in attributes


def test_spans_without_a_collector_are_told_of() -> None:
    made = translated(service() + telemetry("{tracing: [{}]}"))
    (said,) = made.said("no-effect")
    assert (said.field, "no collector" in said.message) == ("spec.tracing[0]", True)


def test_metrics_are_kept_with_what_is_written_of_labels() -> None:
    assert of(telemetry("{metrics: [{providers: [{name: prometheus}]}]}"), "request_metrics") == {}
    spec = """{metrics: [{overrides: [
      {match: {metric: REQUEST_COUNT}, tagOverrides: {request_protocol: {value: '"http"'}}},
      {match: {metric: RESPONSE_SIZE}, disabled: true},
      {match: {metric: REQUEST_SIZE}, tagOverrides: {source_app: {operation: REMOVE}}}]}]}"""
    assert of(telemetry(spec), "request_metrics") == {
        "disabled": ["RESPONSE_BYTES"],
        "overrides": [
            {"label": "request_protocol", "value": "http"},
            {"metric": "REQUEST_BYTES", "label": "source_app"},
        ],
    }
    assert told(spec.replace("\n", " ")) == []


def test_metrics_can_be_switched_off_for_a_namespace() -> None:
    mesh = telemetry("{metrics: [{}]}", namespace="istio-system")
    assert of(mesh, "request_metrics") == {}
    off = telemetry("{metrics: [{overrides: [{disabled: true}]}]}")
    assert of(mesh + off, "request_metrics") is None
    one = "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT}, disabled: false}]}]}"
    again = telemetry(one)
    all_off = telemetry("{metrics: [{overrides: [{disabled: true}]}]}", namespace="istio-system")
    assert of(all_off + again, "request_metrics") == {
        "disabled": ["REQUEST_DURATION", "REQUEST_BYTES", "RESPONSE_BYTES"]
    }


def sides(text: str) -> list[bool]:
    """Whether metrics are kept beside clients, and beside servers."""
    made: Translated = translated(service() + text, SERVERS)
    configs = [made.proxy(name) for name in made.names(FILTER)]
    (clients,) = (config for config in configs if "inbound" not in str(config["route_tables"]))
    (servers,) = (config for config in configs if "inbound" in str(config["route_tables"]))
    return ["request_metrics" in clients, "request_metrics" in servers]


def test_beside_sidecars_a_namespace_s_own_is_for_its_servers() -> None:
    assert sides(telemetry("{metrics: [{}]}")) == [False, True]
    assert sides(telemetry("{metrics: [{}]}", namespace="istio-system")) == [True, True]


@pytest.mark.parametrize(("mode", "kept"), [("CLIENT", [True, False]), ("SERVER", [False, True])])
def test_a_mode_is_for_one_end(mode: str, kept: list[bool]) -> None:
    spec = "{metrics: [{overrides: [{match: {mode: OTHER}, disabled: true}]}]}"
    other = "SERVER" if mode == "CLIENT" else "CLIENT"
    assert sides(telemetry(spec.replace("OTHER", other), namespace="istio-system")) == kept


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ("{tracing: [{providers: [{name: otel}]}]}", ["tracing[0].providers"]),
        ("{tracing: [{enableIstioTags: true}]}", ["tracing[0].enableIstioTags"]),
        ("{tracing: [{useRequestIdForTraceSampling: false}]}",
         ["tracing[0].useRequestIdForTraceSampling"]),
        ("{tracing: [{disableContextPropagation: true}]}",
         ["tracing[0].disableContextPropagation"]),
        ("{metrics: [{providers: [{name: stackdriver}]}]}", ["metrics[0].providers[0].name"]),
        ("{metrics: [{reportingInterval: 5s}]}", ["metrics[0].reportingInterval"]),
        ("{metrics: [{overrides: [{match: {metric: TCP_SENT_BYTES}, disabled: true}]}]}",
         ["metrics[0].overrides[0].match.metric"]),
        ("{metrics: [{overrides: [{match: {customMetric: mine}, disabled: true}]}]}",
         ["metrics[0].overrides[0].match.customMetric"]),
        ("{metrics: [{overrides: [{tagOverrides: {mine: {value: '\"a\"'}}}]}]}",
         ["metrics[0].overrides[0].tagOverrides.mine"]),
        ("{metrics: [{overrides: [{tagOverrides: {reporter: {value: request.path}}}]}]}",
         ["metrics[0].overrides[0].tagOverrides.reporter.value"]),
        ("{targetRef: {kind: Gateway, name: a}}", ["targetRef"]),
        ("{targetRefs: [{kind: Gateway, name: a}]}", ["targetRefs"]),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_told_by_its_field(spec: str, fields: list[str]) -> None:
    assert told(spec) == [f"spec.{name}" for name in fields]


def test_of_two_for_the_same_workloads_the_older_one_counts() -> None:
    both = telemetry(LOGGED, "a") + telemetry("{accessLogging: [{disabled: true}]}", "b")
    made = translated(service() + both)
    (said,) = made.said("no-effect")
    assert said.object == "Telemetry shop/b"
    assert "Telemetry shop/a" in said.message
    assert of(both, "access_logs") == [STDOUT]


def test_the_labels_are_those_of_the_engine() -> None:
    names = HEADER.read_text().partition("kRequestLabelNames = {")[2].partition("};")[0]
    assert set(re.findall(r'"(\w+)"', names)) == LABELS
