"""A set of resources: loaded from files or made in code, checked, and translated for Envoy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.message import Message

from metaprotocol.api.balancing import cluster_policy
from metaprotocol.api.explain import Explanation, explain, with_clusters
from metaprotocol.api.explain_redis import RedisSnapshot, redis_snapshot
from metaprotocol.api.rehearsal import ClusterHosts, Endpoint, Rehearsal, clusters_of, rehearse
from metaprotocol.api.routing import FilterSnapshot, filter_snapshot
from metaprotocol.config.v1 import ClusterPolicy
from metaprotocol.control_plane.content import Content, in_code, read_folder
from metaprotocol.control_plane.standalone import standalone_bootstrap
from metaprotocol.diagnostics import Diagnostic, Severity, did_you_mean_host
from metaprotocol.envoy.binary import EnvoyNotFound, find_envoy, find_module
from metaprotocol.envoy.config import ConfigBuilder, Module
from metaprotocol.envoy.descriptors import DescriptorError, EnvoyTypes
from metaprotocol.errors import InvalidResources, NotFound, ResourcesNotFound
from metaprotocol.resources import Resource, Unenforced, Unreadable
from metaprotocol.translate import Options, Translator
from metaprotocol.translate.istio import istio_objects
from metaprotocol.translate.istio_parts import IstioOptions
from metaprotocol.translate.naming import CLUSTER, ENDPOINTS, FILTER, LISTENER
from metaprotocol.translate.secret_files import SecretFiles

_SHOWN_HOSTS = 10


@dataclass(frozen=True, repr=False)
class EnvoyResources:
    """What a mesh becomes for a stand-alone Envoy, as protobuf messages of that Envoy.

    ``by_type`` holds everything by type URL and name. ``diagnostics`` are those of the files and of
    the translation together.
    """

    types: EnvoyTypes
    module: Module
    by_type: Mapping[str, Mapping[str, Message]]
    diagnostics: tuple[Diagnostic, ...]
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    """Files with passwords that messages name, and what is to be in them; only where the options
    say that they are written."""

    @property
    def listeners(self) -> list[Message]:
        """envoy.config.listener.v3.Listener, one per service port."""
        return self._sorted(LISTENER)

    @property
    def filters(self) -> list[Message]:
        """envoy.config.core.v3.TypedExtensionConfig: the routes of each service port (ECDS)."""
        return self._sorted(FILTER)

    @property
    def clusters(self) -> list[Message]:
        """envoy.config.cluster.v3.Cluster, one per service port and subset."""
        return self._sorted(CLUSTER)

    @property
    def endpoints(self) -> list[Message]:
        """envoy.config.endpoint.v3.ClusterLoadAssignment: the hosts of each cluster (EDS)."""
        return self._sorted(ENDPOINTS)

    def snapshots(self) -> list[FilterSnapshot]:
        """The engine's own configuration of each filter, sorted by name."""
        found = []
        for message in self.filters:
            content = self.types.to_dict(message)
            snapshot = filter_snapshot(content["name"], content["typed_config"])
            if snapshot is not None:
                found.append(snapshot)
        return found

    def redis_snapshots(self) -> list[RedisSnapshot]:
        """The filters of ports that speak Redis, sorted by name."""
        contents = map(self.types.to_dict, self.listeners)
        found = (
            redis_snapshot(item["name"], filter_.get("typed_config", {}))
            for item in contents
            for filter_ in item["filter_chains"][0]["filters"]
        )
        return [snapshot for snapshot in found if snapshot is not None]

    def hosts(self, cluster: str) -> list[str]:
        """The endpoints of the cluster as "address:port"; none if there is no such cluster."""
        return [endpoint.address for endpoint in self._endpoints(cluster)]

    def _endpoints(self, cluster: str, priority: int | None = None) -> list[Endpoint]:
        """Those of that priority, or all."""
        assignment = self.by_type.get(ENDPOINTS, {}).get(cluster)
        if assignment is not None:
            content = self.types.to_dict(assignment)
        else:
            message = self.by_type.get(CLUSTER, {}).get(cluster)
            content = self.types.to_dict(message) if message is not None else {}
            content = content.get("load_assignment", {})
        found = []
        for locality in content.get("endpoints", []):
            if priority not in (None, locality.get("priority", 0)):
                continue
            for item in locality.get("lb_endpoints", []):
                address = item.get("endpoint", {}).get("address", {})
                if socket := address.get("socket_address"):
                    where = f"{socket['address']}:{socket.get('port_value', 0)}"
                    found.append(Endpoint(where, item.get("load_balancing_weight", 1)))
        return found

    def policy(self, cluster: str) -> ClusterPolicy | None:
        """How the cluster's hosts are used; None if there is no such cluster of ours."""
        message = self.by_type.get(CLUSTER, {}).get(cluster)
        return cluster_policy(self.types.to_dict(message)) if message is not None else None

    def explain(self, snapshot: FilterSnapshot, metadata: Sequence[tuple[str, str]]) -> Explanation:
        """See ``metaprotocol.api.explain.explain``; with what is known of the clusters."""
        found = explain(snapshot, metadata)
        clusters = [name for name, _ in found.destinations]
        return with_clusters(
            found,
            {name: self.hosts(name) for name in clusters},
            {name: self.policy(name) for name in clusters},
        )

    def rehearse(
        self,
        snapshot: FilterSnapshot,
        metadata: Sequence[tuple[str, str]],
        calls: int = 1,
        down: Sequence[str] = (),
        seed: int = 1,
    ) -> Rehearsal:
        """See ``metaprotocol.api.rehearsal.rehearse``. All hosts of the first priority are taken
        for well, but for those that are ``down``. NotFound if one of these is no host of a cluster
        that a route leads to."""
        names = sorted(clusters_of(snapshot.proxy))
        there = {item.address for name in names for item in self._endpoints(name)}
        if unknown := sorted(set(down) - there):
            known = ", ".join(sorted(there)[:_SHOWN_HOSTS]) or "none"
            more = ", ..." if len(there) > _SHOWN_HOSTS else ""
            raise NotFound(f"no route leads to {unknown[0]}; hosts there are: {known}{more}")
        clusters = {
            name: ClusterHosts(policy, tuple(self._endpoints(name, priority=0)))
            for name in names
            if (policy := self.policy(name)) is not None
        }
        return rehearse(snapshot, metadata, clusters, calls, down, seed)

    def bootstrap(self, *, admin_port: int = 0, node_id: str = "local") -> Message:
        """envoy.config.bootstrap.v3.Bootstrap: a whole Envoy that needs no control plane."""
        builder = ConfigBuilder(self.types, self.module)
        return standalone_bootstrap(builder, self.by_type, admin_port=admin_port, node_id=node_id)

    def dicts(self, messages: Iterable[Message]) -> list[dict[str, Any]]:
        """The JSON form of messages."""
        return [self.types.to_dict(message) for message in messages]

    def to_dicts(self) -> dict[str, Any]:
        """The whole bootstrap's JSON form."""
        return self.types.to_dict(self.bootstrap())

    def to_yaml(self) -> str:
        """The whole bootstrap as YAML, as ``metaprotocol generate`` writes it."""
        return yaml.safe_dump(self.to_dicts(), sort_keys=False, width=100, allow_unicode=True)

    def raise_errors(self) -> None:
        """InvalidResources if there are errors."""
        _raise_errors(self.diagnostics)

    def __repr__(self) -> str:
        kinds = {name: len(made) for name, made in self._kinds().items()}
        return f"<EnvoyResources: {_counted(kinds)}, {_counted_problems(self.diagnostics)}>"

    def _kinds(self) -> dict[str, list[Message]]:
        return {
            "listener": self.listeners,
            "filter": self.filters,
            "cluster": self.clusters,
            "load assignment": self.endpoints,
        }

    def _sorted(self, type_url: str) -> list[Message]:
        return [message for _, message in sorted(self.by_type.get(type_url, {}).items())]


