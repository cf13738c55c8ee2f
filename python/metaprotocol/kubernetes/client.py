"""Requests to the API server.

kubernetes_asyncio knows how to get in: a kubeconfig with all its ways to prove who one is, or the
service account of a pod, whose token changes every now and then. What is asked and answered is
plain JSON: no model of the library is used, which would have to know every field of every version.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException
from yaml import YAMLError

from metaprotocol.errors import Error

_LOG = logging.getLogger(__name__)

Json: TypeAlias = dict[str, Any]

APPLY = "application/apply-patch+yaml"
"""The type of a server-side apply; JSON is YAML."""
MERGE = "application/merge-patch+json"

_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
_LOAD_AGAIN_SECONDS = 5.0
"""Credentials that are refused are not loaded more often than this."""
_LONGEST_LINE = 16 * 2**20
"""Bytes of one event of a watch: far above what etcd stores."""
_LONGEST_ANSWER = 64 * 2**20
"""Bytes of any other answer, unpacked: hundreds of large objects."""
_LONGEST_ERROR = 2**20


class Unreachable(Error, ConnectionError):
    """Nothing has answered, or not to the end."""


class TooLong(Unreachable):
    """An answer has more bytes than are read. A list may be asked for in smaller pages."""


class ApiError(Error, RuntimeError):
    """The API server has answered that it won't."""

    def __init__(
        self, status: int, message: str, reason: str = "", retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.status = status
        """As in HTTP."""
        self.reason = reason
        """In one word, such as "Expired"."""
        self.retry_after = retry_after
        """Seconds that it wants to be left alone; 0: it has not said."""

    @property
    def expired(self) -> bool:
        """A watch or list cannot go on from where it was."""
        return self.status == 410 or self.reason in ("Expired", "Gone")


@dataclass(frozen=True)
class Connection:
    """Where the API server is, and who we are."""

    kubeconfig: Path | None = None
    """None: the pod's service account, or else what kubectl uses."""
    context: str | None = None


class Client:
    """An asynchronous context manager. Requests may be made side by side."""

    def __init__(self, connection: Connection | None = None) -> None:
        """ConfigException at the first request if the connection cannot be read."""
        self._connection = connection or Connection()
        self._api: ApiClient | None = None
        self._loaded = 0.0
        self._loading = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all connections."""
        api, self._api = self._api, None
        if api is not None:
            await api.close()

    async def get(self, path: str, **query: str | int) -> Json:
        """The object or list at a path."""
        return await self._answer("GET", path, query)

    async def text(self, path: str, **query: str | int) -> str:
        """What is at a path that answers with text, such as a log."""
        return (await self._content("GET", path, query)).decode(errors="replace")

    async def ready(self) -> bool:
        """Whether the API server has read all that it serves; True also where it does not say."""
        with _told():
            response = await self._send("GET", "/readyz", {}, None, "", _TIMEOUT)
            response.close()
        return response.status < 500

    async def create(self, path: str, value: Json, **query: str | int) -> Json:
        """Makes an object in the collection at a path."""
        return await self._answer("POST", path, query, value)

    async def replace(self, path: str, value: Json) -> Json:
        """Puts an object in place of the one there, if that has the same resourceVersion."""
        return await self._answer("PUT", path, {}, value)

    async def apply(self, path: str, value: Json, *, manager: str, force: bool = True) -> Json:
        """Server-side apply: these fields are ours from now on, others are left alone."""
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._answer("PATCH", path, query, value, APPLY)

    async def delete(self, path: str, uid: str = "") -> None:
        """Deletes an object, only the one with that uid if one is given. One that is not there is
        deleted."""
        value = {"preconditions": {"uid": uid}} if uid else {}
        with contextlib.suppress(_NotThere):
            await self._answer("DELETE", path, {}, value)

    async def watch(self, path: str, timeout: float, **query: str | int) -> AsyncIterator[Json]:
        """The events of a watch, until the server ends it, about ``timeout`` seconds from now."""
        query |= {"watch": "true", "timeoutSeconds": int(timeout)}
        # A server that has gone without a word is noticed soon after the time it was given.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=timeout + 10)
        with _told():
            response = await self._send("GET", path, query, None, "", limits)
            try:
                if response.status != 200:
                    raise _error(response, await _bounded(response.content, _LONGEST_ERROR))
                async for line in _lines(response.content):
                    yield _json(line)
            finally:
                response.close()

    # ---

    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int],
        value: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        return _json(await self._content(method, path, query, value, content_type))

    async def _content(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int],
        value: Json | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        with _told():
            response = await self._send(method, path, query, value, content_type, _TIMEOUT)
            longest = _LONGEST_ANSWER if response.status < 300 else _LONGEST_ERROR
            try:
                content = await _bounded(response.content, longest)
            except BaseException:
                response.close()  # nothing of the rest is read
                raise
            response.release()
        if response.status >= 300:
            raise _error(response, content)
        return content

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int],
        value: Json | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Sends a request; once more with credentials that are read again, if they are refused."""
        data = json.dumps(value).encode() if value is not None else None
        for last in (False, True):
            api = await self._ready()
            # Logs are text.
            accept = "application/json, */*"
            headers: dict[str, str] = {"Accept": accept, "User-Agent": "metaprotocol"}
            if data is not None:
                headers["Content-Type"] = content_type
            await api.update_params_for_auth(headers, [], ["BearerToken"])
            response: aiohttp.ClientResponse = await api.rest_client.pool_manager.request(
                method,
                str(api.configuration.host).rstrip("/") + path,
                params=dict(query),
                headers=headers,
                data=data,
                timeout=timeout,
                proxy=api.configuration.proxy,
                server_hostname=api.configuration.tls_server_name,
            )
            if response.status != 401 or last or not await self._renew(api):
                break
            response.close()
        return response

    async def _ready(self) -> ApiClient:
        async with self._loading:
            if self._api is None:
                self._api = await self._load()
        return self._api

    async def _renew(self, refused: ApiClient) -> bool:
        """Reads the credentials again, unless that was done just now."""
        async with self._loading:
            if self._api is not refused:
                return True
            if time.monotonic() - self._loaded < _LOAD_AGAIN_SECONDS:
                return False
            _LOG.info("the API server does not know us; the credentials are read again")
            self._api = await self._load()
        # Others may still be reading from it.
        asyncio.get_running_loop().call_later(60, lambda: asyncio.ensure_future(refused.close()))
        return True

    async def _load(self) -> ApiClient:
        made = Configuration()
        made.connection_pool_maxsize = 0  # each watch keeps one; no limit
        kubeconfig, context = self._connection.kubeconfig, self._connection.context
        try:
            if kubeconfig is None and context is None and Path(_TOKEN).exists():
                config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=made
                )
            else:
                file = str(kubeconfig) if kubeconfig is not None else None
                await config.load_kube_config(
                    file, context, client_configuration=made, persist_config=False
                )
            api = ApiClient(made)
        except (ConfigException, OSError, YAMLError, ValueError, TypeError) as error:
            raise Unreachable(f"the way to the API server cannot be read: {error}") from error
        self._loaded = time.monotonic()
        return api


