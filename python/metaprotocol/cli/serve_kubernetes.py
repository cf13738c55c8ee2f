"""What ``serve --kubernetes`` does: a control plane that follows a cluster, and writes to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from metaprotocol.cli.cluster_options import Cluster
from metaprotocol.cli.environment import Environment
from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.cli.serve_xds import WrittenBootstrap, serve_xds
from metaprotocol.control_plane import ControlPlane, LastGoodStore, StateError
from metaprotocol.controller import Controller, ControllerOptions, WebhookOptions
from metaprotocol.kubernetes import Client, Connection
from metaprotocol.sources.kubernetes import KubernetesSource
from metaprotocol.translate.istio_parts import IstioOptions


async def serve_kubernetes(
    cluster: Cluster,
    make_plane: Callable[..., ControlPlane],
    state: Path | None,
    here: Environment,
    bootstrap: WrittenBootstrap | None,
    warnings: Sequence[str],
    as_json: bool,
) -> None:
    """Serves until a signal comes; see ``serve_xds``."""
    async with Client(Connection(cluster.kubeconfig, cluster.context)) as client:
        store = _store(state, cluster) if state is not None else None
        source = KubernetesSource(client, namespaces=cluster.namespaces, store=store)
        # Sidecars get all from istiod, so that there may be no Envoy that asks us for anything.
        plane = make_plane(source=source, on_demand=cluster.istio)
        istio = IstioOptions(namespaces=cluster.client_namespaces) if cluster.istio else None
        options = ControllerOptions(
            istio=istio,
            namespaces=cluster.namespaces,
            installation=cluster.installation,
            lease_namespace=cluster.lease_namespace,
            webhook=_webhook(cluster),
        )
        controller = Controller(client, source, plane, options)
        await serve_xds(plane, None, here, bootstrap, warnings, as_json, beside=controller.start)


def _store(state: Path, cluster: Cluster) -> LastGoodStore:
    try:
        return LastGoodStore(state, f"kubernetes {cluster.installation} {cluster.context or ''}")
    except StateError as error:
        fix = "Choose another folder with --state-folder."
        raise Failure(ExitCode.ENVIRONMENT, f"{error}.", fix) from None


def _webhook(cluster: Cluster) -> WebhookOptions | None:
    if cluster.webhook_at is None:
        return None
    given = cluster.webhook
    files = None
    if given.certificate is not None and given.key is not None:
        files = (given.certificate, given.key)
    return WebhookOptions(
        *cluster.webhook_at,
        configuration=given.configuration,
        secret=given.secret or f"{cluster.installation}-webhook",
        lifetime=cluster.webhook_lifetime,
        files=files,
    )
