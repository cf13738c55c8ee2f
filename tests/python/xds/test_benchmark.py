"""The benchmark of the control plane does what it says, at a size that takes a moment."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from bench.control_plane import report
from bench.control_plane.measure import ROOT, Size, change_in_turns, run


def test_a_changed_file_is_followed_to_the_last_ack(tmp_path: Path) -> None:
    said: list[str] = []
    result = run(
        Size(services=6, routes=3, proxies=5),
        tmp_path / "services",
        changes=2,
        storm=4,
        workers=2,
        progress=said.append,
        endpoint_routes=5,
    )
    assert len(said) == 6
    assert result.load_cpu > 0
    assert result.resources == 6 * (3 + 3 + 1 + 1), "clusters, endpoints, listener, filter of each"
    assert len(result.change_seconds) == 2
    assert all(0 < seconds < 60 for seconds in result.change_seconds)
    assert 0 < result.storm_seconds < 60
    assert result.connected_bytes > 0

    report.write(tmp_path / "figures.json", [result])
    (row,) = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert row["size"] == {"services": 6, "routes": 3, "proxies": 5}
    console = Console(width=100, record=True, quiet=True)
    report.show(console, [result])


def test_trees_take_turns(tmp_path: Path) -> None:
    turns = change_in_turns(Size(3, 3, 2), tmp_path, [ROOT], rounds=2, workers=1)
    assert len(turns.cpu[""]) == 2
    assert turns.ratio("") == 1.0
    console = Console(width=100, record=True)
    report.show_turns(console, turns)
    assert "here: " in console.export_text()
