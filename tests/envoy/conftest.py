"""What several tests of the command line need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from metaprotocol.peers.dubbo import DubboServer

from tests.testkit.commands import Mesh
from tests.testkit.mesh import free_port, to, write
from tests.testkit.stage import Provider


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """A folder with a service of two running providers, and a route to the first."""
    async with DubboServer(Provider("v1")) as v1, DubboServer(Provider("v2")) as v2:
        made = Mesh(tmp_path / "mesh", free_port(), {"v1": v1, "v2": v2})
        ports = {name: server.port for name, server in made.providers.items()}
        write(made.folder, made.port, ports, [to("v1")])
        yield made
