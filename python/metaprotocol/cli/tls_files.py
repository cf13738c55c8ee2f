"""Certificates and keys on the command line, looked into before they are used: what is wrong is
said of the file it is in."""

from __future__ import annotations

import ssl
from pathlib import Path

from metaprotocol.cli.failures import ExitCode, Failure


def check_authority(path: Path, option: str) -> None:
    """Failure unless the file has certificates."""
    _certificates(path, option)


def check_key_pair(certificate: Path, key: Path, certificate_option: str, key_option: str) -> None:
    """Failure unless they are a certificate chain and its private key."""
    context = _certificates(certificate, certificate_option)
    _read(key, key_option)
    try:
        # Asked for a password, OpenSSL would read one from the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise Failure(
                ExitCode.USAGE,
                f"{key_option}: the private key in {key} is not that of the certificate in "
                f"{certificate}.",
                "Give the key that the certificate was made for.",
            ) from None
        raise Failure(
            ExitCode.USAGE,
            f"{key_option}: {key} has no private key that can be read{_because(error)}.",
            "It has to be a PEM file (-----BEGIN PRIVATE KEY-----) without a password.",
        ) from None
    except (OSError, ValueError) as error:
        raise Failure(ExitCode.USAGE, f"{key_option}: {key} cannot be read: {error}.") from None


def _certificates(path: Path, option: str) -> ssl.SSLContext:
    _read(path, option)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise Failure(
            ExitCode.USAGE,
            f"{option}: {path} has no certificate that can be read{_because(error)}.",
            "It has to be a PEM file (-----BEGIN CERTIFICATE-----).",
        ) from None
    return context


def _read(path: Path, option: str) -> None:
    if not path.is_file():
        raise Failure(ExitCode.USAGE, f"There is no file {path}.", f"{option} names it.")
    try:
        path.read_bytes()
    except OSError as error:
        text = f"{option}: {path} cannot be read: {error.strerror}."
        raise Failure(ExitCode.USAGE, text) from None


def _because(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return f" ({str(reason).lower().replace('_', ' ')})" if reason else ""
