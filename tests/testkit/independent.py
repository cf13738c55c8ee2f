"""Programs that are not ours: providers and consumers in Node, Java and Go, and what speaks to
them. Their sources, or what names them, are in tests/peers.

They are built once, below build/peers, and need the network then. Where Node, Java, Maven, Go or
the network is missing, the test is skipped, and says which.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from tests.testkit.locks import one_at_a_time

INTERFACE = "org.metaprotocol.peer.DubboPeer$Greeter"

_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = _ROOT / "tests" / "peers"
_BUILD = _ROOT / "build" / "peers"

_providers = itertools.count()  # tells their logs apart

# Dubbo's proxies and serialization reach into these; JDK 17 asks that it be said.
_JAVA_OPTIONS = (
    "-Djava.net.preferIPv4Stack=true",
    "-XX:TieredStopAtLevel=1",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.math=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
)


@dataclass(frozen=True)
class Peer:
    """A program with the commands ``provider VERSION`` and ``consumer PORT VERSION``."""

    name: str
    provider_command: tuple[str, ...]
    consumer_command: tuple[str, ...]
    load_command: tuple[str, ...] = ()
    listen_command: tuple[str, ...] = ()

    @contextmanager
    def provider(self, version: str, *, killed: bool = False) -> Iterator[int]:
        """Runs a provider of INTERFACE; its port on loopback. In the end it shuts down in order, or
        is killed."""
        log = _BUILD / f"{self.name}-provider-{os.getpid()}-{next(_providers)}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [*self.provider_command, version],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("ready "):
                    yield int(line.split()[1])
                    break
            else:
                pytest.fail(f"the {self.name} provider did not start:\n{log.read_text()[-3000:]}")
        finally:
            if killed:
                process.kill()
            process.stdin.close()
            try:
                process.wait(60)  # Dubbo alone waits up to ten seconds for calls under way
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        log.unlink()

    def consume(self, port: int, version: str) -> dict[str, str]:
        """Runs the consumer against ``port``; what it printed, by the name of the call."""
        return self._run(*self.consumer_command, str(port), version)

    def load(self, port: int, version: str, milliseconds: int) -> dict[str, str]:
        """Calls from many threads for that long: ``calls``, ``lost`` and the last ``error``."""
        return self._run(*self.load_command, str(port), version, str(milliseconds))

    def listen(self, port: int, version: str) -> dict[str, str]:
        """Runs consumers that the provider calls back; what they were asked and it was answered."""
        return self._run(*self.listen_command, str(port), version)

    def _run(self, *command: str) -> dict[str, str]:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        results = {}
        for line in done.stdout.split("\n"):  # splitlines() also splits at control characters
            what, separator, result = line.partition(": ")
            if separator and " " not in what:
                results[what] = result
        return results


def node() -> Peer:
    """The Node peer: apache-dubbo-js as consumer, hessian.js under the provider."""
    return _node_peer("node")


def hessian_js() -> tuple[str, ...]:
    """The command of a program that reads bodies of Dubbo with hessian.js, as ``fastjson2`` does
    with ``read``."""
    return ("node", str(_node_folder("node") / "reader.js"))


def bolt() -> Peer:
    """SOFA RPC for Node, which speaks Bolt, as consumer and provider."""
    return _node_peer("bolt")


def buildifier() -> Path:
    """Bazel's formatter of its own files."""
    return _node_folder("buildifier") / "node_modules" / ".bin" / "buildifier"


def _node_peer(name: str) -> Peer:
    folder = _node_folder(name)
    return Peer(
        name,
        ("node", str(folder / "provider.js")),
        ("node", str(folder / "consumer.js")),
    )


def _node_folder(name: str) -> Path:
    """A copy of that folder of the sources, with the packages that it names."""
    _need("node", "npm")
    folder = _BUILD / name
    sources = sorted((_SOURCES / name).iterdir())
    with one_at_a_time(_BUILD / f"{name}.lock"):
        if _outdated(folder / "node_modules", sources):
            folder.mkdir(parents=True, exist_ok=True)
            for source in sources:
                shutil.copy(source, folder)
            _run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
            (folder / "node_modules").touch()
    return folder


def java(dubbo_version: str, serialization: str = "hessian2") -> Peer:
    """Apache Dubbo for Java in that version, as consumer and provider."""
    peer = _java_peer(
        f"java-{dubbo_version}",
        "java",
        "DubboPeer",
        f"-Ddubbo.version={dubbo_version}",
        options=(f"-Dserialization={serialization}",),
    )
    return replace(peer, name=f"{peer.name}-{serialization}")


def brpc() -> Peer:
    """brpc-java, which speaks baidu_std, as consumer and provider."""
    return _java_peer("brpc", "brpc", "BrpcPeer")


