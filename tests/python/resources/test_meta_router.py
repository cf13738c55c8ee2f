"""MetaRouter: what Aeraki takes is taken, what Aeraki's webhook refuses is refused, and more."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, get_args

import pytest
import yaml
from metaprotocol.engine import Config, ConfigInvalid
from metaprotocol.errors import InvalidResources
from metaprotocol.resources import Metadata, MetaRoute, MetaRouter, MetaRouterSpec
from metaprotocol.resources.match import StringMatch
from metaprotocol.resources.meta_router import Destination, DirectReply, MetaRouteDestination
from pydantic import ValidationError

from tests.python.resources.samples import (
    AERAKI_ROUTER,
    DESTINATION_RULE,
    HOST,
    SERVICE_ENTRY,
    changed,
    load_one,
    only_error,
    only_warning,
    router,
    router_with,
)

BUCKET = {"maxTokens": 1, "fillInterval": "1s"}


def match_of(condition: Any) -> StringMatch:
    loaded = load_one(router(match={"attributes": {"method": condition}}))
    match: StringMatch = loaded.spec.routes[0].match.attributes["method"]
    return match


# --- what Aeraki has


def test_a_file_written_for_aeraki_applies_unchanged() -> None:
    spec = load_one(AERAKI_ROUTER).spec
    assert spec.hosts == [HOST]
    assert spec.gateways == ["edge/public"]
    assert spec.export_to == ["."]
    canary, split = spec.routes
    assert canary.match.attributes["method"].prefix == "get"
    assert canary.match.attributes["user"].regex == "^qa-.*"
    assert canary.match.attributes["interface"].exact == "org.example.Orders"
    assert canary.route[0].destination.subset == "v2"
    assert canary.route[0].destination.port.number == 20880
    assert canary.mirror.host == "stock.shop.svc.cluster.local"
    assert canary.mirror_percent == 10
    assert [(item.key, item.value) for item in canary.request_mutation] == [("lane", "canary")]
    assert [(item.key, item.value) for item in canary.response_mutation] == [
        ("served-by", "canary")
    ]
    assert [destination.weight for destination in split.route] == [90, 10]
    local = spec.local_rate_limit
    assert (local.token_bucket.max_tokens, local.token_bucket.tokens_per_fill) == (100, 50)
    assert local.conditions[0].token_bucket.fill_interval == timedelta(seconds=90)
    assert spec.global_rate_limit.request_timeout == timedelta(milliseconds=50)
    assert spec.global_rate_limit.descriptors[0].descriptor_key == "method"
    assert spec.global_rate_limit.deny_on_fail is True


def test_a_router_needs_no_routes() -> None:
    loaded = load_one(changed(AERAKI_ROUTER, "spec.routes", None))
    assert loaded.spec.routes == []


def test_several_hosts_are_each_checked() -> None:
    assert load_one(router_with([], hosts=[HOST, "b.example"])).spec.hosts == [HOST, "b.example"]
    error = only_error(router_with([], hosts=[HOST, "b..example"]))
    assert error.field == "spec.hosts[1]"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("*.example.com", "without wildcard"),
        ("", "must not be empty"),
        ("a+b.example", "letters, digits and '-'"),
        ("-a.example", "letters, digits and '-'"),
        ("a..b", "empty label"),
        ("a.b.", "empty label"),
        ("10.0.0.1", "is an address"),
        ("a.123", "ends in a number"),
        ("a" * 64 + ".example", "63 characters"),
        (".".join(["a" * 60] * 5), "253 characters"),
        ("a.b\n", "letters, digits and '-'"),
    ],
)
def test_a_host_that_is_no_full_name_is_refused(host: str, words: str) -> None:
    error = only_error(router_with([], hosts=[host]))
    assert (error.field, error.code) == ("spec.hosts[0]", "bad-host")
    assert words in error.message


def test_a_router_without_host_is_refused() -> None:
    assert only_error(router_with([], hosts=[])).field == "spec.hosts"
    assert only_error(changed(AERAKI_ROUTER, "spec.hosts", None)).code == "missing-field"


def test_a_host_named_twice_is_refused() -> None:
    assert only_error(router_with([], hosts=[HOST, HOST])).code == "duplicate-host"


# --- matches


@pytest.mark.parametrize(
    ("condition", "kind"),
    [
        ({"exact": "a"}, "exact"),
        ({"exact": ""}, "present"),
        ({"prefix": "a"}, "prefix"),
        ({"prefix": ""}, "present"),
        ({"suffix": "a"}, "suffix"),
        ({"contains": "a"}, "contains"),
        ({"regex": "a.*"}, "regex"),
        ({"present": True}, "present"),
        ({"absent": True}, "absent"),
        ({"range": {"start": -5, "end": 10}}, "range"),
        ({"oneOf": ["a", "b"], "ignoreCase": True}, "one_of"),
        ({}, "present"),
        ({"invert": True}, "present"),
    ],
)
def test_every_kind_of_match_is_read(condition: dict[str, Any], kind: str) -> None:
    assert match_of(condition).kind == kind


def test_an_empty_match_and_null_mean_that_the_value_is_there() -> None:
    assert match_of({}).kind == "present"
    text = router(match={"attributes": {"method": {}}}).replace("method: {}", "method:")
    assert yaml.safe_load(text)["spec"]["routes"][0]["match"]["attributes"]["method"] is None
    assert load_one(text).spec.routes[0].match.attributes["method"].kind == "present"


@pytest.mark.parametrize(
    ("condition", "field", "words"),
    [
        ({"exact": "a", "prefix": "b"}, "", "has exact and prefix"),
        ({"exact": "a", "oneOf": ["b"]}, "", "has exact and oneOf"),
        ({"present": False}, ".present", "must be true"),
        ({"absent": False}, ".absent", "must be true"),
        ({"present": True, "ignoreCase": True}, ".ignoreCase", "condition on text"),
        ({"range": {"start": 1, "end": 1}}, ".range.end", "more than start"),
        ({"range": {"start": 0, "end": 2**63}}, ".range.end", "at most"),
        ({"range": {"start": 1}}, ".range.end", "is missing"),
        ({"suffix": ""}, ".suffix", "must not be empty"),
        ({"regex": ""}, ".regex", "must not be empty"),
        ({"regex": "("}, ".regex", "no regular expression"),
        ({"regex": "(?=a)"}, ".regex", "look-around"),
        ({"regex": r"(a)\1"}, ".regex", "back reference"),
        ({"regex": "a" * 8193}, ".regex", "longer than"),
        ({"oneOf": []}, ".oneOf", "at least 1 entry"),
    ],
)
def test_a_match_that_means_nothing_is_refused(
    condition: dict[str, Any], field: str, words: str
) -> None:
    error = only_error(router(match={"attributes": {"method": condition}}))
    assert error.field == "spec.routes[0].match.attributes.method" + field
    assert words in error.message


def test_a_star_is_no_regex_and_the_fix_says_what_is() -> None:
    error = only_error(router(match={"attributes": {"method": {"regex": "*"}}}))
    assert '".*"' in error.fix
    assert "{}" in error.fix


@pytest.mark.parametrize(
    "pattern",
    [r"\p{Greek}+", r"\pL", r"a\z", r"\Qa.b(\E", "(?i)a", "a(?i)b", "(?s-i:a)", "[[:alpha:]]+",
     r"(?P<name>a)", r"(?<name>a)", r"\x{10FFFF}", r"\d+\\1", "(?U)a+", r"a{2,3}?"],
)  # fmt: skip
def test_what_re2_knows_and_python_does_not_is_left_to_the_engine(pattern: str) -> None:
    assert match_of({"regex": pattern}).regex == pattern


def test_text_in_place_of_a_condition_is_answered_with_the_condition() -> None:
    error = only_error(router(match={"attributes": {"method": "get"}}))
    assert error.fix == 'write {exact: "get"}'


# --- destinations


@pytest.mark.parametrize("weights", [[50, 50], [100, 0], [0, 100], [33, 33, 34]])
def test_weights_that_add_up_to_100_are_taken(weights: list[int]) -> None:
    route = [{"destination": {"host": HOST}, "weight": weight} for weight in weights]
    assert [item.weight for item in load_one(router(route=route)).spec.routes[0].route] == weights


def weighted(weights: list[int | None]) -> str:
    return router(
        route=[
            {"destination": {"host": HOST}} | ({} if weight is None else {"weight": weight})
            for weight in weights
        ]
    )


@pytest.mark.parametrize("weights", [[50, 49], [100, 100], [3, 1, None]])
def test_weights_that_do_not_add_up_to_100_are_shares_of_their_sum(
    weights: list[int | None],
) -> None:
    assert [item.weight for item in load_one(weighted(weights)).spec.routes[0].route] == [
        weight or 0 for weight in weights
    ]
    warning = only_warning(weighted(weights))
    assert (warning.field, warning.code) == ("spec.routes[0].route", "weights")
    assert f"= {sum(weight or 0 for weight in weights)}, not 100" in warning.message


@pytest.mark.parametrize("weights", [[0, 0], [None, None]])
def test_a_route_that_weighs_nothing_is_refused(weights: list[int | None]) -> None:
    error = only_error(weighted(weights))
    assert (error.field, error.code) == ("spec.routes[0].route", "bad-weights")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (router_with([], hosts=["a_b.example"]), "spec.hosts[0]"),
        (router(mirror={"host": "a_b.example"}), "spec.routes[0].mirror.host"),
        (router(route=[{"destination": {"host": "a_b.example"}}]),
         "spec.routes[0].route[0].destination.host"),
        (router(route=[{"destination": {"host": HOST, "subset": "v_1"}}]),
         "spec.routes[0].route[0].destination.subset"),
        (changed(DESTINATION_RULE, "spec.host", "a_b.example"), "spec.host"),
        (changed(DESTINATION_RULE, "spec.subsets.0.name", "v_1"), "spec.subsets[0].name"),
        (changed(SERVICE_ENTRY, "spec.hosts.0", "a_b.example"), "spec.hosts[0]"),
    ],
)  # fmt: skip
def test_an_underscore_in_a_name_is_a_warning(text: str, field: str) -> None:
    load_one(text)
    warning = only_warning(text)
    assert (warning.field, warning.code) == (field, "underscore")


def test_a_single_destination_needs_no_weight() -> None:
    assert load_one(router()).spec.routes[0].route[0].weight == 0
    one = [{"destination": {"host": HOST}, "weight": 7}]
    assert load_one(router(route=one)).spec.routes[0].route[0].weight == 7


@pytest.mark.parametrize(
    ("destination", "field"),
    [
        ({"host": "*.example"}, "host"),
        ({"host": HOST, "subset": "v.1"}, "subset"),
        ({"host": HOST, "subset": ""}, "subset"),
        ({"host": HOST, "port": {"number": 0}}, "port.number"),
        ({"host": HOST, "port": {"number": 65536}}, "port.number"),
        ({"subset": "v1"}, "host"),
    ],
)
def test_a_destination_that_cannot_be_is_refused(destination: dict[str, Any], field: str) -> None:
    error = only_error(router(route=[{"destination": destination}]))
    assert error.field == f"spec.routes[0].route[0].destination.{field}"


def test_a_route_goes_somewhere_or_is_answered() -> None:
    assert only_error(router(route=...)).code == "no-destination"
    assert only_error(router(route=[])).code == "no-destination"
    assert only_error(router(directReply={"kind": "denied"})).code == "two-actions"
    reply = load_one(router(route=..., directReply={"kind": "denied", "text": "no"}))
    assert reply.spec.routes[0].direct_reply.text == "no"


def test_an_unknown_kind_of_reply_names_the_near_one() -> None:
    error = only_error(router(route=..., directReply={"kind": "denyed"}))
    assert error.fix == 'did you mean "denied"?'


# --- mirrors


def test_a_mirror_gets_everything_unless_it_says_less() -> None:
    loaded = load_one(router(mirror={"host": HOST}))
    assert loaded.spec.routes[0].mirror_percent == 100
    assert load_one(router()).spec.routes[0].mirror_percent == 0
    part = router(mirror={"host": HOST}, mirrorPercentage={"value": 0.5})
    assert load_one(part).spec.routes[0].mirror_percent == 0.5


@pytest.mark.parametrize("share", [0, 1e-9])
def test_a_mirror_of_nothing_is_a_warning(share: float) -> None:
    text = router(mirror={"host": HOST}, mirrorPercentage={"value": share})
    assert load_one(text).spec.routes[0].mirror_percent == 0
    warning = only_warning(text)
    assert (warning.field, warning.code) == (
        "spec.routes[0].mirrorPercentage.value",
        "no-mirror",
    )


@pytest.mark.parametrize("share", [-1, 100.1])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    error = only_error(router(mirror={"host": HOST}, mirrorPercentage={"value": share}))
    assert error.field == "spec.routes[0].mirrorPercentage.value"


def test_a_share_without_mirror_is_a_warning() -> None:
    text = router(mirrorPercentage={"value": 5})
    assert load_one(text).spec.routes[0].mirror_percent == 0
    warning = only_warning(text)
    assert (warning.field, warning.code) == ("spec.routes[0].mirrorPercentage", "no-mirror")
    assert warning.fix == "add mirror"


def test_the_kinds_of_reply_are_those_of_the_engine() -> None:
    route = {"direct_reply": {"kind": "nope"}}
    tables = [{"name": "t", "routes": [route]}]
    config = {"name": "a", "protocol": {"codec": "dubbo"}, "route_tables": tables}
    with pytest.raises(ConfigInvalid) as raised:
        Config(json.dumps(config))
    _, _, listed = str(raised.value).partition("must be one of ")
    assert tuple(listed.split(", ")) == get_args(DirectReply.model_fields["kind"].annotation)


def test_a_direct_reply_cannot_be_mirrored() -> None:
    error = only_error(router(route=..., directReply={"kind": "denied"}, mirror={"host": HOST}))
    assert error.code == "bad-mirror"


# --- mutations, timeouts


@pytest.mark.parametrize("field", ["requestMutation", "responseMutation", "requestMutationAdd",
                                   "responseMutationAdd"])  # fmt: skip
def test_mutations_have_key_and_value(field: str) -> None:
    assert load_one(router(**{field: [{"key": "a", "value": "b"}]}))
    assert only_error(router(**{field: [{"key": "", "value": "b"}]})).field.endswith(".key")
    assert only_error(router(**{field: [{"key": "a"}]})).field.endswith(".value")


def test_an_empty_value_is_written_and_a_warning() -> None:
    text = router(requestMutation=[{"key": "a", "value": ""}])
    assert load_one(text).spec.routes[0].request_mutation[0].value == ""
    warning = only_warning(text)
    assert warning.field == "spec.routes[0].requestMutation[0].value"
    assert warning.code == "empty-value"


def test_keys_can_be_taken_away() -> None:
    route = load_one(router(requestMutationRemove=["a"], responseMutationRemove=["b"]))
    assert route.spec.routes[0].request_mutation_remove == ["a"]
    assert route.spec.routes[0].response_mutation_remove == ["b"]
    assert only_error(router(requestMutationRemove=[""])).code == "empty"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("50ms", 0.05), ("1h30m", 5400), ("1.5s", 1.5), ("100us", 0.0001), ("2m3s", 123)],
)
def test_durations_are_written_as_in_go(text: str, seconds: float) -> None:
    assert load_one(router(timeout=text)).spec.routes[0].timeout == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "5", "s", "-1s", "1 s", "1d", "0s", "1e3s", "9999999h",
                                   "1" * 100 + "s", True, [], {}, "1s\n"])  # fmt: skip
def test_what_is_no_duration_is_refused(value: Any) -> None:
    assert only_error(router(timeout=value)).code == "bad-duration"


def test_a_number_in_place_of_a_duration_is_answered_with_both_units() -> None:
    assert only_error(router(timeout=5)).fix == 'write "5s" for seconds, "5ms" for milliseconds'


# --- rate limits


def test_a_fill_brings_one_token_if_not_given_as_in_aeraki() -> None:
    limit = {"tokenBucket": {"maxTokens": 7, "fillInterval": "1s"}}
    bucket = load_one(router_with([], localRateLimit=limit)).spec.local_rate_limit.token_bucket
    assert bucket.tokens_per_fill == 1


@pytest.mark.parametrize(
    ("bucket", "field"),
    [
        ({"maxTokens": 0, "fillInterval": "1s"}, "maxTokens"),
        ({"maxTokens": 1, "tokensPerFill": 0, "fillInterval": "1s"}, "tokensPerFill"),
        ({"maxTokens": 1, "fillInterval": "0s"}, "fillInterval"),
        ({"maxTokens": 1}, "fillInterval"),
        ({"maxTokens": 2**32, "fillInterval": "1s"}, "maxTokens"),
    ],
)
def test_a_bucket_that_never_fills_is_refused(bucket: dict[str, Any], field: str) -> None:
    error = only_error(router_with([], localRateLimit={"tokenBucket": bucket}))
    assert error.field == f"spec.localRateLimit.tokenBucket.{field}"


def test_a_local_limit_has_a_bucket_or_conditions() -> None:
    assert only_error(router_with([], localRateLimit={})).code == "empty-rate-limit"
    conditions = [{"match": {"attributes": {"a": {"exact": "b"}}}, "tokenBucket": BUCKET}]
    assert load_one(router_with([], localRateLimit={"conditions": conditions}))
    del conditions[0]["match"]
    error = only_error(router_with([], localRateLimit={"conditions": conditions}))
    assert error.field == "spec.localRateLimit.conditions[0].match"


EACH = {
    "match": {"attributes": {"a": {"present": True}}},
    "tokenBucket": BUCKET,
    "perValueOf": ["user", "method"],
}


def test_a_bucket_for_each_value_has_keys_and_a_bound() -> None:
    limit = load_one(router_with([], localRateLimit={"conditions": [EACH]})).spec.local_rate_limit
    assert limit.conditions[0].per_value_of == ["user", "method"]
    assert limit.conditions[0].max_buckets == 1000


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("maxBuckets", 0, "maxBuckets"),
        ("maxBuckets", 100_001, "maxBuckets"),
        ("perValueOf", [""], "perValueOf[0]"),
        ("perValueOf", [f"k{i}" for i in range(9)], "perValueOf"),
    ],
)
def test_what_a_table_of_buckets_cannot_have(field: str, value: Any, place: str) -> None:
    conditions = [{**EACH, field: value}]
    error = only_error(router_with([], localRateLimit={"conditions": conditions}))
    assert error.field == f"spec.localRateLimit.conditions[0].{place}"


@pytest.mark.parametrize(
    ("change", "code", "place"),
    [
        ({"perValueOf": [], "maxBuckets": 7}, "no-keys", "maxBuckets"),
        ({"perValueOf": ["user", "user"]}, "named-twice", "perValueOf[1]"),
    ],
)
def test_a_table_of_buckets_that_is_hardly_meant(
    change: dict[str, Any], code: str, place: str
) -> None:
    warning = only_warning(router_with([], localRateLimit={"conditions": [{**EACH, **change}]}))
    assert warning.code == code
    assert warning.field == f"spec.localRateLimit.conditions[0].{place}"


def test_an_authorization_service_is_asked_about_all_and_fails_closed_if_not_told() -> None:
    written = {"service": "authz"}
    check = load_one(router_with([], externalAuthorization=written)).spec.external_authorization
    assert check.timeout == timedelta(milliseconds=200)
    assert check.failure_mode_allow is False
    assert not check.match.attributes
    assert check.max_body_bytes == 0


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("service", "", "service"),
        ("timeout", "0s", "timeout"),
        ("maxBodyBytes", 65537, "maxBodyBytes"),
        ("metadata", [""], "metadata[0]"),
        ("proxyMetadata", [f"k{i}" for i in range(33)], "proxyMetadata"),
        ("context", {f"k{i}": "v" for i in range(65)}, "context"),
    ],
)
def test_what_a_question_cannot_have(field: str, value: Any, place: str) -> None:
    written = {"service": "authz", field: value}
    error = only_error(router_with([], externalAuthorization=written))
    assert error.field == f"spec.externalAuthorization.{place}"


def test_a_global_limit_waits_20_milliseconds_and_counts_all_if_not_told() -> None:
    limit = {
        "domain": "d",
        "rateLimitService": "rls",
        "descriptors": [{"property": "a", "descriptorKey": "b"}],
    }
    loaded = load_one(router_with([], globalRateLimit=limit)).spec.global_rate_limit
    assert loaded.request_timeout == timedelta(milliseconds=20)
    assert loaded.match.attributes == {}
    assert loaded.deny_on_fail is False


@pytest.mark.parametrize("field", ["domain", "rateLimitService", "descriptors"])
def test_a_global_limit_needs_its_service(field: str) -> None:
    error = only_error(changed(AERAKI_ROUTER, f"spec.globalRateLimit.{field}", None))
    assert error.field == f"spec.globalRateLimit.{field}"
    empty: Any = [] if field == "descriptors" else ""
    assert (
        only_error(changed(AERAKI_ROUTER, f"spec.globalRateLimit.{field}", empty)).code == "empty"
    )


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"descriptors": [{"descriptorKey": "u"}]}, "descriptors[0].property", "property-or-value"),
        (
            {"descriptors": [{"descriptorKey": "u", "property": "user", "value": "text"}]},
            "descriptors[0].value",
            "property-or-value",
        ),
        (
            {"conditions": [{"match": {}, "descriptors": []}]},
            "conditions[0].descriptors",
            "empty",
        ),
        (
            {
                "conditions": [
                    {"match": {}, "descriptors": [{"value": "v", "descriptorKey": "u"}] * 32}
                ]
                * 4
            },
            "conditions",
            "too-many",
        ),
    ],
)
def test_what_a_global_limit_cannot_count_by(changes: Any, field: str, code: str) -> None:
    limit = {
        "domain": "d",
        "rateLimitService": "rls",
        "descriptors": [{"property": "a", "descriptorKey": "b"}],
    }
    error = only_error(router_with([], globalRateLimit={**limit, **changes}))
    assert (error.field, error.code) == (f"spec.globalRateLimit.{field}", code)


# --- the rest


@pytest.mark.parametrize(
    ("where", "field"),
    [("spec", "authorization"), ("spec.routes.0", "authorization")],
)
def test_what_is_to_come_is_refused_with_what_works_until_then(where: str, field: str) -> None:
    error = only_error(changed(AERAKI_ROUTER, f"{where}.{field}", {"x": 1}))
    assert error.code == "not-yet"
    assert error.fix.startswith("for now")


@pytest.mark.parametrize("name", ["", "Shop", "a b", "a/b", "*x"])
def test_what_is_no_namespace_cannot_be_exported_to(name: str) -> None:
    assert only_error(router_with([], exportTo=[name])).code == "bad-namespace"


def test_a_router_is_written_as_it_was_read() -> None:
    read = yaml.safe_load(AERAKI_ROUTER)
    written = load_one(AERAKI_ROUTER).to_dict()
    # Durations have several ways to be written.
    for content in (read, written):
        condition = content["spec"]["localRateLimit"]["conditions"][0]
        del condition["tokenBucket"]["fillInterval"]
        del content["spec"]["globalRateLimit"]["requestTimeout"]
    assert written == read
    again = load_one(yaml.safe_dump(load_one(AERAKI_ROUTER).to_dict()))
    assert again == load_one(AERAKI_ROUTER)


def test_routers_are_made_in_code_by_python_names() -> None:
    made = MetaRouter(
        metadata=Metadata(name="orders", namespace="shop"),
        spec=MetaRouterSpec(
            hosts=[HOST],
            routes=[
                MetaRoute(
                    name="only",
                    route=[MetaRouteDestination(destination=Destination(host=HOST))],
                )
            ],
        ),
    )
    assert made == load_one(router())
    with pytest.raises(InvalidResources, match="must have a destination"):
        MetaRoute(name="nowhere")


def test_resources_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_one(router()).spec.hosts = []
