"""What a report costs: making it, its size, its first paint, and a step of its slider, in headless Chromium.

python benchmarks/report.py [--layers 100] [--steps 200] [--cutoffs 97] [--width 1440]
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import sync_playwright

from layerfreq import Run

STEP = """
async (at) => {
  const slider = document.getElementById('step'), begun = performance.now();
  slider.value = at;
  slider.dispatchEvent(new Event('input', { bubbles: true }));
  await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - begun;
}
"""  # until the frame after the input is drawn, style and layout included


def grow(path, layers, steps, cutoffs):
    """A run of noisy sigmoids over log2(1/delta) whose medians move with layer and step; maxabs has its own."""
    run, rng = Run.create(path, {"made": "for benchmarks/report.py"}), np.random.default_rng(0)
    names = [f"block{i // 4}.{('attn', 'norm', 'mlp', 'out')[i % 4]}" for i in range(layers)]
    for step in range(steps):
        frames = []
        for depth, name in enumerate(names, start=1):
            for scales in ({"raw": 1.0, "rms": 3.0}, {"maxabs": 1.0}):
                x = np.linspace(-8, 8, cutoffs) + rng.normal(0, 0.1)
                middle = 2 - 4 * step / steps * depth / layers
                kept = 1 / (1 + np.exp(-(x - middle) * (1 + 0.05 * rng.normal())))
                lfr, u = 0.1 + 0.9 * kept, 2**x
                rdf = 0.9 * kept * (1 - kept) / (u * np.log(2)) * (1 + 0.001 * rng.normal(size=cutoffs))
                common = {"layer": name, "depth": depth, "lfr": lfr, "stderr": 0.0}
                common |= {"chance": 0.1 + 0.9 / (1 + np.exp(5 - x)), "neighbours": 1 + 999 / (1 + np.exp(x + 2))}
                frames += [
                    pd.DataFrame({**common, "scale": scale, "inv_delta": u * factor, "rdf": rdf / factor})
                    for scale, factor in scales.items()
                ]
        frame = pd.concat(frames, ignore_index=True)
        frame.attrs = {"n": 1000, "rows": 1000, "floor": 0.1}
        run.write_spectra(10 * step, frame)
        run.log(10 * step, loss=2.3 * np.exp(-3 * step / steps), accuracy=1 - 0.9 * np.exp(-3 * step / steps))
    run.flush()
    return run


def main():
    options = argparse.ArgumentParser(description=__doc__)
    for name, usual in {"layers": 100, "steps": 200, "cutoffs": 97, "width": 1440, "moves": 60}.items():
        options.add_argument(f"--{name}", type=int, default=usual)
    options.add_argument("--run", help="an existing run instead")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(asked.run) if asked.run else grow(Path(folder) / "run", asked.layers, asked.steps, asked.cutoffs)
        begun, computed = time.perf_counter(), time.process_time()
        path = run.report(Path(folder) / "report.html")
        print(
            f"making it: {time.perf_counter() - begun:.1f} s ({time.process_time() - computed:.1f} s of a core); "
            f"size: {path.stat().st_size / 1e6:.2f} MB"
        )
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for every in (False, True):
                page = browser.new_page(viewport={"width": asked.width, "height": 900})
                page.goto(path.as_uri())
                page.wait_for_selector("html[data-ready]", timeout=60000)
                paints = "performance.getEntriesByType('paint').map(e => [e.name, Math.round(e.startTime)])"
                ready = page.evaluate("Math.round(performance.getEntriesByName('ready')[0].startTime)")
                if every:
                    page.locator("#all").check()
                    page.wait_for_timeout(500)
                last = int(page.locator("#step").get_attribute("max"))
                took = [page.evaluate(STEP, i * 7 % (last + 1)) for i in range(asked.moves + 5)][5:]
                print(
                    f"{'every layer' if every else 'as opened'}: paint {page.evaluate(paints)} ms, "
                    f"figures after {ready} ms, slider step median {statistics.median(took):.0f} ms, "
                    f"p95 {np.quantile(took, 0.95):.0f} ms"
                )
                page.close()
            browser.close()


if __name__ == "__main__":
    main()
