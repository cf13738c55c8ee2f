"""Fixtures for all tests."""

from __future__ import annotations

import pytest
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.envoy.descriptors import EnvoyTypes


@pytest.fixture(scope="session")
def builder() -> ConfigBuilder:
    """Builds configuration for the installed Envoy with the module that the build made."""
    return ConfigBuilder(EnvoyTypes.from_binary(find_envoy().path), Module(find_module()))
