"""Ctrl-C and SIGTERM as an event: the first one asks for an orderly end, the second ends at
once."""

from __future__ import annotations

import asyncio
import os
import signal


def stopped_by_signal() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM. To be called in the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def received(number: int) -> None:
        if stop.is_set():
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, received, number)
    return stop
