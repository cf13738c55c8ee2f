"""What is made of each host, step by step: a step that fails, by a fault of this program itself,
ends nothing but itself.

What was good before stays, unless a policy that may keep requests out has come since: then, as
where nothing was good before, the host is shut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from metaprotocol.resources import DestinationRule, Resource
from metaprotocol.translate.clusters import HostClusters
from metaprotocol.translate.faults import CODE, Faults, Untranslatable
from metaprotocol.translate.host_filters import HostFilters
from metaprotocol.translate.index import Index, unreadable_in_place_of
from metaprotocol.translate.model import Service
from metaprotocol.translate.policy import HostPolicies
from metaprotocol.translate.reporting import Diagnostics
from metaprotocol.translate.shut import ShutHosts

NO_POLICIES = HostPolicies()


@dataclass
class HostState:
    """What is known and made of one host."""

    service: Service | None = None
    policies: HostPolicies = NO_POLICIES
    used: bool = False
    """Whether ``policies`` is what was found out, rather than nothing yet."""
    filters: HostFilters = field(default_factory=HostFilters)
    clusters: HostClusters = field(default_factory=HostClusters)


class Contained:
    """See the module's description."""

    def __init__(self, index: Index, shut: ShutHosts, before: Mapping[str, HostState]) -> None:
        """``before``: what was made of hosts when not everything was to be made again."""
        self.faults = Faults()
        self._index = index
        self._shut = shut
        self._before = before
        self._services: set[str] = set()
        self._routes: set[str] = set()

    def forget_before(self) -> None:
        """Everything is made again."""
        self._before = {}

    def take_services(self) -> set[str]:
        """The hosts to be read again, since something of them has failed."""
        found, self._services = self._services, set()
        return found

    def take_routes(self) -> set[str]:
        """Likewise those whose filters are to be made again."""
        found, self._routes = self._routes, set()
        return found

    def service(
        self, host: str, state: HostState, make: Callable[[], tuple[Service | None, Diagnostics]]
    ) -> Diagnostics:
        """Finds out what is known of a host's service."""
        try:
            state.service, found = make()
        except Exception as error:
            state.service = self._good(host, state).service
            self._services.add(host)
            return self._met("service", host, state, error, "what was known of it before stays")
        self.faults.over(f"service {host}")
        return found

    def policies(
        self,
        host: str,
        state: HostState,
        rules: Collection[DestinationRule],
        make: Callable[[], tuple[HostPolicies, Diagnostics]],
    ) -> Diagnostics:
        """Finds out how a host's endpoints are used, by ``rules``."""
        try:
            state.policies, said = make()
        except Exception as error:
            self._services.add(host)
            good = self._good(host, state)
            if good.used:
                state.policies, state.used = good.policies, True
                return self._met("policies", host, state, error, "the last good ones stay in use")
            state.policies = HostPolicies(unreadable=tuple(map(unreadable_in_place_of, rules)))
            return self._met("policies", host, state, error, "nothing is sent to it")
        state.used = True
        self.faults.over(f"policies {host}")
        return said

    def filters(self, host: str, state: HostState, make: Callable[[], HostFilters]) -> HostFilters:
        """Makes the filters of a host."""
        try:
            made = make()
        except Exception as error:
            self._routes.add(host)
            return self._filters_after(error, host, state)
        self.faults.over(f"filters {host}")
        return made

    def _filters_after(self, error: Exception, host: str, state: HostState) -> HostFilters:
        good = self._good(host, state).filters
        if self._shut.may_keep(state.service, good):
            said = self._met("filters", host, state, error, "the last good ones stay in use")
            return replace(good, diagnostics=(*_without(good.diagnostics), *said))
        said = self._met("filters", host, state, error, "it answers an error to every request")
        made = HostFilters(looked_up={host}, missing=True)
        if state.service is not None:
            known = isinstance(error, Untranslatable)
            because = error.resource if known else state.service.first  # type: ignore[attr-defined]
            try:
                made = self._shut.filters(state.service, because)
            except Exception as other:
                said = self._met("filters", host, state, other, "it has no listener")
        made.unsure = good.unsure or not good.filters
        return replace(made, diagnostics=(*made.diagnostics, *said))

    def clusters(
        self, host: str, state: HostState, make: Callable[[], HostClusters]
    ) -> HostClusters:
        """Makes the clusters of a host."""
        try:
            made = make()
        except Exception as error:
            self._services.add(host)
            good = self._good(host, state)
            if good.clusters.resources:
                said = self._met("clusters", host, state, error, "the last good ones stay in use")
                kept = _without(good.clusters.diagnostics)
                return replace(good.clusters, diagnostics=(*kept, *said))
            said = self._met("clusters", host, state, error, "nothing is sent to it")
            return HostClusters(diagnostics=said)
        self.faults.over(f"clusters {host}")
        return made

    def told(
        self, what: str, resource: Resource | None, make: Callable[[], Diagnostics]
    ) -> Diagnostics:
        """Does what only says something of a resource."""
        try:
            found = make()
        except Exception as error:
            return self.faults.met(what, error, resource, "nothing else depends on it")
        self.faults.over(what)
        return found

    def listener(self, host: str, state: HostState, publish: Callable[[], None]) -> Diagnostics:
        """Puts one of a host's listeners where it is found."""
        try:
            publish()
        except Exception as error:
            self._routes.add(host)
            return self._met("listener", host, state, error, "it stays as it was")
        return ()

    def _good(self, host: str, state: HostState) -> HostState:
        return self._before.get(host) or state

    def _met(
        self, what: str, host: str, state: HostState, error: Exception, outcome: str
    ) -> Diagnostics:
        """Tells of a fault: of the resource that is to blame, or of the service."""
        owner = state.service.first if state.service is not None else None
        if owner is None:
            owner = next(iter(self._index.owners(host)), None)
        return self.faults.met(f"{what} {host}", error, owner, outcome)


def _without(diagnostics: Diagnostics) -> Diagnostics:
    return tuple(item for item in diagnostics if item.diagnostic.code != CODE)
