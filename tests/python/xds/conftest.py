"""A running server, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.xds import XdsServer

from tests.python.xds.client import Messages


@pytest.fixture(scope="session")
def types() -> EnvoyTypes:
    return EnvoyTypes.from_binary(find_envoy().path)


@pytest.fixture(scope="session")
def messages(types: EnvoyTypes) -> Messages:
    return Messages(types)


@pytest_asyncio.fixture
async def server(types: EnvoyTypes) -> AsyncIterator[XdsServer]:
    server = XdsServer(types, envoy_version="1.40.0")
    await server.start()
    yield server
    await server.stop(0.5)
