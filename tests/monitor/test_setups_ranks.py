"""Models that are trained by several processes: one result, that of one process; and training goes on unchanged."""

import numpy as np
import pytest
import torch

from layerfreq import Run, error_spectrum, layer_spectra
from tests.helpers.ranks import error_of, several_of, spectra_of, train_twice, world
from tests.helpers.training import NETWORKS, data


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    with world(2, tmp_path_factory.mktemp("ranks")) as call:
        yield call


def fsdp(how, name):
    mark = pytest.mark.compatibility("set-up", name, "works with a limit", "every rank needs as many batches")
    return pytest.param(how, marks=mark, id=how)


SHARED_OUT = [
    fsdp("fsdp", "FullyShardedDataParallel"),
    fsdp("fsdp_each", "FullyShardedDataParallel"),
    fsdp("fully_shard_root", "fully_shard (FSDP2)"),
    fsdp("fully_shard_each", "fully_shard (FSDP2)"),
]
DDP = pytest.param("ddp", marks=pytest.mark.compatibility("set-up", "DistributedDataParallel", "works"))


def alone(network, state=None):
    torch.manual_seed(0)
    model = NETWORKS[network]()
    model.load_state_dict(state or model.state_dict())
    return layer_spectra(model, *data(network), inv_delta=[0.1, 1.0, 10.0]).to_frame()


def same(one, other):
    assert list(one["layer"]) == list(other["layer"])
    for column in ("lfr", "rdf", "neighbours"):
        np.testing.assert_allclose(one[column], other[column], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("how", [DDP, *SHARED_OUT])
def test_two_ranks_find_what_one_process_finds(two, how):
    one = alone("transformer")
    for frame, *_ in two(spectra_of, *[("transformer", how, 0)] * 2):
        same(frame, one)


@pytest.mark.parametrize("how", ["fsdp", "fully_shard_each"])
def test_a_rank_with_one_point_runs_as_often_as_the_other(two, how):
    one = alone("transformer")
    for frame, *_ in two(spectra_of, *[("transformer", how, 0, 1)] * 2):
        same(frame, one)


@pytest.mark.parametrize("how", [one for one in SHARED_OUT if one.id != "fsdp_each"])
def test_training_that_is_shared_out_is_bit_identical(two, how):
    for wrong, layers in two(train_twice, *[("transformer", how, {})] * 2):
        assert wrong == []
        assert layers == 2


@pytest.mark.parametrize("points", [12, 1])
def test_the_error_of_two_ranks_is_that_of_all_points_and_is_written_once(two, tmp_path, points):
    x, y = data("mlp")
    torch.manual_seed(0)
    outputs = NETWORKS["mlp"]().eval()(x).detach()
    one = error_spectrum(x, y, outputs, method="filter").to_frame()
    found = two(error_of, *[("mlp", tmp_path / "run", points)] * 2)
    for frame in found:
        for name in one:  # above the highest cutoffs hardly anything is left, mostly rounding of the outputs
            np.testing.assert_allclose(frame[name], one[name], rtol=1e-3 if name == "high" else 1e-5, atol=1e-6)
    kept = Run(tmp_path / "run").errors
    np.testing.assert_array_equal(kept["error_energy"], found[0]["error_energy"])


def test_training_on_two_ranks_is_bit_identical_where_the_error_is_measured(two):
    for wrong, _ in two(train_twice, *[("mlp", "ddp", {"error": "filter"})] * 2):
        assert wrong == []


@pytest.mark.compatibility(
    "set-up",
    "DistributedDataParallel, buffers that differ",
    "works with a limit",
    "each rank measures with its own; broadcast them before, or use SyncBatchNorm",
)
def test_buffers_that_training_leaves_different_on_every_rank(two):
    (mixed, frame, _, state), (_, other, differed, _) = two(spectra_of, *[("resnet", "ddp", 2)] * 2)
    one = alone("resnet", state)
    assert differed
    assert frame.equals(other)
    same(frame, one)
    assert np.abs(mixed["lfr"] - one["lfr"]).max() > 1e-6


def test_several_targets_over_ranks_and_one_that_fails_on_one_of_them(two):
    x, y = data("transformer")
    torch.manual_seed(0)
    each = {"labels": y, "says": lambda x, y, output: output.argmax(1)}
    whole = layer_spectra(NETWORKS["transformer"](), x, each, inv_delta=[0.1, 1.0, 10.0])
    for spectra, failed in two(several_of, ("transformer",), ("transformer",)):
        assert list(spectra) == ["labels", "says", "sick"]
        for name in each:
            same(spectra[name].to_frame(), whole[name].to_frame())
        assert "sick fails" in str(failed["sick"]["targets"])
