"""A Kubernetes API server that keeps objects in memory: as much of one as `kubectl apply`, `get` and `delete` need."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KINDS = {
    "v1/namespaces": "Namespace",
    "v1/services": "Service",
    "v1/serviceaccounts": "ServiceAccount",
    "v1/configmaps": "ConfigMap",
    "v1/persistentvolumeclaims": "PersistentVolumeClaim",
    "apps/v1/deployments": "Deployment",
    "policy/v1/poddisruptionbudgets": "PodDisruptionBudget",
    "autoscaling/v2/horizontalpodautoscalers": "HorizontalPodAutoscaler",
    "networking.k8s.io/v1/networkpolicies": "NetworkPolicy",
    "keda.sh/v1alpha1/scaledobjects": "ScaledObject",
    "http.keda.sh/v1beta1/interceptorroutes": "InterceptorRoute",
    "monitoring.coreos.com/v1/servicemonitors": "ServiceMonitor",
    "monitoring.coreos.com/v1/prometheusrules": "PrometheusRule",
    "gateway.networking.k8s.io/v1/httproutes": "HTTPRoute",
    "inference.networking.k8s.io/v1/inferencepools": "InferencePool",
}
_OBJECTS = re.compile(
    r"/(?:api|apis/(?P<group>[\w.-]+))/(?P<version>v\w+)"
    r"(?:/namespaces/(?P<namespace>[\w.-]+)(?=/))?/(?P<plural>[a-z]+)(?:/(?P<name>[\w.-]+))?"
)
Key = tuple[str, str, str]
"""The resource (`apps/v1/deployments`), the namespace (empty where there is none), the name."""


@dataclass
class Cluster:
    """What has been applied."""

    url: str
    objects: dict[Key, dict[str, Any]] = field(default_factory=dict)

    def find(self, kind: str) -> list[dict[str, Any]]:
        """The objects of a kind."""
        return [found for (resource, _, _), found in self.objects.items() if KINDS[resource] == kind]


@contextmanager
def fake_cluster() -> Iterator[Cluster]:
    """A cluster as long as the block lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        cluster = _Handler.cluster = Cluster(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield cluster
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if (found := _discovery(path)) is not None:
            return self._answer(200, found)
        if (key := self._key()) is None:
            return self._fail(404, "NotFound")
        if key[2]:
            return self._answer_object(key)
        items = [found for known, found in self.cluster.objects.items() if known[0] == key[0]]
        kind, version = KINDS[key[0]], key[0].rpartition("/")[0]
        return self._answer(200, {"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": items})

    def do_POST(self) -> None:
        sent, key = self._body(), self._key()
        if key is None:
            return self._fail(404, "NotFound")
        if key[1] and ("v1/namespaces", "", key[1]) not in self.cluster.objects:
            return self._fail(404, "NotFound", f'namespaces "{key[1]}" not found')
        if (sent["apiVersion"], sent["kind"]) != (key[0].rpartition("/")[0], KINDS[key[0]]):
            return self._fail(400, "BadRequest", "the object is of another kind than its address")
        key = (key[0], key[1], sent["metadata"]["name"])
        if key in self.cluster.objects:
            return self._fail(409, "AlreadyExists")
        self.cluster.objects[key] = sent
        return self._answer(201, sent)

    def do_PATCH(self) -> None:
        sent, key = self._body(), self._key()
        if key not in self.cluster.objects:
            return self._fail(404, "NotFound")
        _merge(self.cluster.objects[key], sent)
        return self._answer_object(key)

    def do_DELETE(self) -> None:
        self._body()
        if self.cluster.objects.pop(self._key() or ("", "", ""), None) is None:
            return self._fail(404, "NotFound")
        return self._answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _key(self) -> Key | None:
        match = _OBJECTS.fullmatch(self.path.partition("?")[0])
        if match is None:
            return None
        resource = "/".join(filter(None, (match["group"], match["version"], match["plural"])))
        return (resource, match["namespace"] or "", match["name"] or "") if resource in KINDS else None

    def _body(self) -> dict[str, Any]:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")

    def _answer_object(self, key: Key) -> None:
        found = self.cluster.objects.get(key)
        return self._answer(200, found) if found else self._fail(404, "NotFound")

    def _fail(self, status: int, reason: str, message: str = "") -> None:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status}
        self._answer(status, {**body, "message": message or reason})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _discovery(path: str) -> dict[str, Any] | None:
    """What kubectl asks first: which kinds are there."""
    versions = {name.rpartition("/")[0] for name in KINDS}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = [_group(version) for version in sorted(versions - {"v1"})]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in versions:
        return None
    resources = [
        {
            "name": name.rpartition("/")[2],
            "singularName": kind.lower(),
            "kind": kind,
            "namespaced": kind != "Namespace",
            "verbs": ["create", "delete", "get", "list", "patch"],
        }
        for name, kind in KINDS.items()
        if name.rpartition("/")[0] == version
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


def _group(version: str) -> dict[str, Any]:
    name, _, number = version.partition("/")
    served = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [served], "preferredVersion": served}


def _merge(known: dict[str, Any], sent: dict[str, Any]) -> None:
    """As a JSON merge patch."""
    for name, value in sent.items():
        if value is None:
            known.pop(name, None)
        elif isinstance(value, dict) and isinstance(known.get(name), dict):
            _merge(known[name], value)
        else:
            known[name] = value
