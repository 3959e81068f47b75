"""The pipeline benchmark has the loads that vLLM's reports are about."""

from pipeline import REPORTED, UNCHUNKED, Cell


def test_whole_prompts_fit_the_reported_loads_unchunked() -> None:
    for load, reported in REPORTED.items():
        cell = Cell(UNCHUNKED, 4, load, reported.num_requests)
        longest = int(cell.workload().lengths.num_prompt.max())
        assert longest <= cell.settings().max_num_batched_tokens


def test_hardly_anything_but_decodes_where_a_report_is_about_them() -> None:
    lengths = Cell(UNCHUNKED, 4, "decode-heavy", 50).workload().lengths
    assert lengths.num_output.sum() > 9 * lengths.num_prompt.sum()
