"""The layers are the same list by every way in, whatever the order of the points and whatever the head's bias."""

import random
from types import SimpleNamespace

import pytest
import torch

from layerfreq import Monitor, hidden_layers, layer_spectra
from layerfreq.inspection.modules import inspect_model
from layerfreq.loading.datasets import in_batches
from layerfreq.network.find import plan
from tests.helpers.styles import N, Net, fc
from tests.network.test_styles import ALL, drawn, turned

CHOSEN = ["BERT, padded", "inline residuals", "sine network, inline", "two inputs", "GRU, read at h_n",
          "encoder, padding mask, mean of tokens", "fresh inverted residuals", "graph network, adjacency"]  # fmt: skip
Y = torch.arange(N) % 3
OPTIONS = {"inv_delta": [0.1, 1.0]}


def by_lightning(model, inputs, targets, **options):
    """What the Lightning callback measures, told of a training's beginning."""
    pytest.importorskip("lightning")
    from layerfreq.integrations.lightning import LayerSpectraCallback

    callback = LayerSpectraCallback(inputs, targets, **OPTIONS, **options)
    trainer = SimpleNamespace(
        fast_dev_run=False,
        global_step=0,
        loggers=[],
        callback_metrics={},
        precision_plugin=SimpleNamespace(convert_input=lambda x: x),
    )
    callback.on_train_start(trainer, model)
    found = callback.monitor.layers
    callback.on_train_end(trainer, model)
    return found


def by_transformers(model, inputs, targets, **options):
    """What the Hugging Face callback measures, told of a training's beginning."""
    pytest.importorskip("transformers")
    from layerfreq.integrations.transformers import LayerSpectraCallback

    callback = LayerSpectraCallback(inputs, targets, **OPTIONS, **options)
    state = SimpleNamespace(stateful_callbacks={}, global_step=0)
    callback.on_train_begin(None, state, None, model=model)
    found = callback.monitor.layers
    callback.on_train_end(None, state, None)
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CHOSEN)
def test_every_way_in_finds_the_same(name):
    style = next(style for style in ALL if style.name == name)
    model, inputs = drawn(style)
    head = [m for m in model.modules() if isinstance(getattr(m, "bias", None), torch.nn.Parameter)][-1]
    drawing = random.Random(name)
    for bias in (0.0, drawing.uniform(-1e5, 1e5)):
        torch.nn.init.constant_(head.bias, bias)
        order = torch.tensor(drawing.sample(range(N), N))
        x, y = turned(inputs, order), Y[order]
        assert hidden_layers(model, x) == style.cuts
        spectra = layer_spectra(model, x, y, **OPTIONS)
        assert list(spectra) == style.cuts
        assert set(style.holds) <= set(spectra.refused)
        assert Monitor(model, x, y, **OPTIONS).layers == style.cuts
        assert by_lightning(model, x, y) == style.cuts
        assert by_transformers(model, x, y) == style.cuts
        # `doctor` and `analyze` ask these two.
        assert [one.name for one in inspect_model(model, x, N) if not one.reason] == style.cuts
        assert [cut.name for cut in plan(model, in_batches(x, y, 256), None).layers] == style.cuts


@pytest.mark.parametrize("by", [by_lightning, by_transformers])
@pytest.mark.parametrize("form", ["tensor", "data set"])
def test_callbacks_run_the_model_on_all_points_at_once(by, form):
    n = 1100  # more than are run at once otherwise

    def run(m, x):
        assert len(x) == n
        return m.head(torch.relu(m.body(x - x.mean(dim=0))))

    model, x, y = Net(run, body=fc(2, 3), head=fc(3, 2)), torch.randn(n, 2), torch.arange(n) % 2
    given = (x, y) if form == "tensor" else (torch.utils.data.TensorDataset(x, y), None)
    assert by(model, *given, layers="body", whole=True, rows=20) == ["body"]
