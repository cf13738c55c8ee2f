"""Images in registries, by the OCI distribution protocol.

oras-py does what is tedious about it: credentials of ``docker login``, tokens, retries. Manifests
are sent as the bytes that were hashed.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from metaprotocol.image.errors import ImageError
from metaprotocol.image.places import INDEXES, MANIFESTS, blobs_of, parts_of
from metaprotocol.image.store import BlobStore, Descriptor

_MAX_MANIFEST = 4 << 20  # what the distribution specification asks registries to take at least
_PIECE = 1 << 20


def push(
    host: str, name: str, reference: str, insecure: bool, store: BlobStore, root: Descriptor
) -> None:
    """Sends blobs first and what names them last, so that nobody sees half an image."""
    remote = _Remote(host, name, insecure)
    for blob in blobs_of(store, root):
        if blob.media_type in (*MANIFESTS, *INDEXES):
            remote.put_manifest(blob, blob.digest, store.read(blob))
        else:
            remote.put_blob(blob, store)
    remote.put_manifest(root, reference, store.read(root))


def pull(host: str, name: str, reference: str, insecure: bool, store: BlobStore) -> Descriptor:
    """Brings an image or index with everything it names."""
    remote = _Remote(host, name, insecure)
    root = remote.get_manifest(reference, store)
    _pull_parts(remote, root, store)
    return root


def _pull_parts(remote: _Remote, root: Descriptor, store: BlobStore) -> None:
    for part in parts_of(store, root):
        if root.media_type in INDEXES:
            _pull_parts(remote, remote.get_manifest(part.digest, store), store)
        else:
            remote.get_blob(part, store)


class _Remote:
    """One repository."""

    def __init__(self, host: str, name: str, insecure: bool) -> None:
        try:
            from oras.container import Container
            from oras.provider import Registry
        except ImportError as error:
            raise ImageError(
                "registries need the package 'oras': pip install 'metaprotocol[image]'"
            ) from error

        class AtOnce(Registry):  # type: ignore[misc]
            """Without the library's retries, which take most of a minute over a plain no."""

            def do_request(self, *arguments: Any, **options: Any) -> Any:
                return Registry.do_request.__wrapped__(self, *arguments, **options)

        self._where = f"{host}/{name}"
        self._container = Container(self._where)
        self._registry = AtOnce(hostname=host, insecure=insecure)
        self._registry.auth.load_configs(self._container)
        self._base = f"{'http' if insecure else 'https'}://{host}/v2/{name}"

    def put_blob(self, blob: Descriptor, store: BlobStore) -> None:
        layer = {"digest": blob.digest, "size": blob.size}
        answer = self._try(
            lambda: self._registry.upload_blob(str(store.path(blob.digest)), self._container, layer)
        )
        self._check(answer, "did not take a layer", (200, 201, 202))

    def put_manifest(self, blob: Descriptor, reference: str, data: bytes) -> None:
        answer = self._try(
            lambda: self._registry.do_request(
                f"{self._base}/manifests/{reference}",
                "PUT",
                data=data,
                headers={"Content-Type": blob.media_type},
            )
        )
        self._check(answer, f"did not take {reference}", (200, 201, 202))

    def get_manifest(self, reference: str, store: BlobStore) -> Descriptor:
        answer = self._try(
            lambda: self._registry.do_request(
                f"{self._base}/manifests/{reference}",
                "GET",
                headers={"Accept": ", ".join((*INDEXES, *MANIFESTS))},
                stream=True,
            )
        )
        if answer.status_code == 404:
            raise ImageError(f"{self._where} has no image {reference}")
        self._check(answer, f"did not give {reference}", (200,))
        data = self._try(lambda: answer.raw.read(_MAX_MANIFEST + 1, decode_content=True))
        if len(data) > _MAX_MANIFEST:
            raise ImageError(f"the manifest of {self._where}:{reference} is too large")
        if reference.startswith("sha256:"):
            self._check_digest(reference, hashlib.sha256(data).hexdigest())
        try:
            kind = json.loads(data).get("mediaType") or answer.headers.get("Content-Type", "")
        except (ValueError, AttributeError) as error:
            raise ImageError(f"{self._where}:{reference} is not an image") from error
        return store.add(kind, data)

    def get_blob(self, blob: Descriptor, store: BlobStore) -> None:
        answer = self._try(
            lambda: self._registry.get_blob(self._container, blob.digest, stream=True)
        )
        self._check(answer, f"did not give {blob.digest}", (200,))
        with store.writer() as writer:
            pieces = answer.iter_content(_PIECE)
            while piece := self._try(lambda: next(pieces, b"")):
                writer.write(piece)
                if writer.size > blob.size:
                    raise ImageError(
                        f"{self._where} sends more than the {blob.size} bytes of a layer"
                    )
            self._check_digest(blob.digest, writer.digest.removeprefix("sha256:"))

    def _check_digest(self, wanted: str, found: str) -> None:
        if wanted != f"sha256:{found}":
            raise ImageError(f"{self._where} sent something else than {wanted}")

    def _try(self, request: Any) -> Any:
        import requests

        try:
            return request()
        except requests.exceptions.SSLError as error:
            raise ImageError(
                f"{self._where}: no TLS connection ({error}); one without TLS needs --insecure"
            ) from error
        except (requests.RequestException, OSError) as error:
            raise ImageError(f"{self._where} did not answer: {error}") from error
        except Exception as error:
            # oras-py takes what is no registry's answer for one, and fails over it in any way.
            raise ImageError(f"{self._where} does not answer like a registry: {error}") from error

    def _check(self, answer: Any, what: str, good: tuple[int, ...]) -> None:
        if answer.status_code in good:
            return
        if answer.status_code in (401, 403):
            raise ImageError(
                f"{self._where} {what}: not allowed (log in with 'docker login' or 'podman login')"
            )
        raise ImageError(f"{self._where} {what}: status {answer.status_code}: {answer.text[:200]}")
