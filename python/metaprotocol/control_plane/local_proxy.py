"""A real Envoy on this machine that gets its configuration from a control plane: what
``metaprotocol run`` and ``metaprotocol.Proxy`` start."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from google.protobuf.message import Message

from metaprotocol.envoy.binary import EnvoyBinary
from metaprotocol.envoy.config import (
    AdsSource,
    Bootstrap,
    Carrier,
    ClientTls,
    ConfigBuilder,
    Module,
)
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.process import EnvoyProcess

READY_SECONDS = 60.0


@dataclass(frozen=True)
class ProxySettings:
    """How the Envoy is started. ``admin_port`` 0 lets the kernel choose one."""

    binary: EnvoyBinary
    module: Module
    admin_port: int = 0
    concurrency: int = 1
    node_id: str = "local"
    locality: str = ""
    """Where it is: region/zone/sub-zone, as far as that is known."""
    log_level: str = "warning"
    directory: Path | None = None
    """Where Envoy's log and bootstrap are kept; a temporary folder unless given."""
    arguments: tuple[str, ...] = ()
    carrier: Carrier = field(default_factory=Carrier)
    io_uring: bool = False


def xds_bootstrap(
    types: EnvoyTypes,
    module: Module,
    host: str,
    port: int,
    *,
    node_id: str,
    locality: str = "",
    admin_port: int = 0,
    carrier: Carrier | None = None,
    tls: ClientTls | None = None,
    io_uring: bool = False,
) -> Message:
    """envoy.config.bootstrap.v3.Bootstrap of an Envoy whose listeners and clusters come from the
    control plane at ``host:port``. What never changes is in it: the carrier, the worker cluster,
    the admin page."""
    builder = ConfigBuilder(types, module)
    control_plane = builder.xds_cluster(host, port, tls=tls)
    # Envoy's own back-off reaches 30 s, and a control plane that was started again is back in one.
    stream = {
        "envoy_grpc": {
            "cluster_name": control_plane.name,  # type: ignore[attr-defined]
            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "2s"}},
        }
    }
    return builder.bootstrap(
        Bootstrap(
            clusters=[control_plane],
            carrier=carrier or Carrier(),
            admin_port=admin_port,
            node_id=node_id,
            node_locality=locality,
            node_cluster="metaprotocol",
            listener_source=AdsSource(),
            cluster_source=AdsSource(),
            admin_page=True,
            io_uring=io_uring,
            xds_cluster=control_plane.name,  # type: ignore[attr-defined]
            extra={"dynamic_resources": {"ads_config": {"grpc_services": [stream]}}},
        )
    )


class LocalProxy:
    """One Envoy, as an asynchronous context manager. EnvoyError if it does not start."""

    def __init__(self, types: EnvoyTypes, xds_port: int, settings: ProxySettings) -> None:
        bootstrap = xds_bootstrap(
            types,
            settings.module,
            "127.0.0.1",
            xds_port,
            node_id=settings.node_id,
            locality=settings.locality,
            admin_port=settings.admin_port,
            carrier=settings.carrier,
            io_uring=settings.io_uring,
        )
        self.envoy = EnvoyProcess(
            types.to_dict(bootstrap),
            binary=settings.binary,
            concurrency=settings.concurrency,
            log_level=settings.log_level,
            directory=settings.directory,
            ready_timeout=READY_SECONDS,
            arguments=settings.arguments,
        )

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.envoy.start))
        try:
            await asyncio.shield(starting)
        except BaseException:
            # Cancelled or failed: the thread ends once its Envoy has, and no Envoy may be left.
            while not starting.done():
                await asyncio.to_thread(self.envoy.stop, 1.0)
                await asyncio.wait([starting], timeout=0.1)
            await asyncio.to_thread(self.envoy.stop, 1.0)
            self.envoy.clean()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Not to be cut short: an Envoy that outlives its control plane would serve on for ever.
        await asyncio.shield(asyncio.to_thread(self.envoy.stop))
        self.envoy.clean()
