"""What all scenarios share: one cluster, in which later there is a mesh."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SWITCH = "METAPROTOCOL_MESH"
"""Set by `make test-mesh`, which gives the run namespaces of its own."""

collect_ignore = (
    []
    if os.environ.get(SWITCH)
    else [
        "test_api_server.py",
        "test_chart.py",
        "test_mesh.py",
    ]
)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A real API server with Istio's CRDs, and our manifests applied."""
    from tests.mesh.mesh import Mesh

    folder: Path = tmp_path_factory.mktemp("mesh")
    for parent in folder.parents:
        if parent.name.startswith("pytest-"):
            parent.chmod(0o711)
    made = Mesh(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
