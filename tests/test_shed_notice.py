"""What is said of a shed request is understood, and nothing else is taken for it."""

import pytest

from vllm_sarathi.shed_notice import REASON, notice, retry_after_s


def test_a_notice_carries_the_seconds_to_wait() -> None:
    assert notice(12) == "rejected-ttl-expired, retry after 12 s"
    assert retry_after_s(notice(12)) == 12


@pytest.mark.parametrize(
    "stop_reason", [None, 2, "", "</s>", REASON, f"{notice(3)}!", f"{REASON}, retry after -3 s"]
)
def test_other_reasons_are_no_notice(stop_reason: int | str | None) -> None:
    assert retry_after_s(stop_reason) is None
