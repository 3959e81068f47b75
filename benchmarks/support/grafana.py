"""The dashboard as Grafana imports it, with the conventions of vLLM's own dashboards."""

from itertools import count
from typing import Any

from support.dashboard import ROWS, Panel

JSON = dict[str, Any]

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_VARIABLES = {"job": "Job", "model_name": "Model", "instance": "Instance", "engine": "Engine"}
_EXISTS_EVERYWHERE = "vllm_sarathi:settings_info"
_WIDTH = 24
_SIZES = {"stat": (4, 4), "labels": (_WIDTH, 6)}
_SIZE = (8, 8)
_KINDS = {"lines": "timeseries", "stacked": "timeseries", "stat": "stat", "labels": "table"}


def dashboard() -> JSON:
    """The whole dashboard."""
    return {
        "title": "vLLM / Sarathi",
        "uid": "vllm-sarathi",
        "description": "What the SARATHI scheduler decides, and how objectives are met.",
        "tags": ["vllm"],
        "editable": True,
        "graphTooltip": 1,
        "links": [
            {
                "title": "vLLM dashboards",
                "type": "dashboards",
                "tags": ["vllm"],
                "icon": "external link",
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": _laid_out(),
        "refresh": "30s",
        "schemaVersion": 39,
        "templating": {"list": _variables()},
        "time": {"from": "now-1h", "to": "now"},
    }


def _variables() -> list[JSON]:
    """The data source, and labels of which each one narrows the next."""
    found: list[JSON] = [
        {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus"}
    ]
    selected = ""
    for name, label in _VARIABLES.items():
        series = f"{_EXISTS_EVERYWHERE}{{{selected}}}" if selected else _EXISTS_EVERYWHERE
        found.append(
            {
                "type": "query",
                "name": name,
                "label": label,
                "datasource": _SOURCE,
                "query": f"label_values({series}, {name})",
                "refresh": 2,
                "sort": 1,
                "multi": True,
                "includeAll": True,
                "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            }
        )
        selected += f'{", " if selected else ""}{name}=~"${name}"'
    return found


def _laid_out() -> list[JSON]:
    """Rows of panels, from left to right and from top to bottom."""
    found: list[JSON] = []
    number, y = count(1), 0
    for title, row in ROWS.items():
        place = {"h": 1, "w": _WIDTH, "x": 0, "y": y}
        found.append({"type": "row", "title": title, "id": next(number), "gridPos": place})
        x, y = 0, y + 1
        for panel in row:
            width, height = _SIZES.get(panel.kind, _SIZE)
            if x + width > _WIDTH:
                x, y = 0, y + height
            place = {"h": height, "w": width, "x": x, "y": y}
            found.append(_panel(panel) | {"id": next(number), "gridPos": place})
            x += width
        y += height
    return found


def _panel(panel: Panel) -> JSON:
    metrics = ", ".join(f"`{name}`" for name in panel.metrics)
    return {
        "type": _KINDS[panel.kind],
        "title": panel.title,
        "description": f"{panel.text}\n\nMetrics: {metrics}",
        "datasource": _SOURCE,
        "targets": [
            _target(ref, legend, query, panel)
            for ref, (legend, query) in zip("ABCDEFGH", panel.queries.items(), strict=False)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
    } | ({"transformations": _AS_ROWS} if panel.kind == "labels" else {})


def _target(ref: str, legend: str, query: str, panel: Panel) -> JSON:
    target: JSON = {"refId": ref, "datasource": _SOURCE, "expr": query, "legendFormat": legend}
    if panel.kind == "labels":
        target |= {"format": "table", "instant": True, "range": False}
    return target


_AS_ROWS = [
    {"id": "reduce", "options": {"reducers": ["lastNotNull"]}},
    {"id": "organize", "options": {"renameByName": {"Field": "Setting", "Last *": "Value"}}},
]


def _defaults(panel: Panel) -> JSON:
    if panel.kind == "labels":
        return {}
    defaults: JSON = {"unit": panel.unit, "color": {"mode": "palette-classic"}}
    if panel.kind == "stat":
        return defaults | {"noValue": "No traffic"}
    is_stacked = panel.kind == "stacked"
    custom: JSON = {"lineWidth": 1, "fillOpacity": 40 if is_stacked else 5, "showPoints": "never"}
    if is_stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    if panel.unit == "percentunit":
        defaults |= {"min": 0, "max": 1}
    return defaults | {"custom": custom}


def _overrides(panel: Panel) -> list[JSON]:
    """What steps are sized for is a line to stay under."""
    if "objective" not in panel.queries or panel.kind == "stat":
        return []
    red = {"mode": "fixed", "fixedColor": "red"}
    dashed = {"fill": "dash", "dash": [10, 10]}
    properties = {"color": red, "custom.lineStyle": dashed, "custom.fillOpacity": 0}
    return [
        {
            "matcher": {"id": "byName", "options": "objective"},
            "properties": [{"id": name, "value": value} for name, value in properties.items()],
        }
    ]


def _options(panel: Panel) -> JSON:
    if panel.kind == "labels":
        return {"cellHeight": "sm", "showHeader": True}
    if panel.kind == "stat":
        return {
            "graphMode": "area",
            "colorMode": "none",
            "reduceOptions": {"calcs": ["lastNotNull"]},
        }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
