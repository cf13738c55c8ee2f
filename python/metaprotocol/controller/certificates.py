"""The webhook's certificate, made and renewed by the control plane itself.

It is in a Secret, so that all replicas show the same one, and the API server knows it by the
``caBundle`` of the ValidatingWebhookConfiguration. Each certificate has a CA of its own, whose key
is thrown away when it has signed. One is renewed when two thirds of its time have passed: the API
server is told of the new CA beside the old one first, and only then replicas get the certificate,
so that at no time one is shown that it does not know.

Any replica makes the first one, so that a new one need not wait for an older program that leads.
Only the leader renews.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from metaprotocol.kubernetes import ApiError, Client, Json, Pauses, Unreachable

_LOG = logging.getLogger(__name__)

MANAGER = "metaprotocol-webhook"
"""The field manager of ``caBundle``."""
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"

_CLOCKS = timedelta(minutes=5)
"""By how much clocks may differ."""
_LOOK_SECONDS = 30.0
_FIRST_LOOK_SECONDS = 1.0
_SETTLE_SECONDS = 5.0
"""For several API servers to learn of a ``caBundle``."""
_MOST_AUTHORITIES = 4
_CA, _CERTIFICATE, _KEY = "ca.crt", "tls.crt", "tls.key"


@dataclass(frozen=True)
class Pair:
    """A certificate, in PEM, with its key, and the CAs by which it and those before are known."""

    authorities: bytes
    """The newest first."""
    certificate: bytes
    key: bytes

    @property
    def parsed(self) -> x509.Certificate:
        """The certificate."""
        return x509.load_pem_x509_certificate(self.certificate)

    def names(self) -> frozenset[str]:
        """The hosts it is for."""
        found = self.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = found.get_values_for_type(x509.IPAddress)
        return frozenset([*found.get_values_for_type(x509.DNSName), *map(str, addresses)])

    def due(self, now: datetime) -> bool:
        """Whether two thirds of its time have passed."""
        begin, end = self.parsed.not_valid_before_utc, self.parsed.not_valid_after_utc
        return now >= begin + (end - begin) * 2 / 3

    def data(self) -> dict[str, str]:
        """As in a Secret."""
        values = {_CA: self.authorities, _CERTIFICATE: self.certificate, _KEY: self.key}
        return {name: base64.b64encode(value).decode() for name, value in values.items()}


def read_pair(secret: Json) -> Pair | None:
    """What a Secret has; None if it is not usable."""
    data = secret.get("data")
    if not isinstance(data, dict):
        return None
    try:
        ca, certificate, key = (
            base64.b64decode(data[name], validate=True) for name in (_CA, _CERTIFICATE, _KEY)
        )
        pair = Pair(ca, certificate, key)
        pair.names()
        private = serialization.load_pem_private_key(key, None)
        if private.public_key() != pair.parsed.public_key():
            return None
        x509.load_pem_x509_certificates(ca)
    except (KeyError, TypeError, ValueError, binascii.Error, x509.ExtensionNotFound):
        return None
    return pair


def issue(
    names: Iterable[str],
    lifetime: timedelta,
    before: Pair | None = None,
    now: datetime | None = None,
) -> Pair:
    """A new certificate for these hosts. What ``before`` was known by is among the authorities as
    long as it is valid."""
    now = now or datetime.now(UTC)
    begin, end = now - min(_CLOCKS, lifetime / 10), now + lifetime
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = _name(f"metaprotocol webhook CA {now:%Y-%m-%d %H:%M:%S}")
    authority = (
        _builder(issuer, issuer, authority_key, begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _builder(_name("metaprotocol webhook"), issuer, key, begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName([_general(name) for name in sorted(names)]), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    older = x509.load_pem_x509_certificates(before.authorities) if before is not None else []
    known = [authority, *(item for item in older if item.not_valid_after_utc > now)]
    return Pair(
        b"".join(_pem(item) for item in known[:_MOST_AUTHORITIES]),
        _pem(certificate),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class OwnCertificate:
    """See the module's description. ``run`` never ends by itself."""

    def __init__(
        self,
        client: Client,
        use: Callable[[bytes, bytes], None],
        *,
        may_write: Callable[[], bool],
        configuration: str,
        namespace: str,
        secret: str,
        lifetime: timedelta,
    ) -> None:
        """``use`` is called with each certificate and key that is to be shown from then on.
        ``configuration`` is the name of the ValidatingWebhookConfiguration, which also says for
        which hosts it has to be; the Secret is ``secret`` in ``namespace``."""
        self.problem = ""
        """Why it could not be read, made or written; empty: all is well."""
        self.expires: datetime | None = None
        """When the certificate that is in use does."""
        self._client = client
        self._use = use
        self._may_write = may_write
        self._configuration = f"{CONFIGURATIONS}/{configuration}"
        self._name = configuration
        self._secrets = f"/api/v1/namespaces/{namespace}/secrets"
        self._secret = secret
        self._lifetime = lifetime
        self._look_seconds = min(_LOOK_SECONDS, lifetime.total_seconds() / 20)
        self._settle_seconds = min(_SETTLE_SECONDS, lifetime.total_seconds() / 10)
        self._pair: Pair | None = None
        self._pauses = Pauses(_FIRST_LOOK_SECONDS, self._look_seconds)

    async def run(self) -> None:
        """Keeps it as it should be."""
        while True:
            try:
                await self._look()
            except (ApiError, Unreachable) as error:
                self._tell(str(error))
                pause = self._pauses.next(getattr(error, "retry_after", 0.0))
            else:
                self._pauses.succeeded()
                first = self._pair is None
                pause = _FIRST_LOOK_SECONDS if first else self._look_seconds
            await asyncio.sleep(pause)

    def _tell(self, problem: str) -> None:
        if problem and problem != self.problem:
            _LOG.warning("the webhook's certificate: %s", problem)
        self.problem = problem

    async def _look(self) -> None:
        secret = await self._get(f"{self._secrets}/{self._secret}")
        pair = read_pair(secret) if secret is not None else None
        configuration = await self._get(self._configuration)
        problem = ""
        if configuration is None:
            problem = f"there is no ValidatingWebhookConfiguration {self._name}"
        else:
            pair = await self._keep(configuration, secret, pair)
        if pair is not None and pair != self._pair:
            self._use(pair.certificate, pair.key)
            self._pair = pair
            self.expires = pair.parsed.not_valid_after_utc
            _LOG.info("the webhook's certificate is valid until %s", self.expires)
        self._tell(problem)

    async def _keep(self, configuration: Json, secret: Json | None, pair: Pair | None) -> Pair:
        """Renews it if that is due, and has the API server know it."""
        names = names_in(configuration)
        if pair is None:
            pair = issue(names, self._lifetime)
            await self._write(secret, pair)
        elif (pair.due(datetime.now(UTC)) or not names <= pair.names()) and self._may_write():
            pair = issue(names, self._lifetime, pair)
            await self._make_known(configuration, pair)
            await asyncio.sleep(self._settle_seconds)
            await self._write(secret, pair)
            return pair
        await self._make_known(configuration, pair)
        return pair

    async def _make_known(self, configuration: Json, pair: Pair) -> None:
        hooks = configuration.get("webhooks") or ()
        # More is known while another replica renews it.
        if all(_knows(hook.get("clientConfig") or {}, pair) for hook in hooks):
            return
        bundle = base64.b64encode(pair.authorities).decode()
        value = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": self._name},
            "webhooks": [
                {"name": hook.get("name"), "clientConfig": {"caBundle": bundle}} for hook in hooks
            ],
        }
        await self._client.apply(self._configuration, value, manager=MANAGER)

    async def _write(self, secret: Json | None, pair: Pair) -> None:
        if secret is None:
            await self._client.create(
                self._secrets,
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": self._secret},
                    "type": "kubernetes.io/tls",
                    "data": pair.data(),
                },
            )
        else:
            # Has its resourceVersion: what another has written meanwhile counts (409).
            data = {**(secret.get("data") or {}), **pair.data()}
            await self._client.replace(f"{self._secrets}/{self._secret}", {**secret, "data": data})

    async def _get(self, path: str) -> Json | None:
        try:
            return await self._client.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return None


def _knows(client: Json, pair: Pair) -> bool:
    """Whether a webhook's clientConfig has the authority of a pair's certificate."""
    try:
        bundle = base64.b64decode(str(client.get("caBundle") or ""), validate=True)
        known = x509.load_pem_x509_certificates(bundle)
    except ValueError:
        return False
    return x509.load_pem_x509_certificate(pair.authorities) in known


def names_in(configuration: Json) -> frozenset[str]:
    """The hosts by which the API server reaches the webhooks of a configuration."""
    found = set()
    for hook in configuration.get("webhooks") or ():
        client = hook.get("clientConfig") or {}
        if service := client.get("service"):
            found.add(f"{service.get('name')}.{service.get('namespace')}.svc")
        elif host := urlsplit(str(client.get("url") or "")).hostname:
            found.add(host)
    return frozenset(found)
