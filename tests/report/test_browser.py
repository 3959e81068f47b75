import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.browser import Page, browser, executable
from tests.support.step_log import BEGIN, gap, placed, step
from vllm_sarathi.report.page import write_report

HOSTILE = "<img src=http://127.0.0.1:9/x onerror=alert(1)><script>document.title='owned'</script>"
LONG = "w" * 400


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    path = executable()
    if path is None:
        pytest.skip("no chromium or chrome is installed")
    with browser(path) as opened:
        yield opened


@pytest.fixture
def report(log: Callable[..., Path]) -> Path:
    """A report with all parts: classes, stages, hostile names, findings."""
    begin = json.loads(json.dumps(BEGIN))
    begin["begin"]["num_stages"] = 2
    begin["begin"]["settings"]["step_log"] = LONG
    lines = [
        step(
            0.02 + 0.3 * (i % 50 == 49),
            prefill=100 * (i % 3),
            stage_idle_share=0.3,
            num_waiting=i,
            limit=("objective", "kv_blocks", HOSTILE)[i % 3],
            admission_blocked_by="kv_blocks" if i % 5 == 0 else None,
            relegated={"default": 1} if i % 7 == 0 else {},
            gaps={name: gap(0.02 + 0.3 * (i % 50 == 49), request_id=HOSTILE + LONG)
                  for name in ("default", "interactive", HOSTILE)},
            first_tokens={"interactive": gap(3.0, objective_s=2.0)} if i % 4 == 0 else {},
        )
        for i in range(400)
    ]  # fmt: skip
    path = log(begin, *placed(lines), {"fault": "planning", "error": HOSTILE})
    output = path.with_suffix(".html")
    write_report(path, output)
    return output


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_asks_for_nothing_says_nothing_and_fits_the_screen(
    report: Path, page: Page, width: int
) -> None:
    page.open(report, width)
    asked = [event["request"]["url"] for event in page.told("Network.requestWillBeSent")]
    assert asked == [report.as_uri()]
    assert not page.told("Log.entryAdded")
    assert not page.told("Runtime.consoleAPICalled")
    assert not page.told("Runtime.exceptionThrown")
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value("document.querySelectorAll('svg path').length") > 20


def test_what_clients_wrote_is_text_and_no_element(report: Path, page: Page) -> None:
    page.open(report, 1280)
    assert page.value("document.querySelectorAll('img, script').length") == 0
    assert page.value("document.title").startswith("Step log")
    assert HOSTILE in page.value("document.querySelector('.worst [title]').title")


def test_no_label_of_an_axis_lies_outside_the_page(report: Path, page: Page) -> None:
    page.open(report, 390)
    outside = (
        "[...document.querySelectorAll('.plot span')].filter(s => {"
        "const r = s.getBoundingClientRect(); return r.left < 0 || r.right > innerWidth}).length"
    )
    assert page.value(outside) == 0
