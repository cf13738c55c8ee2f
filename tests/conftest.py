"""Fixtures for all tests."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.envoy.descriptors import EnvoyTypes

from tests.testkit.built import BUILD, LOCK
from tests.testkit.locks import one_at_a_time

# The test command says the same of the same code: random tests have fixed seeds. `make search`
# looks for what they do not find. Neither says how fast a machine has to be.
settings.register_profile(
    "fixed",
    derandomize=True,
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", settings.get_profile("fixed"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What `run` and `serve` keep over a restart is not kept in this user's home."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Commands say how the package's log is written; the next test finds it as it was."""
    logger = logging.getLogger("metaprotocol")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.propagate = before[1]
    logger.handlers[:] = before[2]


@pytest.fixture(scope="session")
def builder() -> ConfigBuilder:
    """Builds configuration for the installed Envoy with the module that the build made."""
    return ConfigBuilder(EnvoyTypes.from_binary(find_envoy().path), Module(find_module()))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that $METAPROTOCOL_WHEEL names; without it, one of this tree, made in the build
    folder of `make`, so that nothing is compiled again."""
    if given := os.environ.get("METAPROTOCOL_WHEEL"):
        return Path(given)
    pytest.importorskip("scikit_build_core")
    root = Path(__file__).resolve().parent.parent
    if not (BUILD / "build.ninja").is_file():
        pytest.skip("the module is not built: make test ONLY=cpp")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    command += ["--no-deps", "--no-build-isolation", f"--wheel-dir={folder}"]
    command += [f"--config-settings=build-dir={BUILD}", str(root)]
    with one_at_a_time(LOCK):
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (path,) = folder.glob("metaprotocol-*.whl")
    return path