def bolt_java() -> Peer:
    """SOFA Bolt for Java, which speaks version 2 with checksums, as consumer and provider."""
    return _java_peer("bolt-java", "bolt-java", "BoltPeer")


def rocketmq(heads: Literal["json", "binary"]) -> Peer:
    """A broker of RocketMQ as provider; its producer and consumers, whose heads are like that, as
    consumer."""
    peer = _java_peer("rocketmq", "rocketmq", "RocketmqPeer")
    if heads == "json":
        return peer
    java, *arguments = peer.consumer_command
    return replace(peer, consumer_command=(java, "-Drocketmq.serialize.type=ROCKETMQ", *arguments))


def kafka() -> Peer:
    """A broker of Kafka as provider, which tells its clients to come to the port ``version``."""
    return _java_peer("kafka", "kafka", "KafkaPeer")


def fastjson2() -> tuple[str, ...]:
    """The command of a program that writes (``write SEED COUNT``) and reads (``read``) bodies of
    Dubbo with fastjson2."""
    return _java_peer("fastjson2", "fastjson2", "Fastjson2Peer").provider_command[:-1]


def zookeeper() -> Peer:
    """A ZooKeeper server as provider."""
    return _java_peer("zookeeper", "zookeeper", "ZooKeeperPeer")


def trpc() -> Peer:
    """trpc-go, as consumer and provider."""
    command = (str(_go_program("trpc", "trpc-peer", ".")),)
    return Peer("trpc", (*command, "provider"), (*command, "consumer"))


def kitex(transport: str) -> Peer:
    """Kitex over ``ttheader`` or ``ttheader_framed``, as consumer and provider."""
    command = (str(_go_program("kitex", "kitex-peer", ".")), transport)
    return Peer(f"kitex-{transport}", (*command, "provider"), (*command, "consumer"))


def registry() -> Path:
    """Distribution, the registry that Docker Hub and most others are built on."""
    return _go_program("containers", "registry", "./registry")


def crane() -> Path:
    """A client of registries which shares no code with skopeo."""
    return _go_program("containers", "crane", "github.com/google/go-containerregistry/cmd/crane")


def _go_program(sources: str, name: str, package: str) -> Path:
    """A program of a package that the module in that folder of the sources has or names."""
    _need("go")
    module = _SOURCES / sources
    program = _BUILD / sources / name
    with one_at_a_time(_BUILD / f"{sources}.lock"):
        if _outdated(program, [path for path in module.rglob("*") if path.is_file()]):
            program.parent.mkdir(parents=True, exist_ok=True)
            _run("go", "build", "-o", str(program), package, cwd=module)
            program.touch()  # Go leaves it alone if it would not change
    return program


def _java_peer(
    name: str, sources: str, main: str, *properties: str, options: tuple[str, ...] = ()
) -> Peer:
    _need("java", "javac", "mvn")
    folder = _BUILD / name
    classpath = folder / "classpath"
    project = _SOURCES / sources
    # What Maven has fetched is in a folder that two of them at once would break.
    with one_at_a_time(_BUILD / "maven.lock"):
        if _outdated(classpath, [path for path in project.rglob("*") if path.is_file()]):
            folder.mkdir(parents=True, exist_ok=True)
            _run(
                *("mvn", "--quiet", "--batch-mode", "--file", str(project / "pom.xml")),
                *("compile", "dependency:build-classpath"),
                *(*properties, f"-Dpeer.build={folder}"),
                f"-Dmdep.outputFile={classpath}",
                cwd=folder,
            )
            classpath.touch()  # Maven leaves the file alone if it would not change
    command = (
        "java",
        *_JAVA_OPTIONS,
        *options,
        f"-Duser.home={folder}",  # logs go there
        *("-cp", f"{folder / 'classes'}:{classpath.read_text().strip()}"),
        f"org.metaprotocol.peer.{main}",
    )
    return Peer(name, *((*command, what) for what in ("provider", "consumer", "load", "listen")))


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def _outdated(made: Path, sources: list[Path]) -> bool:
    if not made.exists():
        return True
    return made.stat().st_mtime < max(source.stat().st_mtime for source in sources)


def _run(*command: str, cwd: Path) -> None:
    """Runs a build command. Failing for want of the network is a reason to skip, any other is not:
    but tools do not tell these apart well, so what they say is looked at."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=540, check=False
    )
    if done.returncode == 0:
        return
    said = (done.stdout + done.stderr)[-3000:]
    offline = (
        "ENOTFOUND",
        "ECONNREFUSED",
        "EAI_AGAIN",
        "ETIMEDOUT",
        "Could not transfer",
        "Unknown host",
        "no such host",
        "connection refused",
        "403 Forbidden",
    )
    if any(sign in said for sign in offline):
        pytest.skip(f"{command[0]} could not download what the peer needs")
    pytest.fail(f"{' '.join(command)} failed:\n{said}")
