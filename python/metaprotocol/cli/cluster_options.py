"""What ``serve --kubernetes`` is told of the cluster."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from metaprotocol.cli.failures import ExitCode, Failure

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


def cluster_options(
    folder: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespaces: list[str] | None,
    istio: bool,
    client_namespaces: list[str] | None,
    installation: str,
    lease_namespace: str,
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
    )


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
