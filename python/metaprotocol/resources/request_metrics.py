"""What resources say of Istio's metrics."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metaprotocol.resources.base import Checked

__all__ = ["RequestMetrics"]


class RequestMetrics(Checked):
    """Istio's metrics of requests: `istio_requests_total` and its like, with Istio's labels and two
    for what was called."""

    disabled: bool = False
    """None of them."""
    max_methods: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """How many pairs of `request_service` and `request_method` are told apart; default: 200. Both
    are `other` for all more, and empty with 0."""
    max_series: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many sets of labels a proxy keeps for each port at most; default: 2000."""
    labels: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=255)],
            Annotated[str, Field(max_length=128)],
        ],
        Field(max_length=32),
    ] = Field(default_factory=dict)
    """Labels with another value: `{request_protocol: http}`; empty: as if it were not there."""
