"""Fixtures for all tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.envoy.descriptors import EnvoyTypes

# The test command says the same of the same code: random tests have fixed seeds. `make search`
# looks for what they do not find.
settings.register_profile("fixed", derandomize=True, print_blob=True)
settings.register_profile("search", derandomize=False, print_blob=True)
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
