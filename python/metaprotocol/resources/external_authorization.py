"""A service that is asked whether a request may pass."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from metaprotocol.resources.base import Checked, Problem
from metaprotocol.resources.match import MetadataKey, MetaRouteMatch
from metaprotocol.resources.types import PositiveDuration

__all__ = ["ExternalAuthorization"]


class ExternalAuthorization(Checked):
    """A service that says which requests may pass, by Envoy's gRPC protocol for it
    (`envoy.service.auth.v3.Authorization`)."""

    service: Annotated[str, Field(min_length=1, max_length=1024)]
    """The service, by Envoy's cluster name: `outbound|9000||authz.shop.svc.cluster.local`."""
    match: MetaRouteMatch = Field(default_factory=MetaRouteMatch)
    """Which requests it is asked about; others pass. Default: all."""
    timeout: PositiveDuration = timedelta(milliseconds=200)
    """How long a request may wait for its verdict; default: 200ms."""
    failure_mode_allow: bool = False
    """Whether requests pass while it gives no verdict. Else they are denied."""
    metadata: Annotated[list[MetadataKey], Field(max_length=64)] = Field(default_factory=list)
    """The metadata keys that it is told of; default: all of the protocol's own."""
    max_body_bytes: Annotated[int, Field(ge=0, le=65536)] = 0
    """How many of a message's first bytes it is told; default: 0."""
    proxy_metadata: Annotated[list[MetadataKey], Field(max_length=32)] = Field(default_factory=list)
    """Metadata keys that only it may set: what clients send under them goes no further."""
    context: Annotated[
        dict[MetadataKey, Annotated[str, Field(max_length=4096)]], Field(max_length=64)
    ] = Field(default_factory=dict)
    """Told with each question, as `context_extensions`."""

    def doubts(self) -> Iterator[Problem]:
        """Keys named twice."""
        for name, keys in (("metadata", self.metadata), ("proxyMetadata", self.proxy_metadata)):
            for index, key in enumerate(keys):
                if key in keys[:index]:
                    yield Problem(f"{name}[{index}]", "named-twice", "is named twice", "remove one")
