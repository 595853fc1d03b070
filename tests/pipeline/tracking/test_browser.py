"""MLflow's pages and the report in a real browser: Chromium, driven by Playwright.

They are skipped where either is missing: `make outside` installs the driver, `apt-get install
chromium` the browser. `IGQ_SCREENSHOTS` names a folder for pictures of every page.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection, create_server
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

import pipeline
from pipeline.commands.artifacts.register import Registered, register
from pipeline.commands.studies.report import report
from pipeline.tracking import sqlite_uri
from pipeline.tracking.server import pages
from pipeline.tracking.store import find_study

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: see `make outside`")
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu"),
    *("--disable-background-networking", "--no-first-run"),
]
PATIENCE = 60_000
"""Milliseconds that a page may take; MLflow's are large."""
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
"""As on each visit but the first, on which MLflow opens its assistant beside the page."""
DESKTOP, TELEPHONE = {"width": 1400, "height": 1000}, {"width": 390, "height": 844}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
    pytest.mark.timeout(600),
]


@dataclass(frozen=True)
class Site:
    """A server on the store of a study, and the addresses of its pages."""

    base: str
    study: Path
    own: str
    trials: str
    plots: str
    registered: Registered


@pytest.fixture(scope="module")
def site(recorded_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    made = pipeline.export(recorded_study, folder / "artifact").path
    registered = register(recorded_study, made, "shown")
    key = pipeline.open(recorded_study).study.definition.key
    found = find_study(sqlite_uri(recorded_study), key)
    assert found is not None
    with create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", sqlite_uri(recorded_study)]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(port)
            base = f"http://127.0.0.1:{port}"
            yield Site(base, recorded_study, *pages(base, *found), registered)
        finally:  # or else leaving the block would wait for a server that nobody ends
            server.terminate()


def wait_for(port: int) -> None:
    end = time.monotonic() + 500
    while time.monotonic() < end:
        try:
            return create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"nothing listens at {port}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(NO_ASSISTANT)
    opened = context.new_page()
    yield opened
    picture(opened, request.node.name)
    context.close()


def picture(page: Any, name: str) -> None:
    if folder := os.environ.get("IGQ_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{re.sub(r'[^a-z0-9]+', '_', name)}.png"))


def test_the_study_s_page_shows_its_result(page: Any, site: Site) -> None:
    page.goto(site.own)
    page.get_by_text("images that the search did not see").first.wait_for()
    text = page.inner_text("body")
    for said in ("vit_tiny w4a4", "best minus this", "igq export", "report.html", "Child runs"):
        assert said in text
    assert page.get_by_text("Finished").count() == 1


def test_trials_are_sorted_by_kl(page: Any, site: Site) -> None:
    page.goto(site.trials)
    page.get_by_text(re.compile(r"^\d{4} \w+ KL")).first.wait_for()
    names = page.get_by_text(re.compile(r"^\d{4} \w+ KL [\d.]+$")).all_inner_texts()
    kls = [float(name.rpartition(" ")[2]) for name in names]
    assert len(kls) > 5
    assert kls == sorted(kls)


def experiment_of(site: Site) -> str:
    return site.own.partition("/experiments/")[2].partition("/")[0]


def test_the_trials_page_has_the_columns_that_tell(page: Any, site: Site) -> None:
    page.goto(site.trials)
    page.get_by_text(re.compile(r"^\d{4} \w+ KL")).first.wait_for()
    heads = [head.strip() for head in page.locator(".ag-header-cell").all_inner_texts()]
    told = [head for head in heads if head not in ("", "Created")]
    assert told[:4] == ["Run Name", "kl", "bops", "origin"]
    assert "groups_by_depth.1_first" in told
    for head in page.locator(".ag-header-cell span").filter(has_text="groups_by_").all():
        assert head.evaluate("element => element.scrollWidth - element.clientWidth") <= 0


def test_plots_of_all_trials_are_filled_and_coloured_by_kl(page: Any, site: Site) -> None:
    page.goto(site.plots)
    page.get_by_text("Parallel Coordinates").first.wait_for()
    page.get_by_text("groups_by_depth.1_first").first.wait_for()
    axes = page.locator("svg text").all_text_contents()
    assert any(axis.startswith("groups") and axis.endswith("fc1") for axis in axes), axes
    assert axes.count("kl") == 2
    assert page.get_by_text("No data").count() == 0


def test_ten_trials_are_compared_in_a_filled_parallel_coordinates_plot(
    page: Any, site: Site
) -> None:
    client, experiment = MlflowClient(sqlite_uri(site.study)), experiment_of(site)
    children = client.search_runs([experiment], "tags.`igq.trial` != ''", max_results=10)
    runs = quote(json.dumps([run.info.run_id for run in children]))
    within = quote(json.dumps([experiment]))
    page.goto(f"{site.base}/#/compare-runs?runs={runs}&experiments={within}")
    page.get_by_text("Comparing 10 Runs").first.wait_for()
    plot = page.locator("svg .parcoords, g.parcoords").first
    plot.wait_for(state="attached")
    named = page.locator(".axis-title").all_text_contents()
    assert [name for name in named if name.startswith("groups_by_")], named
    assert page.locator("g.y-axis, .parcoords .axis").count() >= 4


def test_the_model_s_page_has_its_alias_its_study_and_the_reason(page: Any, site: Site) -> None:
    page.goto(f"{site.base}/#/models/shown/versions/{site.registered.version}")
    page.get_by_text("igq.trial").first.wait_for()
    text = page.inner_text("body")
    for said in ("champion", "vit_tiny w4a4", "Trial ", "BOPs", "igq.reason"):
        assert said in text


def test_a_figure_opens_inside_the_interface(page: Any, site: Site) -> None:
    own, _, training = site.own.partition("?")
    page.goto(f"{own}/artifacts/report.html?{training}")
    frame = page.frame_locator("iframe").first
    frame.get_by_text("How did the search go?").wait_for()
    title = frame.locator("svg title").filter(has_text=re.compile(r"trial \d+, \w+, KL")).first
    title.wait_for(state="attached")
    assert "Were the workers busy?" in frame.locator("body").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, TELEPHONE], ids=["desktop", "telephone"])
def test_the_report_reads_well_from_disk(
    browser: Any, recorded_study: Path, tmp_path: Path, scheme: str, size: dict[str, int]
) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
    page = context.new_page()
    path = report([recorded_study], tmp_path / "report.html")
    page.goto(path.as_uri())
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= size["width"], "the page itself does not scroll sideways"
    for table in page.locator(".facts").all():
        assert table.evaluate(WIDER) <= 0, "facts are wrapped, not out of sight"
    paper, ink = page.evaluate(
        "(() => {const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]})()"
    )
    assert (lightness(paper) < lightness(ink)) == (scheme == "dark")
    for box in page.locator("figure svg").all():
        assert lightness(box.locator("text").first.evaluate(FILL)) == lightness(ink)
        assert box.evaluate(HIDDEN) <= 0, "a figure is whole, on a telephone too"
    assert page.locator("figure").count() == page.locator("figcaption").count() >= 6
    if folder := os.environ.get("IGQ_SCREENSHOTS"):
        name = f"report_{scheme}_{size['width']}.png"
        page.screenshot(path=Path(folder, name), full_page=True)
    context.close()


HIDDEN = "element => element.clientWidth - element.parentElement.clientWidth"
WIDER = "element => element.firstChild.scrollWidth - element.firstChild.clientWidth"
FILL = "element => getComputedStyle(element).fill"


def lightness(colour: str) -> float:
    """The mean of red, green and blue in CSS's `rgb(...)`."""
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    return sum(parts) / 3
