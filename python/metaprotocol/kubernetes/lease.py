"""Which of several control planes may write: the one that holds a Lease.

As Kubernetes' own components do it: the holder renews the lease every now and then; who sees it not
renewed for its whole duration, by its own clock, may take it. What a holder has to do to be sure
that it still is one is to stop when it could not renew for a while that is shorter than that.

The client library has an election of its own; it writes local times as UTC, ends at the first
network error, and does not give the lease back, which makes each rolling update wait for the whole
duration.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from metaprotocol.kubernetes.client import ApiError, Client, Json, Unreachable

_LOG = logging.getLogger(__name__)


class Lease:
    """See the module's description. ``run`` goes on until it is cancelled, and then gives it back.

    ``held`` may be asked at any time: it is never true of two at once, as long as clocks run at the
    same speed."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        on_change: Callable[[bool], None],
        *,
        duration: float = 15.0,
        deadline: float = 10.0,
        retry: float = 2.0,
    ) -> None:
        """In seconds: ``duration`` that a lease holds without being renewed, ``deadline`` after
        which its holder stops counting on it, ``retry`` between two tries."""
        self.holder = ""
        """Who has it, as far as it is known."""
        self.problem = ""
        """Why it could not be read or written."""
        self._client = client
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._identity = identity
        self._on_change = on_change
        self._duration = duration
        self._deadline = deadline
        self._retry = retry
        self._renewed = 0.0
        """When it was last known to be ours."""
        self._was_held = False
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = 0.0

    @property
    def held(self) -> bool:
        """Whether it is ours."""
        return self._renewed > 0 and time.monotonic() - self._renewed < self._deadline

    async def run(self) -> None:
        """Gets the lease as soon as it can be had, and keeps it."""
        try:
            while True:
                began = time.monotonic()
                try:
                    async with asyncio.timeout(self._deadline / 2):
                        ours = await self._try()
                except (ApiError, Unreachable, TimeoutError) as error:
                    if self.problem != str(error):
                        self.problem = str(error)
                        _LOG.warning("the lease %s cannot be had: %s", self._name, error)
                else:
                    self.problem = ""
                    self._renewed = began if ours else 0.0
                self._tell()
                await asyncio.sleep(self._retry)
                self._tell()
        finally:
            giving = asyncio.ensure_future(self._give_back())
            while not giving.done():  # whoever ends us may cancel more than once
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(giving)

    def _tell(self) -> None:
        if self.held is not self._was_held:
            self._was_held = self.held
            _LOG.info("%s the lease %s", "holds" if self.held else "has lost", self._name)
            self._on_change(self.held)

    async def _try(self) -> bool:
        try:
            lease = await self._client.get(f"{self._path}/{self._name}")
        except ApiError as error:
            if error.status != 404:
                raise
            return await self._write(None)
        spec = lease.get("spec") or {}
        self.holder = str(spec.get("holderIdentity") or "")
        seen = (self.holder, str(spec.get("renewTime") or ""))
        if seen != self._seen:
            self._seen, self._seen_at = seen, time.monotonic()
        duration = float(spec.get("leaseDurationSeconds") or self._duration)
        free = not self.holder or time.monotonic() - self._seen_at > duration
        if self.holder == self._identity or free:
            return await self._write(lease)
        return False

    async def _write(self, lease: Json | None) -> bool:
        """Makes it ours; False if another was first."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = dict((lease or {}).get("spec") or {})
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._duration)),
            "renewTime": now,
        }
        try:
            if lease is None:
                await self._client.create(
                    self._path,
                    {
                        "apiVersion": "coordination.k8s.io/v1",
                        "kind": "Lease",
                        "metadata": {"name": self._name},
                        "spec": spec,
                    },
                )
            else:
                await self._client.replace(f"{self._path}/{self._name}", {**lease, "spec": spec})
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        self.holder = self._identity
        return True

    async def _give_back(self) -> None:
        """So that the next one need not wait."""
        if not self.held:
            return
        self._renewed = 0.0
        self._tell()
        with contextlib.suppress(ApiError, Unreachable, TimeoutError):
            async with asyncio.timeout(2):
                lease = await self._client.get(f"{self._path}/{self._name}")
                spec = dict(lease.get("spec") or {})
                if spec.get("holderIdentity") == self._identity:
                    spec |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._client.replace(
                        f"{self._path}/{self._name}", {**lease, "spec": spec}
                    )
