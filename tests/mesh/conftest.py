"""What all scenarios share: one cluster, in which later there is a mesh."""

from __future__ import annotations

import os
import shutil
import tempfile
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
        "test_injection.py",
        "test_mesh.py",
        "test_webhook.py",
    ]
)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[object]:
    """A real API server with Istio's CRDs, and our manifests applied."""
    from tests.mesh.mesh import Mesh

    # Not below pytest's own folder, which each run of pytest on this machine closes to the user
    # that the sidecars run as.
    folder = Path(tempfile.mkdtemp(prefix="metaprotocol-mesh-"))
    made = Mesh(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        if request.session.testsfailed:
            print(f"The logs are in {folder}")  # noqa: T201
        else:
            shutil.rmtree(folder)
