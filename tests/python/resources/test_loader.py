"""Reading files: every mistake with its line, all at once, and the rest of the file still taken."""

from __future__ import annotations

import time

import pytest
from metaprotocol.diagnostics import Origin, Severity
from metaprotocol.resources import load_bytes, load_text
from metaprotocol.resources.loader import Limits

from tests.python.resources.samples import (
    AERAKI_ROUTER,
    ALL,
    APPLICATION_PROTOCOL,
    HOST,
    SERVICE_ENTRY,
    errors,
    load_one,
    only_error,
    router,
)

MISTAKES = f"""\
# orders
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata:
  name: orders
  namespace: shop
spec:
  hosts: [{HOST}]
  timeout: 3s
  routes:
  - name: 7
    match:
      attributes:
        version: {{exact: 1.10}}
        "user.name": get
    route:
    - destination: {{host: {HOST}, weight: 3}}
      wieght: 100
    - destination:
        host: {HOST}
        port: {{number: "80"}}
    requestMutation:
      key: a
  local_rate_limit: {{}}
"""


def test_every_mistake_is_told_with_its_line_and_fix() -> None:
    told = {item.field: item for item in load_text(MISTAKES, "orders.yaml").diagnostics}
    assert {field: item.origin.line for field, item in told.items() if item.origin} == {
        "spec.timeout": 9,
        "spec.routes[0].name": 11,
        "spec.routes[0].match.attributes.version.exact": 14,
        'spec.routes[0].match.attributes["user.name"]': 15,
        "spec.routes[0].route[0].destination.weight": 17,
        "spec.routes[0].route[0].wieght": 18,
        "spec.routes[0].route[1].destination.port.number": 21,
        "spec.routes[0].requestMutation": 22,
        "spec.local_rate_limit": 24,
    }
    assert {item.object for item in told.values()} == {"MetaRouter shop/orders"}
    fixes = {field: item.fix for field, item in told.items()}
    assert fixes["spec.timeout"] == "it belongs in an entry of spec.routes"
    assert fixes["spec.routes[0].name"] == 'put it in quotes: "7"'
    assert fixes["spec.routes[0].match.attributes.version.exact"] == 'put it in quotes: "1.10"'
    assert (
        fixes["spec.routes[0].route[0].destination.weight"]
        == "it belongs in spec.routes[0].route[0]"
    )
    assert fixes["spec.routes[0].route[0].wieght"] == 'did you mean "weight"?'
    assert fixes["spec.routes[0].route[1].destination.port.number"] == "without quotes: 80"
    assert fixes["spec.routes[0].requestMutation"] == "begin each entry with '- '"
    assert fixes["spec.local_rate_limit"] == 'did you mean "localRateLimit"?'
    assert told["spec.routes[0].match.attributes.version.exact"].value == "1.10"


def test_a_missing_field_is_told_at_what_misses_it() -> None:
    error = only_error(AERAKI_ROUTER.replace(f"  hosts:\n  - {HOST}\n", ""))
    assert error.field == "spec.hosts"
    assert error.origin == Origin("a.yaml", 6, 1)


def test_the_good_documents_of_a_file_are_taken_whatever_the_others_are() -> None:
    text = "---\n".join(
        [
            APPLICATION_PROTOCOL,
            "a: [\n",
            SERVICE_ENTRY,
            MISTAKES,
            "- not\n- a resource\n",
            "{}\n",
            router().replace("name: orders", "name: other"),
        ]
    )
    result = load_text(text, "a.yaml")
    assert [item.kind for item in result.resources] == [
        "ApplicationProtocol",
        "ServiceEntry",
        "MetaRouter",
    ]
    assert not result.ok
    lines = text.splitlines()
    for resource in result.resources:
        assert lines[resource.origin.line - 1].startswith("apiVersion:")


