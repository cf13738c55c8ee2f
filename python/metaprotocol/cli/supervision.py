"""A control plane of which a part does not run any more is no control plane: the program ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.control_plane import ControlPlane


async def unless_given_up(plane: ControlPlane, work: Coroutine[Any, Any, None]) -> None:
    """Returns when the work is done. Failure if before that a part of the control plane is given
    up, which was started again and again."""
    working = asyncio.ensure_future(work)
    failing = asyncio.ensure_future(plane.failed())
    try:
        await asyncio.wait({working, failing}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            text = f"The control plane has ended: {failing.result()}."
            raise Failure(ExitCode.ENVIRONMENT, text, "Its log, above, says more.")
    finally:
        failing.cancel()
        working.cancel()
        await asyncio.gather(working, failing, return_exceptions=True)
    working.result()
