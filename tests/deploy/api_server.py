"""An API server of Kubernetes in memory, for real Helm: objects that are kept, patched and taken away, and Jobs that are done at once."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Plain = dict[str, Any]
GROUPS = {
    "v1": {"Secret": "secrets", "ServiceAccount": "serviceaccounts", "Service": "services", "ConfigMap": "configmaps", "Pod": "pods"},
    "apps/v1": {"Deployment": "deployments", "DaemonSet": "daemonsets"},
    "batch/v1": {"Job": "jobs"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
}  # fmt: skip
DONE = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
PATIENCE_S = 60.0
PROTOBUF = b"k8s\0"


def _base(version: str) -> str:
    return f"/api/{version}" if "/" not in version else f"/apis/{version}"


class ApiServer:
    """What is in it, and what has been done to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.closing = threading.Event()
        self._changing = threading.Lock()
        self._objects: dict[str, Plain] = {}  # by path
        self.log: list[tuple[str, str, str]] = []
        """(verb, kind, name), in order."""

    def add(self, one: Plain) -> None:
        """Puts an object there, as if somebody had applied it."""
        ((version, plural),) = [(v, kinds[one["kind"]]) for v, kinds in GROUPS.items() if one["kind"] in kinds]
        path = f"{_base(version)}/namespaces/events/{plural}/{one['metadata']['name']}"
        self._keep(path, {"apiVersion": version, **one})

    def of(self, kind: str) -> dict[str, Plain]:
        """The objects of a kind, by name; Helm's own records are left out."""
        with self._changing:
            found = [one for one in self._objects.values() if one["kind"] == kind]
        return {one["metadata"]["name"]: one for one in found if one.get("type") != "helm.sh/release.v1"}

    def arguments(self, folder: Path) -> list[str]:
        """Of Helm's, by which it comes here."""
        (folder / "kubeconfig").write_text("")
        return ["--kubeconfig", str(folder / "kubeconfig"), "--kube-apiserver", self.address]

    def get(self, path: str, query: dict[str, list[str]]) -> Plain | None:
        """Discovery, an object, or a list."""
        if path in (discovery := _discovery()):
            return discovery[path]
        with self._changing:
            if path in self._objects:
                return self._objects[path]
            base, _, plural = path.partition("/namespaces/events/")
            listed = {
                (_base(version), plural): (version, kind)
                for version, kinds in GROUPS.items()
                for kind, plural in kinds.items()
            }
            if (base, plural) not in listed:
                return None
            version, kind = listed[base, plural]
            found = [one for at, one in self._objects.items() if at.rsplit("/", 1)[0] == path and _chosen(one, query)]
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": found}

    def create(self, path: str, given: Plain) -> Plain | None:
        """None when there is one."""
        at = f"{path}/{given['metadata']['name']}"
        if at in self._objects:
            return None
        self._note("create", given)
        return self._keep(at, given)

    def change(self, path: str, given: Plain, merges: bool) -> Plain | None:
        """By a patch, or as a whole; None when it is not there."""
        if path not in self._objects:
            return None
        changed = _merged(self._objects[path], given) if merges else given
        self._note("change", changed)
        return self._keep(path, changed)

    def delete(self, path: str) -> bool:
        with self._changing:
            gone = self._objects.pop(path, None)
        if gone is not None:
            self._note("delete", gone)
        return gone is not None

    def _keep(self, path: str, one: Plain) -> Plain:
        about = {"namespace": "events", "uid": str(uuid.uuid4()), **one["metadata"], "resourceVersion": "1"}
        kept = {**one, "metadata": about} | ({"status": DONE} if one["kind"] == "Job" else {})
        with self._changing:
            self._objects[path] = kept
        return kept

    def _note(self, verb: str, one: Plain) -> None:
        self.log.append((verb, one["kind"], one["metadata"]["name"]))


def _chosen(one: Plain, query: dict[str, list[str]]) -> bool:
    labels = one["metadata"].get("labels", {})
    pairs = [pair.split("=") for text in query.get("labelSelector", ()) for pair in text.split(",") if pair]
    names = [text.partition("=")[2] for text in query.get("fieldSelector", ())]
    return all(labels.get(name) == value for name, value in pairs) and all(one["metadata"]["name"] == n for n in names)


