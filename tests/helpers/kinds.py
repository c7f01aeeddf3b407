"""Models of few lines for the tests of layer kinds, and the hook of our own that features are held to."""

import warnings

import pytest
import torch

from layerfreq import hidden_layers, layer_features, layer_spectra

N, T, D = 9, 5, 8


def kind(name, verdict="works", note=""):
    return pytest.mark.compatibility("layer kind", name, verdict, note)


def first(output):
    """The tensor that is meant by a layer's output."""
    if isinstance(output, torch.Tensor):
        return output
    return first(output[0] if isinstance(output, tuple) else next(iter(vars(output).values())))


def seen(model, layer, inputs, number=1):
    """What a hook of our own sees the layer return in eval mode, at the k-th call."""
    found = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, a, out: found.append(first(out).clone()))
    with torch.no_grad():
        model.eval()(inputs)
    handle.remove()
    return found[number - 1].flatten(1)


def check(model, inputs, layer, cuts=None, number=None):
    """The features of a layer are those of the hook, in train mode too, and spectra come of them."""
    name = layer if number is None else f"{layer}:{number}"
    expected = seen(model, layer, inputs, number or 1)
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(layer_features(model, inputs, name)[name], expected, rtol=1e-5, atol=1e-6)
        spectra = layer_spectra(model, inputs, torch.arange(N) % 3, name, inv_delta=[0.1, 1.0])
        if cuts is not None:
            assert hidden_layers(model, inputs) == cuts
    assert spectra[name].n == N
    assert model.training


def flat():
    return torch.randn(N, D)


def sequence():
    return torch.randn(N, T, D)


def image():
    return torch.randn(N, 3, 6, 6)
