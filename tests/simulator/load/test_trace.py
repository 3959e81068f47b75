import json
from pathlib import Path
from typing import Any

import pytest

from vllm_sarathi.simulator import (
    read_trace,
)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


HEADER = "arrived_at,num_prefill_tokens,num_decode_tokens\n"


def test_a_csv_trace_is_sorted_and_starts_at_zero(tmp_path: Path) -> None:
    workload = read_trace(write(tmp_path / "t.csv", HEADER + "7.5,20,2\n5.0,10,1\n"))
    assert workload.arrival_s.tolist() == [0.0, 2.5]
    assert workload.lengths.num_prompt.tolist() == [10, 20]


def test_a_trace_in_vllms_benchmark_format_is_read(tmp_path: Path) -> None:
    line = '{"timestamp": 1500, "input_length": 40, "output_length": 4, "hash_ids": [1, 2, 3]}\n'
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
def test_malformed_rows_are_named_by_line(tmp_path: Path, row: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_trace(write(tmp_path / "t.csv", HEADER + "0.0,10,1\n" + row + "\n"))


@pytest.mark.parametrize("value", ["1e400", "10.9", "true", "1e300", '"ten"', "null", "[1]"])
def test_lengths_that_are_no_whole_number_are_refused(tmp_path: Path, value: str) -> None:
    line = f'{{"timestamp": 0, "input_length": {value}, "output_length": 4}}\n'
    with pytest.raises(ValueError, match=r"t.jsonl line 1: input_length=.* whole number"):
        read_trace(write(tmp_path / "t.jsonl", line))


def test_a_trace_that_a_spreadsheet_wrote_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "0,10,1\n", encoding="utf-8-sig")
    assert read_trace(path).lengths.num_prompt.tolist() == [10]


def test_a_request_beyond_the_model_is_named_by_its_line_though_rows_are_sorted(
    tmp_path: Path,
) -> None:
    workload = read_trace(write(tmp_path / "t.csv", HEADER + "9,10,1\n5,999,1\n"))
    with pytest.raises(ValueError, match=r"t.csv line 3: prompt . output tokens=1000"):
        workload.check_fits(500, 10_000)


