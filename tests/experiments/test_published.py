"""The published curves as data: the peaks, hidden points and sums found when they were digitised."""

import numpy as np
import pytest

from layerfreq.experiments.figures import published
from layerfreq.experiments.figures.comparison import summit
from tests.helpers.refusals import Code, refuses

# Place and height of each peak, refined by a parabola, and the number of hidden points: found by those who digitised
# the figures, with code of their own, to four digits.
PEAKS = """
mnist 0 layer1 .26 3.165 0 layer2 .2788 3.094 0 layer3 .2946 2.94 0 layer4 .3101 2.769 0 layer5 .3204 2.665 6
mnist 200 layer1 .2575 3.02 0 layer2 .2754 2.728 0 layer3 .2825 2.368 0 layer4 .1684 2.148 0 layer5 .1659 2.003 2
mnist 400 layer1 .2476 2.881 0 layer2 .153 2.656 0 layer3 .1213 2.864 0 layer4 .104 3.013 0 layer5 .1016 2.871 0
mnist 600 layer1 .2328 2.805 0 layer2 .131 2.898 0 layer3 .1014 3.35 0 layer4 .08453 3.657 0 layer5 .07986 3.595 0
mnist 800 layer1 .2102 2.761 0 layer2 .1194 3.097 0 layer3 .08878 3.728 0 layer4 .07449 4.152 0 layer5 .06971 4.133 0
r18_rdf 0 Resnet18-1 2.263 .2609 15 Resnet18-2 1.006 .6043 10 Resnet18-3 .8379 .8192 20 Resnet18-4 .8095 .8877 10
r18_rdf 1 Resnet18-1 .6162 .02576 16 Resnet18-2 .9753 .00951 20 Resnet18-3 1.05 .01289 22 Resnet18-4 8.3 .0666 16
r18_rdf 2 Resnet18-1 1.118 .02746 18 Resnet18-2 11.65 .04057 25 Resnet18-3 20 .01894 22 Resnet18-4 8.745 .06812 15
r18_rdf 15 Resnet18-1 1.48 .1779 17 Resnet18-2 3.359 .0751 23 Resnet18-3 14.31 .04059 29 Resnet18-4 10.54 .06966 25
r18_rdf 80 Resnet18-1 1.448 .277 16 Resnet18-2 3.381 .09054 22 Resnet18-3 12.22 .0486 26 Resnet18-4 12.85 .04987 0
"""
CASES = [line.replace("mnist ", "mnist_rdf ").split() for line in PEAKS.strip().splitlines()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_peaks_and_hidden_points_are_those_found_when_digitising(case):
    panel = published.panel(case[0], f"epoch{case[1]}")
    told = np.array(case[2:]).reshape(-1, 4)
    assert list(panel.lines) == told[:, 0].tolist()
    for name, *numbers in told:
        line, (place, height, hidden) = panel.lines[name], map(float, numbers)
        assert summit(line.x, line.y) == (pytest.approx(place, rel=5e-4), pytest.approx(height, rel=5e-4))
        assert line.hidden.sum() == hidden


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_the_cutoffs_are_those_of_the_figures(case):
    panel = published.panel(case[0], f"epoch{case[1]}")
    for line in panel.lines.values():
        np.testing.assert_allclose(panel.x, line.x, rtol=1e-5)  # six digits are kept
    delta = 1 / panel.edges
    ends = (1, 30) if case[0] == published.MNIST else (0.1 if case[1] == "0" else 0.02, 50)
    assert (delta.min(), delta.max()) == pytest.approx(ends)


@pytest.mark.parametrize("epoch", [0, 200, 400])
def test_lfr_rises_from_a_tenth_to_one(epoch):
    """Ten balanced classes: a triangle below the first cutoff and the sum over cells are 0.9 together."""
    panel = published.panel(published.MNIST, f"epoch{epoch}")
    for line in panel.lines.values():
        rise = np.diff(panel.edges) @ line.y + line.y[0] * panel.edges[0] / 2
        assert rise == pytest.approx(0.9, abs=0.008)


@pytest.mark.parametrize("k", [1, 5, 9, 13])
def test_the_sines_are_near_their_closed_form(k):
    """LFR = exp(-(k pi)^2 delta), to what their sampling leaves; and their RDF is the quotient of their LFR."""
    lfr, rdf = (published.panel(published.SINE, name) for name in ("LFR", "RDF"))
    exact = np.exp(-((k * np.pi) ** 2) / lfr.edges)
    np.testing.assert_allclose(lfr.lines[f"k={k}"].y, exact, atol=0.03)
    quotient = np.diff(lfr.lines[f"k={k}"].y) / np.diff(lfr.edges)
    inner = rdf.x >= 250
    np.testing.assert_allclose(rdf.x, rdf.lines[f"k={k}"].x, rtol=1e-5)
    np.testing.assert_allclose((quotient / quotient.max())[inner], rdf.lines[f"k={k}"].y[inner], atol=0.01)


def test_accuracies_and_steps():
    val, train = (published.panel(published.ACCURACY, name).lines for name in ("val", "train"))
    for variant, told in zip(range(1, 5), (0.889, 0.868, 0.814, 0.711), strict=True):
        line = val[f"Resnet18-{variant}"]
        np.testing.assert_array_equal(line.x, np.arange(80))
        assert line.y[-1] == pytest.approx(told, abs=6e-4)
        assert train[f"Resnet18-{variant}"].y[-1] == pytest.approx(1, abs=1e-3)
    steps = published.panel(published.DEPTH, "steps_vs_depth").lines["step"]
    assert steps.x.tolist() == [3, 4, 5, 6, 7]
    assert steps.y.tolist() == [13456, 9933, 8124, 7046, 6007]


@pytest.mark.parametrize(
    ("figure", "name", "word"),
    [("mnist", "epoch0", ("figure", Code.UNKNOWN)), ("r18_rdf", "epoch3", ("name", Code.UNKNOWN))],
)
def test_unknown_panels_are_refused_in_a_line(figure, name, word):
    with refuses(*word):
        published.panel(figure, name)
