from pathlib import Path

import pytest

from vllm_sarathi.simulator.machine.gpus import GPUS
from vllm_sarathi.simulator.machine.prices import Price, read_prices


def test_every_gpu_has_a_price_with_its_source_and_date() -> None:
    prices = read_prices(None)
    assert set(prices) == set(GPUS)
    assert all(price.source and price.date for price in prices.values())


def test_a_file_replaces_the_prices_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("gpu,usd_per_gpu_hour\nh100,2.5\n")
    prices = read_prices(str(file))
    assert prices["h100"] == Price(2.5, str(file), "")
    assert prices["a100"] == read_prices(None)["a100"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("gpu,price\nh100,1\n", "must have the columns gpu, usd_per_gpu_hour"),
        ("gpu,usd_per_gpu_hour\nh100,2\nv100,1\n", "line 3: gpu 'v100' must be one of a100"),
        ("gpu,usd_per_gpu_hour\nh100,free\n", "line 2: usd_per_gpu_hour 'free'"),
        ("gpu,usd_per_gpu_hour\nh100,-1\n", "'-1' must be a number above 0"),
        ("gpu,usd_per_gpu_hour\nh100,nan\n", "'nan' must be"),
        ("gpu,usd_per_gpu_hour\nh100\n", "'' must be"),
    ],
)
def test_a_wrong_line_is_named(text: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=named):
        read_prices(str(file))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"'none\.csv' cannot be read"):
        read_prices("none.csv")
