"""``serve``: the control plane alone, for any number of Envoys, and for Istio in a cluster."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from metaprotocol.cli.cluster_options import (
    ClientNamespaces,
    Context,
    FollowedNamespaces,
    ForIstio,
    InCluster,
    Installation,
    Kubeconfig,
    LeaseNamespace,
    OptionalFolder,
    Webhook,
    WebhookAddress,
    WebhookCert,
    WebhookConfiguration,
    WebhookKey,
    WebhookLifetime,
    WebhookSecret,
    cluster_options,
)
from metaprotocol.cli.environment import (
    AllowUntestedEnvoy,
    EnvoyPath,
    check_bind,
    check_folder,
    check_port,
    endpoint,
    environment,
    is_loopback,
)
from metaprotocol.cli.failures import ExitCode, Failure, foreseeable
from metaprotocol.cli.logging_options import (
    Level,
    LogForm,
    LogFormat,
    LogLevel,
    configure_log,
)
from metaprotocol.cli.output import Json
from metaprotocol.cli.state_options import StateFolder, state_folder
from metaprotocol.cli.targets import Target
from metaprotocol.cli.tls_files import check_authority, check_key_pair
from metaprotocol.envoy.config import ClientTls, ServerTls


@foreseeable
def serve(
    folder: OptionalFolder = None,
    kubernetes: InCluster = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: FollowedNamespaces = None,
    istio: ForIstio = True,
    client_namespace: ClientNamespaces = None,
    installation: Installation = "metaprotocol",
    lease_namespace: LeaseNamespace = "metaprotocol",
    webhook: WebhookAddress = "",
    webhook_configuration: WebhookConfiguration = "",
    webhook_secret: WebhookSecret = "",
    webhook_lifetime: WebhookLifetime = "2160h",
    webhook_cert: WebhookCert = None,
    webhook_key: WebhookKey = None,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS:PORT", help="Where Envoys connect; port 0: any.")
    ] = "127.0.0.1:15010",
    target: Annotated[Target, typer.Option(hidden=True)] = Target.ENVOY,
    http: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS:PORT",
            help="Serve /metrics (Prometheus) and /debug (nodes, versions, rejections) here.",
            show_default=False,
        ),
    ] = "",
    bind: Annotated[
        str, typer.Option(help="The address services listen on, in Envoy, that name none.")
    ] = "127.0.0.1",
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate chain, PEM: Envoys connect with TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Envoys must show a certificate of this CA (mTLS).")
    ] = None,
    bootstrap: Annotated[
        Path | None,
        typer.Option(help="Write the bootstrap of an Envoy of this control plane here, YAML."),
    ] = None,
    bootstrap_ca: Annotated[
        Path | None,
        typer.Option(help="With TLS: the CA by which that Envoy knows this control plane."),
    ] = None,
    bootstrap_cert: Annotated[
        Path | None, typer.Option(help="With mTLS: that Envoy's certificate.")
    ] = None,
    bootstrap_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    envoy: EnvoyPath = None,
    allow_untested_envoy: AllowUntestedEnvoy = False,  # noqa: ARG001
    state: StateFolder = None,
    log_level: LogLevel = Level.WARNING,
    log_format: LogForm = LogFormat.TEXT,
    as_json: Json = False,
) -> None:
    """Serves routes by xDS to any number of Envoys, and follows what they are made from: a folder's
    files, or with --kubernetes a cluster, to which it then also writes what Istio needs.

    Needs an Envoy executable for its schema, and does not run it."""
    configure_log(log_level, log_format)
    cluster = None
    if kubernetes:
        cluster = cluster_options(
            folder, kubeconfig, context, namespace, istio, client_namespace, installation,
            lease_namespace,
            Webhook(
                webhook, webhook_configuration, webhook_secret, webhook_lifetime, webhook_cert,
                webhook_key,
            ),
        )  # fmt: skip
    elif folder is None:
        raise Failure(
            ExitCode.USAGE, "There is nothing to serve.", "Name a folder, or give --kubernetes."
        )
    else:
        check_folder(folder, may_be_file=False)
    bind = check_bind(bind)
    address, port = endpoint(listen, "--listen")
    web = endpoint(http, "--http") if http else None
    tls = _tls(tls_cert, tls_key, tls_client_ca)
    if target is Target.ISTIO:
        raise Failure(
            ExitCode.USAGE,
            "Istio's sidecars get everything from istiod.",
            "'generate --target istio' writes the EnvoyFilters to apply, 'serve --kubernetes' "
            "applies them.",
        )
    client_tls = None
    if bootstrap is not None and tls is not None:
        client_tls = _client_tls(tls, bootstrap_ca, bootstrap_cert, bootstrap_key)
    here = environment(envoy)
    check_port(address, port, "--listen")
    if web is not None:
        check_port(*web, "--http")
    # Imported here, so that the other commands start without it.
    from metaprotocol.cli.serve_xds import WrittenBootstrap, serve_xds
    from metaprotocol.control_plane import ControlPlane
    from metaprotocol.translate import Options

    options = Options(bind_address=bind, module=here.module)
    make_plane = partial(
        ControlPlane,
        here.types,
        options,
        host=address,
        port=port,
        tls=tls,
        http=web,
        envoy_version=here.binary.version,
    )
    written = None
    if bootstrap is not None:
        reachable = "127.0.0.1" if address in ("0.0.0.0", "::") else address
        written = WrittenBootstrap(bootstrap, reachable, client_tls)
    warnings = []
    if tls is None and not is_loopback(address):
        warnings.append(
            f"--listen {listen} is reached from other machines, and without TLS anybody there is "
            "served this configuration: give --tls-cert, --tls-key and --tls-client-ca."
        )
    if web is not None and not is_loopback(web[0]):
        warnings.append(
            f"--http {http} is reached from other machines, and shows everything to anybody there."
        )
    kept, warning = state_folder(state)
    if warning:
        warnings.insert(0, warning)
    if cluster is not None:
        from metaprotocol.cli.serve_kubernetes import serve_kubernetes

        asyncio.run(serve_kubernetes(cluster, make_plane, kept, here, written, warnings, as_json))
        return
    plane = make_plane(folder=folder, state=kept)
    asyncio.run(serve_xds(plane, folder, here, written, warnings, as_json))


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> ServerTls | None:
    if cert is None and key is None:
        if client_ca is not None:
            raise Failure(
                ExitCode.USAGE,
                "--tls-client-ca needs TLS.",
                "Give --tls-cert and --tls-key as well.",
            )
        return None
    if cert is None or key is None:
        given, missing = (
            ("--tls-key", "--tls-cert") if cert is None else ("--tls-cert", "--tls-key")
        )
        raise Failure(ExitCode.USAGE, f"{given} needs {missing}.")
    check_key_pair(cert, key, "--tls-cert", "--tls-key")
    if client_ca is not None:
        check_authority(client_ca, "--tls-client-ca")
    return ServerTls(cert, key, client_ca)


def _client_tls(
    server: ServerTls, ca: Path | None, cert: Path | None, key: Path | None
) -> ClientTls:
    if ca is None:
        raise Failure(
            ExitCode.USAGE,
            "--bootstrap with TLS needs to know whom the Envoy is to trust.",
            "Give the CA of --tls-cert with --bootstrap-ca.",
        )
    if (cert is None) != (key is None):
        given, missing = ("--bootstrap-cert", "--bootstrap-key")[:: 1 if key is None else -1]
        raise Failure(ExitCode.USAGE, f"{given} needs {missing}.")
    if server.client_ca is not None and cert is None:
        raise Failure(
            ExitCode.USAGE,
            "--tls-client-ca asks Envoys for a certificate, and the bootstrap has none.",
            "Give it with --bootstrap-cert and --bootstrap-key.",
        )
    check_authority(ca, "--bootstrap-ca")
    if cert is not None and key is not None:
        check_key_pair(cert, key, "--bootstrap-cert", "--bootstrap-key")
    return ClientTls(
        ca.absolute(),
        cert.absolute() if cert is not None else None,
        key.absolute() if key is not None else None,
    )