def test_resources_know_the_lines_of_their_fields() -> None:
    text = "# one\n---\n" + APPLICATION_PROTOCOL + "---\n" + AERAKI_ROUTER
    loaded = load_text(text, "a.yaml").resources[1]
    lines = text.splitlines()

    def at(field: str) -> str:
        return lines[loaded.origin_of(field).line - 1].strip()

    assert at("") == "apiVersion: metaprotocol.aeraki.io/v1alpha1"
    assert at("spec.routes[0].match.attributes.user.regex") == 'regex: "^qa-.*"'
    assert at("spec.routes[1]") == "- name: split"
    assert at("spec.globalRateLimit.denyOnFail") == "denyOnFail: true"
    # What is not written is where it would be.
    assert at("spec.routes[1].mirror.host") == "- name: split"
    assert at("spec.nothing.at.all") == "spec:"


def test_lists_of_resources_are_read_with_lines() -> None:
    body = "\n".join(f"  {line}" for line in AERAKI_ROUTER.splitlines())
    text = f"apiVersion: v1\nkind: List\nitems:\n-{body[1:]}\n- {{}}\n"
    result = load_text(text, "a.yaml")
    (loaded,) = result.resources
    assert loaded == load_one(AERAKI_ROUTER)
    assert loaded.origin.line == 4
    wanted = next(n for n, line in enumerate(text.splitlines(), 1) if "name: split" in line)
    assert loaded.origin_of("spec.routes[1].name").line == wanted
    assert {item.field for item in errors(result)} == {"apiVersion", "kind"}
    typed = text.replace("kind: List", "kind: MetaRouterList").replace("- {}\n", "")
    assert load_text(typed, "a.yaml").ok


def test_json_is_read_too() -> None:
    text = '{"apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "ApplicationProtocol",\n'
    text += '"metadata": {"name": "a"}, "spec": {"protocol": "a", "codec": "b", "x": 1}}'
    column = text.splitlines()[1].index('"x"') + 1
    assert only_error(text).origin == Origin("a.yaml", 2, column)


# --- kinds


def test_objects_of_other_programs_are_passed_over_with_a_note() -> None:
    for version, kind in (
        ("apps/v1", "ReplicaSet"),
        ("extensions/v1beta1", "Deployment"),
        ("v1", "PersistentVolume"),
        ("serving.knative.dev/v1", "Service"),
        ("networking.istio.io/v1", "Sidecar"),
        ("other.example/v1", "MetaRouter"),
    ):
        result = load_text(f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}", "a.yaml")
        (note,) = result.diagnostics
        assert (note.severity, note.code) == (Severity.INFO, "passed-over")
        assert result.complete


@pytest.mark.parametrize(
    ("head", "code", "fix"),
    [
        ("kind: MetaRouter", "missing-field", "add apiVersion: metaprotocol.aeraki.io/v1alpha1"),
        (
            "apiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: MetaRoute",
            "unknown-kind",
            'did you mean "MetaRouter"?',
        ),
        (
            "apiVersion: redis.aeraki.io/v1alpha1\nkind: Sentinel",
            "unknown-kind",
            "known: RedisService, RedisDestination",
        ),
        (
            "apiVersion: metaprotocol.aeraki.io/v1\nkind: MetaRouter",
            "unknown-version",
            'write "metaprotocol.aeraki.io/v1alpha1"',
        ),
        (
            "apiVersion: metaprotocol.aeraki.oi/v1alpha1\nkind: MetaRouter",
            "unknown-version",
            'write "metaprotocol.aeraki.io/v1alpha1"',
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: Nothing",
            "unknown-kind",
            "known: VirtualService, ServiceEntry, DestinationRule, WorkloadEntry, Gateway",
        ),
    ],
)
def test_a_mistaken_kind_or_version_is_answered_with_the_right_one(
    head: str, code: str, fix: str
) -> None:
    error = only_error(f"{head}\nmetadata: {{name: x}}")
    assert (error.code, error.fix) == (code, fix)


