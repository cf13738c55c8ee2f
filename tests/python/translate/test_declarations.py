"""Declared protocols: from an ApplicationProtocol to the engine's configuration, and what is told
of their mistakes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import metaprotocol
import pytest
import yaml
from metaprotocol.config.v1 import Protocol
from metaprotocol.engine import Codec, Direction, Message
from metaprotocol.resources import declaration as models
from metaprotocol.resources.base import Model
from metaprotocol.translate.protocols import SHIPPED_DECLARATIONS, codecs, declared

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "private-protocol"

sys.path.insert(0, str(ROOT / "tools"))
from config_schema import load_schema  # noqa: E402


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    for path in EXAMPLE.glob("*.yaml"):
        text = path.read_text()
        if path.name == "protocol.yaml":
            for old, new in changes:
                assert text.count(old) == 1, old
                text = text.replace(old, new)
        (folder / path.name).write_text(text)
    return folder


def told(folder: Path) -> list[str]:
    found = metaprotocol.load(folder).diagnostics
    return [str(item) for item in found if item.severity.name == "ERROR"]


def test_the_models_have_the_schemas_fields_names_and_bounds() -> None:
    schema = load_schema(ROOT / "api")
    (file,) = [item for item in schema.files if item.path.endswith("/declaration.proto")]
    for message in file.messages:
        model: Any = getattr(models, message.name)
        assert issubclass(model, Model)
        assert list(model.model_fields) == [field.name for field in message.fields]
        properties = model.model_json_schema(by_alias=False)["properties"]
        for field in message.fields:
            shown = str(properties[field.name])
            for bound in (field.rules.minimum, field.rules.maximum):
                assert bound in shown, f"{message.name}.{field.name}"
            if field.rules.max_length:
                assert f"'maxLength': {field.rules.max_length}" in shown
            if field.kind == "enum":
                names = [value.name.lower() for value in schema.enum(field.type_name).values]
                assert str(names) in shown


def test_a_route_on_a_field_that_the_protocol_does_not_have_is_doubted(tmp_path: Path) -> None:
    assert told(changed(tmp_path)) == []
    text = (tmp_path / "routes.yaml").read_text()
    (tmp_path / "routes.yaml").write_text(text.replace("method: {exact", "methd: {exact"))
    (doubt,) = [item for item in metaprotocol.load(tmp_path).diagnostics
                if item.code == "unknown-metadata-key"]  # fmt: skip
    assert 'did you mean "method"?' in str(doubt)


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("correlationId: id", "correlationId: idd", "correlationId", "is no field of requests"),
        ("name: id, bytes: 8", "name: id, bytes: 2", "correlationId", "must have 4 or 8 bytes"),
        ("fields: [length]", "fields: [size]", "framing", "there are magic, type, status"),
        ("values: [3]", "texts: [x]", "heartbeat_reply", "is a number field"),
        ("number: 2}", "number: 300}", "errorReply", "which is at most 255"),
        ("value: 0xACE1", "value: 0xACE1F", "magic", "does not fit into 2 bytes"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_by_its_line_value_and_fix(
    tmp_path: Path, old: str, new: str, line: str, says: str
) -> None:
    folder = changed(tmp_path, (old, new))
    first = next(item for item in told(folder) if "protocol.yaml" in item)
    assert says in first
    assert "spec.declaration" in first
    place = re.match(r".*protocol\.yaml:(\d+):\d+: ", first)
    assert place is not None, first
    assert line in (folder / "protocol.yaml").read_text().splitlines()[int(place[1]) - 1]


def test_a_protocol_with_a_bad_declaration_has_no_listener_and_says_so(tmp_path: Path) -> None:
    folder = changed(tmp_path, ("correlationId: id", "correlationId: length"))
    mesh = metaprotocol.load(folder)
    codes = {item.code for item in mesh.diagnostics}
    assert {"bad-declaration", "unknown-codec"} <= codes
    assert mesh.envoy().snapshots() == []


def test_codec_and_declaration_exclude_each_other(tmp_path: Path) -> None:
    folder = changed(tmp_path, ("  protocol: acme", "  protocol: acme\n  codec: dubbo"))
    assert "must have exactly one of codec, declaration and library" in told(folder)[0]


def test_shipped_protocols_need_no_application_protocol() -> None:
    assert set(SHIPPED_DECLARATIONS) <= set(codecs())
    for name, declaration in SHIPPED_DECLARATIONS.items():
        info = declared(name, declaration)
        traits = Codec(name, declaration=info.declaration).traits
        assert tuple(traits["metadata_keys"]) == info.metadata_keys


def test_the_declaration_reaches_the_engine_as_it_is_written() -> None:
    (snapshot,) = metaprotocol.load(EXAMPLE).envoy().snapshots()
    protocol: Protocol = snapshot.proxy.protocol
    assert protocol.codec == "acme"
    assert [field.name for field in protocol.declaration.request_fields] == [
        "service", "method", "headers",
    ]  # fmt: skip


def test_the_declaration_in_the_guide_is_valid_and_does_what_it_says(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "writing-a-codec.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    block, forms = [block for block in blocks if "declaration:" in block]
    (tmp_path / "page.yaml").write_text(block)
    assert told(tmp_path) == []
    content = yaml.safe_load(block)["spec"]["declaration"]
    info = declared("page", models.Declaration.model_validate(content))
    assert set(info.metadata_keys) == {"kind", "method", "status"}
    assert Codec("page", declaration=info.declaration).traits["id_bits"] == 32
    both = declared("both", models.Declaration.model_validate(yaml.safe_load(forms)["declaration"]))
    assert set(both.metadata_keys) == {"form", "method"}
    codec = Codec("both", declaration=both.declaration)
    head = b'{"id":7,"method":"get"}'
    for rest in (b"\1" + bytes((0, 0, 0, 7, 0, 3)) + b"get", b"\0\0\0" + bytes([len(head)]) + head):
        message = len(rest).to_bytes(4) + rest
        seen = codec.decode(Direction.REQUEST, message)
        assert isinstance(seen, Message)
        assert (seen.id, dict(seen.metadata)[b"method"]) == (7, b"get")


def test_what_a_declared_codec_offers_is_what_the_engine_says() -> None:
    for name, info in codecs().items():
        if info.declaration:
            made = Codec(name, declaration=info.declaration)
            assert sorted(info.metadata_keys) == sorted(made.traits["metadata_keys"]), name
