"""``doctor --kubernetes``: what of a cluster keeps routes from having an effect. Reads only."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from metaprotocol.cli.checks import Check, Verdict
from metaprotocol.cli.doctor_sidecars import governing, hidden, local_only, rejection
from metaprotocol.kubernetes import ApiError, Client, Unreachable
from metaprotocol.sources.kubernetes_objects import CONTROLLER_LABEL
from metaprotocol.translate.istio_parts import ENABLED_LABEL
from metaprotocol.translate.secret_files import MOUNTED

Json = dict[str, Any]

_MOST = 5
"""Objects that are named in one line."""
_GROUP = "metaprotocol.aeraki.io"
_OURS = f"/apis/{_GROUP}/v1alpha1"
_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
_ISTIO = "/apis/networking.istio.io"
_PORT_PREFIX = "tcp-metaprotocol-"
_PROXY = "istio-proxy"
_IMAGE_ANNOTATION = "sidecar.istio.io/proxyImage"
_SEARCH_PATH = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH"
"""What the files of deploy/istio have injection add, beside the module itself."""
_METRICS = "dynamicmodulescustom"
"""What has to be shown, or none of our metrics is."""
_VERSION = re.compile(r":v?(\d+)\.(\d+)\b")
_PASSWORD_FILE = re.compile(rf'"({re.escape(str(MOUNTED))}/[^"]+)"')
_OLDEST = (1, 31)
"""Of Istio's proxies, with which dynamic modules came."""
_ROOT = "istio-system"
"""The namespace whose Sidecar is for all others, unless MeshConfig names another."""
_LOGS = 50
"""Proxies whose log is read, so that a large cluster is not asked for thousands."""
_LINES = 1000
_BYTES = 4 * 2**20


async def cluster_checks(client: Client, lease: str, namespace: str) -> AsyncIterator[Check]:
    """Every check, as it is done. ``lease`` is the installation's name, ``namespace`` its own."""
    try:
        version = await client.get("/version")
    except (ApiError, Unreachable) as error:
        fix = "Give --kubeconfig and --context, or check what 'kubectl version' says."
        yield Check("the API server", Verdict.MISSING, str(error), fix)
        return
    yield Check("the API server", Verdict.OK, str(version.get("gitVersion") or "answers"))
    look = _Look(client)
    yield await look.definitions()
    yield await look.writer(lease, namespace)
    yield await look.routers()
    yield await look.webhook()
    if await look.listed(f"{_ISTIO}/v1alpha3/envoyfilters") is None:
        yield Check("Istio", Verdict.OK, "there is none, or its EnvoyFilters cannot be read")
        return
    yield await look.ports()
    yield await look.pods()
    yield await look.metrics()
    yield await look.passwords()
    yield await look.listening()
    yield await look.hidden()
    yield await look.rejections()
    yield await look.strangers()


