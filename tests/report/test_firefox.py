"""Does another browser show the report as well? Skipped where Firefox is not installed.

Debian: `apt-get install firefox-esr`. It is spoken to by WebDriver BiDi, without geckodriver.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.firefox import Firefox, program
from fixtures.replies import many
from fixtures.report import build

from holdfast.report.write import write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(program() is None, reason="Firefox is not installed"),
]


@pytest.fixture(scope="module", params=["light", "dark"])
def firefox(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Firefox]:
    with Firefox(tmp_path_factory.mktemp("profile"), request.param) as found:
        yield found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture's report, with replies."""
    results = replace(build(), replies=tuple(many(200, 100)))
    return write_report(results, tmp_path_factory.mktemp("report"))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_renders(firefox: Firefox, path: Path, width: int) -> None:
    firefox.go(path.as_uri(), width)
    firefox.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert firefox.run("document.documentElement.scrollWidth") <= width
    charts = firefox.run(
        "[...document.querySelectorAll('svg.chart')].map(one => one.getBoundingClientRect())"
        ".filter(one => one.width > 0).map(one => [one.width, one.height])"
    )
    assert len(charts) > 60
    assert all(140 < wide <= width and high > 90 for wide, high in charts)
    dark = firefox.run("matchMedia('(prefers-color-scheme: dark)').matches")
    paper = firefox.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) is dark
    assert firefox.errors == []


def test_replies_are_read_and_do_nothing(firefox: Firefox, path: Path) -> None:
    firefox.go(path.as_uri(), 1280)
    firefox.run("document.getElementById('r-show').click()")
    firefox.run("new Promise(go => setTimeout(go, 300))")
    assert "1 to 20 of 200 items" in firefox.run("document.getElementById('r-count').innerText")
    assert firefox.run("document.querySelectorAll('#r-list img').length") == 0
    firefox.run("document.getElementById('to-zh').click()")
    firefox.run("new Promise(go => setTimeout(go, 300))")
    assert "共 200 题" in firefox.run("document.getElementById('r-count').innerText")
    assert firefox.errors == []
