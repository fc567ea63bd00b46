"""Pictures of a report: at a desk and on a phone, light and dark, in both languages.

    python benchmarks/screenshots.py runs/demo/report/index.html --to docs/images

Needs chromium, chromedriver and selenium. Written are ``report-WIDTH-SCHEME.png`` (the top of the
page), with ``--sections`` also one picture for every section, and with ``--pdf`` the page in A4.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import tempfile
from pathlib import Path
from typing import Any

HEIGHT = {1280: 1000, 390: 844}
WIDTHS = (1280, 390)
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")


def browser(profile: str) -> Any:
    """Headless chromium.

    Raises:
        SystemExit: there is none.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        raise SystemExit("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(driver))


def shot(chrome: Any, file: Path, clip: dict[str, float] | None = None) -> None:
    """Save what is seen, or a part of the page."""
    wanted = {"format": "png", "captureBeyondViewport": clip is not None}
    if clip:
        wanted["clip"] = {**clip, "scale": 1}
    found = chrome.execute_cdp_cmd("Page.captureScreenshot", wanted)
    file.write_bytes(base64.b64decode(found["data"]))
    print(file)


def pictures(chrome: Any, page: Path, to: Path, look: tuple[int, str, str], sections: bool) -> None:
    """All pictures of one width, scheme and language."""
    width, scheme, language = look
    size = {"width": width, "height": HEIGHT[width], "deviceScaleFactor": 1, "mobile": width < 500}
    wanted = {"name": "prefers-color-scheme", "value": scheme}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wanted]})
    chrome.get(page.resolve().as_uri())
    name = f"report-{width}-{scheme}"
    if language != "en":
        chrome.execute_script(f"document.getElementById('to-{language}').click()")
        name += f"-{language}"
    shot(chrome, to / f"{name}.png")
    if not sections:
        return
    chrome.execute_script("document.querySelectorAll('.fold').forEach(one => one.open = true)")
    boxes = chrome.execute_script(
        "return [...document.querySelectorAll('header, section')].map(one => {"
        " const at = one.getBoundingClientRect();"
        " return [one.id || 'header', at.left, at.top + scrollY, at.width, at.height]; })"
    )
    for part, left, top, wide, high in boxes:
        shot(
            chrome, to / f"{name}-{part}.png", {"x": left, "y": top, "width": wide, "height": high}
        )


def main() -> None:
    """Read the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="index.html of a report")
    parser.add_argument("--to", type=Path, default=Path("docs/images"))
    parser.add_argument("--sections", action="store_true", help="every section too")
    parser.add_argument("--pdf", action="store_true", help="the page in A4 too")
    chosen = parser.parse_args()
    chosen.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        chrome = browser(profile)
        try:
            looks = [(w, scheme, "en") for w in WIDTHS for scheme in ("light", "dark")]
            for look in [*looks, (WIDTHS[0], "light", "zh")]:
                pictures(chrome, chosen.page, chosen.to, look, chosen.sections)
            if chosen.pdf:
                settings = {"preferCSSPageSize": True, "printBackground": True}
                found = chrome.execute_cdp_cmd("Page.printToPDF", settings)
                (chosen.to / "report.pdf").write_bytes(base64.b64decode(found["data"]))
        finally:
            chrome.quit()


if __name__ == "__main__":
    main()
