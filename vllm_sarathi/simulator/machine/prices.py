"""What an hour of a GPU costs."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from math import isfinite
from pathlib import Path

from vllm_sarathi.simulator.machine.gpus import GPUS

COLUMNS = ("gpu", "usd_per_gpu_hour")


@dataclass(frozen=True, slots=True)
class Price:
    """A price, and where and when it was read."""

    usd_per_gpu_hour: float
    source: str
    date: str


def read_prices(path: str | None = None) -> dict[str, Price]:
    """Prices by the name of the GPU.

    Args:
        path: a CSV file with the columns gpu, usd_per_gpu_hour and, if wanted, source and
            date, whose prices replace the package's own (machine/prices.csv, list prices of
            large clouds).

    Raises:
        ValueError: names the file, the line and what is wrong with it.
    """
    package = files("vllm_sarathi.simulator.machine") / "prices.csv"
    prices = _parse("prices.csv", package.read_text(encoding="utf-8").splitlines())
    if path is None:
        return prices
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prices {path!r} cannot be read: {error}") from error
    return prices | _parse(path, lines)


def _parse(path: str, lines: Iterable[str]) -> dict[str, Price]:
    rows = csv.DictReader(lines)
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise ValueError(f"prices {path!r} must have the columns {', '.join(COLUMNS)}")
    found = {}
    for row in rows:
        where = f"prices {path!r} line {rows.line_num}"
        gpu, text = (row["gpu"] or "").strip(), row["usd_per_gpu_hour"] or ""
        if gpu not in GPUS:
            raise ValueError(f"{where}: gpu {gpu!r} must be one of {', '.join(GPUS)}")
        try:
            usd = float(text)
        except ValueError:
            usd = float("nan")
        if not (isfinite(usd) and usd > 0):
            raise ValueError(f"{where}: usd_per_gpu_hour {text!r} must be a number above 0")
        found[gpu] = Price(usd, row.get("source") or path, row.get("date") or "")
    return found
