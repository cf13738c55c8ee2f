"""The demo is made for the metaprotocol of the same version."""

from __future__ import annotations

from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class SameVersion(MetadataHookInterface):
    """Names the version that the demo needs."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling once it knows the version."""
        metadata["dependencies"] = [f"metaprotocol[envoy,peers]=={metadata['version']}"]
