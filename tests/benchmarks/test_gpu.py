"""What the benchmark for GPUs decides and shows, without a server."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu as script
import pytest
from support.gpu import cliffs, goodput, model_error, prediction, session
from support.gpu.load import above, latencies, requests_of
from support.gpu.record import Record, gist, without_places
from support.gpu.session import Job, Running, Session, apart, limited
from support.gpu.setup import FULL, NO_GPU, SMOKE, Setup, our_flags
from support.gpu.shape import MAX_MODEL_LEN, TINY, written
from support.gpu.turns import turns
from support.server import end_of

from vllm_sarathi.report.lines import Step, Work

SETUP = Setup("model", "model", False, None, SMOKE, 1, SMOKE.settings)
FULL_SETUP = replace(SETUP, sizes=FULL)
A100_TILE = 1.37  # a step of 136 tokens over one of 128


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "gpu.json", SETUP.as_json(), {"commit": "abc"})


def again(record: Record, **setup: Any) -> Record:
    """The next call's."""
    return Record(record.path, SETUP.as_json() | setup, {"commit": "def"})


def tiled_s(num_tokens: int, tile: int) -> float:
    """A step that grows by whole tiles."""
    return 1e-3 * (1 + -(-num_tokens // tile))


def step(num_tokens: int, num_decodes: int, predicted_s: float, duration_s: float) -> Step:
    work, num_prefill = Work(num_tokens=num_tokens), num_tokens - num_decodes
    return Step(
        work=work, num_decodes=num_decodes, num_prefill_tokens=num_prefill,
        predicted_s=predicted_s, duration_s=duration_s,
    )  # fmt: skip


def saved(**others: Any) -> dict[str, Any]:
    """What the client saves of a short prompt, a long one and one that failed."""
    return {
        "errors": ["", "", "refused"], "itls": [[0.01, 0.03], [0.2], []],
        "input_lens": [10, 5000, 10], "output_lens": [3, 2, 0], "ttfts": [0.1, 1.0, 0.0],
        "start_times": [5.0, 4.0, 6.0], "output_throughput": 7.0, "failed": 1,
        "request_goodput": 0.5, "duration": 4.0, "num_prompts": 3, **others,
    }  # fmt: skip


def gives_nothing(running: Running) -> dict[str, Any]:
    return {}


def test_batches_are_measured_before_at_and_beyond_each_tile() -> None:
    counts = cliffs.token_counts(1024)
    assert {120, 128, 136, 504, 512, 520, 1016, 1024, 1032} <= set(counts)
    assert set(range(8, 65, 8)) <= set(counts)
    assert 96 not in counts
    assert all(num % 8 == 0 for num in counts)


def test_a_cliff_is_where_the_time_per_token_rises() -> None:
    found = cliffs.cliffs({120: 0.0100, 128: 0.0101, 136: 0.0101 * A100_TILE, 192: 0.0140})
    assert found == {128: pytest.approx(A100_TILE - 1)}


def test_a_step_that_grows_with_its_tokens_has_no_cliff() -> None:
    assert not cliffs.cliffs({num: 1e-5 * num for num in cliffs.token_counts(1024)})


def test_all_cliffs_of_tiles_are_found() -> None:
    curve = {num: tiled_s(num, 256) for num in cliffs.token_counts(1024)}
    assert list(cliffs.cliffs(curve)) == [256, 512, 768, 1024]


def test_our_model_finds_the_cliffs_of_the_steps_that_it_saw() -> None:
    counts = cliffs.token_counts(1024)
    steps = [step(num, 0, 0.0, tiled_s(num, 256)) for _ in range(30) for num in counts]
    found = cliffs.cliffs(cliffs.learned(steps, counts))
    assert {256, 512} <= set(found)


def test_the_median_of_a_size_is_of_prefills_alone() -> None:
    steps = [step(64, 0, 0.0, 0.01), step(64, 0, 0.0, 0.03), step(64, 8, 0.0, 9.0)]
    assert cliffs.medians(steps, [64, 72]) == {64: pytest.approx(0.02)}


def test_errors_are_told_apart_by_what_ran() -> None:
    steps = [step(8, 8, 1.1, 1.0), step(72, 8, 0.8, 1.0), step(64, 0, 0.0, 1.0)]
    assert model_error.errors(steps, "decode-only")["bias"] == pytest.approx(0.1)
    assert model_error.errors(steps, "mixed")["median"] == pytest.approx(0.2)
    assert model_error.errors(steps, "prefill-only") == {
        "steps": 0,
        "median": None,
        "p90": None,
        "bias": None,
    }


def test_a_servers_gaps_and_first_tokens_are_of_the_requests_served() -> None:
    found = latencies(Running(FULL_SETUP, None, Path()), saved())  # type: ignore[arg-type]
    assert found["gap max ms"] == pytest.approx(200)
    assert found["gaps above 25 ms"] == pytest.approx(2 / 3)
    assert found["TTFT short p99 ms"] == pytest.approx(100)
    assert found["TTFT long p50 ms"] == pytest.approx(1000)
    assert found["in time"] == pytest.approx(2 / 3)


def test_a_load_of_which_nothing_is_served_says_why() -> None:
    running = Running(FULL_SETUP, None, Path())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="out of memory"):
        latencies(running, saved(errors=["x\nout of memory"] * 3))


def test_no_gap_has_no_share_above_a_limit() -> None:
    assert above([], 50) is None


def test_capacity_is_between_the_rates_around_the_share_held() -> None:
    assert goodput.capacity({1.0: 1.0, 2.0: 0.8, 4.0: 0.1}) == pytest.approx(1.5)


def test_capacity_is_none_where_even_the_lowest_rate_fails() -> None:
    assert goodput.capacity({1.0: 0.5, 2.0: 0.95}) is None
    assert goodput.capacity({}) is None


def test_capacity_is_at_most_a_rate_that_ran() -> None:
    assert goodput.capacity({1.0: 1.0, 2.0: 0.9}) == 2.0


def test_capacities_are_found_seed_by_seed(record: Record) -> None:
    for seed, share in ((0, 1.0), (1, 0.0)):
        for rate in (1.0, 2.0):
            key = f"goodput, sarathi, {rate:g}x, seed {seed}"
            record.add(key, {"rate": rate, "in time": share})
    assert goodput.capacities(record.of("goodput", "sarathi")) == {"seed 0": 2.0, "seed 1": None}


def test_arms_take_turns_within_a_seed() -> None:
    assert list(turns("abc", 2)) == [
        (0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "c"), (1, "a"),
    ]  # fmt: skip


def test_requests_fit_the_context_and_are_the_same_for_a_seed() -> None:
    drawn = FULL_SETUP.requests(500, 3)
    assert (drawn.num_prompt + drawn.num_output).max() < MAX_MODEL_LEN
    assert drawn.num_prompt.min() >= 1
    assert (FULL_SETUP.requests(500, 3).num_prompt == drawn.num_prompt).all()


def test_the_simulator_gets_what_was_served_in_order_of_arrival() -> None:
    load = prediction.workload(saved())
    assert load.arrival_s.tolist() == [4.0, 5.0]
    assert load.lengths.num_prompt.tolist() == [5000, 10]


def test_the_simulated_engine_has_the_servers_limits() -> None:
    stock = prediction.settings("stock 512/64", FULL_SETUP)
    assert (stock.scheduler, stock.max_num_batched_tokens, stock.max_num_seqs) == ("stock", 512, 64)
    ours = prediction.settings("sarathi", FULL_SETUP)
    assert ours.sarathi == {"ttft_slo_ms": 2000.0, "tpot_slo_ms": 50.0}


def test_our_settings_become_flags_beside_the_engines_limits() -> None:
    flags = our_flags("512/64", {"tbt_slo_ms": 25})
    assert flags[:4] == ("--max-num-batched-tokens", "512", "--max-num-seqs", "64")
    assert flags[-2:] == ("--sarathi-tbt-slo-ms", "25")


def test_a_text_of_the_shapes_tokenizer_has_as_many_tokens_as_words(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = written(replace(TINY, vocab=500), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [7, 499, 7, 123]
    text = tokenizer.decode(ids)
    assert tokenizer(text)["input_ids"] == ids
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 500


def test_what_is_done_is_not_run_again(record: Record) -> None:
    record.add("cost, a", {"us": 1})

    def never() -> dict[str, Any]:
        raise AssertionError

    resumed = again(record)
    session.run(Job("cost, a", never), SETUP, resumed)
    assert resumed.get("cost, a") == {"us": 1, "call": 0}
    assert not resumed.failures


def test_what_failed_is_tried_again(record: Record) -> None:
    record.fail("cost, a", RuntimeError("out of memory"))
    resumed = again(record)
    assert resumed.failures == {"cost, a": "RuntimeError: out of memory"}
    session.run(Job("cost, a", lambda: {"us": 2}), SETUP, resumed)
    assert resumed.get("cost, a")["us"] == 2
    assert not resumed.failures


def test_a_part_that_lacked_a_result_is_not_failed_once_it_is_tried(record: Record) -> None:
    record.fail("gaps", ValueError("needs a rate"))
    record.retry("gaps")
    assert not record.failures


def test_results_of_another_set_up_are_not_mixed(record: Record) -> None:
    record.add("cost, a", {})
    with pytest.raises(ValueError, match=r"model='model', not 'other'"):
        again(record, model="other")


def test_seeds_and_settings_may_be_added_to_a_file(record: Record) -> None:
    more = replace(SETUP, seeds=9, settings=("1/1",), sizes=replace(SMOKE, seeds=9))
    assert more.as_json() == SETUP.as_json()


def test_a_record_names_no_folder_and_no_address() -> None:
    text = "OSError: /home/someone/.cache/a b/model.bin at tcp://10.0.3.4:51 and/or 3/4"
    assert without_places(text) == "OSError: a b/model.bin at tcp://ADDRESS:51 and/or 3/4"


def test_of_a_clients_errors_the_last_line_is_kept_without_folders() -> None:
    counts = {"completed": 2, "latencies": [0.0, 0.0, 0.0]}
    errors = ["", "", "Traceback\n  at line 3\nOSError: /root/x/y.py\n"]
    kept = requests_of(saved(errors=errors, **counts))["requests"]
    assert kept["errors"] == ["", "", "OSError: y.py"]


def test_a_failure_comes_to_the_first_error_of_the_servers_log() -> None:
    warning = "(APIServer pid=1) WARNING 11-28 [a.py:1] may end in `OSError: too many files`"
    cause = "torch.OutOfMemoryError: CUDA out of memory"
    log = [warning, cause, *["at"] * 60, "RuntimeError: see above"]
    failure = f"RuntimeError: the server did not start:\n{end_of(chr(10).join(log))}"
    assert gist(failure) == cause
    assert gist("TimeoutError: not done") == "TimeoutError: not done"


def test_a_load_that_fails_does_not_end_those_after_it(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def started(work: Session, of: Setup) -> Iterator[None]:
        yield None

    def fails(running: Running) -> dict[str, Any]:
        raise RuntimeError("lost")

    monkeypatch.setattr(session, "started", started)
    loads = {"gaps, a": fails, "gaps, b": lambda running: {"x": 1}}
    session.run(Session((), loads, fails), SETUP, record)
    assert record.failures == {"gaps, a": "RuntimeError: lost"}
    assert record.get("gaps, b")["x"] == 1


def test_a_server_that_does_not_start_fails_its_loads_alone(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def refuses(work: Session, of: Setup) -> Iterator[None]:
        raise RuntimeError("CUDA out of memory")
        yield None

    monkeypatch.setattr(session, "started", refuses)
    record.add("gaps, a", {})
    loads = dict.fromkeys(("gaps, a", "gaps, b"), gives_nothing)
    session.run(Session((), loads, gives_nothing), SETUP, record)
    assert list(record.failures) == ["gaps, b"]


def test_a_load_ends_at_its_limit() -> None:
    with pytest.raises(TimeoutError, match=r"0\.01 s"), limited(0.01):
        time.sleep(5)


def test_a_function_apart_gives_its_result_or_its_error() -> None:
    assert apart(sorted, [2, 1]) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        apart(divmod, 1, 0)


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="without a result"):
        apart(os._exit, 3)


def test_a_part_brings_those_that_it_needs() -> None:
    assert script.chosen(["simulator"]) == ["rate", "model", "goodput", "simulator"]
    assert script.chosen(["cliffs"]) == ["cliffs"]


def test_without_a_gpu_every_table_says_so(record: Record) -> None:
    record.add("rate, stock", {"rate": 3.0, "output tokens/s": 100.0})
    record.add("cost, alone, 16", {"us": [100.0, 150.0, 160.0]})
    record.fail("gaps, sarathi, seed 0", RuntimeError("lost"))
    page = script.page(SETUP, record)
    assert page.count("\n## ") == 3
    assert page.count(f"\n\n{NO_GPU}\n\n") == 2
    assert "| 16      | 100       | 150 (1.50)" in page
    assert page.endswith("## Failed\n\n- gaps, sarathi, seed 0: RuntimeError: lost\n")


def test_a_part_that_lacks_a_result_does_not_end_the_page(record: Record) -> None:
    record.add("gaps, sarathi, seed 0", {"gap p50 ms": 1.0})
    assert "Not complete:" in script.page(SETUP, record)
