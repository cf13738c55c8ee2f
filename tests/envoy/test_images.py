"""Images as they are used: built, sent to a real registry, fetched by another program, unpacked and
run without rights over a file system that cannot be written, with calls through them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from metaprotocol.config.v1 import Route
from metaprotocol.envoy import find_envoy
from metaprotocol.envoy.binary import find_module
from metaprotocol.envoy.config import (
    Bootstrap,
    Cluster,
    ConfigBuilder,
    Host,
    MetaProtocolListener,
    Module,
)
from metaprotocol.image import ImageOptions, Kind
from metaprotocol.image.build import build_image, join_index
from metaprotocol.image.contents import ENVOY, PYTHON_HOME, USER
from metaprotocol.image.places import Layout, parse_place
from metaprotocol.peers.dubbo import DubboClient, DubboServer
from metaprotocol.peers.thrift import Encoding, Framing, GreeterHandler
from metaprotocol.peers.thrift.apache import ApacheClient, ApacheServer

from tests.testkit.images import elf, small_image
from tests.testkit.independent import crane
from tests.testkit.mesh import free_port
from tests.testkit.registry import running_registry
from tests.testkit.stage import SERVICE, Provider, proxy

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers are run as root here")

CONTAINER = f"metaprotocol-test-{os.getpid()}"
X86_64, AARCH64 = 62, 183  # what ELF files say of the processor
LIBRARIES = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The proxy's image from scratch; tools/check_containerfile.py names another to be tried."""
    if given := os.environ.get("METAPROTOCOL_IMAGE"):
        folder, _, tag = given.rpartition(":")
        return Layout(Path(folder), tag)
    layout = Layout(tmp_path_factory.mktemp("image"), "proxy")
    build_image(ImageOptions(find_module(), find_envoy()), [layout])
    return layout


def unpack(layout: Layout, target: Path) -> dict[str, object]:
    """The image's files, by GNU tar; its configuration."""
    index = json.loads((layout.folder / "index.json").read_text())
    blobs = layout.folder / "blobs" / "sha256"
    (entry,) = index["manifests"]
    manifest = json.loads((blobs / entry["digest"][7:]).read_text())
    target.mkdir()
    for layer in manifest["layers"]:
        subprocess.run(["tar", "-xzpf", blobs / layer["digest"][7:], "-C", target], check=True)
    config: dict[str, object] = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    return config


