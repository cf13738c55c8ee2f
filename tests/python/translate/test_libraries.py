"""ApplicationProtocols whose codec is in a library: what is made of them, and what is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import metaprotocol
import pytest
import yaml

from tests.python.external.building import PAGE, library

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

HOST = "orders.shop.svc.cluster.local"
PORT = {"number": 7000, "name": "tcp-metaprotocol-page", "protocol": "TCP"}


@pytest.fixture(scope="module")
def page_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return library(tmp_path_factory.mktemp("page"), PAGE.read_text())


def mesh(folder: Path, key: str = "method", **protocol: object) -> Path:
    """A folder with one service of that protocol, and a route on a key."""
    objects = [
        {
            "apiVersion": "metaprotocol.aeraki.io/v1alpha1",
            "kind": "ApplicationProtocol",
            "metadata": {"name": "page"},
            "spec": {"protocol": "page", **protocol},
        },
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "ServiceEntry",
            "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {
                "hosts": [HOST],
                "ports": [PORT],
                "resolution": "STATIC",
                "endpoints": [{"address": "10.0.0.1"}],
            },
        },
        {
            "apiVersion": "metaprotocol.aeraki.io/v1alpha1",
            "kind": "MetaRouter",
            "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {
                "hosts": [HOST],
                "routes": [
                    {
                        "match": {"attributes": {key: {"exact": "get"}}},
                        "route": [{"destination": {"host": HOST}}],
                    }
                ],
            },
        },
    ]
    folder.mkdir(exist_ok=True)
    (folder / "mesh.yaml").write_text(yaml.safe_dump_all(objects))
    return folder


def told(folder: Path) -> list[tuple[str, str]]:
    """Codes and fields."""
    return [(item.code, item.field) for item in metaprotocol.load(folder).diagnostics]


def test_the_configuration_names_the_library_of_the_protocol(
    tmp_path: Path, page_library: str
) -> None:
    loaded = metaprotocol.load(mesh(tmp_path, library=page_library))
    assert list(loaded.diagnostics) == []
    assert page_library in loaded.envoy().to_yaml()


def test_keys_of_a_library_are_known_to_routes(tmp_path: Path, page_library: str) -> None:
    folder = mesh(tmp_path, key="methd", library=page_library)
    (doubt,) = metaprotocol.load(folder).diagnostics
    assert 'did you mean "method"?' in str(doubt)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ("", "No such file or directory"),
        ("int at_load = (__builtin_trap(), 1);", "ends the process that loads it: SIG"),
        ("int none;", "exports no function metaprotocol_codec"),
    ],
)
def test_a_library_that_cannot_be_loaded_has_no_listener_and_says_so(
    tmp_path: Path, parts: str, says: str
) -> None:
    path = library(tmp_path, parts) if parts else "/nowhere/page.so"
    loaded = metaprotocol.load(mesh(tmp_path / "mesh", library=path))
    found = {(item.code, item.field): str(item) for item in loaded.diagnostics}
    assert set(found) == {("bad-library", "spec.library"), ("unknown-codec", "spec.ports[0].name")}
    assert says in found["bad-library", "spec.library"]
    assert loaded.envoy().snapshots() == []


def test_options_that_a_library_refuses_are_told_by_their_field(
    tmp_path: Path, page_library: str
) -> None:
    folder = mesh(tmp_path, library=page_library, options={"a": 1})
    assert ("bad-library", "spec.options") in told(folder)


@pytest.mark.parametrize(
    ("protocol", "field"),
    [
        ({"library": "page.so"}, "spec.library"),
        ({"library": "/page.so", "codec": "dubbo"}, "spec.codec"),
        ({}, "spec"),
    ],
)
def test_a_protocol_says_once_and_absolutely_where_its_codec_is(
    tmp_path: Path, protocol: dict[str, object], field: str
) -> None:
    assert field in {field for _, field in told(mesh(tmp_path, **protocol))}  # type: ignore[arg-type]
