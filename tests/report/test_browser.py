"""Does a real browser show the report, at a desk and on a phone, without fetching anything?

Needs chromium and chromedriver (Debian: `apt-get install chromium chromium-driver`) and the Python
package selenium; skipped with the reason where one of them is missing. What axe-core finds needs
its file, which `.ci/run` fetches (`npm pack axe-core`): AXE_CORE names it, else it is looked for in
`~/.cache/holdfast/axe.min.js`.
"""

from __future__ import annotations

import os
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fixtures.replies import hostile, many
from fixtures.report import build

from holdfast.errors import printable
from holdfast.report.html import browser as browsing
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
    wanted = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # a click waits for no scrolling
    ]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
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
    # the chosen trade-off; of ten arms three tasks, the groups of one, two meters; two doses; loss
    assert len(charts) == 1 + 3 * 10 + 10 + 2 * 10 + 2 + 1
    assert all(140 < wide <= width and high > 90 for wide, high in charts)
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
    browser.execute_script("document.getElementById('to-zh').click()")
    chart.send_keys(Keys.ARROW_RIGHT)
    assert "sft，第 64 步" in tip.text
    browser.execute_script("document.getElementById('to-en').click()")
    chart.send_keys(Keys.ARROW_LEFT)
    for _ in range(5):
        chart.send_keys(Keys.ARROW_RIGHT)
    assert "sft, step 160 (final), λ = 0.25" in tip.text
    chart.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    browser.find_element("css selector", "label[for=kept-1]").click()
    assert not browser.find_element("css selector", ".v0").is_displayed()
    assert browser.find_element("css selector", ".v1").is_displayed()
    button = browser.find_element("css selector", "[data-pick='1']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
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


AXE = Path(os.environ.get("AXE_CORE", "~/.cache/holdfast/axe.min.js")).expanduser()
CHECKED = """
const done = arguments[arguments.length - 1];
const where = one => one.nodes.slice(0, 4).map(node => node.target.join(" ")).join(" | ");
axe.run(document, {resultTypes: ["violations"]}).then(found =>
  done(found.violations.map(one => one.id + ": " + one.help + "; " + where(one))));
"""


@pytest.mark.parametrize(
    ("width", "scheme", "language"),
    [(1280, "light", "en"), (1280, "dark", "en"), (390, "light", "zh"), (390, "dark", "en")],
)
def test_axe_finds_nothing(
    browser: Any, path: Path, width: int, scheme: str, language: str
) -> None:
    """Whatever is folded is open, and the replies are shown."""
    if not AXE.is_file():
        warnings.warn(f"axe-core is not at {AXE}: accessibility is NOT CHECKED", stacklevel=1)
        pytest.skip(f"axe-core is not at {AXE}; .ci/run fetches it")
    visit(browser, path, width, scheme)
    browser.execute_script(f"document.getElementById('to-{language}').click()")
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.find_element("id", "r-show").click()
    browser.execute_script("""
      const rules = document.createElement("style");
      rules.textContent = "*{transition:none!important}";
      document.head.append(rules);
    """)
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    browser.set_script_timeout(240)
    assert browser.execute_async_script(CHECKED) == []


def listed(browser: Any) -> list[str]:
    """The prompts in the list of replies."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#r-list > li')].map(one =>"
        " one.querySelector('pre') ? one.querySelector('pre').textContent : one.textContent)"
    )
    return found


def choose(browser: Any, name: str, text: str) -> None:
    """Set one of the filters."""
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", f"r-{name}")).select_by_visible_text(text)


def waited(browser: Any, text: str) -> None:
    """Wait until the line above the list says it."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30).until(lambda b: text in b.find_element("id", "r-count").text)


def test_replies_are_browsed(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page = write_report(replace(build(), replies=tuple(many(200, 100))), tmp_path)
    visit(browser, page, 1280)
    assert not browser.find_element("id", "r-all").is_displayed(), "hidden until asked for"
    assert listed(browser) == []
    browser.find_element("id", "r-show").click()
    waited(browser, "1 to 20 of 200 items")
    assert listed(browser)[:3] == ["prompt 8", "prompt 28", "prompt 48"], "what changed sides first"
    choose(browser, "change", "lost")
    waited(browser, "1 to 10 of 10 items")
    choose(browser, "against", "replay")
    waited(browser, "No item is like that.")
    choose(browser, "change", "all")
    choose(browser, "task", "hazards")
    waited(browser, "of 100 items")
    choose(browser, "group", "locks")
    waited(browser, "of 50 items")
    choose(browser, "group", "all")
    choose(browser, "against", "sft")
    choose(browser, "outcome", "unsafe")
    waited(browser, "1 to 10 of 10 items")
    choose(browser, "outcome", "all")
    choose(browser, "task", "all")
    browser.find_element("id", "r-search").send_keys("PROMPT 199")
    waited(browser, "1 to 1 of 1 items")
    assert listed(browser) == ["prompt 199"]
    browser.find_element("id", "r-search").send_keys(Keys.CONTROL, "a")
    browser.find_element("id", "r-search").send_keys(Keys.DELETE)
    waited(browser, "1 to 20 of 200 items")
    button = browser.find_element("id", "r-after")
    button.click()
    waited(browser, "21 to 40 of 200 items")
    button.send_keys("p")
    waited(browser, "1 to 20 of 200 items")
    button.send_keys("j")
    browser.switch_to.active_element.send_keys("j")
    assert "prompt 28" in browser.switch_to.active_element.text
    browser.switch_to.active_element.send_keys("/")
    assert browser.switch_to.active_element.get_attribute("id") == "r-search"
    browser.execute_script("document.getElementById('to-zh').click()")
    waited(browser, "共 200 题")
    assert browser.execute_script("return window.alerts") == 0
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@contextmanager
def served_from(folder: Path) -> Iterator[str]:
    """The address of the page in a folder that a plain web server shows."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_address[1]}/index.html"
        finally:
            made.shutdown()
            thread.join()


def test_many_replies_are_read_from_beside_a_served_page(browser: Any, tmp_path: Path) -> None:
    """As a file the page shows what it holds; served, it reads the rest when it is needed."""
    page = write_report(replace(build(), replies=tuple(many(17_000, 200))), tmp_path)
    assert page.stat().st_size < 5_000_000
    visit(browser, page, 1280)
    browser.find_element("id", "r-show").click()
    waited(browser, "1 to 20 of 17,000 items")
    browser.find_element("id", "r-search").send_keys("sft 16999 ")
    waited(browser, "only the items that are in this file were searched")
    with served_from(tmp_path) as address:
        browser.get(address)
        asked = "return performance.getEntriesByType('resource').length"
        browser.find_element("id", "r-show").click()
        waited(browser, "1 to 20 of 17,000 items")
        assert browser.execute_script(asked) == 0, "what is in the page is not asked for"
        browser.find_element("id", "r-search").send_keys("sft 16999 ")
        waited(browser, "1 to 1 of 1 items")
        assert listed(browser) == ["prompt 16999"]
        assert browser.execute_script(asked) > 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("room", [browsing.EMBEDDED, 0], ids=["embedded", "served"])
def test_hostile_replies_do_nothing(
    browser: Any, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Markup and control characters in every text of a reply."""
    monkeypatch.setattr(browsing, "EMBEDDED", room)
    page = write_report(replace(build(), replies=tuple(hostile())), tmp_path)
    visit(browser, page, 1280)
    with served_from(tmp_path) as address:
        browser.get(address if not room else page.as_uri())
        browser.find_element("id", "r-show").click()
        waited(browser, f"1 to 20 of {len(hostile()) // 2} items")
    made = browser.execute_script(
        "return [...document.querySelectorAll('#replies *, body > *')].map(one => one.tagName)"
    )
    assert not {"IMG", "IFRAME", "svg", "SVG", "STYLE"} & set(made)
    text = browser.execute_script("return document.getElementById('replies').textContent")
    assert "<img src=x onerror=alert(1)>" in text and "</script>" in text, "shown letter by letter"
    assert printable(text, keep="\n\t") == text, "no control character, no mark of direction"
    assert browser.execute_script("return window.alerts") == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_reply_of_ten_megabytes_is_cut(browser: Any, tmp_path: Path) -> None:
    long = replace(many(1, 10)[1], reply="word " * 2_000_000)
    page = write_report(replace(build(), replies=(*many(20, 100), long)), tmp_path)
    assert page.stat().st_size < 1_000_000
    visit(browser, page, 1280)
    browser.find_element("id", "r-show").click()
    waited(browser, "1 to 20 of 20 items")
    assert "9,980,000" in browser.find_element("id", "r-list").text, "what is left out is counted"


def test_figures_and_languages_stand_without_a_script(browser: Any, path: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visit(browser, path, 1280)
        text = browser.find_element("tag name", "body").text
        assert "sft learned word-problems" in text and "81.7" in text and "Kept, after" in text
        assert "Reading replies needs JavaScript" in text
        assert browser.find_element("css selector", "svg.wide .pt > title") is not None
        browser.find_element("css selector", "label[for=to-zh]").click()
        assert "sft 学会了 word-problems" in browser.find_element("tag name", "body").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_contents_stay_in_view_and_folds_open(browser: Any, path: Path) -> None:
    for width in (1280, 390):
        visit(browser, path, width)
        assert not browser.find_element("css selector", "#budget table").is_displayed()
        browser.execute_script("document.querySelector('nav a[href=\"#budget\"]').click()")
        assert browser.find_element("css selector", "#budget table").is_displayed()
        top = browser.execute_script(
            "return document.querySelector('nav').getBoundingClientRect().top"
        )
        assert top == 0
        browser.execute_script("document.getElementById('measured').scrollIntoView()")
        current = browser.execute_script(
            "dispatchEvent(new Event('scroll'));"
            "return document.querySelector('nav [aria-current]').getAttribute('href')"
        )
        assert current == "#measured"


def test_five_hundred_points_are_drawn(browser: Any, tmp_path: Path) -> None:
    """Ten arms at fifty checkpoints each."""
    results = build()
    cells = list(results.cells)
    for cell in results.cells:
        if cell.step == 160 and cell.scale == 1:
            cells += [replace(cell, step=1000 + step, flips=None) for step in range(45)]
    page = write_report(replace(results, cells=tuple(cells)), tmp_path)
    assert page.stat().st_size < 5_000_000
    visit(browser, page, 1280)
    spots = browser.execute_script("return document.querySelectorAll('.v0 svg.wide .pt').length")
    assert spots > 500
