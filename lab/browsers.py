"""`python -m lab browsers`: a run with two phones in Chromium and eight of Python, and pictures of the page."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from featherfed.errors import FeatherfedError
from featherfed.fl_bench.processes import Processes
from lab.finger import DIGITS, draw

PHONES, PYTHON, ROUNDS = 10, 8, 4
SIZES = {"phone-390": (390, 844), "phone-1280": (1280, 800)}
WAIT_S = 240.0
DOCS = Path(__file__).parents[1] / "docs" / "img"


@click.command()
@click.option(
    "--out",
    default="demo-report",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the pictures.",
)
@click.option("--docs", is_flag=True, help="Write the pictures of docs/BROWSER.md.")
def browsers(out: Path, docs: bool) -> None:
    """Play a run with two phones in Chromium and eight of Python, and leave pictures of their pages."""
    found = shutil.which("chromium")
    if found is None:
        raise click.ClickException("no chromium on the path: apt-get install chromium")
    try:
        play(found, DOCS if docs else out)
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error


def play(chromium: str, out: Path) -> None:
    """Play the run on loopback; what the server says of its rounds is printed."""
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    addresses: list[str] = []

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "listening":
            addresses.append(event["phone_page"])
        if event["event"] in ("listening", "round_closed", "phone_came", "note"):
            click.echo(event["message"])

    flags = ["--problem", "digits/tiny", "--phones", str(PHONES), "--cohort", str(PHONES), "--rounds", str(ROUNDS),
             "--epochs", "5", "--lr", "0.03", "--no-dashboard", "--phone-page"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "logs") as processes:
        address = processes.start_server(["--runs", folder, "--name", "demo", *flags], tell)
        processes.start_phone("swarm", ["--server", address, "--count", str(PYTHON)], "swarm")
        with sync_playwright() as playwright:
            # Chromium's own sandbox needs rights that a container's root has not.
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            pages = {}
            for name, (width, height) in SIZES.items():
                size: Any = {"width": width, "height": height}
                context = browser.new_context(viewport=size, has_touch=True, is_mobile=width < 600)
                pages[name] = page = context.new_page()
                page.goto(addresses[0])
                for slant in (0.0, 0.25):
                    for digit in DIGITS:
                        draw(page, digit, slant=slant)
                page.locator("#join").click()
            for name, page in pages.items():
                _wait_for_end(page)
                page.screenshot(path=out / f"{name}.png", full_page=True)
                click.echo(f"{page.locator('#ledger').inner_text()}: {out / name}.png")
            browser.close()
        processes.wait_for_server(WAIT_S)


def _wait_for_end(page: Any) -> None:
    until_s = time.monotonic() + WAIT_S
    while "are done" not in (said := page.locator("#says").inner_text()):
        if time.monotonic() > until_s:
            raise FeatherfedError(f"the page still says {said!r} after {WAIT_S:g} s")
        page.wait_for_timeout(100)