def test_a_trace_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(HEADER.encode() + b"0,10,\xff\n")
    with pytest.raises(ValueError, match=r"t.csv' must be UTF-8"):
        read_trace(path)


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("t.csv", "a,b\n1,2\n", "must have arrived_at, .* or timestamp, .* or TIMESTAMP, "),
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
def test_files_that_are_no_trace_are_refused(
    tmp_path: Path, name: str, text: str, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        read_trace(write(tmp_path / name, text))


def test_a_timed_trace_may_be_csv(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "timestamp,input_length,output_length\n1,10,1\n3.5,20,2\n")
    assert read_trace(path).arrival_s.tolist() == [0.0, 2.5]


@pytest.mark.parametrize(
    "dates",
    [
        ("2023-11-16 18:17:03.9799600", "2023-11-16 18:17:06.4799610"),
        ("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:02.509930+00:00"),
        ("2024-05-10 00:00:59", "2024-05-10 02:01:01.500000+02:00"),
    ],
)
def test_azures_traces_are_read(tmp_path: Path, dates: tuple[str, str]) -> None:
    rows = f"{dates[0]},4808,10\r\n{dates[1]},3180,8\r\n"
    path = write(tmp_path / "t.csv", f"TIMESTAMP,ContextTokens,GeneratedTokens\r\n{rows}")
    workload = read_trace(path)
    assert workload.arrival_s.tolist() == pytest.approx([0.0, 2.5], abs=2e-6)
    assert workload.lengths.num_prompt.tolist() == [4808, 3180]


def test_a_date_that_is_none_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n17,1,1\n")
    with pytest.raises(ValueError, match="line 2: TIMESTAMP='17' must be a date like"):
        read_trace(path)


def timed(*rows: tuple[float, int, int]) -> str:
    """A timed trace; the last number is how many hash ids a request has."""
    return "".join(
        f'{{"timestamp": {time}, "input_length": {num_prompt}, "output_length": 9, '
        f'"hash_ids": {list(range(num_ids))}}}\n'
        for time, num_prompt, num_ids in rows
    )


def test_mooncakes_traces_are_known_by_their_hash_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", timed((3000, 6758, 14), (0, 7322, 15)))
    workload = read_trace(path)
    assert workload.arrival_s.tolist() == [0.0, 3.0]
    assert workload.lengths.blocks is not None
    assert workload.lengths.blocks.num_tokens == 512


@pytest.mark.parametrize(
    ("rows", "num_tokens"),
    [
        (((0, 40, 3), (3, 16, 1)), 16),  # vLLM's
        (((0, 10, 1), (3, 9, 1)), 16),  # short prompts: either
        (((0, 600, 2), (3.5, 6758, 14)), 512),  # Mooncake's times are whole
    ],
)
def test_other_timed_traces_are_in_seconds(
    tmp_path: Path, rows: tuple[tuple[float, int, int], ...], num_tokens: int
) -> None:
    workload = read_trace(write(tmp_path / "t.jsonl", timed(*rows)))
    assert workload.arrival_s[1] >= 3
    assert workload.lengths.blocks is not None
    assert workload.lengths.blocks.num_tokens == num_tokens


@pytest.mark.parametrize("said", [{}, {"hash_tokens": 16}, {"time_unit_s": 1.0}])
def test_hash_ids_that_tell_no_form_need_their_size_and_the_unit_of_times(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    path = write(tmp_path / "t.jsonl", timed((0, 600, 1), (3, 6758, 1)))
    with pytest.raises(ValueError, match="--trace-hash-tokens and --trace-time-unit-s"):
        read_trace(path, **said)


def test_the_hash_ids_of_a_csv_trace_are_read(tmp_path: Path) -> None:
    text = 'timestamp,input_length,output_length,hash_ids\n0,600,5,"[1, 2]"\n1000,500,5,[1]\n'
    workload = read_trace(write(tmp_path / "t.csv", text))
    assert workload.lengths.blocks is not None
    assert list(workload.lengths.blocks.ids) == [(1, 2), (1,)]
    assert workload.arrival_s.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("ids", ["1 2", "[1.5]", "{", "7"])
def test_hash_ids_of_a_csv_trace_that_are_no_list_are_refused(tmp_path: Path, ids: str) -> None:
    text = f'timestamp,input_length,output_length,hash_ids\n0,600,5,"{ids}"\n'
    with pytest.raises(ValueError, match=r"line 2: hash_ids=.* must be a JSON list"):
        read_trace(write(tmp_path / "t.csv", text))


def test_what_is_said_of_a_trace_counts_more_than_what_it_looks_like(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", timed((0, 7322, 15), (3000, 6758, 14)))
    workload = read_trace(path, time_unit_s=1.0, hash_tokens=16)
    assert workload.arrival_s.tolist() == [0.0, 3000.0]
    assert workload.lengths.blocks is not None
    assert workload.lengths.blocks.num_tokens == 16


def report(num: int = 2, num_benchmarks: int = 1, **more: object) -> str:
    """A guidellm report, without what is not read."""
    requests = [
        {"request_start_time": 1.7e9 + i, "prompt_tokens": 10 + i, "output_tokens": 2} | more
        for i in range(2)
    ]
    totals = {"request_totals": {"successful": num, "errored": 1}}
    benchmark = {"metrics": totals, "requests": {"successful": requests, "errored": [{}]}}
    return json.dumps({"metadata": {}, "benchmarks": [benchmark] * num_benchmarks})


def test_a_report_of_guidellm_is_read(tmp_path: Path) -> None:
    workload = read_trace(write(tmp_path / "benchmarks.json", report()))
    assert workload.arrival_s.tolist() == [0.0, 1.0]
    assert workload.lengths.num_prompt.tolist() == [10, 11]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (report(num_benchmarks=2), "report of one guidellm benchmark"),
        (report(num=3), "holds 2 of 3 requests"),
        (report(prompt_tokens=None), "request 1: prompt_tokens=None must be a whole number"),
        (report().replace("2,", "1e999,", 1), "report of one guidellm benchmark"),
        ("{}", "report of one guidellm benchmark"),
        ("[", "report of one guidellm benchmark"),
    ],
)
def test_reports_that_tell_no_load_are_refused(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_trace(write(tmp_path / "benchmarks.json", text))


def test_a_unit_is_refused_where_times_have_one(tmp_path: Path) -> None:
    path = write(tmp_path / "benchmarks.json", report())
    with pytest.raises(ValueError, match=r"time_unit_s=0\.5 has no effect"):
        read_trace(path, time_unit_s=0.5)


def test_more_requests_than_a_trace_holds_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", HEADER + "0,10,1\n1,10,1\n")
    assert len(read_trace(path, 2)) == 2
    with pytest.raises(ValueError, match="num_requests=3 must be at most 2"):
        read_trace(path, 3)