def test_an_object_twice_in_a_file_is_told_and_the_first_is_used() -> None:
    result = load_text(router() + "---\n" + router(name="second"), "a.yaml")
    (loaded,) = result.resources
    assert loaded.spec.routes[0].name == "only"
    assert [item.code for item in result.diagnostics] == ["duplicate-object"]


def test_no_namespace_is_the_namespace_default() -> None:
    assert load_one(router().replace("  namespace: shop\n", "")).key.namespace == "default"


# --- YAML


def test_a_repeated_key_is_an_error_and_the_object_is_not_used() -> None:
    result = load_text(router().replace("spec:", "spec: {}\nspec:"), "a.yaml")
    assert result.resources == []
    (repeated,) = [item for item in result.diagnostics if item.code == "duplicate-key"]
    assert repeated.origin == Origin("a.yaml", 7, 1)
    assert ("MetaRouter", "shop", "orders") in result.broken


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1\nb: 2\n", 2, "is no YAML"),
        ("a:\n\t- b\n", 2, "is no YAML"),
        ("a: b: c\n", 1, "mapping values are not allowed"),
        ("a: 'x\n", 2, "is no YAML"),
        ("ok: 1\nx\n", 3, "could not find expected ':'"),
        ("a: *x\n", 1, "names no anchor"),
        ("a: &x [*x]\n", 1, "is within itself"),
        ("a: !!python/object/apply:os.system [x]\n", 1, "means nothing here"),
        ("a: !secret b\n", 1, "means nothing here"),
        ("a: .inf\n", 1, "no number that JSON has"),
        ("? [a]\n: b\n", 1, "a key must be text"),
        ("a: \x07\n", 1, "is no YAML"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line(text: str, line: int, words: str) -> None:
    result = load_text("# first\n---\n" + text, "a.yaml")
    (error,) = result.diagnostics
    assert words in error.message
    assert error.origin is not None
    assert error.origin.line in (line + 2, line + 1)
    assert not result.complete


def test_plain_values_mean_what_they_mean_to_kubectl() -> None:
    options = (
        "{a: 010, b: 0x1f, c: 1e3, d: 2020-01-31, e: 1:30, f: yes, g: off, h: 1_000, i: ~, "
        "j: '5', k: !!str 5, l: 0.0.0.0, m: -3, n: .5, o: y, p: 08}"
    )
    text = APPLICATION_PROTOCOL.replace("codec:", f"options: {options}, codec:")
    assert load_one(text).spec.options == {
        "a": 8,
        "b": 31,
        "c": 1000.0,
        "d": "2020-01-31",
        "e": "1:30",
        "f": True,
        "g": False,
        "h": 1000,
        "i": None,
        "j": "5",
        "k": "5",
        "l": "0.0.0.0",
        "m": -3,
        "n": 0.5,
        "o": "y",
        "p": "08",
    }


def test_anchors_and_merge_keys_are_followed() -> None:
    text = router().replace("- destination:", "- &to\n      destination:")
    text = text.replace("  - name: only", "  - name: first\n    route: [*to]\n  - name: only")
    with pytest.raises(AssertionError):
        # An alias before its anchor is none.
        load_one(text)
    text = APPLICATION_PROTOCOL.replace(
        "spec: {protocol: dubbo,", "spec: {options: {base: &b {x: 1, y: 2}, own: {<<: *b, y: 3}},"
    ).replace("codec:", "protocol: dubbo, codec:")
    assert load_one(text).spec.options == {"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}}


def test_empty_files_and_comments_say_nothing() -> None:
    for text in ("", "\n", "# only\n", "---\n---\n# x\n...\n", "%YAML 1.1\n---\n", "\ufeff"):
        result = load_bytes(text.encode(), "a.yaml")
        assert (result.resources, result.diagnostics) == ([], []), text


def test_directives_and_windows_line_ends_are_no_matter() -> None:
    text = "%YAML 1.1\n---\n" + APPLICATION_PROTOCOL + "...\n%YAML 1.1\n# next\n---\n" + router()
    assert len(load_text(text, "a.yaml").resources) == 2
    assert len(load_text(text.replace("\n", "\r\n"), "a.yaml").resources) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: \xff", "is not UTF-8: byte 0xff"),
        ("a: 1".encode("utf-16"), "is UTF-16"),
        (b"\x00\x01\x02", "is no YAML"),
    ],
)
def test_what_is_no_text_is_told(content: bytes, words: str) -> None:
    (error,) = load_bytes(content, "a.yaml").diagnostics
    assert words in error.message


