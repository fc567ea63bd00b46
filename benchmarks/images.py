"""Makes the picture of the report that the README shows: the upper part of a finished run's page.

Needs Chromium (Debian: `apt-get install chromium`); nothing is fetched, and the run is not changed.

    holdfast demo
    python benchmarks/images.py [--run runs/demo] [--to docs/images]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1280, 1000
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--virtual-time-budget=3000")  # fmt: skip


def picture(browser: str, page: Path, into: Path) -> Path:
    """A PNG of the upper part of a page, in light colours."""
    into.mkdir(parents=True, exist_ok=True)
    file = into / "report.png"
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, *FLAGS, f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}",
             f"--screenshot={file}", page.resolve().as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    return file


def main() -> None:
    """Make it, and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images")
    args = parser.parse_args()
    page = args.run / "report" / "index.html"
    if not page.is_file():
        sys.exit(f"{page} is not there: run `holdfast demo` first, or name a run with --run")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no browser is here: {', '.join(BROWSERS)}")
    file = picture(browser, page, args.to)
    print(f"{file}: {WIDTH} x {HEIGHT}, {file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
