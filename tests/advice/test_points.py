"""Features that differ by rounding alone are nothing to a head; all others are kept, whatever stands beside them."""

import pytest
import torch
from torch import nn

from layerfreq.advice.points import see
from layerfreq.network.find import plan
from tests.helpers.refusals import Code, refuses

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 2


class Shown(nn.Module):
    """A layer that is a function of the inputs, below a head."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def seen(function, **options):
    """Features of a layer, and what was made of them."""
    torch.manual_seed(0)
    model = nn.Sequential(Shown(function), nn.LazyLinear(2))
    model(X)
    cuts = plan(model, X, ["0"], None, "flatten").layers
    return function(X), see(model, X, Y, cuts, **options).features["0"]


@pytest.mark.parametrize(
    ("function", "kept"),
    [
        (torch.tanh, True),
        (lambda x: 1 + 1e-7 * x, False),
        (lambda x: torch.cat([torch.full_like(x, 1e7), 0.1 * x], dim=1), True),  # whose rounding is not that of 1e7
        (lambda x: torch.cat([1e7 * (1 + 1e-7 * x), 0.1 * x], dim=1), False),
        (lambda x: torch.full_like(x, 0.1), True),  # nothing either way
    ],
    ids=["plain", "rounding", "beside a large constant", "beside a large number's rounding", "constant"],
)
def test_features_are_kept_unless_they_differ_by_rounding_alone(function, kept):
    given, found = seen(function)
    torch.testing.assert_close(found, given if kept else torch.zeros_like(given), rtol=0, atol=0)


def test_features_that_are_not_finite_are_refused_by_name():
    with refuses("features", Code.NOT_FINITE, "layer '0'"):
        seen(torch.log, own=False)
