"""`doctor` as a function: the same layers as `hidden_layers`, a table that fits 80 columns, and a part of it."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from layerfreq import doctor, hidden_layers
from layerfreq.errors import Refusal
from tests.helpers.refusals import Code, refuses

LONG = "a_layer_whose_name_is_as_long_as_those_of_transformers"


class Deep(nn.Module):
    """A residual network with names that take more than half of the width."""

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.spare = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(1, 1)
        self.blocks = nn.ModuleDict({LONG: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))})

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        return self.head(x + self.blocks[LONG](x))


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    return doctor(Deep(), torch.randn(30, 4), points=500, rows=100, scale=["raw", "maxabs"])


def test_it_names_what_is_measured_and_why_the_rest_is_not(found):
    assert found.measured == hidden_layers(Deep(), torch.randn(30, 4))
    assert set(found.measured) | set(found.refused) == {one.name for one in found.modules}
    assert set(found.measured).isdisjoint(found.refused)
    assert found.refused[f"blocks.{LONG}.1"] == Refusal.AROUND.short
    assert found.seconds == pytest.approx(sum(one.seconds for one in found.modules if one.name in found.measured))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_its_table_fits_the_terminal(found, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = repr(found).splitlines()
    assert max(map(len, lines)) <= width
    whole = "".join(line.split()[0] for line in lines if line.strip())
    assert width > 80 or LONG[:20] in whole
    said = " ".join(" ".join(lines).split())
    assert "500 points, 100 filter centres at maxabs and raw scale" in said
    for why in {one.refusal for one in found.modules if one.reason}:
        assert f"{why.short}: " in said


def test_a_part_of_it(found):
    part = found.only("blocks.*")
    assert set(part.to_frame()["name"]) == {one.name for one in found.modules if one.name.startswith("blocks.")}
    assert part.measured == found.measured
    assert set(found.only(show="measured").to_frame()["name"]) == set(found.measured)
    assert set(found.only(show="refused").to_frame()["name"]) == set(found.refused)
    assert "modules are shown" in " ".join(repr(part).split())
    assert "modules are shown" not in repr(found)
    for wrong, words in ((("stm",), "'stem'"), (("x.*",), "'x.*'")):
        with refuses("layers", Code.UNKNOWN, words):
            found.only(*wrong)
    with refuses("show", Code.UNKNOWN, "'some'"):
        found.only(show="some")


def test_as_a_frame_and_in_a_notebook(found):
    frame = found.to_frame()
    assert list(frame["name"]) == [one.name for one in found.modules]
    assert frame["measured"].sum() == len(found.measured)
    assert LONG in found._repr_html_()


def test_a_loader_does_as_well():
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.arange(30) % 2
    found = doctor(Deep(), DataLoader(TensorDataset(x, y), 10))
    assert found.measured == hidden_layers(Deep(), x)
    assert found.points == 2000


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"points": 1}, ("points", Code.VALUE)),
        ({"rows": 0}, ("rows", Code.VALUE)),
        ({"classes": 0}, ("classes", Code.VALUE)),
        ({"scale": "big"}, ("scale", Code.UNKNOWN)),
        ({"reading": "median"}, ("reading", Code.UNKNOWN)),
        ({"memory": "much"}, ("memory", Code.VALUE)),
    ],
)
def test_bad_arguments_are_one_line(wrong, words):
    with refuses(*words):
        doctor(Deep(), torch.randn(3, 4), **wrong)
