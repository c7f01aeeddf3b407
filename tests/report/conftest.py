"""Runs in closed form, and a browser without a network to look at their reports."""

import shutil

import numpy as np
import pandas as pd
import pytest

from layerfreq import Run
from layerfreq.measure.result import Spectrum

CHROMIUM = shutil.which("chromium")
FACTOR = 3.0  # from raw to rms scale
OTHER = 1.7  # of the waves at maxabs scale, which is another measurement


def spectrum(k, scale="raw", cutoffs=60):
    """The spectrum of a balanced target (floor 0.1) that is a wave of frequency k; chance rises at k = 30."""
    factor, k = FACTOR if scale == "rms" else 1.0, k * OTHER if scale == "maxabs" else k
    u = np.geomspace(0.02, 5000, cutoffs)
    lfr, chance = 0.1 + 0.9 * np.exp(-(k**2) / u), 0.1 + 0.9 * np.exp(-900 / u)
    rest = {"stderr": None, "n": 500, "d": 2, "rows": 200, "scale": scale, "floor": 0.1, "spread": 1.0, "engine": ""}
    rdf = 0.9 * k**2 / u**2 * np.exp(-(k**2) / u)
    curves = {"lfr": lfr, "rdf": rdf / factor, "chance": chance, "neighbours": 1 + 600 / u}
    return Spectrum(inv_delta=u * factor, **curves, **rest)


def frequency(step, depth):
    """What the layers of these runs still have to learn: deeper is lower, the more so the later."""
    return 6.0 / (1 + depth * step / 20)


def measure(run, step, layers, refused=None, scales=("raw", "rms")):
    parts = [
        spectrum(frequency(step, depth), scale).to_frame().assign(layer=name, depth=depth, scale=scale)
        for depth, name in enumerate(layers, start=1)
        for scale in scales
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame.attrs = {"n": 500, "rows": 200, "floor": 0.1, "refused": refused or {}}
    run.write_spectra(step, frame)


def make(path, layers=("a", "b", "c"), steps=(0, 10, 20, 30), metrics=True, config=None, **options):
    """A run whose layers are measured at these steps; loss and accuracy every second step."""
    run = Run.create(path, {"hidden_layers": len(layers), **(config or {})})
    for step in steps:
        measure(run, step, layers, **options)
    if metrics:
        for step in range(0, max(steps, default=0) + 1, 2):
            run.log(step, loss=2 * 0.9**step, accuracy=1 - 0.9 * 0.9**step)
        run.flush()
    return run


def until(page, condition):
    """Wait for a condition; the page's policy lets no script be made of text, so it is asked again and again."""
    for _ in range(400):
        if page.evaluate(f"Boolean({condition})"):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never: {condition}")


def at_step(page, *words):
    """Wait until the page says that it shows a step, in one of these words; a page draws at its next frame."""
    for _ in range(400):
        said = page.locator("#now").inner_text()
        if said.startswith(words):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never one of {words}, but {said!r}")


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as play:
        one = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture
def see(browser):
    """Open a report from disk, with no network; at the end nothing was asked for and nothing went wrong."""
    contexts, wrong = [], []

    def open_page(path, width=1440, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(20000)
        context.set_offline(True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else wrong.append(asked.url),
        )
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
