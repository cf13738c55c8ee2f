"""``python -m metaprotocol.demo``: see ``run`` for the exit code."""

from __future__ import annotations

import argparse
import os
import sys

from metaprotocol.demo.run import DEFAULT_SECONDS, MAX_SECONDS, run


def main() -> int:
    """Runs the demo; the process's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m metaprotocol.demo",
        description="Real servers and clients through a stock Envoy, while the routes are edited. "
        "The exit code is 0 only if no call failed, no connection was closed, every change "
        "arrived and every share was as told; 130 after Ctrl-C.",
    )
    parser.add_argument(
        "--duration",
        type=float,
        metavar="SECONDS",
        default=os.environ.get("DURATION") or DEFAULT_SECONDS,
        help="how long to make calls (default: $DURATION, else %(default)s)",
    )
    seconds: float = parser.parse_args().duration
    if not 0 < seconds <= MAX_SECONDS:
        parser.error(f"the duration must be between 0 and {MAX_SECONDS:.0f} seconds")
    return run(seconds)


if __name__ == "__main__":
    sys.exit(main())
