"""Take the picture of the ward page for the README: `python -m tests.browser.picture [FILE]`.

From a real `sidecar demo`, so of synthetic people only, at the first moment when the page shows what it is for: results
of several bands, and a patient for whom there is no total. Needs Chromium.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

from tests.browser.chromium import launched, why_missing
from tests.browser.demo import demo
from tests.ports import free_port

FILE = Path(__file__).parents[2] / "sidecar" / "sandbox" / "ward.png"
SIZE = {"width": 1280, "height": 880}
MOST_BYTES = 300_000
SPEED = 900
WAIT_MS = 120_000
WORTH_SHOWING = """() => {
  const has = (css) => document.querySelector(css) !== null;
  const written = Number(document.querySelector('[data-field=written]').textContent.replace(/,/g, ''));
  const given = document.querySelectorAll('.row.total:not(.band-low, :has(.given))').length;
  return written > 100 && given === 0 && has('.row.incomplete.urgent') && has('.row.band-high') && has('.row.band-medium')
    && has('.row.band-low') && document.getElementById('link').dataset.link === 'live';
}"""


async def take(url: str) -> bytes:
    """Return the page at `url` as a PNG, once it is worth showing."""
    async with async_playwright() as playwright, launched(playwright) as browser:
        page = await browser.new_page(viewport=SIZE, color_scheme="light")
        await page.goto(url)
        await page.wait_for_function(WORTH_SHOWING, timeout=WAIT_MS, polling=50)
        return await page.screenshot()


def main(file: Path) -> int:
    """Write the picture to `file`."""
    if (missing := why_missing()) is not None:
        sys.stderr.write(f"{missing}\n")
        return 1
    with tempfile.TemporaryDirectory() as folder, demo(Path(folder), free_port(), SPEED) as url:
        png = asyncio.run(take(url))
    if len(png) > MOST_BYTES:
        sys.stderr.write(f"{len(png)} bytes are more than {MOST_BYTES}\n")
        return 1
    file.write_bytes(png)
    sys.stdout.write(f"{file}: {len(png)} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE))
