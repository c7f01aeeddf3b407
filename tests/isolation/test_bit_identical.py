"""Training goes on bit for bit as it would have, whenever in a step a monitor measures."""

import pytest
import torch

from tests.helpers.ranks import train_twice, world
from tests.helpers.training import NETWORKS, differences, train


def wrapped(backend):
    return lambda model: torch.compile(model, backend=backend)


def in_place(model):
    model.compile(backend="eager")
    return model


def setup(name, **options):
    return pytest.param(options, id=name, marks=pytest.mark.compatibility("set-up", name, "works"))


SETUPS = [
    setup("a plain loop"),
    setup("torch.compile before the monitor", compiled=wrapped("aot_eager")),
    setup("torch.compile after the monitor", compiled=wrapped("eager"), attached_first=True),
    setup("model.compile() in place, before the monitor", compiled=in_place),
    setup("model.compile() in place, after the monitor", compiled=in_place, attached_first=True),
    setup("autocast to bfloat16", autocast=torch.bfloat16),
    setup("autocast to float16 with GradScaler", autocast=torch.float16, scaler=True),
    setup("gradient accumulation", accumulate=3),
    setup("gradient checkpointing, reentrant", reentrant=True),
    setup("gradient checkpointing, not reentrant", reentrant=False),
    setup("EMA copies (AveragedModel)", ema=True),
    setup("frozen layers", frozen="stem"),
]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("options", SETUPS)
def test_training_is_bit_identical_with_and_without_a_monitor(network, options):
    torch._dynamo.reset()
    on, spectra = train(network, True, **options)
    off, _ = train(network, False, **options)
    assert differences(on, off) == []
    assert len(spectra) >= 2


def test_a_difference_would_be_seen():
    """The comparison itself: another seed's dropout, a step fewer, a gradient that is None."""
    one, _ = train("mlp", False)
    other, _ = train("mlp", False, accumulate=3)
    assert {text.split()[0] for text in differences(one, other)} >= {"losses", "model", "optimizer"}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    with world(2, tmp_path_factory.mktemp("ranks")) as call:
        yield call


@pytest.mark.compatibility("set-up", "DistributedDataParallel", "works")
@pytest.mark.parametrize("network", NETWORKS)
def test_training_on_two_ranks_is_bit_identical(two, network):
    for wrong, layers in two(train_twice, *[(network, "ddp", {})] * 2):
        assert wrong == []
        assert layers >= 2
