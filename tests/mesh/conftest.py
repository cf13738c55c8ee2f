"""What all scenarios share: one cluster, in which later there is a mesh."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.mesh.mesh import Mesh

_CONTROLLER, _PORT = "of-scenarios", 16050

SWITCH = "METAPROTOCOL_MESH"
"""Set by `make test-mesh`, which gives the run namespaces of its own."""

collect_ignore_glob = [] if os.environ.get(SWITCH) else ["test_*.py"]


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Mesh]:
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


@pytest.fixture(scope="module")
def mesh(cluster: Mesh) -> Iterator[Mesh]:
    """istiod, a controller, a client and two providers; of what other scenarios have left, what
    there is."""
    from tests.mesh.mesh import STRICT

    if "istiod" not in cluster.processes:
        cluster.start_istiod()
    cluster.start_controller(_CONTROLLER, port=_PORT)
    cluster.apply_text(STRICT)
    cluster.wait_for_controller(_CONTROLLER, port=_PORT)
    for name, app, version in (
        ("client", "client", ""),
        ("orders-v1", "orders", "v1"),
        ("orders-v2", "orders", "v2"),
    ):
        if name not in cluster.pods:
            cluster.add_pod(name, app, version, provider=bool(version))
    cluster.wait_for_sidecars()
    yield cluster
    # One that holds the lease would leave the next scenarios' without anything to write.
    cluster.processes.pop(_CONTROLLER).stop()
