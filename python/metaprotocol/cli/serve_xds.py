"""What ``serve`` does: a control plane, and what is shown of it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from metaprotocol.cli.environment import Environment
from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.cli.live import Screen
from metaprotocol.cli.output import counted
from metaprotocol.cli.signals import stopped_by_signal
from metaprotocol.control_plane import ControlPlane, xds_bootstrap
from metaprotocol.envoy.config import Carrier
from metaprotocol.xds import XdsError


async def serve_xds(
    plane: ControlPlane,
    folder: Path,
    here: Environment,
    address: str,
    bootstrap: Path | None,
    as_json: bool,
) -> None:
    """Serves until a signal comes. Failure if an address cannot be listened on."""
    stop = stopped_by_signal()
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(plane)
        except (XdsError, OSError) as error:
            mend = "Choose addresses with --listen and --http."
            raise Failure(ExitCode.ENVIRONMENT, f"{error}.", mend) from None
        screen = await stack.enter_async_context(Screen(plane, as_json=as_json))
        screen.problems()
        if bootstrap is not None:
            _write_bootstrap(bootstrap, here, address, plane.port)
        screen.event("ready", xds_port=plane.port, http_port=plane.http_port)
        if not as_json:
            services = counted(len(plane.services()), "service")
            screen.say(f"Control plane on {address}:{plane.port} with {services}.")
            if plane.http_port:
                screen.say(f"http://{address}:{plane.http_port} has /metrics and /debug.")
            screen.say(f"Following {folder}. Ctrl-C ends.")
        await stop.wait()
        screen.say("Stopping.")


def _write_bootstrap(path: Path, here: Environment, address: str, port: int) -> None:
    reachable = "127.0.0.1" if address in ("0.0.0.0", "::") else address
    message = xds_bootstrap(
        here.types,
        here.module,
        reachable,
        port,
        node_id=path.stem,
        admin_port=0,
        carrier=Carrier(f"@metaprotocol-{path.stem}"),
    )
    try:
        path.write_text(here.builder.to_yaml(message))
    except OSError as error:
        raise Failure(ExitCode.USAGE, f"{path} cannot be written: {error.strerror}.") from None
