"""Does a real browser show the report, at a desk and on a phone, without fetching anything?

Needs chromium and chromedriver (Debian: `apt-get install chromium chromium-driver`) and the Python
package selenium; skipped with the reason where one of them is missing.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.report import build

from holdfast.report.serving import Served, server
from holdfast.report.write import write_report

pytestmark = pytest.mark.browser

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless chromium with a profile of its own."""
    import selenium.webdriver as webdriver
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture's report."""
    return write_report(build(), tmp_path_factory.mktemp("report"))


def visit(browser: Any, path: Path, width: int, scheme: str = "light") -> None:
    """Open the page in a window of that width, and listen for alerts."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    scheme_wanted = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme_wanted]})
    listen = "window.alerts = 0; window.alert = () => { window.alerts += 1; };"
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": listen})
    browser.get(path.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 375])
def test_the_page_renders(browser: Any, path: Path, width: int, scheme: str) -> None:
    visit(browser, path, width, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    charts = browser.execute_script(
        "return [...document.querySelectorAll('svg.chart')].map(s => s.getBoundingClientRect())"
        ".filter(b => b.width > 0).map(b => [b.width, b.height])"
    )
    assert len(charts) == 9  # the chosen trade-off, three tasks, two doses, loss and two meters
    assert all(200 < wide <= width and high > 150 for wide, high in charts)
    across = browser.execute_script("return document.documentElement.scrollWidth")
    assert across <= width
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.execute_script("return window.alerts") == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("width", [1280, 375])
def test_names_in_a_chart_do_not_overlap_and_are_not_cut(
    browser: Any, path: Path, width: int
) -> None:
    visit(browser, path, width)
    charts = browser.execute_script(
        "const r = e => { const b = e.getBoundingClientRect();"
        " return [b.left, b.top, b.right, b.bottom]; };"
        "return [...document.querySelectorAll('svg.chart')].filter(s => s.clientWidth)"
        ".map(s => [...s.querySelectorAll('.name')].map(r))"
    )
    for boxes in charts:
        for place, a in enumerate(boxes):
            assert a[0] >= 0 and a[2] <= width
            for b in boxes[place + 1 :]:
                across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                assert across <= 0 or down <= 3, (a, b)


def test_arrow_keys_walk_the_points_and_the_choice_changes_the_picture(
    browser: Any, path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    visit(browser, path, 1280)
    chart = browser.find_element("css selector", ".v0 svg.wide")
    chart.send_keys(Keys.ARROW_RIGHT)
    tip = browser.find_element("id", "tip")
    assert tip.is_displayed() and "sft, step 32" in tip.text and "n = 400" in tip.text
    for _ in range(5):
        chart.send_keys(Keys.ARROW_RIGHT)
    assert "sft, step 160 (final), λ = 0.25" in tip.text
    chart.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    browser.find_element("css selector", "label[for=kept-1]").click()
    assert not browser.find_element("css selector", ".v0").is_displayed()
    assert browser.find_element("css selector", ".v1").is_displayed()
    button = browser.find_element("css selector", "[data-pick='1']")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert browser.execute_script("return document.body.className") == "solo"


def test_a_served_page_renews_itself(browser: Any, small_run: Path, tmp_path: Path) -> None:
    """From what there is so far to the whole report, without a click and without a request out."""
    from selenium.webdriver.support.ui import WebDriverWait

    run, kept = Path(shutil.copytree(small_run, tmp_path / "run")), tmp_path / "kept"
    kept.mkdir()
    for name in ("stats", "report"):
        (run / name).rename(kept / name)
    with server(Served(run)) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            address = f"http://127.0.0.1:{made.server_address[1]}/"
            browser.get(address)
            assert "This study is not finished" in browser.find_element("tag name", "body").text
            wait = WebDriverWait(browser, 60)
            wait.until(lambda b: "stages done" in b.find_element("id", "live").text)
            for name in ("stats", "report"):
                (kept / name).rename(run / name)
            wait.until(lambda b: "This study is not finished" not in b.page_source)
            wait.until(lambda b: "finished" in b.find_element("id", "live").text)
            asked = browser.execute_script(
                "return performance.getEntriesByType('resource').map(one => one.name)"
            )
            assert asked and set(asked) == {f"{address}state"}
        finally:
            made.shutdown()
            thread.join()
    wait.until(lambda b: "has ended" in b.find_element("id", "live").text)
    severe = [one["message"] for one in browser.get_log("browser") if one["level"] == "SEVERE"]
    assert all("/state" in one for one in severe), "only that the server is gone"
