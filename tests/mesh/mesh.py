"""A mesh on one machine: etcd, the API server, istiod, the controller as people deploy it, and pods
with Istio's own agent and Envoy.

Istio's own proxy image cannot be had here; a stock Envoy 1.39 stands in its place, the release that
Istio 1.31 has. It lacks Istio's own filters, so that istiod's metadata exchange is off and ports
are TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from build_mesh import BIN, ROOT, SHARE
from envoys import installed
from metaprotocol.envoy.binary import find_module
from metaprotocol.kubernetes import ApiError, Client, Connection

from tests.mesh.processes import NODE_ADDRESS, Pod, Process, command, make_node, wait_for

HERE = Path(__file__).resolve().parent
PROXY_UID = 1337
"""The sidecar's user, whose traffic istio-iptables lets pass."""
PORT = 21880
"""Where applications listen in their pods."""
NAMESPACE = "shop"
SYSTEM = "metaprotocol-system"
SERVICE_ACCOUNT = "metaprotocol"

Json = dict[str, Any]

_ETCD = "http://127.0.0.1:2379"
_DUAL = "ISTIO_DUAL_STACK"
"""Both families in one proxy; istiod makes no difference to proxies of one."""
_PEER = "http://127.0.0.1:2380"
_ISSUER = "https://kubernetes.default.svc"
_MESH_CONFIG = """\
enablePrometheusMerge: false
enableAutoMtls: true
rootNamespace: istio-system
trustDomain: cluster.local
defaultProviders: {}
defaultConfig: {discoveryAddress: "istiod.istio-system.svc:15012"}
"""

STRICT = f"""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: {NAMESPACE}}}
spec: {{mtls: {{mode: STRICT}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: default, namespace: {NAMESPACE}}}
spec: {{egress: [{{hosts: ["./*"]}}]}}
"""
"""mTLS is strict. Sidecars know of their own namespace alone: the control plane's Service has HTTP
ports, for which Istio wants a filter that a stock Envoy lacks."""


