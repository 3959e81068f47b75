import pytest
import torch
from vllm.v1.kv_cache_interface import FullAttentionSpec, SlidingWindowSpec

from vllm_sarathi.simulator import EngineSettings
from vllm_sarathi.simulator.engine.scheduler_factory import gpu_engine
from vllm_sarathi.simulator.machine.kv_groups import kv_windows, layers_of_a_group
from vllm_sarathi.simulator.machine.layers import Attention, Layer, Mlp, Model

try:
    from vllm.v1.core.kv_cache_planning import (  # type: ignore[import-not-found]  # since 0.33
        get_kv_cache_groups,
    )
except ImportError:  # before 0.33
    from vllm.v1.core.kv_cache_utils import get_kv_cache_groups

FULL = Layer(Attention(8, 8, 64), Mlp(1024))
SLIDING = Layer(Attention(8, 8, 64, window=512), Mlp(1024))


def model(*layers: Layer) -> Model:
    return Model("made-up", 512, 1000, layers, 8192)


CASES = [
    ([FULL] * 6, (None,), 6),
    ([SLIDING] * 6, (512,), 6),
    ([SLIDING, FULL] * 12, (512, None), 12),  # gpt-oss-20b
    ([*[SLIDING] * 5, FULL] * 4 + [SLIDING] * 2, (*[512] * 6, None), 4),  # gemma-3-1b
    ([SLIDING] * 13 + [FULL] * 12, (512, None), 13),  # hardly more of one kind
]


@pytest.mark.parametrize(("layers", "windows", "size"), CASES)
def test_groups_are_of_one_size(
    layers: list[Layer], windows: tuple[int | None, ...], size: int
) -> None:
    found = kv_windows(model(*layers))
    assert found == windows
    assert layers_of_a_group(found, layers) == size


@pytest.mark.parametrize(("layers", "windows", "size"), CASES)
def test_groups_are_those_of_vllm(
    layers: list[Layer],
    windows: tuple[int | None, ...],
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = {"block_size": 16, "num_kv_heads": 8, "head_size": 64, "dtype": torch.float16}
    specs = {
        f"layers.{i}": SlidingWindowSpec(**shape, sliding_window=layer.attention.window)
        if layer.attention.window
        else FullAttentionSpec(**shape)
        for i, layer in enumerate(layers)
    }
    with gpu_engine(EngineSettings(), 1, 10_000, 8192) as (_, config):
        # As the engine core sets it, where the version of vLLM has it.
        monkeypatch.setattr(config.cache_config, "kv_cache_layout", "LBNHC", raising=False)
        groups = get_kv_cache_groups(config, specs)
    assert len(groups) == len(windows)
    assert max(len(group.layer_names) for group in groups) == size


def test_a_stage_has_its_share_of_every_group() -> None:
    layers = [SLIDING, FULL] * 12
    windows = kv_windows(model(*layers))
    assert layers_of_a_group(windows, layers[:12]) == 6