@dataclass(frozen=True, repr=False)
class IstioResources:
    """What a mesh becomes for Istio: objects to be applied to the cluster beside the mesh's own."""

    objects: tuple[dict[str, Any], ...]
    diagnostics: tuple[Diagnostic, ...]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The objects, sorted by namespace and name."""
        return list(self.objects)

    def to_yaml(self) -> str:
        """The objects as YAML documents, for ``kubectl apply``."""
        return yaml.safe_dump_all(self.objects, sort_keys=False, width=100, allow_unicode=True)

    def __repr__(self) -> str:
        kinds = {"object": len(self.objects)}
        return f"<IstioResources: {_counted(kinds)}, {_counted_problems(self.diagnostics)}>"


@dataclass(frozen=True, repr=False)
class Mesh:
    """Resources with what is wrong with them.

    Made by ``load`` from files, or in code from models: ``Mesh.of(ServiceEntry(...), ...)``.
    Nothing is translated before it is asked for, and then once. str() lists what it has.
    """

    content: Content
    options: Options = field(default_factory=Options)

    @classmethod
    def of(cls, *resources: Resource, bind_address: str = "127.0.0.1") -> Mesh:
        """A mesh of resources that were made in code."""
        return cls(in_code(resources), _options(bind_address))

    @property
    def resources(self) -> tuple[Resource, ...]:
        """All resources, sorted by kind, namespace and name."""
        every = self.content.inventory.values()
        return tuple(item for item in every if not isinstance(item, Unreadable | Unenforced))

    @cached_property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What is wrong with the files and with the resources together, errors included. Where no
        Envoy is installed, only what can be told without its schema."""
        try:
            types = _installed_types()
        except (EnvoyNotFound, DescriptorError):
            return self.content.diagnostics
        return self._translated(types, Module())[1]

    def __repr__(self) -> str:
        kinds = Counter(type(item).__name__ for item in self.resources)
        return f"<Mesh: {_counted(kinds) or 'no resource'}>"

    def __str__(self) -> str:
        return "\n".join(f"{item.key} {item.origin}".rstrip() for item in self.resources)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The diagnostics that are errors."""
        return tuple(item for item in self.diagnostics if item.severity is Severity.ERROR)

    def raise_errors(self) -> None:
        """InvalidResources if there are errors."""
        _raise_errors(self.diagnostics)

    def envoy(
        self, *, types: EnvoyTypes | None = None, module: Module | None = None
    ) -> EnvoyResources:
        """Everything as messages of Envoy: of the one that is installed, unless ``types`` are of
        another. What has errors is left out; ``diagnostics`` tell."""
        if types is None and module is None:
            return self._installed
        types = types or _installed_types()
        module = module or Module(find_module())
        translator, diagnostics = self._translated(types, module)
        secrets = translator.snapshot.secrets
        return EnvoyResources(types, module, translator.resources, diagnostics, secrets)

    @cached_property
    def _installed(self) -> EnvoyResources:
        """For the Envoy that is installed."""
        return self.envoy(types=_installed_types())

    def istio(
        self, options: IstioOptions | None = None, *, types: EnvoyTypes | None = None
    ) -> IstioResources:
        """Everything as EnvoyFilters for Istio's sidecars, which get it from istiod."""
        types = types or _installed_types()
        # Without a path, sidecars find the module by its name in their own search path.
        made = istio_objects(self.content.inventory, self.options, types, options)
        found = {*self.content.diagnostics, *made.diagnostics}
        ordered = sorted(found, key=lambda item: item.sort_key)
        return IstioResources(tuple(made.objects), tuple(ordered))

    def to_dicts(self) -> list[dict[str, Any]]:
        """The resources as in YAML, with only what was given."""
        return [resource.to_dict() for resource in self.resources]

    def to_yaml(self) -> str:
        """The resources as YAML documents, to be written into a file."""
        return yaml.safe_dump_all(self.to_dicts(), sort_keys=False, width=100, allow_unicode=True)

    def explain(
        self, host: str, metadata: Mapping[str, str], *, port: int | None = None
    ) -> Explanation:
        """Which route a call to ``host`` takes, and why. ``metadata`` has the keys the codec reads
        from the call, such as "interface" and "method". NotFound if no service has that host."""
        resources = self.envoy()
        snapshot = _service(resources, host, port)
        return resources.explain(snapshot, _read_by(snapshot.codec, metadata))

    def rehearse(
        self,
        host: str,
        metadata: Mapping[str, str],
        *,
        port: int | None = None,
        calls: int = 1,
        down: Sequence[str] = (),
        seed: int = 1,
    ) -> Rehearsal:
        """What becomes of so many calls to ``host`` at once, played through the engine with hosts
        that answer, but for those ("address:port") that are ``down``. NotFound as ``explain``,
        or if no route leads to one of these."""
        resources = self.envoy()
        snapshot = _service(resources, host, port)
        read = _read_by(snapshot.codec, metadata)
        return resources.rehearse(snapshot, read, calls, down, seed)

    def _translated(
        self, types: EnvoyTypes, module: Module
    ) -> tuple[Translator, tuple[Diagnostic, ...]]:
        translator = Translator(types, replace(self.options, module=module))
        update = translator.update(self.content.inventory, None)
        found = {*self.content.diagnostics, *update.diagnostics}
        return translator, tuple(sorted(found, key=lambda item: item.sort_key))


