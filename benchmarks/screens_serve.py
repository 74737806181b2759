"""Pictures of `fastslow serve` over the kept runs, for the documents: the list, and a run.

    python -m benchmarks.screens_serve [FOLDER]

Writes serve-list.png and serve-run.png, by default to docs/screens/. Needs Chromium.
"""

import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.support.browser import Browser, chromium
from tests.support.paths import ROOT
from tests.support.servers import free_port

WITHIN_S = 120.0
HEIGHT = 900
"""Pixels of a page, from its top."""
PAGES = {"serve-list": "/", "serve-run": "/run/demo"}
IS_DRAWN = (
    "!document.querySelector('[data-live^=\"/part/record\"]') || !!document.querySelector('figure')"
)


def main(folder: Path) -> None:
    """Serve a copy of the kept runs and take the pictures."""
    program = chromium()
    if program is None:
        sys.exit("no Chromium is on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(ROOT / "runs" / "reference", Path(place) / "runs")
        port = free_port()
        words = [sys.executable, "-m", "fastslow", "serve", "runs", "--port", str(port)]
        server = subprocess.Popen(words, cwd=place, stderr=subprocess.DEVNULL)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address)
            with Browser(program, Path(place) / "profile") as browser:
                for name, path in PAGES.items():
                    browser.open(address + path, width=1280)
                    deadline = time.monotonic() + WITHIN_S
                    while not browser.value(IS_DRAWN) and time.monotonic() < deadline:
                        time.sleep(0.2)
                    browser.screenshot(folder / f"{name}.png", height=HEIGHT)
                    print(f"written: {folder / name}.png")
        finally:
            server.terminate()
            server.wait()


def wait_for(address: str) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=30):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "screens")
