"""The probe set's shapes, and that the ranks' parts are the whole."""

import sys

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from layerfreq import layer_spectra
from layerfreq.data.inputs import batches
from layerfreq.integrations.probe import probe_set
from tests.helpers.refusals import Code, refuses
from tests.integrations.training import X, Y

DATA = TensorDataset(X, Y)
DICTS = [{"x": x, "labels": y} for x, y in zip(X.split(7), Y.split(7), strict=True)]


def points(inputs, targets):
    """All points of a probe set, as (point, target) pairs."""
    pairs = []
    for x, y in batches(inputs, targets):
        x = x["x"] if isinstance(x, dict) else x
        pairs += list(zip(map(tuple, x.tolist()), y.tolist(), strict=True))
    return pairs


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("inputs", "targets", "ordered"),
    [
        (X, Y, True),
        ({"x": X}, Y, True),
        (DATA, None, True),
        (DataLoader(DATA, 7), None, False),
        (list(zip(X.split(7), Y.split(7), strict=True)), None, False),
        (DataLoader(DICTS, None), None, False),
    ],
    ids=["tensor", "dict", "data set", "loader", "list", "loader of dicts"],
)
def test_parts_are_the_whole(inputs, targets, ordered, ranks):
    parts = [points(*probe_set(inputs, targets, rank, ranks)) for rank in range(ranks)]
    found, whole = [point for part in parts for point in part], points(X, Y)
    assert found == whole if ordered else sorted(found) == sorted(whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= (1 if ordered else 7)


def test_parts_of_several_targets_are_the_whole():
    def says(x, y, output):
        return output

    for ranks in (1, 3):
        parts = [
            probe_set({"x": X}, {"labels": Y, "floats": X[:, 0], "says": says}, rank, ranks) for rank in range(ranks)
        ]
        assert torch.equal(torch.cat([targets["labels"] for _, targets in parts]), Y)
        assert torch.equal(torch.cat([targets["floats"] for _, targets in parts]), X[:, 0])
        assert {targets["says"] for _, targets in parts} == {says}
        assert torch.equal(torch.cat([inputs["x"] for inputs, _ in parts]), X)
    for targets in (says, {"labels": None, "says": says}):
        for inputs in (DATA, DataLoader(DATA, 7)):
            parts = [probe_set(inputs, targets, rank, 3) for rank in range(3)]
            assert sorted(one for part, _ in parts for one in points(part, None)) == sorted(points(X, Y))
            assert all(its is targets for _, its in parts)
    with refuses("targets", Code.CONFLICT):
        probe_set(DataLoader(DATA, 7), {"labels": None, "floats": X[:, 0]}, 0, 2)


def test_a_loader_that_is_one_part_already_is_left_alone():
    loader = DataLoader(DATA, 8, sampler=DistributedSampler(DATA, 2, 1, shuffle=False))
    assert len(points(*probe_set(loader, None, 1, 2))) == 24


def test_a_shuffled_loader_is_refused_where_ranks_would_draw_apart():
    with refuses("inputs", Code.CONFLICT):
        probe_set(DataLoader(DATA, 8, shuffle=True), None, 1, 2)


def test_too_few_points_for_the_ranks_are_one_line():
    for inputs, targets, words in (
        (X[:2], Y[:2], ("inputs", Code.EMPTY)),
        (DataLoader(DATA, 48), None, ("inputs", Code.EMPTY)),
    ):
        with refuses(*words):
            points(*probe_set(inputs, targets, 2, 3))


def test_a_one_pass_iterator_is_one_line():
    with refuses("inputs", Code.UNSUPPORTED):
        points(*probe_set(iter(DataLoader(DATA, 8)), None))


def test_the_core_imports_no_integration():
    import subprocess

    code = "import sys, layerfreq; print([m for m in sys.modules if m.startswith('layerfreq.integrations')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout == "[]\n"


def test_a_loaders_generator_can_be_reached():
    """A loader's own generator is reached through its parts, so that measuring can put it back."""
    random = torch.Generator().manual_seed(0)
    part, _ = probe_set(DataLoader(DATA, 8, shuffle=True, generator=random), None)
    assert part.generator is random
    assert part.sampler.generator is random


def test_generators_of_a_data_set_are_put_back():
    class Noisy(torch.utils.data.Dataset):
        def __init__(self):
            self.generator = torch.Generator().manual_seed(3)

        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return X[i] + torch.randn(4, generator=self.generator), Y[i]

    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    data = Noisy()
    before = data.generator.get_state()
    for probe in (data, DataLoader(data, 16)):
        inputs, _ = probe_set(probe)
        held, streamed = (layer_spectra(model, inputs, memory=memory)["1"] for memory in (None, 800))
        assert torch.equal(data.generator.get_state(), before)
        torch.testing.assert_close(torch.tensor(held.lfr), torch.tensor(streamed.lfr), rtol=1e-4, atol=1e-5)
