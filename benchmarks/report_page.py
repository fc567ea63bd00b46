"""Holds a report against what is asked of it: bytes, first paint, 500 points, axe, the console.

    python benchmarks/report_page.py [--page runs/demo/report/index.html] [--pictures FOLDER]

The page given is opened in every browser that is installed (Chromium by its driver, Firefox by
WebDriver BiDi), at 1280 and 390 pixels, light and dark, everything unfolded; axe-core is looked for
where `.ci/run` puts it. The page of 500 points is made here, of the tests' study. Times are shares
of what is allowed; they speak of a machine on which nothing else runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "tests")]
from fixtures.firefox import Firefox, program
from fixtures.report import build

from benchmarks.screenshots import HEIGHT, WIDTHS, browser
from holdfast.report.write import write_report

DEMO_BYTES, MANY_BYTES = 2_000_000, 5_000_000
PAINT_MS, DRAWN_MS = 1000, 3000
AXE = Path(os.environ.get("AXE_CORE", "~/.cache/holdfast/axe.min.js")).expanduser()
UNFOLDED = "document.querySelectorAll('details').forEach(one => one.open = true)"
WIDE = "document.documentElement.scrollWidth"
PAINTED = "Math.round(performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1)"
DRAWN = "Math.round(performance.getEntriesByType('navigation')[0].loadEventEnd)"
CHECKED = "axe.run(document, {resultTypes: ['violations']}).then(one => one.violations.length)"


@dataclass(frozen=True, slots=True)
class Window:
    """A browser with a page in it.

    Attributes:
        go: opens a page in so many pixels.
        value: of an expression in the page; a promise is waited for.
        errors: in the console since `go`.
        picture: what is seen, as PNG.
    """

    go: Callable[[Path, int], None]
    value: Callable[[str], Any]
    errors: Callable[[], int]
    picture: Callable[[], bytes]


def chromium(profile: str, scheme: str) -> tuple[Window, Callable[[], None]]:
    """Chromium, and what ends it."""
    import base64

    found = browser(profile)
    found.set_script_timeout(240)
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]

    def go(page: Path, width: int) -> None:
        size = {"width": width, "height": HEIGHT[width], "deviceScaleFactor": 1,
                "mobile": width < 500}  # fmt: skip
        found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
        found.get_log("browser")
        found.get(page.resolve().as_uri())

    def value(script: str) -> Any:
        ended = f"Promise.resolve({script}).then(arguments[arguments.length - 1])"
        return found.execute_async_script(ended)

    def errors() -> int:
        return sum(one["level"] == "SEVERE" for one in found.get_log("browser"))

    def picture() -> bytes:
        shot = found.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        return base64.b64decode(shot["data"])

    return Window(go, value, errors, picture), found.quit


def firefox(profile: str, scheme: str) -> tuple[Window, Callable[[], None]]:
    """Firefox, and what ends it."""
    found = Firefox(Path(profile), scheme)
    window = Window(
        lambda page, width: found.go(page.resolve().as_uri(), width, HEIGHT[width]), found.run,
        lambda: len(found.errors), found.picture,
    )  # fmt: skip
    return window, lambda: found.__exit__(None, None, None)


def five_hundred(folder: Path) -> Path:
    """The page of ten arms at fifty checkpoints each."""
    results = build()
    cells = list(results.cells)
    for cell in results.cells:
        if cell.step == 160 and cell.scale == 1:
            cells += [replace(cell, step=1000 + step, flips=None) for step in range(45)]
    return write_report(replace(results, cells=tuple(cells)), folder)


def row(window: Window, page: Path, width: int) -> list[str]:
    """What is measured of a page in one window."""
    window.go(page, width)
    painted = window.value(PAINTED)
    window.value(f"({UNFOLDED}, 0)")
    across = window.value(WIDE)
    violations = "not checked"
    if AXE.is_file():
        window.value(f"(() => {{ {AXE.read_text('utf-8')}; return 0; }})()")
        violations = str(window.value(CHECKED))
    return [f"{painted / PAINT_MS:.0%}" if painted >= 0 else "not told", violations,
            str(window.errors()), "yes" if across > width else "no"]  # fmt: skip


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=Path("runs/demo/report/index.html"))
    parser.add_argument("--pictures", type=Path, help="a folder for what each window shows")
    args = parser.parse_args()
    browsers = {"Chromium": chromium} | ({"Firefox": firefox} if program() else {})
    print("\n| browser | pixels | colours | paint, of 1 s | axe | errors | too wide |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as made:
        many = five_hundred(Path(made) / "many")
        drawn = {}
        for name, start in browsers.items():
            for scheme in ("light", "dark"):
                profile = Path(made) / f"{name}-{scheme}"
                profile.mkdir()
                window, end = start(str(profile), scheme)
                try:
                    for width in WIDTHS:
                        cells = [name, str(width), scheme, *row(window, args.page, width)]
                        print(f"| {' | '.join(cells)} |", flush=True)
                        if args.pictures:
                            args.pictures.mkdir(parents=True, exist_ok=True)
                            file = args.pictures / f"{name.lower()}-{width}-{scheme}.png"
                            file.write_bytes(window.picture())
                    window.go(many, WIDTHS[0])
                    drawn[name] = window.value(DRAWN)
                finally:
                    end()
        sizes = [("the page", args.page, DEMO_BYTES), ("500 points", many, MANY_BYTES)]
        print("\n| what | measured | limit |\n|---|---|---|")
        for what, page, limit in sizes:
            print(f"| {what}, bytes | {page.stat().st_size:,} | {limit:,} |")
        for name, took in drawn.items():
            print(f"| 500 points drawn, {name} | {took / DRAWN_MS:.0%} of the limit | 3 s |")


if __name__ == "__main__":
    main()
