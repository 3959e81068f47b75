from pathlib import Path

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
def test_malformed_rows_are_named_by_line(tmp_path: Path, row: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_trace(write(tmp_path / "t.csv", HEADER + "0.0,10,1\n" + row + "\n"))


@pytest.mark.parametrize("value", ["1e400", "10.9", "true", "1e300", '"ten"', "null", "[1]"])
def test_lengths_that_are_no_whole_number_are_refused(tmp_path: Path, value: str) -> None:
    line = f'{{"timestamp": 0, "input_length": {value}, "output_length": 4}}\n'
    with pytest.raises(ValueError, match=r"t.jsonl line 1: num_prefill_tokens=.* whole number"):
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
def test_files_that_are_no_trace_are_refused(
    tmp_path: Path, name: str, text: str, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        read_trace(write(tmp_path / name, text))


def test_more_requests_than_a_trace_holds_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", HEADER + "0,10,1\n1,10,1\n")
    assert len(read_trace(path, 2)) == 2
    with pytest.raises(ValueError, match="num_requests=3 must be at most 2"):
        read_trace(path, 3)
