"""The validating webhook: HTTPS, by which the API server asks before it stores an object.

Anybody who reaches the port may ask. So no more is read, and kept waiting, than an API server could
send; and what is asked about is never loaded or run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from metaprotocol.controller.admission import Admission, Review
from metaprotocol.diagnostics import Diagnostic, cut, printable
from metaprotocol.kubernetes import Json
from metaprotocol.resources import Inventory
from metaprotocol.worker import Worker

_LOG = logging.getLogger(__name__)
_HTTP_LOG = logging.getLogger(f"{__name__}.http")
# Whoever sends what is no HTTP would have a page of it logged each time.
_HTTP_LOG.setLevel(logging.CRITICAL)

PATH = "/validate"

_LONGEST_REVIEW = 8 * 2**20
"""Bytes: the API server takes objects of 3 MB, and sends the one before as well."""
_MOST_WAITING = 16
"""Reviews at once."""
_READ_SECONDS = 10.0
_MOST_TOLD = 20
_LONGEST_MESSAGE = 8000
"""Characters of a refusal."""
_LONGEST_WARNING = 240
"""Characters of one; the API server cuts what is longer than 256."""
_API = "admission.k8s.io/v1"
# What these say in place of a fix is what becomes of an object that is in use.
_NO_FIX = ("rejected", "bad-declaration", "bad-library")


class _NotAReview(ValueError):
    """A request is none of an API server's."""