_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


class _NotThere(ApiError):
    pass


@contextlib.contextmanager
def _told() -> Any:
    """Everything that can go wrong on the way as ``Unreachable``."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError) as error:
        if isinstance(error, Unreachable):
            raise
        raise Unreachable(str(error) or type(error).__name__) from error


def _error(response: aiohttp.ClientResponse, content: bytes) -> ApiError:
    """What an answer that is no success says: a Status object, or anything from a proxy between."""
    message, reason = "", ""
    after = 0.0
    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        status = json.loads(content)
        message, reason = str(status.get("message") or ""), str(status.get("reason") or "")
        after = float((status.get("details") or {}).get("retryAfterSeconds") or 0)
    with contextlib.suppress(ValueError):
        after = float(response.headers.get("Retry-After", "")) or after
    kind = _NotThere if response.status == 404 else ApiError
    text = message or f"{response.status} {response.reason}"
    after = min(max(after, 0.0), 60.0) if math.isfinite(after) else 0.0
    return kind(response.status, text, reason, after)


def _json(content: bytes) -> Json:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreachable("the API server has answered what is no JSON") from error
    if not isinstance(value, dict):
        raise Unreachable("the API server has answered what is no object")
    return value


async def _bounded(content: aiohttp.StreamReader, longest: int) -> bytes:
    """All of an answer, if it is not longer than that."""
    found = bytearray()
    async for chunk in content.iter_any():
        found += chunk
        if len(found) > longest:
            raise TooLong(f"the API server's answer has more than {longest:,} bytes")
    return bytes(found)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: aiohttp's own are bounded by its buffer."""
    rest = bytearray()
    async for chunk in content.iter_any():
        rest += chunk
        if b"\n" in chunk:
            *whole, last = rest.split(b"\n")
            rest = bytearray(last)
            for line in whole:
                if line.strip():
                    yield bytes(line)
        if len(rest) > _LONGEST_LINE:
            raise Unreachable("an event of a watch is longer than any object can be")
