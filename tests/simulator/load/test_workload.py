import numpy as np
import pytest

from vllm_sarathi.simulator import (
    Fixed,
    Lengths,
    Synthetic,
    Workload,
)


@pytest.mark.parametrize(
    ("times", "prompts", "named"),
    [([0.0, -1.0], [1, 1], "request 1: arrival_s=-1"), ([0.0, 1.0], [1, 0], "num_prompt=0")],
)
def test_impossible_workloads_name_the_request(
    times: list[float], prompts: list[int], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        Workload("w", np.array(times), Lengths(np.array(prompts), np.array([1, 1])))


def test_prompts_beyond_the_model_name_the_request() -> None:
    workload = Synthetic(Fixed(100, 10), 3).at(1, 0)
    with pytest.raises(ValueError, match=r"request 0: prompt . output tokens=110"):
        workload.check_fits(109, 1000)


def test_requests_beyond_the_kv_cache_name_the_request() -> None:
    workload = Synthetic(Fixed(285, 20), 3).at(1, 0)
    workload.check_fits(1000, 320)
    with pytest.raises(
        ValueError, match=r"request 0: .*=305 must be at most 289: num_kv_tokens=319"
    ):
        workload.check_fits(1000, 319)


def test_a_request_beyond_its_groups_windows_fits_where_their_blocks_are_free() -> None:
    workload = Synthetic(Fixed(985, 16), 3).at(1, 0)
    windows, room = (64, 64, 64, None), {"in_flight_tokens": 256}
    workload.check_fits(2000, 512, windows, **room)
    with pytest.raises(ValueError, match=r"request 0: .*=1001 must be at most 961: num_kv_tokens"):
        workload.check_fits(2000, 496, windows, **room)
