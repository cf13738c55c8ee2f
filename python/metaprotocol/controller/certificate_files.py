"""The webhook's certificate where somebody else makes it, such as cert-manager: in files."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

_LOG = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0


class CertificateFiles:
    """A chain and its key, which are read again when they are others. ``run`` never ends by
    itself."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        use: Callable[[bytes, bytes], None],
        *,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        """``use`` may raise ValueError: what it was given before stays in use."""
        self.problem = ""
        """Why they cannot be used; empty: they can."""
        self._certificate = certificate
        self._key = key
        self._use = use
        self._look_seconds = look_seconds
        self._seen: tuple[bytes, bytes] | None = None

    async def run(self) -> None:
        """Follows the files."""
        while True:
            problem = ""
            try:
                found = self._certificate.read_bytes(), self._key.read_bytes()
                if found != self._seen:
                    # Of two files that are written one after the other the first comes alone.
                    self._use(*found)
                    self._seen = found
                    _LOG.info("the webhook's certificate has been read from %s", self._certificate)
            except (OSError, ValueError) as error:
                problem = str(error)
                if problem != self.problem:
                    _LOG.warning("the webhook's certificate: %s; it is tried again", error)
            self.problem = problem
            await asyncio.sleep(self._look_seconds)
