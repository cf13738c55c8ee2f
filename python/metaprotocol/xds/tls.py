"""Credentials of the server, which are read again when their files change."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import grpc

from metaprotocol.envoy.parts import ServerTls
from metaprotocol.xds.limits import XdsError


def server_credentials(tls: ServerTls) -> Any:
    """grpc.ServerCredentials. XdsError if a file cannot be read.

    The files are looked at again for every handshake, because certificates are renewed in place; as
    long as the new ones cannot be read, the old ones serve.
    """
    files = [tls.certificate, tls.private_key]
    if tls.client_ca is not None:
        files.append(tls.client_ca)
    try:
        seen = _stamps(files)
        first = _configuration(tls)
    except OSError as error:
        raise XdsError(f"the xDS server's TLS needs {error.filename}: {error.strerror}") from error

    def renewed() -> Any:
        nonlocal seen
        with contextlib.suppress(OSError):
            now = _stamps(files)
            if now != seen:
                configuration = _configuration(tls)
                seen = now
                return configuration
        return None

    return grpc.dynamic_ssl_server_credentials(
        first, renewed, require_client_authentication=tls.client_ca is not None
    )


def _configuration(tls: ServerTls) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(tls.private_key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=None if tls.client_ca is None else tls.client_ca.read_bytes(),
    )


def _stamps(files: list[Path]) -> list[tuple[int, int]]:
    return [(status.st_mtime_ns, status.st_ino) for status in map(Path.stat, files)]
