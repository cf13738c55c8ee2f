"""What is in an image, as SPDX 2.3 in JSON.

Licences are those of the files that we add; what a base image brings is its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_OWN_LICENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
"""A licence that SPDX has no name for."""


@dataclass(frozen=True)
class Component:
    """Something that has a licence."""

    name: str
    version: str
    licence: str
    """An SPDX expression."""
    supplier: str = "NOASSERTION"
    url: str = "NOASSERTION"


def document(name: str, components: Sequence[Component], created: int) -> dict[str, Any]:
    """The SPDX document of an image with those components; equal input gives equal output."""
    packages = [
        {
            "SPDXID": f"SPDXRef-{_identifier(component.name)}",
            "name": component.name,
            "versionInfo": component.version or "NOASSERTION",
            "supplier": (
                component.supplier
                if component.supplier == "NOASSERTION"
                else f"Organization: {component.supplier}"
            ),
            "downloadLocation": component.url,
            "filesAnalyzed": False,
            "licenseConcluded": component.licence,
            "licenseDeclared": component.licence,
            "copyrightText": "NOASSERTION",
        }
        for component in sorted(components, key=lambda component: component.name)
    ]
    key = repr((name, packages)).encode()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/{_identifier(name)}-"
        f"{hashlib.sha256(key).hexdigest()}",
        "creationInfo": {
            "created": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: metaprotocol"],
        },
        "packages": packages,
        "hasExtractedLicensingInfos": [
            {"licenseId": identifier, "extractedText": f"See {identifier[11:]} in NOTICE"}
            for identifier in sorted(
                {found for item in components for found in _OWN_LICENCE.findall(item.licence)}
            )
        ],
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": package["SPDXID"],
            }
            for package in packages
        ],
    }


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text)
