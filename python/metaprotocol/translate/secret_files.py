"""Where Envoys find passwords: in files, so that these are in no message of theirs or ours.

Either the files are there already, as Kubernetes mounts a Secret into a pod. Then nobody here knows
what is in them, and their names are those of the Secret. Or the control plane writes them into a
folder that both can read, and a new value is a new name, since Envoy reads a file when it gets a
configuration that names it. The names are made with a key that is in that folder alone, so that
nobody can try out passwords on them.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from pathlib import Path

MOUNTED = Path("/etc/metaprotocol/secrets")
"""Where Secrets are mounted in pods, each in ``<namespace>/<name>``."""


@dataclass(frozen=True)
class SecretFiles:
    """A folder with passwords."""

    folder: Path = MOUNTED
    """As Envoys see it."""
    key: bytes | None = field(default=None, repr=False)
    """With which names are made of files that are written there; None: others have put them."""
    alone: bool = False
    """Secrets are among the resources, or nowhere."""

    @property
    def written(self) -> bool:
        """Whether the control plane writes the files."""
        return self.key is not None

    def mounted(self, namespace: str, name: str, key: str) -> str:
        """The file with one value of a Secret, where those are mounted."""
        return str(self.folder / namespace / name / key)

    def named(self, place: str, value: bytes) -> str:
        """The file with a value of ours; ``place`` says whose it is."""
        assert self.key is not None
        text = place.encode() + b"\0" + value
        return str(self.folder / hmac.digest(self.key, text, "sha256").hex()[:32])
