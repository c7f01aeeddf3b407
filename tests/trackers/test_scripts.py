"""As people run it: plain scripts in a process of their own, and places that cannot be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import layerfreq

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[2]
WANDB = """
import sys, warnings
import torch
from torch import nn
from layerfreq import Monitor
from layerfreq.trackers.wandb import WandB

class Run:
    def __init__(self): self.logged = []
    def define_metric(self, *names, **options): pass
    def log(self, what): self.logged.append(what)

run = Run()
tracker = WandB(run)
if "broken" in sys.argv:
    import matplotlib.figure
    def fail(*_, **__): raise RuntimeError("no fonts")
    matplotlib.figure.Figure.savefig = fail
x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    with Monitor(model, x, (x[:, 0] > 0).long(), trackers=[tracker], inv_delta=[0.1, 1.0, 10.0]) as monitor:
        for step in range(3):
            monitor.measure(step)
print("matplotlib.pyplot" in sys.modules)
print([one["layerfreq/step"] for one in run.logged])
print(all(isinstance(one["layerfreq/floor/1"], float) for one in run.logged))
print(["layerfreq/layers" in one for one in run.logged])
print(sum("WandB gets only numbers, no figure (no fonts)" in str(one.message) for one in said))
"""


def ran(*arguments, **options):
    options = {"cwd": HERE, **options}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("drawn", [True, False], ids=["drawn", "broken"])
def test_weights_and_biases_gets_numbers_from_a_plain_script(drawn, tmp_path):
    """Nobody has imported pyplot; a figure that cannot be drawn costs a warning, once, and no number."""
    pytest.importorskip("wandb")
    (tmp_path / "script.py").write_text(WANDB)
    source = Path(layerfreq.__file__).parents[1]
    home = {**os.environ, "PYTHONPATH": str(source)}
    said = ran(tmp_path / "script.py", *([] if drawn else ["broken"]), env=home, cwd=tmp_path)
    assert said == ["False", "[0, 1, 2]", "True", str([drawn] * 3), str(int(not drawn))]


CACHE = """
import numpy as np
from layerfreq.engines.cpu import kernels
from layerfreq.measure.measure import spectrum
x = np.random.default_rng(0).standard_normal((90, 3))
y = (x[:, 0] > 0).astype(int)
one, two = (spectrum(x, y, [0.1, 1.0, 10.0], engine=engine) for engine in ("cpu", "reference"))
print(float(abs(one.lfr - two.lfr).max()) < 1e-6)
print(kernels.__file__)
"""


@pytest.mark.parametrize("named", [False, True])
def test_a_package_and_a_home_that_cannot_be_written_cost_no_number(named, tmp_path):
    """Files stand where folders would be made, which stops the owner of everything too."""
    package = tmp_path / "site" / "layerfreq"
    shutil.copytree(Path(layerfreq.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "engines" / "__pycache__").write_text("no folder")
    (tmp_path / "home").write_text("no folder")
    home = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "XDG", "PYTHONPATH"))}
    home |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    home |= {"NUMBA_CACHE_DIR": str(tmp_path / "cache")} if named else {}
    right, file = ran("-c", CACHE, env=home, cwd=tmp_path)
    assert right == "True"
    assert file.startswith(str(package))
    assert (tmp_path / "cache").is_dir() == named
