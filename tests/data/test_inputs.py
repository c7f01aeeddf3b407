"""Inputs in every shape that people hold them in come out as the same batches."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from layerfreq import layer_spectra
from layerfreq.data.inputs import BATCH, batches, call, count, is_loader, map_tensors
from tests.helpers.refusals import Code, refuses

N = BATCH + 37
X, Y = torch.arange(N * 3.0).reshape(N, 3), torch.arange(N) % 5
Pair = namedtuple("Pair", "ids mask")


def joined(inputs, targets=None):
    """All batches in one piece again."""
    parts = list(batches(inputs, targets))
    ys = None if parts[0][1] is None else torch.cat([torch.as_tensor(y) for _, y in parts])
    return torch.cat([x for x, _ in parts]), ys


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        (X, Y),
        (X.numpy(), Y.numpy()),
        (X.tolist(), Y.tolist()),
        (DataLoader(TensorDataset(X, Y), batch_size=100), None),
        ([(X[:9], Y[:9]), (X[9:], Y[9:])], None),
        (((X[i : i + 64], Y[i : i + 64]) for i in range(0, N, 64)), None),
    ],
    ids=["tensor", "array", "list", "loader", "list of batches", "generator"],
)
def test_every_shape_gives_the_same_points(inputs, targets):
    x, y = joined(inputs, targets)
    assert torch.equal(x, X)
    assert torch.equal(y, Y)


def test_read_only_arrays_are_taken_without_a_warning(recwarn):
    frozen = X.numpy().copy()
    frozen.flags.writeable = False
    assert torch.equal(joined(frozen)[0], X)
    assert not recwarn.list


@pytest.mark.parametrize("kind", [dict, tuple, Pair])
def test_structures_are_cut_together_and_keep_their_kind(kind):
    side, shared = torch.arange(N), torch.tensor([1.0, 2.0])
    inputs = {"x": X, "side": side, "shared": shared} if kind is dict else (X, side) if kind is tuple else Pair(X, side)
    assert count(inputs) == N
    parts = [part for part, _ in batches(inputs)]
    assert [count(part) for part in parts] == [BATCH, N - BATCH]
    assert all(type(part) is type(inputs) for part in parts)
    get = (lambda part, at: part[("x", "side")[at]]) if kind is dict else (lambda part, at: part[at])
    assert torch.equal(torch.cat([get(part, 0) for part in parts]), X)
    assert torch.equal(torch.cat([get(part, 1) for part in parts]), side)
    if kind is dict:
        assert all(torch.equal(part["shared"], shared) for part in parts)  # not one per point: handed on whole


def test_a_model_is_called_as_its_user_calls_it():
    class Two(torch.nn.Module):
        def forward(self, a, b):
            return a - b

    a, b = torch.ones(2), torch.zeros(2)
    for inputs in ({"b": b, "a": a}, (a, b), [a, b]):
        assert torch.equal(call(Two(), inputs), a)
    assert torch.equal(call(torch.nn.Identity(), a), a)


def test_only_tensors_are_mapped():
    changed = map_tensors(lambda t: t + 1, {"x": torch.zeros(1), "name": "kept", "more": [torch.ones(1), None]})
    assert changed == {"x": torch.ones(1), "name": "kept", "more": [torch.full((1,), 2.0), None]}


def test_loaders_are_told_from_single_batches():
    assert is_loader(DataLoader(TensorDataset(X, Y)))
    assert is_loader([(X, Y)])
    assert is_loader(iter([(X, Y)]))
    assert not any(is_loader(inputs) for inputs in (X, X.numpy(), (X, Y), {"x": X}, [X, X, X], [[1.0, 2.0, 3.0]]))


@pytest.mark.parametrize(
    ("inputs", "targets", "words"),
    [
        ([(X, Y)], Y, ("targets", Code.CONFLICT)),
        (iter([]), None, ("inputs", Code.EMPTY)),
        (iter([X]), None, ("inputs", Code.EMPTY)),
        (X[:0], None, ("inputs", Code.EMPTY)),
        (X, Y[:-1], ("targets", Code.SHAPE)),
        (np.array(["a", "b"]), None, ("inputs", Code.VALUE)),
        (["a", "b"], None, ("inputs", Code.VALUE)),
        ({"name": "text"}, None, ("inputs", Code.VALUE)),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(inputs, targets, words):
    with refuses(*words):
        list(batches(inputs, targets))


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (
            torch.nn.Linear(3, 2).bfloat16(),
            X[:5],
            ("float32 (5, 3)", "RuntimeError", "its parameters are torch.bfloat16"),
        ),
        (torch.nn.Linear(3, 2), X[:5, :2], ("float32 (5, 2)", "RuntimeError")),
        (torch.nn.Linear(3, 2), {"x": X[:5]}, ("float32 (5, 3)", "TypeError")),
        (torch.nn.Embedding(4, 2), X[:5].long(), ("int64 (5, 3)", "IndexError")),
    ],
)
def test_a_model_that_does_not_run_on_the_inputs_is_one_line(model, inputs, words):
    with refuses("inputs", Code.FAILED, "nor on the first 4 of these points", *words) as caught:
        layer_spectra(model, inputs, Y[:5], [""])
    assert caught.value.__cause__ is not None  # the model's own error, with its traceback