def _merged(below: Plain, above: Plain) -> Plain:
    """RFC 7396; of a strategic merge as much as objects without lists need."""
    whole = dict(below)
    for name, value in above.items():
        if value is None:
            whole.pop(name, None)
        elif not name.startswith("$"):
            whole[name] = _merged(whole.get(name) or {}, value) if isinstance(value, dict) else value
    return whole


def _discovery() -> dict[str, Plain]:
    answers: dict[str, Plain] = {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    }
    for version, kinds in GROUPS.items():
        resources = [
            {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list", "create"]}
            for kind, plural in kinds.items()
        ]
        answers[_base(version)] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        if "/" in version:
            about = {"groupVersion": version, "version": version.partition("/")[2]}
            group = {"name": version.partition("/")[0], "versions": [about], "preferredVersion": about}
            answers["/apis"]["groups"].append(group)
    return answers


def _fields(body: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of a protobuf message's strings, bytes and messages."""
    at = 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(body):
        tag = number()
        size = number()
        if tag & 7 == 2:  # else a number, read just now
            yield tag >> 3, body[at : at + size]
            at += size


def _record(body: bytes) -> Plain:
    """Helm's record of a release, a Secret, which it sends as protobuf (k8s.io/api/core/v1/generated.proto)."""
    raw = dict(_fields(body[len(PROTOBUF) :]))[2]
    secret = dict(_fields(raw))
    about = dict(_fields(secret[1]))
    labels = [dict(_fields(entry)) for number, entry in _fields(secret[1]) if number == 11]
    data = [dict(_fields(entry)) for number, entry in _fields(raw) if number == 2]
    return {
        "apiVersion": "v1", "kind": "Secret", "type": secret[3].decode(),
        "metadata": {"name": about[1].decode(), "labels": {one[1].decode(): one[2].decode() for one in labels}},
        "data": {one[1].decode(): base64.b64encode(one[2]).decode() for one in data},
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    api: ApiServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/openapi/v2":  # of nothing: what has no schema is not checked
            self._send(200, b"", "application/octet-stream")
            return
        query = parse_qs(url.query)
        found = self.api.get(url.path, query)
        if found is not None and query.get("watch", ["false"])[0] in ("true", "1"):
            self._watch(found["items"], "sendInitialEvents" in query)
        else:
            self._answer(found)

    def do_POST(self) -> None:
        self._answer(self.api.create(urlsplit(self.path).path, self._given()), 201, (409, "AlreadyExists"))

    def do_PUT(self) -> None:
        self._answer(self.api.change(urlsplit(self.path).path, self._given(), merges=False))

    def do_PATCH(self) -> None:
        self._answer(self.api.change(urlsplit(self.path).path, self._given(), merges=True))

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        gone = self.api.delete(urlsplit(self.path).path)
        self._answer({"kind": "Status", "apiVersion": "v1", "status": "Success"} if gone else None)

    def _given(self) -> Plain:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return _record(body) if body.startswith(PROTOBUF) else dict(json.loads(body or b"{}"))

    def _answer(self, found: Plain | None, code: int = 200, lost: tuple[int, str] = (404, "NotFound")) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": lost[1], "code": lost[0]}
        self._send(code if found else lost[0], json.dumps(found or status).encode(), "application/json")

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _watch(self, items: list[Plain], initial: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        events: list[Plain] = []
        if initial and items:
            end = {"k8s.io/initial-events-end": "true"}
            mark = {
                **{key: items[0][key] for key in ("kind", "apiVersion")},
                "metadata": {"resourceVersion": "1", "annotations": end},
            }
            events = [{"type": "ADDED", "object": one} for one in items] + [{"type": "BOOKMARK", "object": mark}]
        for event in events:
            self.wfile.write(json.dumps(event).encode() + b"\n")
        self.wfile.flush()
        self.api.closing.wait(PATIENCE_S)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """One that is empty."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        api = ApiServer(f"http://127.0.0.1:{server.server_address[1]}")
        handler.api = api  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield api
        finally:
            api.closing.set()
            server.shutdown()
