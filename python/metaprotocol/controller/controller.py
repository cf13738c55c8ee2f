"""A control plane in a cluster: follows the API server, serves Envoys, writes for Istio, and says
on each resource what became of it.

Every replica serves Envoys. What is written to the cluster is written by one alone, the holder of a
lease; the others know all that it knows and go on where it ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from metaprotocol.control_plane import ControlPlane
from metaprotocol.controller.admission import Admission
from metaprotocol.controller.certificate_files import CertificateFiles
from metaprotocol.controller.events import Condition, EventWriter
from metaprotocol.controller.istio_writer import IstioWriter, Wanted
from metaprotocol.controller.status import FOREIGN, KINDS, ROUTES, StatusWriter, accepted
from metaprotocol.controller.webhook import Webhook
from metaprotocol.diagnostics import Diagnostic, Severity
from metaprotocol.envoy.config import Module
from metaprotocol.kubernetes import Client, Lease
from metaprotocol.resources import Key
from metaprotocol.sources.kubernetes import KubernetesSource
from metaprotocol.translate.istio_parts import IstioOptions
from metaprotocol.translate.naming import CLUSTER, FILTER

if TYPE_CHECKING:
    from metaprotocol.controller.certificates import OwnCertificate

_LOG = logging.getLogger(__name__)

_NOT_REPORTED = Condition(
    "Programmed",
    "Unknown",
    "NotReported",
    "its EnvoyFilters are written; istiod does not tell what proxies have in use",
)
_WRITTEN = [*accepted(()), _NOT_REPORTED]
"""What is said in Istio of a resource with which all is well."""

_GATHER_SECONDS = 0.05
"""Changes within this time are told of in one status."""


@dataclass(frozen=True)
class WebhookOptions:
    """Where the validating webhook is served, and with which certificate: one of its own, or that
    of ``files``."""

    host: str
    port: int
    configuration: str = ""
    """The ValidatingWebhookConfiguration that is to know the own certificate."""
    secret: str = "metaprotocol-webhook"
    """Where that is kept, in the namespace of the lease."""
    lifetime: timedelta = timedelta(days=90)
    """How long it is valid."""
    files: tuple[Path, Path] | None = None
    """A certificate chain and its key."""


@dataclass(frozen=True)
class ControllerOptions:
    """What a person may choose about it."""

    istio: IstioOptions | None = None
    """None: nothing is written for Istio."""
    namespaces: tuple[str, ...] = ()
    """The only ones that are followed and written to; none: all."""
    installation: str = "metaprotocol"
    """Tells several installations in one cluster apart: what each writes is its own."""
    lease_namespace: str = "metaprotocol"
    lease_seconds: float = 15.0
    """How long another replica waits for one that has ended without a word."""
    webhook: WebhookOptions | None = None
    """None: there is none."""


class Controller:
    """See the module's description. ``start`` when the control plane has started."""

    def __init__(
        self,
        client: Client,
        source: KubernetesSource,
        plane: ControlPlane,
        options: ControllerOptions | None = None,
    ) -> None:
        self.options = options or ControllerOptions()
        self.plane = plane
        """The control plane beside which it works."""
        self._source = source
        self._news = asyncio.Event()
        self._told_of: Wanted | None = None
        """The translation for Istio that the control plane was told of."""
        seconds = self.options.lease_seconds
        # A process of its own each time: one that is started again in the same pod must not take
        # the lease of its former self for its own while that may still be writing.
        identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}_{secrets.token_hex(4)}"
        self.lease = Lease(
            client,
            self.options.lease_namespace,
            self.options.installation,
            identity,
            self._elected,
            duration=seconds,
            deadline=seconds * 2 / 3,
            retry=min(2.0, seconds / 6),
        )
        self.writer: IstioWriter | None = None
        if self.options.istio is not None:
            self.writer = IstioWriter(
                client,
                plane.types,
                # Sidecars find the module by its name, wherever it is in their image.
                replace(plane.options, module=Module()),
                may_write=self._may_write,
                istio=self.options.istio,
                installation=self.options.installation,
                namespaces=self.options.namespaces,
            )
            self.writer.on_change.append(self._written)
        events = EventWriter(client, identity.partition("_")[0])
        self.status = StatusWriter(client, source, may_write=self._may_write, events=events)
        self.webhook: Webhook | None = None
        self.certificate: OwnCertificate | CertificateFiles | None = None
        if self.options.webhook is not None:
            self._add_webhook(client, self.options.webhook)

    def _add_webhook(self, client: Client, options: WebhookOptions) -> None:
        plane = self.plane
        self.webhook = webhook = Webhook(
            Admission(plane.types, plane.options),
            lambda: plane.inventory,
            host=options.host,
            port=options.port,
            registry=plane.server.metrics.registry,
        )
        if options.files is not None:
            self.certificate = CertificateFiles(*options.files, webhook.use)
        else:
            from metaprotocol.controller.certificates import OwnCertificate

            self.certificate = OwnCertificate(
                client,
                webhook.use,
                may_write=self._may_write,
                configuration=options.configuration,
                namespace=self.options.lease_namespace,
                secret=options.secret,
                lifetime=options.lifetime,
            )

    def start(self) -> None:
        """Begins to write, as soon as it may; until the control plane stops."""
        self.plane.on_snapshot.append(lambda _: self._translated())
        self.plane.on_change.append(lambda _: self._news.set())
        self.plane.supervise("lease", self.lease.run)
        if self.writer is not None:
            self.plane.supervise("Istio writer", self.writer.run)
        self.plane.supervise("status writer", self.status.run)
        self.plane.supervise("status", self._say)
        if self.webhook is not None and self.certificate is not None:
            self.plane.unready.append(self._uncertified)
            self.plane.supervise("webhook", self.webhook.run)
            self.plane.supervise("webhook certificate", self.certificate.run)
        self._translated()

    @property
    def leads(self) -> bool:
        """Whether this replica writes."""
        return self.lease.held

    def _may_write(self) -> bool:
        return self.lease.held

    def _uncertified(self) -> str:
        """Why the API server must not ask here; empty: it may."""
        if self.webhook is None or self.certificate is None or self.webhook.certified:
            return ""
        return f"the webhook has no certificate: {self.certificate.problem or 'not read yet'}"

    def _elected(self, held: bool) -> None:
        _LOG.info("this replica %s to the cluster", "writes" if held else "does not write")
        if self.writer is not None:
            self.writer.look_again()
        if not held:
            self._forget()
        self._news.set()

    def _translated(self) -> None:
        if self.writer is not None:
            self.writer.want(self.plane.inventory)
        self._news.set()

    def _written(self) -> None:
        writer, plane = self.writer, self.plane
        assert writer is not None
        if writer.present and writer.wanted is not self._told_of:
            self._told_of = writer.wanted
            plane.tell(writer.wanted.made.diagnostics, writer.wanted.seconds)
        elif writer.known and not writer.present:
            plane.wake()  # what there is to be said is found by its translation alone
            self._forget()
        self._news.set()

    def _forget(self) -> None:
        """What was told of the translation for Istio is not kept up to date any more."""
        if self._told_of is not None:
            self._told_of = None
            self.plane.tell(())

    # --- what is said of each resource

    async def _say(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._news.clear()
            if self.leads:
                self.status.want(self._conditions())

    def _conditions(self) -> dict[Key, list[Condition]]:
        if self.writer is not None and not self.writer.known:
            return {}
        writer = self.writer if self.writer is not None and self.writer.present else None
        if writer is not None and writer.reconciled is not self.plane.inventory:
            return {}  # it will tell when it has written what the newest asks for
        if writer is None and self.plane.snapshot.generation == 0:
            return {}  # nothing was translated yet
        translated = writer.wanted.made.diagnostics if writer else self.plane.snapshot.diagnostics
        by_object: dict[str, list[Diagnostic]] = {}
        for item in (*self._source.snapshot.diagnostics, *translated):
            by_object.setdefault(item.object, []).append(item)
        made: dict[Key, list[Condition]] = {}
        for key in self._source.keys(KINDS):
            made[key] = self._said_of(key, by_object, writer)
        if foreign := self._source.keys(FOREIGN):
            told = {item.object for item in translated if item.severity is not Severity.INFO}
            origins, used = self._origins(writer), self._in_use(writer)
            for key in foreign:
                said = by_object.get(str(key), ())
                if key.kind == ROUTES and key in used:
                    made[key] = self._said_of(key, by_object, writer)
                elif key.kind == ROUTES and str(key) in told:
                    text = "no filter was made from it"
                    unused = Condition("Programmed", "False", "NotUsed", text)
                    made[key] = [*accepted(said), unused]
                else:
                    made[key] = _doubts(said) if said and key in origins else []
        return made

    def _said_of(
        self, key: Key, by_object: dict[str, list[Diagnostic]], writer: IstioWriter | None
    ) -> list[Condition]:
        said = by_object.get(str(key), ())
        if not said and writer is not None and not writer.failures():
            return _WRITTEN  # as it is of most, at any time
        conditions = accepted(said)
        conditions.append(self._programmed(key, conditions[0], writer))
        return conditions

    def _origins(self, writer: IstioWriter | None) -> Collection[Key]:
        """What says something of ports of ours."""
        if writer is not None:
            return writer.wanted.made.origins
        made = self.plane.snapshot.made
        return {key for url in (FILTER, CLUSTER) for it in made[url].values() for key in it.origins}

    def _in_use(self, writer: IstioWriter | None) -> Collection[Key]:
        """What the filters of our ports were made from."""
        if writer is not None:
            return writer.wanted.made.used
        filters = self.plane.snapshot.made[FILTER].values()
        return {key for made in filters for key in made.origins}

    def _programmed(self, key: Key, acceptance: Condition, writer: IstioWriter | None) -> Condition:
        kind = "Programmed"
        if acceptance.status == "False":
            text = "it is not in use as it is written"
            return Condition(kind, "False", acceptance.reason, text)
        if writer is not None:
            for name, failure in writer.failures().items():
                if key in writer.wanted.made.made_of.get(name, ()):
                    return Condition(kind, "False", "NotWritten", f"{name}: {failure}")
            return _NOT_REPORTED
        refused = [
            item
            for rejection in self.plane.rejections
            for item in rejection.diagnostics
            if item.object == str(key) and item.severity is Severity.ERROR
        ]
        if refused:
            return Condition(kind, "False", "Rejected", refused[0].message)
        nodes = self.plane.nodes()
        if not nodes:
            return Condition(kind, "Unknown", "NoProxies", "no Envoy is connected to this replica")
        if all(node.settled for node in nodes):
            return Condition(kind, "True", "Programmed", "all Envoys of this replica use it")
        return Condition(kind, "False", "Pending", "not all Envoys of this replica have it yet")


def _doubts(diagnostics: Iterable[Diagnostic]) -> list[Condition]:
    """Of a service, or a rule for one, of which there is nothing to be said while all is well."""
    found = accepted(diagnostics)
    return found if found[0].reason != "Accepted" else []
