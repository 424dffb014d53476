"""A headless Chromium for the tests of pages; without one they are skipped, with the reason."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def chromium(profile: Path, width: int = 1200, height: int = 900, *options: str) -> Iterator[Any]:
    """A driver of Selenium with a new `profile`."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    found, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (found and driver):
        pytest.skip("there is no chromium with chromedriver: apt-get install chromium chromium-driver")
    settings = webdriver.ChromeOptions()
    settings.binary_location = found
    for option in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                   f"--user-data-dir={profile}", f"--window-size={width},{height}", *options):  # fmt: skip
        settings.add_argument(option)
    settings.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of Selenium's own sockets
        page = webdriver.Chrome(settings, webdriver.ChromeService(driver))
        page.set_script_timeout(120)
        page.set_page_load_timeout(300)
        page.get("about:blank")
        page.get_log("performance")  # of the page that a browser opens by itself
        # Before the first click or key no page has the focus, and none is told of it.
        page.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        try:
            yield page
        finally:
            page.quit()


def requested(page: Any) -> list[str]:
    """The addresses that were asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def complaints(page: Any) -> list[str]:
    """What the console has said since the last call."""
    return [entry["message"] for entry in page.get_log("browser")]


def dress(page: Any, scheme: str) -> None:
    """Let the page be seen as by one who prefers `light` or `dark`."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def resize(page: Any, width: int, height: int) -> None:
    """The window, narrower than a browser's own may be."""
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