@contextmanager
def container(
    root: Path, config: dict[str, object], arguments: list[str], mounts: dict[str, Path]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a container with the machine's network and a root that cannot be written."""
    inner = config["config"]
    assert isinstance(inner, dict)
    user, _, group = inner["User"].partition(":")
    bundle = root.with_name(f"{root.name}-bundle")
    bundle.mkdir(exist_ok=True)
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    path = bundle / "config.json"
    spec = json.loads(path.read_text())
    spec["root"] = {"path": str(root), "readonly": True}
    spec["process"] |= {
        "terminal": False,
        "args": [*inner["Entrypoint"], *arguments],
        "env": inner["Env"],
        "user": {"uid": int(user), "gid": int(group)},
        "capabilities": {},
        "noNewPrivileges": True,
    }
    spec["linux"]["namespaces"] = [
        space for space in spec["linux"]["namespaces"] if space["type"] != "network"
    ]
    for target, source in mounts.items():
        spec["mounts"].append(
            {"destination": target, "source": str(source), "type": "bind",
             "options": ["rbind", "ro"]}
        )  # fmt: skip
    path.write_text(json.dumps(spec))
    with (bundle / "log").open("wb") as log:
        process = subprocess.Popen(
            ["runc", "run", "--bundle", bundle, CONTAINER],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                subprocess.run(["runc", "kill", CONTAINER, "KILL"], check=False)
                process.wait()


def needs_runc() -> None:
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed")


def wait_for(port: int, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300  # only ends what hangs
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def test_an_image_is_small_and_the_same_every_time(image: Layout, tmp_path: Path) -> None:
    again = Layout(tmp_path / "again", "proxy")
    built = build_image(ImageOptions(find_module(), find_envoy()), [again])
    assert built.size < 60e6
    assert (again.folder / "index.json").read_bytes() == (image.folder / "index.json").read_bytes()


def test_an_image_holds_what_envoy_needs_and_no_path_of_the_builder(
    image: Layout, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    unpack(image, root)
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert {Path(name).name for name in files} >= LIBRARIES
    allowed = ("etc/", "lib/", "lib64/", "usr/lib/", "usr/local/bin/envoy", "usr/share/doc/")
    assert all(name.startswith(allowed) for name in files)
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777


async def test_dubbo_and_thrift_calls_pass_through_a_container_without_rights(
    image: Layout, builder: ConfigBuilder, tmp_path: Path
) -> None:
    needs_runc()
    root = tmp_path / "root"
    config = unpack(image, root)
    ports = {"dubbo": free_port(), "thrift": free_port()}
    provider = Provider("inside")
    in_image = ConfigBuilder(builder.types, Module())  # by name, from the search path
    async with DubboServer(provider) as dubbo:
        with ApacheServer(
            {"": GreeterHandler("inside")}, Framing.FRAMED, Encoding.BINARY
        ) as thrift:
            upstream = {"dubbo": dubbo.port, "thrift": thrift.port}
            bootstrap = in_image.bootstrap(
                Bootstrap(
                    listeners=[
                        MetaProtocolListener(
                            name, proxy(name, Route(name="all", cluster=name)), port=port
                        )
                        for name, port in ports.items()
                    ],
                    clusters=[
                        Cluster(name, [Host("127.0.0.1", port)]) for name, port in upstream.items()
                    ],
                )
            )
            file = tmp_path / "envoy.yaml"
            file.write_text(json.dumps(in_image.to_dict(bootstrap)))
            with container(
                root,
                config,
                ["--config-path", "/etc/envoy/envoy.yaml", "--use-dynamic-base-id"],
                {"/etc/envoy/envoy.yaml": file},
            ) as process:
                log = tmp_path / "root-bundle" / "log"
                for port in ports.values():
                    wait_for(port, log, process)
                async with await DubboClient.connect("127.0.0.1", ports["dubbo"]) as client:
                    assert (await client.call(SERVICE, "list")).value == "inside"
                with ApacheClient(ports["thrift"], Framing.FRAMED, Encoding.BINARY) as greeter:
                    assert "inside" in greeter.greet("you")
                status = Path(f"/proc/{_pid_inside()}/status").read_text()
                assert f"Uid:\t{USER}" in status
            assert process.returncode == 0, log.read_text()


def _pid_inside() -> int:
    state = subprocess.run(["runc", "state", CONTAINER], capture_output=True, check=True).stdout
    return int(json.loads(state)["pid"])


def test_a_registry_takes_the_image_and_others_fetch_it(image: Layout, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    with running_registry(tmp_path) as host:
        place = parse_place(f"{host}/mesh/proxy:1")
        built = build_image(ImageOptions(find_module(), base=image), [place])
        seen = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", f"docker://{host}/mesh/proxy:1"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(seen.stdout)["Digest"] == built.digest
        copied = tmp_path / "copied.tar"
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--src-tls-verify=false",
             f"docker://{host}/mesh/proxy:1", f"docker-archive:{copied}:a:1"],
            check=True,
        )  # fmt: skip
        with tarfile.open(copied) as archive:
            assert "manifest.json" in archive.getnames()
        # As a base the image comes back, by its digest as well.
        for reference in (":1", f"@{built.digest}"):
            based = build_image(
                ImageOptions(find_module(), base=parse_place(f"{host}/mesh/proxy{reference}")),
                [Layout(tmp_path / "based", "1")],
            )
            assert based.layers[: len(built.layers)] == built.layers


def crane_says(command: str, *arguments: object) -> str:
    finished = subprocess.run(
        [crane(), command, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout.strip()


def test_crane_finds_the_image_valid_and_copies_it_within_the_registry(
    image: Layout, tmp_path: Path
) -> None:
    with running_registry(tmp_path) as host:
        place = parse_place(f"{host}/mesh/proxy:1")
        built = build_image(ImageOptions(find_module(), base=image), [place])
        assert crane_says("digest", place) == built.digest
        # Reads every layer: digests, sizes, and that what is unpacked is what the image says.
        crane_says("validate", "--remote", place)
        crane_says("copy", place, f"{host}/other/proxy:2")
        assert crane_says("digest", f"{host}/other/proxy:2") == built.digest


def test_each_processor_gets_its_own_image_from_an_index(tmp_path: Path) -> None:
    images = {}
    with running_registry(tmp_path) as host:
        for name, machine in (("amd64", X86_64), ("arm64", AARCH64)):
            (folder := tmp_path / name).mkdir()
            base = small_image(folder, {"architecture": name})
            place = parse_place(f"{host}/mesh/{name}:1")
            module = elf(folder / "libmetaprotocol.so", machine)
            images[name] = (place, build_image(ImageOptions(module, base=base), [place]))
        index = parse_place(f"{host}/mesh/proxy:1")
        digest = join_index([place for place, _ in images.values()], [index])
        assert crane_says("digest", index) == digest
        crane_says("validate", "--remote", index)
        for name, (_, built) in images.items():
            own = crane_says("digest", "--platform", f"linux/{name}", index)
            assert own == built.digest
            # As a base it gives each module what is for its processor.
            module = tmp_path / name / "libmetaprotocol.so"
            again = build_image(
                ImageOptions(module, base=index), [Layout(tmp_path / "again", name)]
            )
            assert again.architecture == name
            assert again.layers[:2] == built.layers


def test_docker_archives_are_read_by_another_program(image: Layout, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    archive = tmp_path / "image.tar"
    build_image(
        ImageOptions(find_module(), base=image), [parse_place(f"docker-archive:{archive}:1")]
    )
    seen = subprocess.run(
        ["skopeo", "inspect", f"docker-archive:{archive}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(seen.stdout)["Architecture"] == "amd64"


def test_the_control_planes_image_serves_a_folder(tmp_path: Path) -> None:
    needs_runc()
    layout = Layout(tmp_path / "image", "cp")
    build_image(ImageOptions(find_module(), find_envoy(), kind=Kind.CONTROL_PLANE), [layout])
    root = tmp_path / "root"
    config = unpack(layout, root)
    inner = config["config"]
    assert isinstance(inner, dict)
    assert inner["Entrypoint"][0] == f"{PYTHON_HOME}/bin/python3"
    assert (root / ENVOY.lstrip("/")).exists()
    folder = tmp_path / "mesh"
    folder.mkdir()
    (folder / "a.yaml").write_text(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
        "metadata: {name: a, namespace: b}\nspec:\n  hosts: [a.b.svc.cluster.local]\n"
        "  ports: [{number: 20880, name: tcp-metaprotocol-dubbo}]\n  resolution: STATIC\n"
        "  endpoints: [{address: 127.0.0.1}]\n"
    )
    port = free_port()
    with container(
        root,
        config,
        ["serve", "/etc/metaprotocol", "--listen", f"127.0.0.1:{port}"],
        {"/etc/metaprotocol": folder},
    ) as process:
        wait_for(port, tmp_path / "root-bundle" / "log", process)
    assert process.returncode == 0, (tmp_path / "root-bundle" / "log").read_text()