def _service(resources: EnvoyResources, host: str, port: int | None) -> FilterSnapshot:
    """The filter of that service; NotFound if there is none."""
    snapshots = resources.snapshots()
    for snapshot in snapshots:
        if snapshot.host == host.lower() and port in (None, snapshot.port):
            return snapshot
    at = f" and port {port}" if port is not None else ""
    meant = did_you_mean_host(host, [item.host for item in snapshots])
    fix = f"; did you mean {meant}?" if meant is not None and meant != host else ""
    raise NotFound(f"no MetaProtocol service has the host {host!r}{at}{fix}")


def _read_by(codec: str, metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """Metadata as the codec would read them from such a call: denials of a method are about the one
    that is called, whatever the message says, and nobody writes both."""
    read = dict(metadata)
    if codec == "dubbo" and "method" in read:
        read.setdefault("called_method", read["method"])
    return list(read.items())


def load(folder: str | Path, *, bind_address: str = "127.0.0.1") -> Mesh:
    """The resources in a folder's YAML files (or in one file). Problems are in the mesh's
    ``diagnostics``. ResourcesNotFound if there is no such folder or file.

    ``bind_address`` is where services are listened for that name no address of their own.
    """
    path = Path(folder)
    if not path.exists():
        raise ResourcesNotFound(f"there is no folder or file {path}")
    return Mesh(read_folder(path), _options(bind_address))


def _options(bind_address: str) -> Options:
    """Of one local Envoy."""
    secrets = SecretFiles(alone=True)
    return Options(bind_address=bind_address, respect_export_to=False, secrets=secrets)


def _counted(kinds: Mapping[str, int]) -> str:
    """Such as "1 MetaRouter, 2 ServiceEntries"."""
    return ", ".join(f"{number:,} {_plural(name, number)}" for name, number in kinds.items())


def _plural(name: str, number: int) -> str:
    if number == 1:
        return name
    return f"{name[:-1]}ies" if name.endswith("ry") else f"{name}s"


def _counted_problems(diagnostics: Sequence[Diagnostic]) -> str:
    found = Counter(item.severity.value for item in diagnostics)
    kinds = {name: found[name] for name in ("error", "warning") if found[name]}
    return _counted(kinds) or "no problem"


def _installed_types() -> EnvoyTypes:
    return EnvoyTypes.from_binary(find_envoy().path)


def _raise_errors(diagnostics: Sequence[Diagnostic]) -> None:
    errors = [item for item in diagnostics if item.severity is Severity.ERROR]
    if errors:
        raise InvalidResources(errors)
