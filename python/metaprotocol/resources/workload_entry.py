"""Istio's WorkloadEntry as an object of its own: an endpoint that services select by its labels."""

from __future__ import annotations

from typing import ClassVar, Literal

from metaprotocol.resources import service_entry
from metaprotocol.resources.base import Resource
from metaprotocol.resources.service_entry import ISTIO_GROUP, ISTIO_VERSIONS, IstioVersion

__all__ = ["WorkloadEntry"]


class WorkloadEntry(Resource):
    """An endpoint of every service of its namespace that selects its labels."""

    group: ClassVar[str] = ISTIO_GROUP
    versions: ClassVar[tuple[str, ...]] = ISTIO_VERSIONS

    api_version: IstioVersion = "networking.istio.io/v1"
    kind: Literal["WorkloadEntry"] = "WorkloadEntry"
    spec: service_entry.WorkloadEntry
