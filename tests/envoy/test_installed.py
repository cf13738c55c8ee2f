"""What people install: the wheel in an empty environment, with Envoy and nothing of this tree,
carries real calls.

$METAPROTOCOL_WHEEL and $METAPROTOCOL_PYTHON name a wheel and an interpreter to try it with; without
them it is this tree's wheel in this Python (tools/release.py tries every wheel it makes)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from metaprotocol.peers.dubbo import DubboServer

from tests.testkit.commands import command, switched
from tests.testkit.mesh import ROUTER_FILE, free_port, router_yaml, save, to, write
from tests.testkit.stage import Provider, dubbo_load

ROOT = Path(__file__).resolve().parents[2]

# pip installs all of it anew, Envoy included: the limit is there to end what hangs, no more.
pytestmark = pytest.mark.timeout(1800)

# What only the tests' own Python brings must not help.
CLEAN = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture(scope="module")
def audited(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel with the tag of the oldest systems that it runs on."""
    pytest.importorskip("auditwheel")
    if "manylinux" in wheel.name:
        return wheel
    folder = tmp_path_factory.mktemp("audited")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    finished = subprocess.run(
        [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", folder, wheel],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(audited: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment with the wheel, what it asks for, Envoy, and nothing else."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    python = os.environ.get("METAPROTOCOL_PYTHON", sys.executable)
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
    ]
    constraints = ROOT / "tools" / "constraints.txt"
    finished = subprocess.run(
        [*pip, "--quiet", "--no-compile", "-c", constraints, f"{audited}[envoy]"],
        env=CLEAN,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return folder


def test_auditwheel_finds_nothing_that_only_this_machine_has(audited: Path) -> None:
    assert re.search(r"-manylinux_2_\d+_\w+\.whl$", audited.name)


def test_the_doctor_finds_all_that_is_needed(installed: Path) -> None:
    finished = subprocess.run(
        [installed / "bin" / "metaprotocol", "doctor", "--json"],
        env=CLEAN,
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    checks = {check["name"]: check for check in json.loads(finished.stdout)["checks"]}
    assert finished.returncode == 0, finished.stdout
    assert str(installed) in checks["Envoy"]["found"]
    assert str(installed) in checks["the module for Envoy"]["found"]
    assert checks["Envoy with the module"]["verdict"] == "ok"


async def test_a_folder_is_served_and_a_change_reaches_the_calls(
    installed: Path, tmp_path: Path
) -> None:
    folder, port = tmp_path / "mesh", free_port()
    async with DubboServer(Provider("v1")) as v1, DubboServer(Provider("v2")) as v2:
        write(folder, port, {"v1": v1.port, "v2": v2.port}, [to("v1")])
        program = [installed / "bin" / "metaprotocol"]
        async with command("run", folder, "--json", program=program) as run:
            await run.ready()
            async with dubbo_load(port) as load:
                await switched(load, "v1")
                save(folder / ROUTER_FILE, router_yaml(to("v2")))
                await switched(load, "v2")
            load.check()
            assert await run.stop() == 0
        assert run.errors == []


def test_calls_are_explained_without_the_peers_of_tests(installed: Path, tmp_path: Path) -> None:
    write(tmp_path / "mesh", 20880, {"v1": 21881}, [to("v1")])
    arguments: list[str | Path] = [
        "try",
        "dubbo",
        tmp_path / "mesh",
        "--interface",
        "a.B",
        "--method",
        "c",
        "--json",
    ]
    finished = subprocess.run(
        [installed / "bin" / "metaprotocol", *arguments],
        env=CLEAN, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    python = installed / "bin" / "python"
    for name in ("demo", "peers"):
        statement: list[str | Path] = [python, "-c", f"import metaprotocol.{name}"]
        imported = subprocess.run(statement, env=CLEAN, capture_output=True, check=False)
        assert imported.returncode != 0, name


def test_manual_page_and_completion_are_where_systems_look_for_them(installed: Path) -> None:
    share = installed / "share"
    assert (share / "man/man1/metaprotocol.1").is_file()
    assert (share / "zsh/site-functions/_metaprotocol").is_file()
    assert (share / "fish/vendor_completions.d/metaprotocol.fish").is_file()
    script = share / "bash-completion/completions/metaprotocol"
    asked = (
        f"source {script}; COMP_WORDS=(metaprotocol do) COMP_CWORD=1; "
        f"_metaprotocol_completion {installed}/bin/metaprotocol; echo ${{COMPREPLY[@]}}"
    )
    finished = subprocess.run(
        ["bash", "-c", asked], env=CLEAN, capture_output=True, text=True, check=True
    )
    assert finished.stdout.split() == ["doctor"]
