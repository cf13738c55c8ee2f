"""Registries, layouts and archives that break every rule: each ends in a sentence that is no
traceback, and nothing is left of it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from metaprotocol.image import ImageError, ImageOptions
from metaprotocol.image.build import build_image, join_index
from metaprotocol.image.places import Archive, Layout, parse_place
from metaprotocol.image.store import CONFIG, INDEX, MANIFEST
from typer.testing import CliRunner

from tests.testkit.images import elf, small_image


@pytest.fixture
def base(tmp_path: Path) -> Layout:
    return small_image(tmp_path)


class Server(BaseHTTPRequestHandler):
    """What there is none of is not found, and every upload is taken, unless ``answer`` answers."""

    protocol_version = "HTTP/1.1"
    answer: Callable[[Server], object]
    answered = False

    def send(self, status: int, body: bytes = b"", length: int | None = None, **heads: str) -> bool:
        self.answered = True
        self.send_response(status)
        for name, text in heads.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = length is not None
        return True

    def drop(self) -> bool:
        self.answered = self.close_connection = True
        return True

    def _serve(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answered = False
        self.answer(self)
        if self.answered:
            return
        if self.command in ("GET", "HEAD"):
            self.send(404)
        else:
            status = 202 if self.command == "POST" else 201
            self.send(status, Location="/v2/a/blobs/uploads/1")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def registry(answer: Callable[[Server], object]) -> Iterator[str]:
    handler = type("Handler", (Server,), {"answer": staticmethod(answer)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def manifest(**content: object) -> Callable[[Server], object]:
    """Answers every request with that manifest."""
    return lambda server: server.send(200, json.dumps(content).encode())


def blob(content: bytes, sent: bytes, length: int | None = None) -> Callable[[Server], object]:
    """An image whose configuration is ``content``, of which ``sent`` is sent."""
    config = {
        "mediaType": CONFIG,
        "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "size": len(content),
    }
    image = json.dumps({"mediaType": MANIFEST, "config": config, "layers": []}).encode()

    def answer(server: Server) -> None:
        if "/manifests/" in server.path:
            server.send(200, image)
        else:
            server.send(200, sent, length)

    return answer


PULLS: dict[str, Callable[[Server], object]] = {
    "forbids": lambda server: server.send(403),
    "fails": lambda server: server.send(500, b"\xff"),
    "hangs up": lambda server: server.drop(),
    "breaks off in a manifest": lambda server: server.send(200, b'{"a":', 500),
    "sends no JSON": lambda server: server.send(200, b"\xff\xfe"),
    "sends a list": lambda server: server.send(200, b"[]"),
    "sends an empty manifest": manifest(mediaType=MANIFEST),
    "lies about compression": lambda server: server.send(200, b"plain", Content_Encoding="gzip"),
    "sends a number for manifests": manifest(mediaType=INDEX, manifests=3),
    "sends a text for layers": manifest(mediaType=MANIFEST, config={}, layers="ab"),
    "sends a number for a type": manifest(mediaType=7),
    "sends numbers for layers": manifest(mediaType=MANIFEST, config={}, layers=[1]),
    "sends us round in circles": lambda server: server.send(307, Location=server.path),
    "sends us nowhere": lambda server: server.send(307, Location="http://[::bad/"),
    "breaks off in a blob": blob(b"x" * 50_000, b"x" * 1000, 50_000),
    "sends another blob": blob(b"x" * 50_000, b"y" * 50_000),
    "sends a longer blob": blob(b"x", b"x" * 50_000),
    "sends a list for a configuration": blob(b"[]", b"[]"),
}

PUSHES: dict[str, Callable[[Server], object]] = {
    "forbids": lambda server: server.send(403),
    "fails": lambda server: server.send(500),
    "hangs up": lambda server: server.command == "PUT" and server.drop(),
    "takes no large blobs": lambda server: server.command == "PUT" and server.send(413),
    "takes no manifest": lambda server: "/manifests/" in server.path and server.send(400),
    "names no place to upload to": lambda server: server.command == "POST" and server.send(202),
    "names a place that is none": lambda server: (
        server.command == "POST" and server.send(202, Location="::::")
    ),
    "asks for a token of nobody": lambda server: server.send(401, WWW_Authenticate="Bearer"),
}


@pytest.mark.parametrize("name", PULLS)
def test_of_a_registry_that_breaks_a_rule_nothing_is_taken(name: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    with registry(PULLS[name]) as host:
        options = ImageOptions(elf(tmp_path / "m.so"), base=parse_place(f"{host}/a:1"))
        with pytest.raises(ImageError, match=r"127\.0\.0\.1|sha256:"):
            build_image(options, [Layout(target, "1")])
    assert not target.exists()


@pytest.mark.parametrize("name", PUSHES)
def test_a_registry_that_does_not_take_an_image_is_named(
    name: str, base: Layout, tmp_path: Path
) -> None:
    options = ImageOptions(elf(tmp_path / "m.so"), base=base)
    with registry(PUSHES[name]) as host:
        place = parse_place(f"{host}/a:1")
        with pytest.raises(ImageError, match=host):
            build_image(options, [place])


@pytest.mark.parametrize(
    "part",
    [
        {"config": [1]},
        {"config": {"Env": "A=1"}},
        {"config": {"Env": [1]}},
        {"config": {"Labels": ["a"]}},
        {"rootfs": []},
        {"rootfs": {"diff_ids": [1]}},
        {"history": {}},
    ],
    ids=str,
)
def test_a_configuration_of_another_form_is_none_of_an_image(
    part: dict[str, object], tmp_path: Path
) -> None:
    options = ImageOptions(elf(tmp_path / "m.so"), base=small_image(tmp_path, part))
    with pytest.raises(ImageError, match="configuration"):
        build_image(options, [])


@pytest.mark.parametrize("content", ["[]", "{", '{"manifests": 1}', '{"manifests": [1]}'])
def test_a_layout_with_another_index_is_none_and_is_left_alone(
    content: str, base: Layout, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "index.json").write_text(content)
    module = elf(tmp_path / "m.so")
    with pytest.raises(ImageError, match="not an OCI image layout"):
        build_image(ImageOptions(module, base=Layout(folder, "1")), [])
    with pytest.raises(ImageError, match="not an OCI image layout"):
        build_image(ImageOptions(module, base=base), [Layout(folder, "1")])
    assert [path.name for path in folder.iterdir()] == ["index.json"]
    assert (folder / "index.json").read_text() == content


@pytest.mark.parametrize("by", ["name", "parent", "link"])
@pytest.mark.parametrize("part", ["Config", "Layers"])
def test_an_archive_cannot_put_a_file_of_this_machine_into_an_image(
    part: str, by: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"architecture": "amd64", "os": "linux"}')
    path = tmp_path / "a.tar"
    name = {"name": str(secret), "parent": f"{'../' * 30}{secret}", "link": "link"}[by]
    image: dict[str, object] = {"Config": "config", "Layers": []}
    image[part] = name if part == "Config" else [name]
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
        for member, data in (
            ("config", secret.read_bytes()),
            ("manifest.json", json.dumps([image]).encode()),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    options = ImageOptions(elf(tmp_path / "m.so"), base=Archive(path, "1"))
    with pytest.raises(ImageError, match="lies outside"):
        build_image(options, [])


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder in which there is room for next to nothing."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_no_room_for_temporary_files_is_told(
    full: Path, base: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(full))
    with pytest.raises(ImageError, match="No space left"):
        build_image(ImageOptions(elf(tmp_path / "m.so"), base=base), [])
    with pytest.raises(ImageError, match="No space left"):
        join_index([base], [])
    assert list(full.iterdir()) == []


def test_a_list_of_contents_is_written_whole_or_not_at_all(
    full: Path, base: Layout, tmp_path: Path
) -> None:
    from metaprotocol.cli.main import app

    (full / "else").write_bytes(bytes(4096))
    module = elf(tmp_path / "m.so")
    arguments = ["image", "build", "--base", str(base), "--module", str(module)]
    arguments += ["-o", f"oci:{tmp_path / 'out'}:1", "--sbom", str(full / "sbom.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3
    assert "No space left" in result.output + result.stderr
    assert [path.name for path in full.iterdir()] == ["else"]
