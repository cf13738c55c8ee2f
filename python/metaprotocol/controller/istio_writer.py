"""Keeps what istiod needs of us in a cluster as the resources want it: EnvoyFilters, and the
VirtualServices of gateways.

Level-triggered: what is wanted is compared with what is there, and only differences are written, be
it after a change, a lost watch, or somebody's own edit. Nothing it writes is read as a resource, so
that it never causes itself. All that is ours carries a label with the name of the installation, and
what carries it and is wanted no more is deleted; objects of others are not looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.kubernetes import (
    ApiError,
    ApiKind,
    Client,
    Json,
    Name,
    Pauses,
    Reflector,
    Unreachable,
)
from metaprotocol.resources import Changes, Inventory, Key
from metaprotocol.resources.kubernetes import Pod
from metaprotocol.sources.kubernetes_objects import CONTROLLER_LABEL
from metaprotocol.translate import Options
from metaprotocol.translate.istio import IstioObjects, IstioTranslation
from metaprotocol.translate.istio_parts import ENVOY_FILTER, VIRTUAL_SERVICE, IstioOptions
from metaprotocol.versioned import Versioned, differing
from metaprotocol.worker import Worker

_LOG = logging.getLogger(__name__)

MANAGER = "metaprotocol"
"""The field manager of server-side apply."""

_VERSIONS = {ENVOY_FILTER: "v1alpha3", VIRTUAL_SERVICE: "v1"}
"""Kinds that are written, in these versions."""
_PLURALS = {ENVOY_FILTER: "envoyfilters", VIRTUAL_SERVICE: "virtualservices"}
_ATONCE = 8
"""Requests under way together."""
_OWNERS = ("ServiceEntry", "Service")
# What a proxy gets first must do no harm without the rest: clusters before the filters that lead to
# them, and listeners of gateways last. Removed in the opposite order.
_ORDER = (
    "metaprotocol-clusters-", "metaprotocol-inbound-", "metaprotocol-outbound-",
    "metaprotocol-gateway-",
)  # fmt: skip
_LAST = len(_ORDER) + 1
_BASE = "metaprotocol"
_DIGEST = "digest"


def _rank(key: Key, *, changed: bool = False) -> int:
    """``changed``: it is there, in another form. What each proxy has once may lead to what the
    others bring, as a newer controller writes them."""
    if key.kind == VIRTUAL_SERVICE or (changed and key.name == _BASE):
        return _LAST
    return next((rank for rank, prefix in enumerate(_ORDER, 1) if key.name.startswith(prefix)), 0)


@dataclass(frozen=True)
class Wanted:
    """All that should be there."""

    objects: Versioned[Key, Json] = field(default_factory=Versioned)
    addresses: Mapping[Key, str] = field(default_factory=dict)
    """ServiceEntries to the address that they are to get."""
    made: IstioObjects = field(default_factory=lambda: IstioObjects({}, ()))
    """What says what they are made of, and what is to be said."""
    inventory: Inventory = field(default_factory=Inventory)
    """What it was made from."""
    seconds: float = 0.0
    """How long it took to make."""


@dataclass
class _Failure:
    message: str
    pauses: Pauses
    again_at: float = 0.0


class IstioWriter:
    """See the module's description. ``run`` never ends by itself."""

    def __init__(
        self,
        client: Client,
        types: EnvoyTypes,
        options: Options,
        *,
        may_write: Callable[[], bool],
        istio: IstioOptions | None = None,
        installation: str = "metaprotocol",
        namespaces: Iterable[str] = (),
        pauses: Callable[[], Pauses] = Pauses,
        absent_seconds: float = 5.0,
    ) -> None:
        """``may_write`` is asked before each request that changes anything. ``namespaces``: those
        that may be written to; none: all."""
        self.on_change: list[Callable[[], None]] = []
        """Called in the loop when all that is wanted was written, or could not be."""
        self.wanted = Wanted()
        self.reconciled: Inventory | None = None
        """The resources for which all was written, or tried to be."""
        self.writes = 0
        """Objects that were written or deleted."""
        self._client = client
        self._translation = IstioTranslation(options, types)
        self._istio = istio or IstioOptions()
        self._may_write = may_write
        self._installation = installation
        self._worker = Worker("istio")
        self._news = asyncio.Event()
        self._inventory: Inventory | None = None
        self._translated: Inventory | None = None
        self._failures: dict[Key, _Failure] = {}
        self._written: dict[Key, tuple[str, str]] = {}
        """Digests of what was written last, and of what the API server made of it."""
        self._doubtful: set[Key] | None = None
        """What may be there in another form than is wanted; None: anything."""
        self._pods: dict[str, set[str]] = {}
        """By namespace, those whose proxies have the module."""
        self._addressed: dict[Key, str] = {}
        self._pauses = pauses
        self._kinds = {
            name: ApiKind(
                "networking.istio.io",
                name,
                _PLURALS[name],
                (version,),
                selector=f"{CONTROLLER_LABEL}={installation}",
            )
            for name, version in _VERSIONS.items()
        }
        self._reflectors = [
            Reflector(
                client,
                kind,
                self._noted,
                namespace=namespace,
                pauses=pauses(),
                absent_seconds=absent_seconds,
                keep=_kept,
            )
            for kind in self._kinds.values()
            for namespace in (tuple(namespaces) or ("",))
        ]

    @property
    def known(self) -> bool:
        """Whether it is known if there is an Istio to write for, and what is there."""
        return all(item.settled for item in self._reflectors)

    @property
    def present(self) -> bool:
        """Whether there is."""
        return self.known and all(item.present for item in self._reflectors)

    @property
    def settled(self) -> bool:
        """Whether what is wanted is there."""
        return (
            self._translated is not None
            and self._translated is self._inventory
            and not self._failures
            and not self._different()
        )

    def failures(self) -> dict[Key, str]:
        """The objects that could not be written, and why."""
        return {name: failure.message for name, failure in self._failures.items()}

    def want(self, inventory: Inventory) -> None:
        """From now on these are the resources."""
        self._inventory = inventory
        self._news.set()

    def look_again(self) -> None:
        """``may_write`` answers otherwise than before."""
        self._failures.clear()
        self._news.set()

    async def run(self) -> None:
        """Writes whenever something differs."""
        async with asyncio.TaskGroup() as group:
            for item in self._reflectors:
                group.create_task(item.run())
            group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._wait()
            if self._inventory is None or not self.present or not self._may_write():
                continue
            if self._translated is not self._inventory:
                await self._translate(self._inventory)
            await self._reconcile()
            self.reconciled = self._translated
            self._tell()

    async def _wait(self) -> None:
        now = time.monotonic()
        waiting = [failure.again_at for failure in self._failures.values()]
        timeout = max(min(waiting) - now, 0.0) if waiting and self._may_write() else None
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            pass  # something that has failed is tried again
        self._news.clear()

    def _noted(self, reflector: Reflector, name: Name | None) -> None:
        self._news.set()
        if name is not None:
            self._doubt({Key(reflector.kind.name, *name)})
        elif not self.present:  # otherwise it is told when it has written
            self._tell()

    def _doubt(self, names: Iterable[Key]) -> None:
        if self._doubtful is not None:
            self._doubtful.update(names)

    def _tell(self) -> None:
        for listener in self.on_change:
            listener()

    # --- what is wanted

    async def _translate(self, inventory: Inventory) -> None:
        before = self.wanted
        self.wanted = await self._worker.run(self._make, inventory)
        self._doubt(differing(self.wanted.objects, before.objects))
        self._doubt(before.made.unsure ^ self.wanted.made.unsure)
        if self.wanted.made.complete and not before.made.complete:
            self._doubtful = None
        self._translated = inventory

    def _make(self, inventory: Inventory) -> Wanted:
        began = time.monotonic()
        before = self.wanted
        changes = inventory.changes_since(before.inventory)
        self._count_pods(inventory, changes)
        namespaces = {*self._istio.namespaces, *self._pods}
        istio = replace(self._istio, namespaces=tuple(sorted(namespaces)))
        made = self._translation.update(inventory, istio)
        others = set(differing(made.by_key, before.made.by_key))
        for key in (*changes.keys, *changes.moved):
            if key.kind in _OWNERS:  # it may be the same, under another identity
                others.update(self._translation.about(key))
        objects = before.objects.copy()
        addresses = dict(before.addresses)
        for key in others:
            item = made.by_key.get(key)
            if key.kind not in _VERSIONS:
                addresses.pop(key, None)
                if item is not None:
                    addresses[key] = item["spec"]["addresses"][0]
            elif item is None:
                objects.pop(key, None)
            elif (new := self._owned(key, item, made, inventory)) != objects.get(key):
                objects[key] = new
        return Wanted(objects, addresses, made, inventory, time.monotonic() - began)

    def _count_pods(self, inventory: Inventory, changes: Changes) -> None:
        """Notes where there are pods with the module. ``changes``: since what was wanted last."""
        labels = self._istio.workload_labels.items()
        for key in changes.keys:
            if key.kind != Pod.__name__:
                continue
            pods = self._pods.setdefault(key.namespace, set())
            pod = inventory.get(key)
            if pod is not None and labels <= pod.metadata.labels.items():
                pods.add(key.name)
            else:
                pods.discard(key.name)
            if not pods:
                del self._pods[key.namespace]

    def _owned(self, name: Key, item: Json, made: IstioObjects, inventory: Inventory) -> Json:
        """An object with our label, and with the services in its namespace as its owners: so it
        goes with them, even when nobody is there to delete it."""
        metadata = {**item["metadata"]}
        metadata["labels"] = {**metadata["labels"], CONTROLLER_LABEL: self._installation}
        owners = []
        for key in made.made_of.get(name, ()):
            found = inventory.get(key)
            if key.kind in _OWNERS and key.namespace == name.namespace and found is not None:
                if not found.metadata.uid:
                    continue
                owners.append(
                    {
                        "apiVersion": found.api_version,
                        "kind": key.kind,
                        "name": key.name,
                        "uid": found.metadata.uid,
                    }
                )
        if owners:
            metadata["ownerReferences"] = owners
        return {**item, "metadata": metadata}

    # --- what is there

    def _found(self, name: Key) -> Json | None:
        """What is kept of an object that is there."""
        at = Name(name.namespace, name.name)
        return next(
            (
                reflector.objects[at]
                for reflector in self._reflectors
                if reflector.kind.name == name.kind and at in reflector.objects
            ),
            None,
        )

    def _is_as_wanted(self, name: Key) -> bool:
        wanted, found = self.wanted.objects.get(name), self._found(name)
        made = self.wanted.made
        if found is not None and (name in made.unsure if wanted is not None else not made.complete):
            return True  # what an earlier process has written is better than what is known here
        if wanted is None or found is None:
            return wanted is found
        asked, is_there = _digest(wanted), found[_DIGEST]
        return bool(is_there == asked) or (asked, is_there) == self._written.get(name)

    def _different(self) -> tuple[list[Key], list[Key], list[Key]] | None:
        """What to write, what to delete, which ServiceEntries want an address; None: nothing. What
        nobody has changed since it was as wanted is not looked at."""
        if self._doubtful is None:
            self._doubtful = {*self.wanted.objects} | {
                Key(reflector.kind.name, *name)
                for reflector in self._reflectors
                for name in reflector.objects
            }
        self._doubtful = {name for name in self._doubtful if not self._is_as_wanted(name)}
        different = sorted(self._doubtful)
        write = [name for name in different if name in self.wanted.objects]
        delete = [name for name in different if name not in self.wanted.objects]
        addresses = [
            name
            for name, address in self.wanted.addresses.items()
            if self._addressed.get(name) != address
        ]
        return (write, delete, addresses) if write or delete or addresses else None

    async def _reconcile(self) -> None:
        different = self._different()
        for name in list(self._failures):
            wanted = name in self.wanted.objects or name in self.wanted.addresses
            if not wanted and self._found(name) is None:
                del self._failures[name]
        if different is None:
            return
        write, delete, addresses = different
        await self._all(addresses, self._address)
        ranks = {name: _rank(name, changed=self._found(name) is not None) for name in write}
        for rank in range(_LAST + 1):
            await self._all([name for name in write if ranks[name] == rank], self._apply)
        for rank in reversed(range(_LAST + 1)):
            await self._all([name for name in delete if _rank(name) == rank], self._delete)

    async def _all(self, names: list[Key], action: Callable[[Key], object]) -> None:
        free = asyncio.Semaphore(_ATONCE)

        async def one(name: Key) -> None:
            failure = self._failures.get(name)
            if failure is not None and time.monotonic() < failure.again_at:
                return
            async with free:
                if self._may_write():
                    await self._try(name, action)

        await asyncio.gather(*map(one, names))

    async def _try(self, name: Key, action: Callable[[Key], object]) -> None:
        try:
            await action(name)  # type: ignore[misc]
        except (ApiError, Unreachable) as error:
            failure = self._failures.setdefault(name, _Failure("", self._pauses()))
            after = error.retry_after if isinstance(error, ApiError) else 0.0
            pause = failure.pauses.next(after)
            failure.again_at = time.monotonic() + pause
            if failure.message != str(error):
                failure.message = str(error)
                _LOG.warning("%s cannot be written: %s", name, error)
            self._news.set()  # the time to wait is another
        else:
            self._failures.pop(name, None)
            self.writes += 1

    async def _apply(self, name: Key) -> None:
        wanted = self.wanted.objects.get(name)
        if wanted is None:
            return
        answer = await self._client.apply(self._path(name), wanted, manager=MANAGER)
        self._written[name] = (_digest(wanted), _digest(answer))

    async def _delete(self, name: Key) -> None:
        found = self._found(name)
        if found is None:
            return
        await self._client.delete(self._path(name), str(found["metadata"].get("uid") or ""))
        self._written.pop(name, None)

    async def _address(self, name: Key) -> None:
        """Gives a ServiceEntry an address. Not where somebody else has a say in that field."""
        address = self.wanted.addresses[name]
        entry = self.wanted.inventory.get(name)
        version = entry.api_version if entry is not None else "networking.istio.io/v1"
        value = {
            "apiVersion": version,
            "kind": "ServiceEntry",
            "metadata": {"name": name.name, "namespace": name.namespace},
            "spec": {"addresses": [address]},
        }
        path = f"/apis/{version}/namespaces/{name.namespace}/serviceentries/{name.name}"
        await self._client.apply(path, value, manager=MANAGER, force=False)
        self._addressed[name] = address

    def _path(self, key: Key) -> str:
        return self._kinds[key.kind].path(_VERSIONS[key.kind], key.namespace, key.name)


_OURS = re.compile(r"metaprotocol\.aeraki\.io/|app\.kubernetes\.io/managed-by")


def _said(item: Json) -> Json:
    """What of an object is ours to say."""
    metadata = item.get("metadata") or {}
    labels = metadata.get("labels") or {}
    owners = metadata.get("ownerReferences") or ()
    return {
        "labels": {key: value for key, value in labels.items() if _OURS.match(key)},
        "owners": sorted(str(owner.get("uid")) for owner in owners),
        "spec": item.get("spec"),
    }


def _kept(item: Json) -> Json:
    """What is kept of an object that is there: enough to know whether it says what is wanted. The
    whole of it, with all the API server notes of who said what, takes more than all else."""
    metadata = item.get("metadata") or {}
    names = ("namespace", "name", "uid", "resourceVersion")
    return {
        "metadata": {name: metadata[name] for name in names if name in metadata},
        _DIGEST: _digest(item),
    }


def _digest(item: Json) -> str:
    text = json.dumps(_as_answered(_said(item)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _as_answered(value: Any) -> Any:
    """A value with its numbers as an API server answers them: without fractions where there are
    none."""
    if isinstance(value, dict):
        return {key: _as_answered(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_answered(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
