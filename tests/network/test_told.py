"""Warnings point at the user's own line, and advise what there is."""

import warnings

import pytest
import torch
from torch import nn

from layerfreq import Monitor, hidden_layers, layer_features, layer_spectra
from layerfreq.errors import LayerWarning
from layerfreq.inspection.modules import inspect_model

X, Y = torch.randn(30, 5, 4), torch.arange(30) % 3


class Last(nn.Module):
    """Reads one of a recurrent module's layers, or one token of its output."""

    def __init__(self, state):
        super().__init__()
        self.rnn, self.head, self.state = nn.GRU(4, 8, 2, batch_first=True), nn.Linear(8, 3), state

    def forward(self, x):
        tokens, state = self.rnn(x)
        return self.head(state[-1] if self.state else tokens[:, 0])


WAYS = {
    "hidden_layers": lambda net: hidden_layers(net, X),
    "layer_features": lambda net: layer_features(net, X),
    "layer_spectra": lambda net: layer_spectra(net, X, Y),
    "Monitor": lambda net: Monitor(net, X, Y),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", [True, False])
def test_a_head_that_reads_a_part_is_told_at_the_callers_line(way, state):
    with pytest.warns(UserWarning, match="reads a part of it") as caught:
        WAYS[way](Last(state))
    (told,) = [one for one in caught if "reads a part" in str(one.message)]
    assert told.filename == __file__
    assert ("'cls'" in str(told.message)) is not state
    assert ("state[:, 1:2]" in str(told.message)) is state


@pytest.mark.parametrize(
    ("state", "reading"), [(True, {"rnn.h_n": lambda h: h[:, -1]}), (False, "cls"), (False, {"rnn": "last"})]
)
def test_a_reading_that_is_given_is_not_advised(state, reading):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = layer_features(Last(state), X, reading=reading)
    assert [features.shape for features in found.values()] == [(30, 8)]


def test_doctor_lists_what_others_warn_of_and_tells_what_it_does_not_list():
    class Averaged(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(torch.relu(self.first(x - x.mean(dim=0))))

    with pytest.warns(UserWarning, match="change with the other points of a batch") as caught:
        inspect_model(Averaged(), torch.randn(30, 4), 30)
    assert not [one for one in caught if one.category is LayerWarning]
    with warnings.catch_warnings():
        warnings.simplefilter("error", LayerWarning)
        inspect_model(Last(False), X, 30)
    with pytest.warns(LayerWarning, match="reads a part of it"):
        hidden_layers(Last(False), X)
