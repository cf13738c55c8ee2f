"""Reading a running Envoy through its admin port."""

from __future__ import annotations

import http.client
import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from metaprotocol.cli.failures import ExitCode, Failure
from metaprotocol.cli.runtime import running
from metaprotocol.diagnostics import shorten

_SAMPLE = re.compile(r"^envoy_dynamicmodulescustom_metaprotocol_(\w+?)\{(.*)\} (-?[\d.e+]+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Admin:
    """The admin page of a running Envoy."""

    address: str
    port: int

    def text(self, path: str) -> str:
        """What it answers to GET ``path``; Failure if it does not answer, or not with 200."""
        try:
            connection = http.client.HTTPConnection(
                self.address, self.port, timeout=_TIMEOUT_SECONDS
            )
        except (ValueError, http.client.HTTPException):
            text = f"--admin-address {shorten(self.address)!r} is no address."
            raise Failure(ExitCode.USAGE, text, "Write it as --admin-address 127.0.0.1.") from None
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Failure(
                ExitCode.UNREACHABLE,
                f"No Envoy answers on the admin port {self.address}:{self.port}: {error}.",
                "Start one with 'metaprotocol run FOLDER', or give its port with --admin-port.",
            ) from None
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise Failure(
                ExitCode.UNREACHABLE,
                f"{self.address}:{self.port}{path} answered {response.status}: is that really an "
                "Envoy's admin port?",
            )
        return text

    def json(self, path: str) -> dict[str, Any]:
        """As ``text``, for an answer that is a JSON object."""
        try:
            value = json.loads(self.text(path))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise Failure(
                ExitCode.UNREACHABLE,
                f"{self.address}:{self.port}{path} did not answer with JSON: is that really an "
                "Envoy's admin port?",
            )
        return value

    def metric(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        """A metric of the module's, summed up by the values of these labels."""
        sums: Counter[tuple[str, ...]] = Counter()
        pattern = f"/stats/prometheus?filter=dynamicmodulescustom.metaprotocol.{name}"
        for line in self.text(pattern).splitlines():
            match = _SAMPLE.match(line)
            if match is None or match.group(1) != name:
                continue
            own = dict(_LABEL.findall(match.group(2)))
            sums[tuple(own.get(label, "") for label in labels)] += int(float(match.group(3)))
        return sums


def find_admin(port: int | None, address: str = "127.0.0.1") -> Admin:
    """The admin page on that port, else that of the one Envoy that ``run`` has started here."""
    if port is not None:
        return Admin(address, port)
    found = list(running())
    if len(found) == 1:
        return Admin("127.0.0.1", found[0].admin_port)
    if not found:
        raise Failure(
            ExitCode.UNREACHABLE,
            "No 'metaprotocol run' is running here.",
            "Start one, or give an Envoy's admin port with --admin-port.",
        )
    listed = ", ".join(f"{item.admin_port} ({item.folder})" for item in found)
    raise Failure(
        ExitCode.USAGE,
        f"Several Envoys are running here: {listed}.",
        "Choose one with --admin-port.",
    )
