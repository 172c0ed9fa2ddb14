"""A Confluent-compatible Schema Registry: schemas by id, ids for schemas. Only asked when its URL is set.

The API is Confluent's (https://docs.confluent.io/platform/current/schema-registry/develop/api.html), which Apicurio, Karapace
and Redpanda speak too.
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.errors import TryLater

KIND = "application/vnd.schemaregistry.v1+json"
TIMEOUT_S = 5.0


class SchemaRefused(Exception):
    """The registry will not take one of our schemas, or not us: an operator has to see to it."""


class SchemaRegistry:
    """Every call blocks for at most 5 s and raises TryLater when the registry is away or answers with a 5xx."""

    def __init__(self, url: str, user: str = "", password: str = "", ca: Path | None = None) -> None:
        """url: http(s)://host:port; user and password: HTTP basic, where it asks for them; ca: a PEM file."""
        self._url = url.rstrip("/")
        self._headers = {"Accept": KIND, "Content-Type": KIND}
        if user:
            self._headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._tls = ssl.create_default_context(cafile=str(ca)) if ca is not None else None

    def schema(self, schema_id: int) -> Mapping[str, Any] | None:
        """The schema with this id as JSON; None when the registry has none, or one that is not Avro."""
        answer = self._ask("GET", f"/schemas/ids/{schema_id}")
        if answer is None or answer.get("schemaType", "AVRO") != "AVRO":
            return None
        try:
            found = json.loads(answer["schema"])
        except RecursionError:
            return None  # nested without end: none that is read by here
        except (ValueError, KeyError, TypeError) as error:
            raise TryLater(f"schema registry: the answer for id {schema_id} is not readable: {error}") from error
        return found if isinstance(found, dict) else None

    def register(self, topic: str, raw: Mapping[str, Any]) -> int:
        """The id of the schema under the topic's subject (<topic>-value), registered when it is new.

        Raises SchemaRefused naming the subject and what the registry said, when it is not compatible or we may not.
        """
        answer = self._ask("POST", f"/subjects/{topic}-value/versions", {"schema": json.dumps(raw)})
        if answer is None or not isinstance(answer.get("id"), int):
            raise SchemaRefused(f"schema registry {self._url}: no id for {topic}-value in {answer!r}")
        return int(answer["id"])

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._tls) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = error.read(1000).decode(errors="replace").strip()
            if error.code == 404 and method == "GET":
                return None
            if error.code >= 500 or error.code in (408, 429):
                raise TryLater(f"schema registry {self._url}: {error.code} {said}") from error
            raise SchemaRefused(f"schema registry {self._url}{path}: {error.code} {said}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise TryLater(f"schema registry {self._url}: {error}") from error
        return found if isinstance(found, dict) else None
