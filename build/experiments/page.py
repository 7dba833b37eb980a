"""Make the README's picture of the page: serve the demo, drop one in Chromium, point at a tag.

Needs Chromium (Debian's packages `chromium` and, for the Chinese names, `fonts-wqy-microhei`).
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
from playwright.sync_api import Browser, Page, sync_playwright
from ram_client import RamClient
from ram_triton.arguments import add_repository
from ram_triton.cli import run_module
from ram_triton.errors import FileError
from ram_triton.files import short
from ram_triton.repository.layout import DEMO_IMAGES, PROJECT
from ram_triton.server import TritonServer

OUTPUT = PROJECT / "docs" / "img" / "page.png"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Nothing is asked of the network; its sandbox does not start for root.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    # A camera that shows a test pattern.
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)
CHOSEN = '#picture input[type="file"]'  # where a picture is chosen
SECONDS = 60  # for a step, on a busy machine
WIDTH, HEIGHT = 1000, 740
COLOURS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_repository(parser, "model repository to serve")


def run(arguments: argparse.Namespace) -> None:
    """Write the picture.

    Raises:
        FileError: there is no Chromium.
    """
    program = find_chromium()
    if program is None:
        raise FileError("there is no Chromium: on Debian, apt-get install chromium")
    with (
        TritonServer(arguments.repository) as server,
        served("--server", server.grpc, "--examples", str(DEMO_IMAGES)) as process,
        browser(program) as chromium,
    ):
        with RamClient(server.grpc) as client:
            client.tag(DEMO_IMAGES / "apple.png")  # the first takes longer
        page = new_window(chromium, WIDTH, HEIGHT)
        open_page(page, address(process))
        page.set_input_files(CHOSEN, DEMO_IMAGES / "apple.png")
        page.wait_for_selector(".ram-tags")
        page.wait_for_load_state("networkidle")
        page.locator(".ram-tags li:has-text('apple') b").hover()
        with PIL.Image.open(io.BytesIO(page.screenshot())) as picture:
            picture.convert("RGB").quantize(COLOURS).save(OUTPUT, optimize=True)
    print(f"{short(OUTPUT)}: {OUTPUT.stat().st_size:,} bytes")


def find_chromium() -> str | None:
    """Return the path of the system's Chromium, if it has one."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextmanager
def browser(program: str) -> Iterator[Browser]:
    """Run Chromium without a screen."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def served(*arguments: str, temporary: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run `ram-page` on a free port; its first line is its address.

    Args:
        arguments: further ones.
        temporary: where it may write, if not where others do.
    """
    command = [str(Path(sys.executable).with_name("ram-page")), "--port", "0", *arguments]
    environment = os.environ | ({"TMPDIR": str(temporary)} if temporary else {})
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def address(process: subprocess.Popen[str]) -> str:
    """Return the address of what `served` runs, when it listens."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def new_window(chromium: Browser, width: int, height: int) -> Page:
    """Return an empty window of a size in pixels."""
    window = chromium.new_page(viewport={"width": width, "height": height})
    window.set_default_timeout(SECONDS * 1000)
    return window


def open_page(window: Page, url: str) -> None:
    """Open the page, until it can take a picture."""
    window.goto(url)
    window.wait_for_selector(CHOSEN, state="attached")


if __name__ == "__main__":
    sys.exit(run_module("experiments.page", sys.modules[__name__]))
