import numpy as np
import pytest

from vllm_sarathi.simulator import (
    LENGTHS,
    Agentic,
    Arrivals,
    Diurnal,
    Fixed,
    Lengths,
    LongAmongShort,
    QosClass,
    Ramp,
    Replay,
    Synthetic,
    Workload,
    Zipf,
    read_trace,
)

RANDOM = np.random.default_rng


@pytest.mark.parametrize(
    ("name", "prompt", "output"),
    [
        ("sharegpt", (1730, 5696), (415, 834)),
        ("arxiv", (7059, 12985), (208, 371)),
        ("conversation", (1020, 2735), (129, 424)),
        ("code", (1469, 5194), (13, 55)),
    ],
)
def test_lengths_have_the_published_quantiles(name, prompt, output):
    drawn = LENGTHS[name].draw(20_000, RANDOM(0))
    assert np.quantile(drawn.num_prompt, (0.5, 0.9)) == pytest.approx(prompt, rel=0.06)
    assert np.quantile(drawn.num_output, (0.5, 0.9)) == pytest.approx(output, rel=0.06)


def test_zipf_keeps_its_ratio_and_range():
    drawn = Zipf(pd_ratio=10).draw(5000, RANDOM(0))
    total = drawn.num_prompt + drawn.num_output
    assert total.min() >= 1024
    assert total.max() <= 4096
    assert drawn.num_prompt.sum() / drawn.num_output.sum() == pytest.approx(10, rel=0.01)


def test_one_prompt_in_a_hundred_is_long():
    drawn = LongAmongShort().draw(300, RANDOM(0))
    assert (drawn.num_prompt == 100_000).sum() == 3


def test_agentic_turns_repeat_most_of_their_context():
    drawn = Agentic().draw(2000, RANDOM(0))
    assert drawn.prefix is not None
    assert len(np.unique(drawn.prefix)) / 2000 == pytest.approx(0.05, abs=0.02)
    assert drawn.num_prompt.min() == 50_000


@pytest.mark.parametrize("cv", [0.0, 1e-200, 1.0, 3.0])
def test_arrivals_have_the_rate_and_burstiness_asked_for(cv):
    gaps = np.diff(Arrivals(cv).draw(40_000, 5.0, RANDOM(0)))
    assert gaps.mean() == pytest.approx(0.2, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=0.1)


@pytest.mark.parametrize("shape", [Ramp(0.2, 1.8), Diurnal()])
def test_a_changing_rate_keeps_its_mean(shape):
    times = Arrivals(shape=shape).draw(20_000, 10.0, RANDOM(0))
    assert times[-1] == pytest.approx(2000, rel=0.05)
    assert (np.diff(times) >= 0).all()


def test_a_ramp_is_busier_at_its_end():
    times = Arrivals(shape=Ramp(0.2, 1.8)).draw(20_000, 10.0, RANDOM(0))
    assert (times > times[-1] / 2).mean() == pytest.approx(0.7, abs=0.03)


def test_lengths_are_the_same_at_every_rate():
    traffic = Synthetic(LENGTHS["code"], 50)
    slow, fast = traffic.at(1, seed=3), traffic.at(9, seed=3)
    assert (slow.lengths.num_prompt == fast.lengths.num_prompt).all()
    assert slow.arrival_s[-1] == pytest.approx(9 * fast.arrival_s[-1])


def test_classes_come_in_their_shares():
    traffic = Synthetic(Fixed(1, 1), 5000, classes=((QosClass("a"), 3), (QosClass("b"), 1)))
    assert traffic.at(1, 0).class_of.mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("times", "prompts", "named"),
    [([0.0, -1.0], [1, 1], "request 1: arrival_s=-1"), ([0.0, 1.0], [1, 0], "num_prompt=0")],
)
def test_impossible_workloads_name_the_request(times, prompts, named):
    with pytest.raises(ValueError, match=named):
        Workload("w", np.array(times), Lengths(np.array(prompts), np.array([1, 1])))


def test_prompts_beyond_the_model_name_the_request():
    workload = Synthetic(Fixed(100, 10), 3).at(1, 0)
    with pytest.raises(ValueError, match=r"request 0: prompt . output tokens=110"):
        workload.check_fits(109, 1000)


