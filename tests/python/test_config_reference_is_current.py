"""The configuration schema, its generators and the committed reference agree."""

from __future__ import annotations

import shutil
from pathlib import Path

import generate_config_reference
import generate_config_schema
import pytest
from config_schema import Field, SchemaError, duration_us, load_schema
from google.protobuf import json_format
from metaprotocol.config.v1 import ProxyConfig

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "api"


def field_of(message_name: str, field_name: str) -> Field:
    for message in load_schema(API).messages():
        for field in message.fields:
            if (message.name, field.name) == (message_name, field_name):
                return field
    raise AssertionError(f"no {message_name}.{field_name}")


def api_with(tmp_path: Path, old: str, new: str) -> Path:
    """A copy of api/ with another text."""
    copy = tmp_path / "api"
    shutil.copytree(API, copy)
    protos = [proto for proto in copy.rglob("*.proto") if old in proto.read_text()]
    assert protos, f"{old} is nowhere"
    for proto in protos:
        proto.write_text(proto.read_text().replace(old, new))
    return copy


def test_the_committed_reference_is_what_the_generator_writes() -> None:
    committed = (ROOT / "docs" / "configuration.md").read_text()
    assert committed == generate_config_reference.generate(load_schema(API)), (
        "run tools/generate_config_reference.py"
    )


def test_the_reference_explains_every_field() -> None:
    text = generate_config_reference.generate(load_schema(API))
    for message in load_schema(API).messages():
        assert f"# `{message.name}`\n" in text
        for field in message.fields:
            assert f"| `{field.name}` |" in text


def test_the_example_in_the_reference_is_a_configuration() -> None:
    config = json_format.Parse(generate_config_reference.EXAMPLE, ProxyConfig())
    assert [route.name for route in config.route_tables[0].routes] == [
        "testers",
        "writes",
        "everything-else",
    ]


def test_rules_are_read_from_the_options_of_fields() -> None:
    rules = field_of("Limits", "max_message_bytes").rules
    assert (rules.default_value, rules.minimum, rules.unit) == ("16777216", "64", "bytes")
    assert field_of("ProxyConfig", "name").rules.required


def test_generated_structs_hold_defaults_and_tell_absence() -> None:
    files = generate_config_schema.generate(load_schema(API))
    header = files["config_schema.h"]
    assert "uint64_t max_message_bytes = 16777216u;" in header
    assert "std::optional<std::string> exact;" in header
    assert "std::optional<std::chrono::microseconds> timeout;" in header
    assert "// The value begins with this text.\n  std::optional<std::string> prefix;" in header
    assert "Range<uint64_t>{64u, 2147483647u}" in files["config_schema.cc"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("  // The key.\n", "", "KeyValue.key: no comment"),
        (
            "string key = 1 [(rules) = { required: true max_length: 1024 }]",
            "string key = 1",
            "max_length",
        ),
        ("[(rules) = { max_items: 64 }]", "", "max_items"),
        ('minimum: "0.001s" maximum: "86400s"', "max_length: 5", "max_length, not_empty"),
        ("optional int64 start = 1", "int64 start = 1", "required needs `optional`"),
        ('default_value: "1" maximum', 'required: true default_value: "1" maximum', "no default"),
        ("optional uint32 weight", "uint32 weight", "a default that is not zero needs `optional`"),
        ("bool invert = 12;", "bytes invert = 12;", "this type is not supported"),
    ],
)
def test_a_schema_the_reader_could_not_bound_or_explain_is_refused(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    with pytest.raises(SchemaError, match=problem.replace("`", ".")):
        load_schema(api_with(tmp_path, old, new))


def test_messages_that_contain_themselves_are_refused(tmp_path: Path) -> None:
    copy = api_with(tmp_path, "  DirectReply direct_reply = 5;", "  Route direct_reply = 5;")
    with pytest.raises(SchemaError, match="contains itself"):
        generate_config_schema.generate(load_schema(copy))


def test_durations_are_whole_microseconds() -> None:
    assert duration_us("1.5s") == 1_500_000
    assert duration_us("0.000001s") == 1
    for text in ("1", "s", "x s", "0.0000001s"):
        with pytest.raises(SchemaError):
            duration_us(text)


def test_files_that_did_not_change_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["generator", "--proto-dir", str(API), "--out-dir", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    assert generate_config_schema.main() == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {path.name for path in before} == {"config_schema.h", "config_schema.cc"}
    assert generate_config_schema.main() == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