class _Look:
    """The checks, each of which is a list of objects and what is wrong with some of them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, list[Json] | None] = {}

    async def listed(self, path: str) -> list[Json] | None:
        """All objects of a kind; None: there is no such kind, or it may not be read."""
        if path not in self._known:
            found: list[Json] = []
            token = ""
            try:
                while True:
                    page = await self._client.get(path, limit=500, **_continued(token))
                    found += page.get("items") or ()
                    token = str((page.get("metadata") or {}).get("continue") or "")
                    if not token:
                        break
                self._known[path] = found
            except ApiError as error:
                if error.status not in (403, 404):
                    raise
                self._known[path] = None
        return self._known[path]

    async def definitions(self) -> Check:
        name, fix = "our kinds", "kubectl apply --server-side -f deploy/crds, or install the chart."
        missing = [
            plural
            for plural in ("metarouters", "applicationprotocols")
            if await self.listed(f"{_OURS}/{plural}") is None
        ]
        if missing:
            text = f"not there, or not to be read: {', '.join(missing)}"
            return Check(name, Verdict.MISSING, text, fix)
        return Check(name, Verdict.OK, "MetaRouter and ApplicationProtocol are served")

    async def writer(self, lease: str, namespace: str) -> Check:
        """Whether a control plane runs that writes."""
        name = "the control plane"
        path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{lease}"
        try:
            spec = (await self._client.get(path)).get("spec") or {}
        except ApiError as error:
            fix = "Install it, or name its --lease-namespace and --installation."
            text = f"its lease {namespace}/{lease} cannot be read: {error}"
            return Check(name, Verdict.MISSING, text, fix)
        holder = str(spec.get("holderIdentity") or "")
        age = _seconds_since(str(spec.get("renewTime") or ""))
        if not holder or age is None or age > 2 * float(spec.get("leaseDurationSeconds") or 15):
            fix = f"kubectl -n {namespace} get pods, and the log of what should run there."
            return Check(name, Verdict.MISSING, "nobody holds its lease, so nobody writes", fix)
        return Check(name, Verdict.OK, f"{holder} writes")

    async def routers(self) -> Check:
        def fault(item: Json) -> str:
            said = {it["type"]: it for it in (item.get("status") or {}).get("conditions") or ()}
            for kind in ("Accepted", "Programmed"):
                condition = said.get(kind)
                if condition is None:
                    return "nobody has said anything of it"
                if condition.get("observedGeneration") != item["metadata"].get("generation"):
                    return "its status is of an older version"
                if condition.get("status") == "False":
                    return f"{kind} is False, {condition.get('reason')}"
            return ""

        items = await self.listed(f"{_OURS}/metarouters") or []
        fix = "kubectl describe metarouter has field, reason and fix."
        return _of_many("MetaRouters", items, fault, "are accepted", fix)

    async def webhook(self) -> Check:
        """Whether mistakes are refused before they are stored."""

        def fault(item: Json) -> str:
            bundles = [
                (hook.get("clientConfig") or {}).get("caBundle") for hook in item["webhooks"]
            ]
            return "" if all(bundles) else "has no CA, so that nobody is asked"

        def ours(item: Json) -> bool:
            rules = [
                rule for hook in item.get("webhooks") or () for rule in hook.get("rules") or ()
            ]
            return any(_GROUP in (rule.get("apiGroups") or ()) for rule in rules)

        name = "the webhook"
        found = await self.listed(_WEBHOOKS)
        if found is None:
            return Check(name, Verdict.WARNING, "ValidatingWebhookConfigurations cannot be read")
        items = [item for item in found if ours(item)]
        if not items:
            fix = "deploy/kubernetes and the chart have it; without it, look at each status."
            return Check(name, Verdict.WARNING, "there is none: what is wrong is stored", fix)
        fix = "serve with --webhook and --webhook-configuration, or cert-manager, adds it."
        return _of_many(name, items, fault, "know whom to ask", fix)

    async def ports(self) -> Check:
        """Istio looks for HTTP in ports of ServiceEntries that do not say that they are TCP."""

        def fault(item: Json) -> str:
            for port in (item.get("spec") or {}).get("ports") or ():
                ours = str(port.get("name") or "").startswith(_PORT_PREFIX)
                if ours and str(port.get("protocol") or "").upper() != "TCP":
                    return f"port {port.get('number')} has no 'protocol: TCP'"
            return ""

        ours = await self._entries()
        return _of_many("ServiceEntries of ours", ours, fault, "are TCP", "Write protocol: TCP.")

    async def pods(self) -> Check:
        """Pods that get our filters, and whether their proxy has the module."""

        def fault(item: Json) -> str:
            proxy = _proxy(item)
            if proxy is None:
                return "has no sidecar: its namespace is not injected, or it is older than that"
            image = str(proxy.get("image") or "")
            version = _VERSION.search(image)
            if version is not None and (int(version[1]), int(version[2])) < _OLDEST:
                return f"has the proxy {image}, which knows no modules: 1.31 is the first that does"
            injected = _SEARCH_PATH in _variables(proxy)
            if not injected and _IMAGE_ANNOTATION not in _annotations(item):
                return f"has the mesh's proxy {image}, which needs the module as well"
            return ""

        labelled = _labelled(await self.listed("/api/v1/pods"))
        name = f"pods with {ENABLED_LABEL}"
        if not labelled:
            fix = "Give it to pods whose proxy has the module; others get no filter of ours."
            return Check(name, Verdict.WARNING, "there are none", fix)
        fix = f"Annotation {_IMAGE_ANNOTATION} names a proxy with the module, see docs/istio.md."
        return _of_many(name, labelled, fault, "have a proxy of their own", fix, Verdict.WARNING)

    async def metrics(self) -> Check:
        """Istio shows metrics of modules only where it is told to."""

        def fault(item: Json) -> str:
            proxy = _proxy(item)
            if proxy is None:
                return ""  # told already
            said = " ".join([*_annotations(item).values(), *_variables(proxy).values()])
            return "" if _METRICS in said else "hides them"

        fix = f"proxyStatsMatcher: {{inclusionPrefixes: [{_METRICS}]}} in the ProxyConfig."
        items = _labelled(await self.listed("/api/v1/pods"))
        return _of_many("metrics of pods", items, fault, "show them", fix, Verdict.WARNING)

    async def passwords(self) -> Check:
        """Files that our EnvoyFilters name, without which a new pod does not get ready."""
        asked: dict[str, set[str]] = {}
        for item in await self.listed(f"{_ISTIO}/v1alpha3/envoyfilters") or []:
            if CONTROLLER_LABEL in (item["metadata"].get("labels") or {}):
                named = _PASSWORD_FILE.findall(json.dumps(item.get("spec")))
                asked.setdefault(item["metadata"]["namespace"], set()).update(named)

        def fault(item: Json) -> str:
            mounts = [
                str(mount.get("mountPath")).rstrip("/")
                for mount in (_proxy(item) or {}).get("volumeMounts") or ()
            ]
            missing = sorted(
                file
                for file in asked.get(item["metadata"]["namespace"], ())
                if not any(file.startswith(f"{mount}/") for mount in mounts)
            )
            return f"has no {', '.join(missing)} in its sidecar" if missing else ""

        fix = "Mount the Secret there, see docs/istio.md; the pod does not get ready without."
        items = _labelled(await self.listed("/api/v1/pods"))
        return _of_many("passwords in pods", items, fault, "have those of their namespace", fix)

    async def listening(self) -> Check:
        """Applications whose own words say that nobody outside their pod reaches them."""
        services = [*await self._entries(), *await self._ours("/api/v1/services")]

        def fault(item: Json) -> str:
            return local_only(item, services, _PROXY)

        fix = "Listen at 0.0.0.0 or the pod's address: that is where sidecars connect to."
        items = _labelled(await self.listed("/api/v1/pods"))
        good = "say of no port of ours that it is 127.0.0.1's alone"
        return _of_many("listening pods", items, fault, good, fix, Verdict.WARNING)

    async def hidden(self) -> Check:
        """Sidecars that leave out a host of a MetaRouter, or one that its routes lead to."""
        name = "Sidecars"
        sidecars = await self.listed(f"{_ISTIO}/v1/sidecars")
        if sidecars is None:
            return Check(name, Verdict.OK, "there are none, or they cannot be read")
        homes = {
            str(host): str(item["metadata"].get("namespace") or "")
            for item in await self._entries()
            for host in (item.get("spec") or {}).get("hosts") or ()
        }
        hosts = {
            host: homes.get(host) or _namespace_of(host)
            for router in await self.listed(f"{_OURS}/metarouters") or []
            for host in _hosts(router)
        }
        said: dict[tuple[str, str], dict[str, None]] = {}
        for pod in _labelled(await self.listed("/api/v1/pods")):
            if _is_gateway(pod):
                continue  # Sidecars are not for gateways
            sidecar = governing(sidecars, pod, _ROOT)
            namespace = str(pod["metadata"].get("namespace"))
            if sidecar is not None and (text := hidden(sidecar, namespace, hosts)):
                metadata = sidecar["metadata"]
                said.setdefault((metadata["namespace"], metadata["name"]), {})[text] = None

        def fault(item: Json) -> str:
            found = said.get((item["metadata"]["namespace"], item["metadata"]["name"]), {})
            return "; ".join(found)

        fix = "Add NAMESPACE/HOST to the hosts of spec.egress, if these pods are to call them."
        return _of_many(name, sidecars, fault, "hide no host of ours", fix, Verdict.WARNING)

    async def rejections(self) -> Check:
        """What proxies with our filters have said no to; istiod knows, but answers only its own."""
        name = "what proxies log"
        pods = [
            pod
            for pod in _labelled(await self.listed("/api/v1/pods"))
            if _proxy(pod) is not None and (pod.get("status") or {}).get("phase") != "Pending"
        ]
        logs: dict[tuple[str, str], str] = {}
        for pod in pods[:_LOGS]:
            key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
            path = f"/api/v1/namespaces/{key[0]}/pods/{key[1]}/log"
            try:
                log = await self._client.text(
                    path, container=_PROXY, tailLines=_LINES, limitBytes=_BYTES
                )
            except ApiError as error:
                if error.status == 403:
                    fix = (
                        "With the right to get pods/log it is read. By hand: istioctl proxy-status."
                    )
                    text = f"logs cannot be read, so that rejections are not seen: {error}"
                    return Check(name, Verdict.WARNING, text, fix)
                if error.status == 401:
                    raise
                continue  # it has gone, or its container has not begun
            logs[key] = log

        def fault(item: Json) -> str:
            return rejection(
                logs.get((item["metadata"]["namespace"], item["metadata"]["name"]), "")
            )

        fix = (
            "docs/istio.md has what it means, by symptom. It may be over since: istioctl "
            "proxy-status says what is in use now."
        )
        found = _of_many(name, pods[:_LOGS], fault, "", fix, Verdict.WARNING)
        if found.verdict is not Verdict.OK:
            return found
        text = f"{len(logs):,} of {len(pods):,} read, no rejection in the last {_LINES:,} lines"
        return Check(name, Verdict.OK, text)

    async def _entries(self) -> list[Json]:
        return await self._ours(f"{_ISTIO}/v1/serviceentries")

    async def _ours(self, path: str) -> list[Json]:
        """Services of a kind that have a port of ours."""
        items = await self.listed(path) or []
        return [it for it in items if _PORT_PREFIX in str((it.get("spec") or {}).get("ports"))]

    async def strangers(self) -> Check:
        """EnvoyFilters that `generate` or Aeraki wrote, beside those of the controller."""

        def fault(item: Json) -> str:
            labels = item["metadata"].get("labels") or {}
            ours = labels.get("app.kubernetes.io/managed-by") == "metaprotocol"
            if ours and CONTROLLER_LABEL not in labels:
                return "is no controller's, and patches what one patches"
            if str(labels.get("manager")).lower() == "aeraki":
                return "is Aeraki's, for all pods"
            return ""

        items = await self.listed(f"{_ISTIO}/v1alpha3/envoyfilters") or []
        fix = "They are of 'generate', Aeraki or an older installation: delete them."
        return _of_many("EnvoyFilters", items, fault, "are in nobody's way", fix)


def _labelled(pods: list[Json] | None) -> list[Json]:
    """Those that are to get our filters."""
    return [
        pod
        for pod in pods or ()
        if (pod["metadata"].get("labels") or {}).get(ENABLED_LABEL) == "true"
    ]


def _proxy(pod: Json) -> Json | None:
    """Its sidecar, or a gateway's only container."""
    spec = pod.get("spec") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return next((it for it in containers if it.get("name") == _PROXY), None)