def test_requests_beyond_the_kv_cache_name_the_request():
    workload = Synthetic(Fixed(285, 20), 3).at(1, 0)
    workload.check_fits(1000, 320)
    with pytest.raises(
        ValueError, match=r"request 0: .*=305 must be at most 289: num_kv_tokens=319"
    ):
        workload.check_fits(1000, 319)


def write(path, text):
    path.write_text(text)
    return path


HEADER = "arrived_at,num_prefill_tokens,num_decode_tokens\n"


def test_a_csv_trace_is_sorted_and_starts_at_zero(tmp_path):
    workload = read_trace(write(tmp_path / "t.csv", HEADER + "7.5,20,2\n5.0,10,1\n"))
    assert workload.arrival_s.tolist() == [0.0, 2.5]
    assert workload.lengths.num_prompt.tolist() == [10, 20]


def test_a_trace_in_vllms_benchmark_format_is_read(tmp_path):
    line = '{"timestamp": 1500, "input_length": 40, "output_length": 4, "hash_ids": [1, 2]}\n'
    workload = read_trace(write(tmp_path / "t.jsonl", line), time_unit_s=1e-3)
    assert workload.lengths.num_output.tolist() == [4]
    assert workload.shares_prefixes


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("1.0,10", "line 3: num_decode_tokens=None"),
        ("-1,10,1", "line 3: arrived_at='-1'"),
        ("1.0,0,1", "line 3: num_prefill_tokens='0'"),
        ("1.0,ten,1", "line 3: num_prefill_tokens='ten'"),
        ("nan,10,1", "line 3: arrived_at='nan'"),
    ],
)
def test_malformed_rows_are_named_by_line(tmp_path, row, named):
    with pytest.raises(ValueError, match=named):
        read_trace(write(tmp_path / "t.csv", HEADER + "0.0,10,1\n" + row + "\n"))


@pytest.mark.parametrize("value", ["1e400", "10.9", "true", "1e300", '"ten"', "null", "[1]"])
def test_lengths_that_are_no_whole_number_are_refused(tmp_path, value):
    line = f'{{"timestamp": 0, "input_length": {value}, "output_length": 4}}\n'
    with pytest.raises(ValueError, match=r"t.jsonl line 1: num_prefill_tokens=.* whole number"):
        read_trace(write(tmp_path / "t.jsonl", line))


def test_a_trace_that_a_spreadsheet_wrote_is_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "0,10,1\n", encoding="utf-8-sig")
    assert read_trace(path).lengths.num_prompt.tolist() == [10]


def test_a_request_beyond_the_model_is_named_by_its_line_though_rows_are_sorted(tmp_path):
    workload = read_trace(write(tmp_path / "t.csv", HEADER + "9,10,1\n5,999,1\n"))
    with pytest.raises(ValueError, match=r"t.csv line 3: prompt . output tokens=1000"):
        workload.check_fits(500, 10_000)


def test_a_trace_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(HEADER.encode() + b"0,10,\xff\n")
    with pytest.raises(ValueError, match=r"t.csv' must be UTF-8"):
        read_trace(path)


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("t.csv", "a,b\n1,2\n", "lacks"),
        ("t.csv", HEADER + "0," + "1" * 200_000 + ",1\n", "t.csv line 2 must be CSV"),
        ("t.jsonl", "[1, 2]", "t.jsonl line 1"),
        ("t.jsonl", "[" * 100_000, "t.jsonl line 1"),
        (
            "t.jsonl",
            '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1.5]}',
            "hash_ids must be whole numbers",
        ),
        ("t.csv", HEADER, "holds no request"),
        ("t.txt", "", "must end in"),
        ("t.jsonl", "{", "line 1"),
    ],
)
def test_files_that_are_no_trace_are_refused(tmp_path, name, text, named):
    with pytest.raises(ValueError, match=named):
        read_trace(write(tmp_path / name, text))


def test_a_replay_scales_its_clock(tmp_path):
    path = write(tmp_path / "t.csv", HEADER + "0,1,1\n4,1,1\n")
    replay = Replay(read_trace(path))
    assert replay.at(replay.rate * 2, seed=0).arrival_s.tolist() == [0.0, 2.0]
