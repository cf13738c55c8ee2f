"""Reading Envoy's schema out of its executable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from metaprotocol.envoy import descriptors
from metaprotocol.envoy.binary import EnvoyBinary, find_envoy
from metaprotocol.envoy.descriptors import DescriptorError, EnvoyTypes, build_id, scan

ELF_HEADER = bytes.fromhex("7f454c460201") + bytes(58)


@pytest.fixture(autouse=True)
def _no_memory() -> Iterator[None]:
    descriptors._load.cache_clear()
    yield
    descriptors._load.cache_clear()


@pytest.fixture(scope="module")
def envoy() -> EnvoyBinary:
    return find_envoy()


def schema(name: str, *dependencies: str) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name=name, package="test", syntax="proto3", dependency=dependencies
    )
    message = file.message_type.add(name="M" + name.partition(".")[0])
    message.field.add(name="text", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    return file


def embedded(*files: descriptor_pb2.FileDescriptorProto) -> bytes:
    return b"\x0a\x05other\0" + b"\0junk\0".join(f.SerializeToString() + b"\0" for f in files)


def test_files_are_found_among_other_bytes() -> None:
    files = [schema("a.proto"), schema("some/long/" + "x" * 150 + ".proto", "a.proto")]
    assert list(scan(embedded(*files)).file) == files


def test_the_longest_of_several_copies_is_taken() -> None:
    complete, cut = schema("a.proto"), schema("a.proto")
    cut.ClearField("message_type")
    assert list(scan(embedded(cut, complete, cut)).file) == [complete]


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_a_file_cut_off_by_the_end_does_no_harm(length: int) -> None:
    scan(embedded(schema("a.proto"))[: 8 + length])


def test_a_missing_dependency_is_named() -> None:
    with pytest.raises(DescriptorError, match=r"missing\.proto is missing"):
        EnvoyTypes(scan(embedded(schema("a.proto", "missing.proto"))))


def test_files_that_depend_on_each_other_are_an_error() -> None:
    with pytest.raises(DescriptorError, match="depends on itself"):
        EnvoyTypes(scan(embedded(schema("a.proto", "b.proto"), schema("b.proto", "a.proto"))))


def test_all_of_envoys_schema_is_found(envoy: EnvoyBinary, tmp_path: Path) -> None:
    types = EnvoyTypes.from_binary(envoy.path, tmp_path)
    assert len(types.files) > 500
    for name in (
        "envoy.config.bootstrap.v3.Bootstrap",
        "envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter",
        "envoy.service.discovery.v3.DiscoveryRequest",
    ):
        assert types.message_class(name).DESCRIPTOR.full_name == name


def test_nested_any_messages_are_checked(envoy: EnvoyBinary, tmp_path: Path) -> None:
    types = EnvoyTypes.from_binary(envoy.path, tmp_path)
    typed = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "x"}
    content = {"name": "n", "typed_config": typed}
    message = types.parse("envoy.config.core.v3.TypedExtensionConfig", content)
    assert types.to_dict(message) == content
    with pytest.raises(DescriptorError, match=r"TypedExtensionConfig.*typed_config"):
        types.parse(
            "envoy.config.core.v3.TypedExtensionConfig",
            {"typed_config": {"@type": typed["@type"].replace("String", "Strong"), "value": "x"}},
        )


def test_unknown_fields_and_messages_are_errors(envoy: EnvoyBinary, tmp_path: Path) -> None:
    types = EnvoyTypes.from_binary(envoy.path, tmp_path)
    with pytest.raises(DescriptorError, match="nmae"):
        types.parse("envoy.config.cluster.v3.Cluster", {"nmae": "x"})
    with pytest.raises(DescriptorError, match="nmae"):
        types.parse_json("envoy.config.cluster.v3.Cluster", '{"nmae": "x"}')
    with pytest.raises(DescriptorError, match=r"envoy\.Nothing"):
        types.parse("envoy.Nothing", {})


def test_the_cache_is_used_and_repaired(
    envoy: EnvoyBinary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EnvoyTypes.from_binary(envoy.path, tmp_path)
    (cached,) = tmp_path.iterdir()
    scans: list[int] = []
    real = descriptors.scan

    def counting(data: bytes) -> descriptor_pb2.FileDescriptorSet:
        scans.append(len(data))
        return real(data)

    monkeypatch.setattr(descriptors, "scan", counting)
    descriptors._load.cache_clear()
    EnvoyTypes.from_binary(envoy.path, tmp_path)
    assert scans == []
    cached.write_bytes(cached.read_bytes()[:1000])
    descriptors._load.cache_clear()
    assert len(EnvoyTypes.from_binary(envoy.path, tmp_path).files) > 500
    assert len(scans) == 1
    assert list(tmp_path.iterdir()) == [cached]


def test_another_executable_has_another_cache_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.write_bytes(ELF_HEADER)
    assert descriptors._cache_key(one) != descriptors._cache_key(other)
    before = descriptors._cache_key(one)
    one.write_bytes(ELF_HEADER + b"x")
    assert descriptors._cache_key(one) != before


def test_a_folder_that_cannot_be_written_is_done_without(
    envoy: EnvoyBinary, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert EnvoyTypes.from_binary(envoy.path, file / "below").files


def test_what_is_no_envoy_is_an_error_with_a_hint(tmp_path: Path) -> None:
    script = tmp_path / "envoy"
    script.write_text("#!/bin/sh\nexec something-else\n")
    with pytest.raises(DescriptorError, match="is it an Envoy executable"):
        EnvoyTypes.from_binary(script, tmp_path / "cache")
    with pytest.raises(DescriptorError, match="No such file"):
        EnvoyTypes.from_binary(tmp_path / "nowhere", tmp_path / "cache")


def test_the_build_id_is_the_executables_own(envoy: EnvoyBinary, tmp_path: Path) -> None:
    assert len(build_id(envoy.path)) == 40
    for content in (b"", b"#!/bin/sh\n", ELF_HEADER):
        path = tmp_path / "file"
        path.write_bytes(content)
        assert build_id(path) == ""