def _hosts(router: Json) -> set[str]:
    """Those that a MetaRouter names, and those its routes lead to."""
    spec = router.get("spec") or {}
    targets = {
        str((target.get("destination") or {}).get("host") or "")
        for route in spec.get("routes") or ()
        for target in route.get("route") or ()
    }
    return {host for host in {*map(str, spec.get("hosts") or ()), *targets} if "." in host}


def _namespace_of(host: str) -> str:
    """Of a Kubernetes Service by its full name; "" of others."""
    _, _, rest = host.partition(".")
    namespace, service, _ = rest.partition(".svc.")
    return namespace if service else ""


def _is_gateway(pod: Json) -> bool:
    containers = (pod.get("spec") or {}).get("containers") or ()
    return [it.get("name") for it in containers] == [_PROXY]


def _annotations(pod: Json) -> dict[str, str]:
    return pod["metadata"].get("annotations") or {}


def _variables(container: Json) -> dict[str, str]:
    """Those of its environment that are written there."""
    return {it["name"]: str(it.get("value") or "") for it in container.get("env") or ()}


def _continued(token: str) -> Mapping[str, str]:
    return {"continue": token} if token else {}


def _of_many(
    name: str,
    items: list[Json],
    fault: Any,
    good: str,
    fix: str,
    verdict: Verdict = Verdict.MISSING,
) -> Check:
    """What is wrong with some of many objects."""
    found = [(item["metadata"], text) for item in items if (text := fault(item))]
    if not found:
        return Check(name, Verdict.OK, f"all {len(items):,} {good}")
    lines = [
        f"{metadata.get('namespace', '')}/{metadata['name']} {text}"
        for metadata, text in found[:_MOST]
    ]
    if len(found) > _MOST:
        lines.append(f"and {len(found) - _MOST:,} more")
    return Check(name, verdict, "; ".join(lines), fix)


def _seconds_since(time: str) -> float | None:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()
    except (ValueError, TypeError):
        return None
