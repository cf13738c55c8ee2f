"""What the resources of a mesh say became of them, all of them together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from metaprotocol.controller.status import FOREIGN, KINDS, PREFIX
from metaprotocol.kubernetes import ApiError, Client
from metaprotocol.resources.kinds import KINDS as ALL

from tests.mesh.mesh import Mesh

Json = dict[str, Any]
Said = Mapping[str, tuple[str, str]]
"""The status and the reason of each condition."""

WELL: Said = {"Accepted": ("True", "Accepted"), "Programmed": ("Unknown", "NotReported")}
"""Of a resource that is in use as it is written. istiod does not tell what proxies have."""
CONFLICTED: Said = {
    "Accepted": ("False", "Conflicted"),
    "Conflicted": ("True", "Conflicted"),
    "Programmed": ("False", "Conflicted"),
}
"""Of one whose place another has."""

_SECONDS = 30.0


def statuses_are_right(mesh: Mesh, **others: Said) -> None:
    """Waits until every resource in the cluster says of its newest generation what is to be said,
    and has no condition more: of ours that all is well, but for the MetaRouters named in
    ``others``; of Istio's no refusal."""
    deadline = time.monotonic() + _SECONDS
    while wrong := _wrong(mesh, others):
        assert time.monotonic() < deadline, "\n".join(wrong)
        time.sleep(0.1)


def _wrong(mesh: Mesh, others: Mapping[str, Said]) -> list[str]:
    """What is not as it should be."""
    objects: list[tuple[str, Json]] = mesh.ask(_objects)
    routers = {item["metadata"]["name"] for kind, item in objects if kind == "MetaRouter"}
    assert routers, "there is no MetaRouter that could say anything"
    assert routers >= others.keys(), f"there are the MetaRouters {routers} alone"
    return [
        f"{kind} {item['metadata']['name']} {item['metadata']['generation']}: {item.get('status')}"
        for kind, item in objects
        if not _is_right(kind, item, others)
    ]


def _is_right(kind: str, item: Json, others: Mapping[str, Said]) -> bool:
    status, metadata = item.get("status") or {}, item["metadata"]
    foreign = kind in FOREIGN
    prefix = PREFIX if foreign else ""
    conditions = {
        it["type"].removeprefix(prefix): it
        for it in status.get("conditions") or ()
        if it["type"].startswith(prefix)
    }
    generations = {it["observedGeneration"] for it in conditions.values()}
    if not foreign:
        generations.add(status.get("observedGeneration"))
    if generations - {metadata["generation"]}:
        return False
    said = {name: (it["status"], it["reason"]) for name, it in conditions.items()}
    if foreign:
        return said.get("Accepted", ("True", ""))[0] == "True" and "Conflicted" not in said
    wanted = others.get(metadata["name"], WELL) if kind == "MetaRouter" else WELL
    return said == dict(wanted)


async def _objects(client: Client) -> list[tuple[str, Json]]:
    """Those of all namespaces that have conditions of ours, with their kinds."""
    found = []
    for kind in ALL:
        if kind.name not in (*KINDS, *FOREIGN):
            continue
        path = f"/apis/{kind.group}/{kind.versions[0]}/{kind.plural}"
        try:
            items = (await client.get(path))["items"]
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            found += [(kind.name, item) for item in items]
    return found