class Webhook:
    """See the module's description. ``run`` begins to listen when there is a certificate."""

    def __init__(
        self,
        admission: Admission,
        inventory: Callable[[], Inventory],
        *,
        host: str,
        port: int,
        registry: CollectorRegistry,
        read_seconds: float = _READ_SECONDS,
    ) -> None:
        """``inventory``: what there is beside an object, whenever one is reviewed."""
        self.port = port
        """With 0 given, the one that was chosen, once it listens."""
        self._admission = admission
        self._inventory = inventory
        self._host = host
        self._read_seconds = read_seconds
        self._worker = Worker("admission")
        self.waiting = 0
        """Reviews that are under way."""
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._certified = asyncio.Event()
        self._reviews = Counter(
            "metaprotocol_admission_reviews",
            "Objects that the API server has asked about.",
            ["verdict"],
            registry=registry,
        )

    @property
    def certified(self) -> bool:
        """Whether there is a certificate."""
        return self._certified.is_set()

    def use(self, certificate: bytes, key: bytes) -> None:
        """From now on this chain and key, in PEM. ValueError if they are none; what was used before
        stays in use then."""
        with tempfile.TemporaryDirectory(prefix="metaprotocol-webhook-") as folder:
            file = Path(folder) / "pair.pem"  # in a folder that is ours alone
            file.write_bytes(key + b"\n" + certificate)
            try:
                # A context that has refused a pair would be left with half of it.
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, password=lambda: "")
                self._context.load_cert_chain(file, password=lambda: "")
            except (ssl.SSLError, ValueError) as error:
                raise ValueError(f"certificate and key do not go together: {error}") from error
        self._certified.set()

    async def run(self) -> None:
        """Answers until it is cancelled."""
        await self._certified.wait()
        app = web.Application(client_max_size=_LONGEST_REVIEW)
        app.add_routes([web.post(PATH, self._validate)])
        runner = web.AppRunner(app, access_log=None, logger=_HTTP_LOG, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self.port, ssl_context=self._context)
            await site.start()
            self.port = int(runner.addresses[0][1])
            _LOG.info("the webhook listens at port %d", self.port)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def close(self) -> None:
        """Ends the thread."""
        self._worker.close()

    async def _validate(self, request: web.Request) -> web.Response:
        if self.waiting >= _MOST_WAITING:
            return self._failed(503, "too many reviews are under way")
        self.waiting += 1
        try:
            content = await self._read(request)
            answer, verdict = await self._worker.run(self._answer, content, self._inventory())
        except _NotAReview as error:
            return self._failed(400, str(error))
        except TimeoutError:
            return self._failed(408, "the review has not come to its end")
        except web.HTTPException:
            raise  # it is too long
        except Exception:
            # The API server does then what the webhook's failurePolicy says.
            _LOG.exception("an object could not be reviewed")
            return self._failed(500, "the object could not be reviewed; the log has more")
        finally:
            self.waiting -= 1
        self._reviews.labels(verdict).inc()
        return web.json_response(answer)

    async def _read(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(self._read_seconds):
                return await request.read()
        except TimeoutError:
            raise
        except (OSError, web.RequestPayloadError) as error:
            raise _NotAReview(f"has come in part: {error}") from error

    def _failed(self, status: int, text: str) -> web.Response:
        self._reviews.labels("failed").inc()
        return web.Response(status=status, text=f"{text}\n")

    def _answer(self, content: bytes, inventory: Inventory) -> tuple[Json, str]:
        """An AdmissionReview's answer, and what it comes to."""
        request = _request(content)
        value, before = request.get("object"), request.get("oldObject")
        review = Review()
        if isinstance(value, dict) and not _passes(value, before):
            review = self._admission.review(value, inventory)
        response: Json = {"uid": request["uid"], "allowed": not review.errors}
        if review.errors:
            response["status"] = _status(request, review.errors)
        if review.warnings:
            response["warnings"] = [
                cut(_line(item), _LONGEST_WARNING) for item in review.warnings[:_MOST_TOLD]
            ]
        answer = {"apiVersion": _API, "kind": "AdmissionReview", "response": response}
        return answer, "refused" if review.errors else "allowed"


def _request(content: bytes) -> Json:
    try:
        review = json.loads(content)
    except (ValueError, RecursionError):
        raise _NotAReview("is no JSON") from None
    if not isinstance(review, dict) or review.get("apiVersion") != _API:
        raise _NotAReview(f"is no AdmissionReview of {_API}")
    request = review.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
        raise _NotAReview("has no request with a uid")
    return request


def _passes(value: Json, before: object) -> bool:
    """Whether an object passes as it is: what is being deleted has to lose its finalizers, and one
    that says what it said before may get a label, whatever is wrong with it."""
    metadata = value.get("metadata")
    if isinstance(metadata, dict) and metadata.get("deletionTimestamp"):
        return True
    return (
        isinstance(before, dict)
        and before.get("apiVersion") == value.get("apiVersion")
        and before.get("spec") == value.get("spec")
    )


def _status(request: Json, errors: Iterable[Diagnostic]) -> Json:
    """A Status as the API server's own validation gives it."""
    errors = list(errors)
    kind = request.get("kind")
    lines = [_line(item) for item in errors[:_MOST_TOLD]]
    if len(errors) > _MOST_TOLD:
        lines.append(f"and {len(errors) - _MOST_TOLD} more")
    name = errors[0].object
    text = f"{name} is invalid: " if name else ""
    text += lines[0] if len(lines) == 1 else "\n" + "\n".join(f"* {line}" for line in lines)
    details: Json = {
        "name": str(request.get("name") or ""),
        "causes": [
            {
                "reason": "FieldValueInvalid",
                "field": item.field,
                "message": cut(_line(item, field=False), _LONGEST_MESSAGE),
            }
            for item in errors[:_MOST_TOLD]
        ],
    }
    if isinstance(kind, dict):
        details |= {"group": str(kind.get("group") or ""), "kind": str(kind.get("kind") or "")}
    return {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": cut(text, _LONGEST_MESSAGE),
        "details": details,
    }


def _line(item: Diagnostic, *, field: bool = True) -> str:
    """Field, value, message and fix."""
    text = item.message
    if item.value and item.value not in text:
        text = f'"{item.value}" {text}'
    if field and item.field:
        text = f"{item.field}: {text}"
    if item.fix and item.code not in _NO_FIX:
        text += f" ({item.fix})"
    return printable(text, one_line=True)
