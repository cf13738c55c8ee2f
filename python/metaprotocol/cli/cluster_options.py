"""What ``serve --kubernetes`` is told of the cluster."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from metaprotocol.cli.environment import check_port, endpoint
from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.diagnostics import shorten
from metaprotocol.resources.types import parse_duration

_PANEL = "Kubernetes"

OptionalFolder: TypeAlias = Annotated[
    Path | None,
    typer.Argument(metavar="[FOLDER]", help="The folder with the YAML files.", show_default=False),
]
InCluster: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--kubernetes",
        help="Follow a cluster instead of a folder: the pod's own, or that of a kubeconfig.",
        rich_help_panel=_PANEL,
    ),
]
Kubeconfig: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="How to reach the cluster (default: the pod's service account, or else kubectl's).",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Context: TypeAlias = Annotated[
    str | None,
    typer.Option(help="The kubeconfig's context.", show_default=False, rich_help_panel=_PANEL),
]
FollowedNamespaces: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help="Follow, and write to, this namespace alone; may be repeated.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
ForIstio: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--istio/--no-istio",
        help="Write EnvoyFilters, if the cluster has Istio.",
        rich_help_panel=_PANEL,
    ),
]
ClientNamespaces: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help="A namespace with clients, beside those with pods that carry the module.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Installation: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Name of the lease and label of what is written: another for each installation.",
        rich_help_panel=_PANEL,
    ),
]
LeaseNamespace: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="POD_NAMESPACE",
        help="Where replicas agree on who writes.",
        rich_help_panel=_PANEL,
    ),
]

WebhookAddress: TypeAlias = Annotated[
    str,
    typer.Option(
        "--webhook",
        metavar="ADDRESS:PORT",
        help="Serve the validating webhook here (HTTPS, /validate).",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
WebhookConfiguration: TypeAlias = Annotated[
    str,
    typer.Option(
        help="The ValidatingWebhookConfiguration that gets the CA of the webhook's certificate, "
        "which is made and renewed by itself.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
WebhookSecret: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Where that certificate is kept, in the lease's namespace (default: "
        "<installation>-webhook).",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
WebhookLifetime: TypeAlias = Annotated[
    str,
    typer.Option(
        help="How long that certificate is valid; it is renewed after two thirds of it.",
        rich_help_panel=_PANEL,
    ),
]
WebhookCert: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="The webhook's certificate chain, PEM, where others make it, such as cert-manager; "
        "read again when it changes.",
        rich_help_panel=_PANEL,
    ),
]
WebhookKey: TypeAlias = Annotated[
    Path | None, typer.Option(help="Its private key, PEM.", rich_help_panel=_PANEL)
]

_SHORTEST_LIFETIME = timedelta(seconds=10)


@dataclass(frozen=True)
class Webhook:
    """The validating webhook, as it is given."""

    address: str = ""
    configuration: str = ""
    secret: str = ""
    lifetime: str = "2160h"
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Cluster:
    """A cluster, and what to do there."""

    kubeconfig: Path | None
    context: str | None
    namespaces: tuple[str, ...]
    istio: bool
    client_namespaces: tuple[str, ...]
    installation: str
    lease_namespace: str
    webhook: Webhook = Webhook()
    webhook_at: tuple[str, int] | None = None
    """None: there is none."""
    webhook_lifetime: timedelta = timedelta(days=90)


def cluster_options(
    folder: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespaces: list[str] | None,
    istio: bool,
    client_namespaces: list[str] | None,
    installation: str,
    lease_namespace: str,
    webhook: Webhook,
) -> Cluster:
    """The options, if they go together; Failure otherwise."""
    if folder is not None:
        raise Failure(
            ExitCode.USAGE,
            "A folder and a cluster cannot be followed together.",
            "Leave away the folder, or --kubernetes.",
        )
    check_client(kubeconfig)
    return Cluster(
        kubeconfig,
        context,
        tuple(namespaces or ()),
        istio,
        tuple(client_namespaces or ()),
        installation,
        lease_namespace,
        webhook,
        _webhook_address(webhook),
        _lifetime(webhook.lifetime),
    )


def _webhook_address(webhook: Webhook) -> tuple[str, int] | None:
    given = (webhook.configuration, webhook.certificate, webhook.key)
    if not webhook.address:
        if any(given):
            text = "The options of the webhook need --webhook, which says where it is served."
            raise Failure(ExitCode.USAGE, text)
        return None
    if (webhook.certificate is None) != (webhook.key is None):
        raise Failure(ExitCode.USAGE, "--webhook-cert and --webhook-key need each other.")
    if bool(webhook.configuration) == (webhook.certificate is not None):
        raise Failure(
            ExitCode.USAGE,
            "--webhook needs a certificate.",
            "Give either --webhook-configuration, or --webhook-cert and --webhook-key.",
        )
    address, port = endpoint(webhook.address, "--webhook")
    check_port(address, port, "--webhook")
    return address, port


def _lifetime(text: str) -> timedelta:
    try:
        lifetime = parse_duration(text)
    except ValueError as error:
        raise Failure(ExitCode.USAGE, f"--webhook-lifetime {shorten(text)!r} {error}.") from None
    if lifetime < _SHORTEST_LIFETIME:
        raise Failure(ExitCode.USAGE, "--webhook-lifetime is shorter than 10s.")
    return lifetime


def check_client(kubeconfig: Path | None) -> None:
    """Failure if a cluster cannot be spoken to from here."""
    if kubeconfig is not None and not kubeconfig.is_file():
        raise Failure(ExitCode.USAGE, f"There is no kubeconfig {kubeconfig}.")
    if importlib.util.find_spec("kubernetes_asyncio") is None:
        raise Failure(
            ExitCode.ENVIRONMENT,
            "The client of the Kubernetes API is not installed.",
            "Install it with: pip install 'metaprotocol[kubernetes]'",
        )