class Mesh:
    """See the module's description. ``start`` begins with the API server and what is applied there;
    ``stop`` ends everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir()
        folder.chmod(0o711)  # the sidecars' user passes through
        self.processes: dict[str, Process] = {}
        self.pods: dict[str, Pod] = {}
        self.times: dict[str, float] = {}
        self._admin = secrets.token_hex(16)
        self.kubeconfig = self._kubeconfig("admin", self._admin)
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}
        self._numbers = 9
        """Of the last pod, by which it has its address."""

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.times[what] = time.monotonic() - began

    def start(self) -> None:
        make_node()
        with self.timed("API server"):
            self.start_api_server()
        with self.timed("CRDs and namespaces"):
            self.apply_file(SHARE / "istio-crds.yaml")
            for name in ("istio-system", NAMESPACE):
                self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            self.apply(_account("istiod", "istio-system"))
        with self.timed("manifests"):
            crds = sorted((ROOT / "deploy/crds").glob("*.yaml"))
            self.apply_file(*crds, *sorted((ROOT / "deploy/kubernetes").glob("*.yaml")))

    def stop(self) -> None:
        for name in reversed(self.processes):
            self.processes[name].stop()
        for pod in self.pods.values():
            pod.close()

    # --- the control plane

    def start_api_server(self) -> None:
        pki = self.folder / "pki"
        if not pki.exists():
            pki.mkdir(mode=0o700)
            command("openssl", "genrsa", "-out", str(pki / "sa.key"), "2048")
            command(
                "openssl", "rsa", "-in", str(pki / "sa.key"), "-pubout", "-out", str(pki / "sa.pub")
            )
            (pki / "tokens.csv").write_text(f"{self._admin},admin,admin,system:masters\n")
        if "etcd" not in self.processes:
            self.run(
                "etcd",
                str(BIN / "etcd"), "--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync",
                "--log-level", "warn", "--listen-client-urls", _ETCD,
                "--advertise-client-urls", _ETCD, "--listen-peer-urls", _PEER,
                "--initial-advertise-peer-urls", _PEER, "--initial-cluster", f"default={_PEER}",
            )  # fmt: skip
        server = self.run(
            "kube-apiserver",
            str(BIN / "kube-apiserver"), f"--etcd-servers={_ETCD}", "--bind-address=127.0.0.1",
            "--secure-port=6443", f"--advertise-address={NODE_ADDRESS}", f"--cert-dir={pki}",
            f"--service-account-issuer={_ISSUER}", f"--api-audiences={_ISSUER},istio-ca",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC",
            f"--token-auth-file={pki / 'tokens.csv'}",
            # No controller manager runs, which would make accounts and their tokens.
            "--disable-admission-plugins=ServiceAccount",
        )  # fmt: skip
        wait_for("the API server", self._api_ready, server)

    def start_istiod(self, revision: str = "default", shift: int = 0) -> None:
        """The usual one, or one of another revision, whose ports are so much higher."""
        name = "istiod" if revision == "default" else f"istiod-{revision}"
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "mesh.yaml").write_text(_MESH_CONFIG)
        environment = {
            "PATH": os.environ["PATH"], "POD_NAMESPACE": "istio-system", "POD_NAME": f"{name}-0",
            "SERVICE_ACCOUNT": "istiod", "CLUSTER_ID": "Kubernetes", "REVISION": revision,
            "PILOT_CERT_PROVIDER": "istiod", "JWT_POLICY": "third-party-jwt",
            "PILOT_ENABLE_METADATA_EXCHANGE": "false", _DUAL: "true",
        }  # fmt: skip
        http = 8080 + shift
        istiod = self.run(
            name,
            str(BIN / "pilot-discovery"), "discovery", "--kubeconfig", str(self.kubeconfig),
            "--meshConfig", "mesh.yaml", "--monitoringAddr", f"127.0.0.1:{15014 + shift}",
            "--httpAddr", f"127.0.0.1:{http}", "--grpcAddr", f":{15010 + shift}",
            "--secureGRPCAddr", f":{15012 + shift}", "--httpsAddr", f":{15017 + shift}",
            "--ctrlz_port", "0",
            cwd=folder, env=environment,
        )  # fmt: skip
        wait_for(name, lambda: _ok(f"http://127.0.0.1:{http}/ready"), istiod)

    def start_controller(
        self, name: str = "controller", *options: str, port: int = 16010,
        account: str = SERVICE_ACCOUNT, namespace: str = SYSTEM,
    ) -> Process:  # fmt: skip
        """``serve --kubernetes`` as a service account, that of the plain manifests, with its rights
        alone."""
        token = self.token(account, namespace)
        return self.run(
            name,
            sys.executable, "-m", "metaprotocol.cli.main", "serve", "--kubernetes",
            "--kubeconfig", str(self._kubeconfig(name, token)),
            "--lease-namespace", namespace,
            "--listen", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{port + 1}",
            "--log-level", "info", *options,
            env={**os.environ, "POD_NAME": name},
        )  # fmt: skip

    def wait_for_controller(self, name: str = "controller", port: int = 16010) -> None:
        url = f"http://127.0.0.1:{port + 1}/ready"
        wait_for(name, lambda: _ok(url), self.processes[name])

    # --- pods

    def add_pod(
        self, name: str, app: str, version: str = "", *, provider: bool = False, labelled: str = "",
        labels: Mapping[str, str] | None = None, sidecar: Mapping[str, str] | None = None,
        serves: Sequence[str] = (), istiod: int = 15012, role: str = "sidecar", ipv6: str = "",
    ) -> Pod:  # fmt: skip
        """A pod as kubelet and the injection webhook would make one: known to the API server,
        with its token, its redirections, its sidecar, and a provider if it is one, which answers
        with its version. ``labelled``: as another version; ``labels``: more of them, or empty ones
        in place of the usual; ``sidecar``: more of its environment; ``serves``: a program in place
        of the provider; ``istiod``: the port of the one that it belongs to; ``role``: "router" for
        a gateway, which is all there is in its pod; ``ipv6``: another address of its."""
        self._numbers += 1
        number = self._numbers
        address = f"10.244.0.{number}"
        pod = Pod(name, address, number, self.folder / "pods" / name)
        self.pods[name] = pod
        if ipv6:
            pod.run("ip", "addr", "add", f"{ipv6}/64", "dev", "eth0", "nodad")
            pod.run("ip", "-6", "route", "add", "default", "dev", "eth0")
        wanted = {
            "app": app,
            "metaprotocol.aeraki.io/enabled": "true",
            "security.istio.io/tlsMode": "istio",
            "service.istio.io/canonical-name": app,
            "version": labelled or version,
            **(labels or {}),
        }
        own = {key: value for key, value in wanted.items() if value}
        self.apply(_account(app, NAMESPACE))
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": NAMESPACE,
                    "labels": own,
                    "annotations": {"sidecar.istio.io/status": "{}"},
                },
                "spec": {
                    "serviceAccountName": app,
                    "nodeName": "node",
                    # No kubelet says that it has ended, and until then another of its name is it.
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {"name": "app", "image": "none", "ports": [{"containerPort": PORT}]},
                        {"name": "istio-proxy", "image": "none"},
                    ],
                },
            }
        )
        self._report(pod, ready=True)
        if provider or serves:
            script = [sys.executable, "-m", "tests.mesh.server", version or app, str(PORT)]
            script = list(serves) or script
            self.processes[f"provider-{name}"] = pod.start(
                script, self.logs / f"provider-{name}", cwd=ROOT
            )
        more = {**({_DUAL: "true"} if ipv6 else {}), **(sidecar or {})}
        self._proxy(pod, app, own, istiod, more, role)
        return pod

    def _report(self, pod: Pod, *, ready: bool) -> None:
        """What the kubelet says of a pod."""
        conditions = [
            {"type": kind, "status": "True" if ready else "False"}
            for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        ]
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod.name, "namespace": NAMESPACE},
                "status": {
                    "phase": "Running",
                    "podIP": pod.address,
                    "podIPs": [{"ip": pod.address}],
                    "hostIP": NODE_ADDRESS,
                    "conditions": conditions,
                },
            },
            "status",
        )

    def retire_pod(self, name: str) -> None:
        """Nobody is to send anything there any more."""
        self._report(self.pods[name], ready=False)

    def end_pod(self, name: str) -> None:
        """Ends a pod and all in it."""
        self.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")
        for process in (f"provider-{name}", f"sidecar-{name}"):
            if process in self.processes:
                self.processes.pop(process).stop()
        pod = self.pods.pop(name)
        pod.close()
        shutil.rmtree(pod.folder)  # there may be another one of that name

    def _proxy(
        self, pod: Pod, app: str, labels: dict[str, str], istiod: int, more: Mapping[str, str],
        role: str,
    ) -> None:  # fmt: skip
        folder, address = pod.folder, pod.address
        for part in (
            "var/run/secrets/tokens",
            "var/run/secrets/istio",
            "var/lib/istio/data",
            "var/lib/istio/envoy",
            "etc/istio/proxy",
            "etc/istio/pod",
        ):
            (folder / part).mkdir(parents=True)
        token = self.token(app, NAMESPACE, audience="istio-ca", pod=pod.name)
        (folder / "var/run/secrets/tokens/istio-token").write_text(token)
        root = self.wait_for_object(f"/api/v1/namespaces/{NAMESPACE}/configmaps/istio-ca-root-cert")
        (folder / "var/run/secrets/istio/root-cert.pem").write_text(root["data"]["root-cert.pem"])
        text = "".join(f'{key}="{value}"\n' for key, value in labels.items())
        (folder / "etc/istio/pod/labels").write_text(text)
        (folder / "etc/istio/pod/annotations").write_text("")
        template = "envoy_bootstrap_tmpl.json"
        shutil.copy(SHARE / template, folder / "var/lib/istio/envoy" / template)
        (folder / "hosts").write_text(
            f"127.0.0.1 localhost\n{NODE_ADDRESS} istiod.istio-system.svc\n"
        )
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        command("chown", "-R", f"{PROXY_UID}:{PROXY_UID}", str(folder))
        pod.run("mount", "--bind", str(folder / "hosts"), "/etc/hosts")
        pod.run("mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf")
        if role == "sidecar":
            pod.run(
                "env", f"{_DUAL}={more.get(_DUAL, 'false')}",
                str(BIN / "pilot-agent"), "istio-iptables", "-p", "15001", "-z", "15006",
                "-u", str(PROXY_UID), "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*",
                "-d", "15090,15021,15020",
            )  # fmt: skip
        envoy, module = self._for_proxy(installed("1.39")), self._for_proxy(find_module())
        environment = {
            "PATH": os.environ["PATH"], "POD_NAME": pod.name, "POD_NAMESPACE": NAMESPACE,
            "INSTANCE_IP": address, "HOST_IP": NODE_ADDRESS, "SERVICE_ACCOUNT": app,
            "CA_ADDR": f"istiod.istio-system.svc:{istiod}", "PILOT_CERT_PROVIDER": "istiod",
            "TRUST_DOMAIN": "cluster.local", "ISTIO_META_APP_CONTAINERS": "app",
            "ISTIO_META_POD_PORTS": json.dumps([{"containerPort": PORT}]),
            "ISTIO_META_CLUSTER_ID": "Kubernetes", "ISTIO_META_NODE_NAME": "node",
            "ISTIO_META_INTERCEPTION_MODE": "REDIRECT", "ISTIO_META_WORKLOAD_NAME": pod.name,
            "ISTIO_META_MESH_ID": "cluster.local", "ISTIO_META_ISTIO_VERSION": "1.31.0",
            "ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(module.parent),
            "PROXY_CONFIG": json.dumps(
                {
                    "discoveryAddress": f"istiod.istio-system.svc:{istiod}",
                    "binaryPath": str(envoy),
                    "concurrency": 1,
                    "configPath": "./etc/istio/proxy",
                    "terminationDrainDuration": "1s",
                    "proxyStatsMatcher": {"inclusionPrefixes": ["dynamicmodulescustom"]},
                    "proxyBootstrapTemplatePath": f"./var/lib/istio/envoy/{template}",
                }
            ),
        }  # fmt: skip
        environment |= more
        user = ["setpriv", f"--reuid={PROXY_UID}", f"--regid={PROXY_UID}", "--clear-groups"]
        agent = str(self._for_proxy(BIN / "pilot-agent"))
        self.processes[f"sidecar-{pod.name}"] = pod.start(
            [*user, agent, "proxy", role, "--domain", f"{NAMESPACE}.svc.cluster.local",
             "--proxyLogLevel=warning,misc:error"],
            self.logs / f"sidecar-{pod.name}", cwd=folder, env=environment,
        )  # fmt: skip

    def wait_for_sidecars(self) -> None:
        for name in self.pods:
            ready = partial(self.is_ready, name)
            wait_for(f"the sidecar of {name}", ready, self.processes[f"sidecar-{name}"])

    def is_ready(self, name: str) -> bool:
        """What Istio's agent says of a pod's sidecar."""
        probe = "import urllib.request as u; u.urlopen('http://127.0.0.1:15021/healthz/ready')"
        process = self.pods[name].start([sys.executable, "-c", probe], self.logs / "probe")
        return process.popen.wait() == 0

    def _for_proxy(self, path: Path) -> Path:
        """The file, or a copy that the sidecars' user can read."""
        check = ["setpriv", f"--reuid={PROXY_UID}", f"--regid={PROXY_UID}", "--clear-groups"]
        if subprocess.run([*check, "test", "-r", str(path)], check=False).returncode == 0:
            return path
        copy = self.folder / "copies" / path.name
        if not copy.exists():
            copy.parent.mkdir(mode=0o755, exist_ok=True)
            shutil.copy(path, copy)
            copy.chmod(0o755)
        return copy

    def call(
        self, pod: str, target: str, *, method: str = "call", times: int = 1, connections: int = 1,
        attachments: Mapping[str, str] | None = None, tls: tuple[str, Path] | None = None,
    ) -> Json:  # fmt: skip
        """What calls from a pod are answered: answers, failures, connections that were closed."""
        process = self.load(
            pod, target, method=method, times=times, seconds=60, connections=connections,
            attachments=attachments, tls=tls,
        )  # fmt: skip
        return finished(process)

    def load(
        self, pod: str, target: str, *, method: str = "call", times: int = -1,
        seconds: float = 60, connections: int = 1, attachments: Mapping[str, str] | None = None,
        tls: tuple[str, Path] | None = None,
    ) -> Process:  # fmt: skip
        """Calls from a pod, or from outside all of them (""), as a process whose lines ``finished``
        reads. ``tls``: the server's name, and the CA's certificate."""
        script = [
            sys.executable, "-m", "tests.mesh.calls", target, "--method", method,
            "--seconds", str(seconds), "--times", str(times), "--connections", str(connections),
            *(f"--attachment={key}={value}" for key, value in (attachments or {}).items()),
            *(("--tls", tls[0], "--ca", str(tls[1])) if tls else ()),
        ]  # fmt: skip
        start = self.pods[pod].start if pod else Process
        return start(script, self.logs / f"calls-{pod or 'outside'}", cwd=ROOT, pipe=True)

    # --- objects

    def apply_file(self, *paths: Path) -> None:
        for path in paths:
            self.apply(*(item for item in yaml.safe_load_all(path.read_text()) if item))

    def apply_text(self, text: str) -> None:
        self.apply(*(item for item in yaml.safe_load_all(text) if item))

    def apply(self, *args: Json | str) -> None:
        """Server-side apply with strict fields, as `kubectl apply --server-side` does it."""
        part = args[-1] if isinstance(args[-1], str) else ""
        items = [item for item in args if isinstance(item, dict)]
        self.ask(lambda client: self._apply_all(client, items, part))

    async def _apply_all(self, client: Client, items: Sequence[Json], part: str) -> None:
        for item in items:
            path = await self._path(client, item)
            await client.apply(f"{path}/{part}" if part else path, item, manager="test")

    def delete(self, path: str) -> None:
        self.ask(lambda client: client.delete(path))

    def get(self, path: str) -> Json | None:
        try:
            found: Json = self.ask(lambda client: client.get(path))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def wait_for_object(self, path: str) -> Json:
        wait_for(path, lambda: self.get(path) is not None, seconds=30)
        found = self.get(path)
        assert found is not None
        return found

    def token(self, account: str, namespace: str, *, audience: str = "", pod: str = "") -> str:
        spec: Json = {"expirationSeconds": 43200}
        if audience:
            spec["audiences"] = [audience]
        if pod:
            found = self.wait_for_object(f"/api/v1/namespaces/{namespace}/pods/{pod}")
            uid = found["metadata"]["uid"]
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = self.ask(lambda client: client.create(path, request))
        return str(answer["status"]["token"])

    def conditions(self, name: str) -> dict[str, Json]:
        """Of a MetaRouter."""
        found = self.get(
            f"/apis/metaprotocol.aeraki.io/v1alpha1/namespaces/{NAMESPACE}/metarouters/{name}"
        )
        said = ((found or {}).get("status") or {}).get("conditions") or ()
        return {item["type"]: item for item in said}

    def ask(self, request: Any) -> Any:
        """Something of the API server, as the administrator."""

        async def asked() -> Any:
            async with Client(Connection(self.kubeconfig)) as client:
                return await request(client)

        return asyncio.run(asked())

    async def _path(self, client: Client, item: Json) -> str:
        version, kind = item["apiVersion"], item["kind"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        deadline = time.monotonic() + 20
        while kind not in self._resources.get(version, {}):
            with contextlib.suppress(ApiError):  # a new CRD takes a moment
                found = (await client.get(base))["resources"]
                self._resources[version] = {
                    it["kind"]: (it["name"], it["namespaced"])
                    for it in found
                    if "/" not in it["name"]
                }
            assert time.monotonic() < deadline, f"there is no {version} {kind}"
            if kind not in self._resources.get(version, {}):
                await asyncio.sleep(0.1)
        plural, namespaced = self._resources[version][kind]
        scope = f"/namespaces/{item['metadata'].get('namespace', 'default')}" if namespaced else ""
        return f"{base}{scope}/{plural}/{item['metadata']['name']}"

    # ---

    def run(self, name: str, *arguments: str, **options: Any) -> Process:
        self.processes[name] = Process(arguments, self.logs / name, **options)
        return self.processes[name]

    def _api_ready(self) -> bool:
        with contextlib.suppress(ApiError, ConnectionError):
            self.ask(lambda client: client.get("/api/v1/namespaces/default"))
            return bool(self.ask(lambda client: client.ready()))  # it has read its CRDs
        return False

    def _kubeconfig(self, name: str, token: str) -> Path:
        path = self.folder / f"kubeconfig-{name}"
        cluster = {"server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": True}
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "mesh", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "mesh", "context": {"cluster": "mesh", "user": name}}],
            "current-context": "mesh",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(value))
        return path


def finished(process: Process) -> Json:
    """The last line of a load, when it has ended; the others under "changes"."""
    output, _ = process.popen.communicate(timeout=120)
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines, f"it said nothing\n{process.tail()}"
    return {**lines[-1], "changes": lines[:-1]}


def _account(name: str, namespace: str) -> Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def _ok(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False
