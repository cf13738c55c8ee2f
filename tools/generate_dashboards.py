"""Write Grafana's dashboards into deploy/monitoring/dashboards, of what dashboard_panels.py says.

python tools/generate_dashboards.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dashboard_panels import DASHBOARDS, Dashboard, Panel, Variable

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "monitoring" / "dashboards"

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2


def dashboard(page: Dashboard) -> dict[str, Any]:
    """In Grafana's JSON model, schema 39 (Grafana 10 and newer)."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in page.rows:
        place = {"h": 1, "w": _WIDTH * _COLUMNS, "x": 0, "y": top}
        panels.append(
            {"type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        )
        top += 1
        for index, panel in enumerate(row.panels):
            x, y = index % _COLUMNS * _WIDTH, top + index // _COLUMNS * _HEIGHT
            panels.append(_panel(panel, {"h": _HEIGHT, "w": _WIDTH, "x": x, "y": y}))
        top += -(-len(row.panels) // _COLUMNS) * _HEIGHT
    for number, made in enumerate(panels, start=1):
        made["id"] = number
    return {
        "uid": f"metaprotocol-{page.name}",
        "title": page.title,
        "description": page.about,
        "tags": ["metaprotocol"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), *map(_variable, page.variables)]},
        "panels": panels,
    }


def _source() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }


def _variable(variable: Variable) -> dict[str, Any]:
    query = f"label_values({variable.metric}, {variable.label})"
    return {
        "name": variable.name,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "values"},
        "refresh": 2,  # whenever the time range changes
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "sort": 1,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": query.expression.replace("$window", "$__rate_interval"),
                "legendFormat": query.legend,
            }
            for number, query in enumerate(panel.queries)
        ],
    }


def files() -> dict[str, str]:
    """Their names and what is in them."""
    return {
        f"{page.name}.json": json.dumps(dashboard(page), indent=1, ensure_ascii=False) + "\n"
        for page in DASHBOARDS
    }


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
