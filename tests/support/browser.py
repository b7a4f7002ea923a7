"""A browser without a window, for tests that look at pages as people do."""

import base64
import io
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """Chromium without a window; the test is skipped, visibly, where it or its driver is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    tool = shutil.which("chromedriver")
    if browser is None or tool is None:
        pytest.skip("no chromium and chromedriver on the path (Debian: apt-get install chromium-driver chromium)")
    options = Options()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Service(tool)) as made:
        profile = made.capabilities["chrome"]["userDataDir"]
        made.set_script_timeout(60)
        try:
            yield made
        finally:
            made.quit()
            _end_all_of(profile)


def _end_all_of(profile: str) -> None:
    """End what is left of a browser: Debian starts it by a shell script, and a driver that ends ends the script alone."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if profile in (process / "cmdline").read_text(errors="replace"):
                os.kill(int(process.name), signal.SIGKILL)


def resize(driver: Any, width: int, height: int = 900, *, dark: bool = False) -> None:
    """Make the window one of that size, in pixels, of a system that likes dark pages or not."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": scheme})


def screen(driver: Any) -> Image.Image:
    """What the window shows."""
    return Image.open(io.BytesIO(base64.b64decode(driver.get_screenshot_as_base64()))).convert("RGB")
