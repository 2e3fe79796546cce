"""The page of each recording: how long it takes to make, its size, and how long a headless Chromium takes to show it.

Shown is from the begin of the navigation until the first frame after the timeline was drawn.
"""

import sys
import tempfile
import time
from pathlib import Path

from tlbcore import recordings
from tlbcore.profile import profile
from tlbcore.report.page import write_page

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from chromium import Chromium, find_chromium  # noqa: E402  # the tests' own browser

SHOWN = "performance.now()"


def main() -> None:
    """Measure and print."""
    binary = find_chromium()
    if binary is None:
        print("no Chromium is installed (Debian: chromium): only made, not shown")
    browser = Chromium(binary) if binary else None
    try:
        print(f"{'recording':12}{'flushes':>9}{'made, s':>9}{'kB':>7}{'shown, ms':>11}")
        with tempfile.TemporaryDirectory() as folder:
            for path in sorted((ROOT / "data" / "recordings").glob("*.perf.txt.zst")):
                name = path.name.partition(".")[0]
                page = Path(folder) / f"{name}.html"
                begin = time.perf_counter()
                found = profile(recordings.load(path))
                write_page(found, page)
                made = time.perf_counter() - begin
                shown = ""
                if browser is not None:
                    browser.look()
                    browser.open(page)
                    assert int(browser.run("document.getElementById('timeline').dataset.marks")) > 0
                    shown = f"{browser.run(SHOWN):.0f}"
                print(f"{name:12}{len(found.flushes):9}{made:9.2f}{page.stat().st_size / 1000:7.0f}{shown:>11}")
    finally:
        if browser is not None:
            browser.close()


if __name__ == "__main__":
    main()