# --- bounds


def test_a_file_beyond_the_bound_is_not_read() -> None:
    limits = Limits(bytes=100)
    (error,) = load_text("a" * 101, "a.yaml", limits).diagnostics
    assert error.code == "too-large"
    (error,) = load_bytes(b"a" * 101, "a.yaml", limits).diagnostics
    assert error.code == "too-large"


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (LAUGHS, "too-large"),
        ("[" * 100_000, "too-deep"),
        ("{a: " * 100_000, "too-deep"),
        ("- " * 100_000, "too-deep"),
        ("".join(f"{' ' * i}a:\n" for i in range(3000)), "too-deep"),
        ("? " * 50_000, "too-deep"),
        ("a: &x {<<: *x}", "bad-yaml"),
        ("&a " * 50_000, "bad-yaml"),
        ("!" * 100_000, "bad-yaml"),
        ("'" + "a\n\n" * 100_000, "bad-yaml"),
        ("a: |\n" + " x\n" * 100_000, None),
        ("a" * 1_000_000, None),
        ("9" * 1_000_000, None),
        ("a: " + "9" * 5000, None),
        ("- a\n" * 200_000, None),
        ("".join(f"k{i}: 1\n" for i in range(100_000)), None),
        ("---\n" * 100_000, None),
        ("#\n" * 500_000, None),
    ],
)
def test_hostile_yaml_is_refused_in_bounded_time(text: str, code: str | None) -> None:
    begun = time.process_time()
    result = load_text(text, "a.yaml")
    # A second or two on a fast machine at most; none of these may grow with the square.
    assert time.process_time() - begun < 10
    assert result.resources == []
    if code is not None:
        assert [item.code for item in result.diagnostics] == [code]


def test_thousands_of_unknown_fields_in_one_object_stay_fast() -> None:
    extra = "".join(f"  unknown{i}: {{}}\n" for i in range(5000))
    begun = time.process_time()
    result = load_text(router() + extra, "a.yaml")
    assert time.process_time() - begun < 10
    assert len(result.diagnostics) == 5000
    assert all(item.origin and item.origin.line > 10 for item in result.diagnostics)


def test_two_thousand_broken_documents_are_all_told() -> None:
    text = "---\n".join(router(timout=f"{i}s").replace("orders\n", f"o{i}\n") for i in range(2000))
    result = load_text(text, "a.yaml")
    assert len(result.diagnostics) == 2000
    assert len(result.broken) == 2000
    assert {item.fix for item in result.diagnostics} == {'did you mean "timeout"?'}


def test_beyond_its_bound_problems_are_counted_only() -> None:
    text = "---\n".join(["a: [\n"] * 50)
    result = load_text(text, "a.yaml", Limits(problems=10))
    assert len(result.diagnostics) == 11
    assert result.diagnostics[-1].code == "too-many-problems"
    assert not result.complete


def test_all_samples_are_read_in_one_file() -> None:
    result = load_text("---\n".join(ALL), "a.yaml")
    assert result.ok
    assert len(result.resources) == 4


def test_of_two_objects_of_one_name_without_a_spec_the_second_is_told_of() -> None:
    policy = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing, namespace: shop}
"""
    result = load_text(f"{policy}---{policy}", "a.yaml")
    assert [item.code for item in result.diagnostics] == ["duplicate-object"]
    assert len(result.resources) == len(result.unreadable) == 1
