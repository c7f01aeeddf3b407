"""Points spread over processes: every rank gets what one process finds with all the points."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

from layerfreq import spectrum
from layerfreq.data.distributed import Shards
from tests.helpers.ranks import (
    layers_badly,
    measure,
    measure_alone,
    measure_in_small_blocks,
    monitor_badly,
    train,
    world,
)
from tests.helpers.refusals import Code, refuses

COUNTS = {2: [37, 83], 4: [50, 0, 61, 9]}  # uneven; of four, one has nothing
N = 120


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request, tmp_path_factory):
    with world(request.param, tmp_path_factory.mktemp("ranks")) as call:
        yield request.param, call


def data(kind="ids", dtype=torch.float64, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 6, generator=random, dtype=torch.float64) * 3 + 40
    labels = torch.randint(0, 5, (N,), generator=random) * 3
    vectors = torch.randn(N, 3, generator=random) + 2
    wide = torch.randn(N, 200, generator=random) + x[:, :1].float()
    return x.to(dtype), {"ids": labels, "vectors": vectors, "one column": vectors[:, 0], "wide": wide}[kind]


def parts(size, *tensors):
    return list(zip(*(tensor.split(COUNTS[size]) for tensor in tensors), strict=True))


def same(one, other, limit):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, (np.ndarray, float)):
            # What is left of nearly equal squares has a root that keeps half the digits.
            loose = max(limit, 1e-8) if field.name == "stderr" else limit
            np.testing.assert_allclose(b, a, rtol=loose, atol=loose * np.abs(a).max(), err_msg=field.name)
        else:
            assert a == b, field.name


@pytest.mark.parametrize("kind", ["ids", "vectors", "one column", "wide"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": "rms", "center": True},
        {"scale": "maxabs"},
        {"scale": "maxabs", "rows": 47},
        {"rows": 47, "seed": 3},
        {"rtol": 0.05, "inv_delta": [0.01, 0.1, 1.0]},
        {"engine": "reference", "inv_delta": [0.01, 0.1, 1.0]},
    ],
    ids=str,
)
def test_ranks_find_what_one_process_finds(ranks, kind, options):
    size, call = ranks
    x, y = data(kind)
    one = spectrum(x, y, **{"engine": "blocked", **options})
    found = call(measure, *((a, b, {"engine": "blocked", **options}) for a, b in parts(size, x, y)))
    for each in found:
        same(one, each, 1e-11)
        assert np.array_equal(each.lfr, found[0].lfr)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_features_travel_as_they_are(ranks, dtype):
    size, call = ranks
    x, y = data(dtype=dtype)
    one = spectrum(x, y)
    for each in call(measure, *((a, b, {}) for a, b in parts(size, x, y))):
        same(one, each, 5e-6)
        np.testing.assert_allclose(each.lfr, one.lfr, atol=1e-6)


@pytest.mark.filterwarnings("ignore:features. they differ by little more than the rounding")
def test_features_of_rounding_alone_are_so_on_every_rank(ranks):
    size, call = ranks
    x, y = data()
    for units, apart in ((1, 1), (10, N)):
        near = (1 + 1e-6 / units * (x - x.mean(dim=0)) / 3).float()  # which is eight spacings, and one
        one = spectrum(near, y, engine="blocked")
        assert one.coincident >= apart
        for each in call(measure, *((a, b, {"engine": "blocked"}) for a, b in parts(size, near, y))):
            assert each.coincident == one.coincident
            assert each.median == (None if units == 10 else pytest.approx(one.median))


def test_an_early_stop_is_the_same_on_all_ranks(ranks):
    size, call = ranks
    x, y = (torch.cat([part] * 10) for part in data())
    x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    counts = [count * 10 for count in COUNTS[size]]
    options = {"inv_delta": [0.01, 0.1, 1.0], "rtol": 0.03, "engine": "blocked"}
    one = spectrum(x, y, **options)
    assert one.rows < len(x)
    for each in call(measure, *((a, b, options) for a, b in zip(x.split(counts), y.split(counts), strict=True))):
        same(one, each, 1e-11)


@pytest.mark.parametrize("kind", ["ids", "vectors", "wide"])
def test_the_cpu_engine_on_ranks(ranks, kind):
    """Each rank looks at distances of its own to choose its functions, so that each errs in its own way, below 1e-5."""
    size, call = ranks
    x, y = data(kind)
    options = {"engine": "cpu", "rows": 100}
    one = spectrum(x, y, **options)
    for each in call(measure, *((a, b, options) for a, b in parts(size, x, y))):
        same(one, each, 1e-5)


@pytest.mark.parametrize("kind", ["ids", "wide"])
def test_blocks_do_not_show(ranks, kind):
    size, call = ranks
    x, y = data(kind)
    options = {"inv_delta": [0.01, 0.1, 1.0]}
    one = spectrum(x, y, **options)
    for each in call(measure_in_small_blocks, *((a, b, options) for a, b in parts(size, x, y))):
        same(one, each, 1e-11)


def test_a_large_vocabulary_on_ranks(ranks):
    """Class ids are sketched by where they stand among those of all ranks."""
    size, call = ranks
    x, y = torch.randn(1500, 3), torch.randperm(3000)[:1500] // 2
    assert len(y.unique()) > 1024
    options = {"inv_delta": [0.1, 1.0], "rows": 50, "engine": "blocked"}
    one = spectrum(x, y, **options)
    assert one.sketch == 64
    counts = [700, 800] if size == 2 else [300, 0, 700, 500]
    for each in call(measure, *((a, b, options) for a, b in zip(x.split(counts), y.split(counts), strict=True))):
        same(one, each, 1e-6)


def test_a_rank_alone_does_not_wait(ranks):
    """A group that is up is not used unless it is named."""
    size, call = ranks
    x, y = data()
    found = call(measure_alone, *((a, b, {}) for a, b in parts(size, x, y)))
    assert found[0].n == COUNTS[size][0]
    assert found[1] is None


def test_extremes_do_not_hang(ranks):
    """Constant features, one point in all, nothing at all."""
    size, call = ranks
    empty = (torch.empty(0, 2), torch.empty(0), {})
    for answer in call(measure, *[(torch.full((3, 2), 0.1), torch.tensor([0, 1, 1]), {})] * size):
        assert np.isfinite(answer.rdf).all()
    for answer in call(measure, *[empty] * (size - 1), (torch.ones(1, 2), torch.tensor([4]), {})):
        assert answer.n == 1
        assert np.allclose(answer.lfr, 1)
    for answer in call(measure, *[empty] * size):
        assert answer.startswith("InputError features: none given")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": torch.full((4, 2), float("nan"))}, ["features: NaN", "4 of 4", "(on rank 1)"]),
        ({"targets": torch.tensor([0, 1])}, ["targets: 2 entries for 4", "(on rank 1)"]),
        ({"targets": torch.eye(4, 3)}, ["targets: class ids on rank 0", "3 columns", "rank 1"]),
        ({"features": torch.eye(4, 3)}, ["features: 2 columns", "3 columns", "rank 1"]),
        ({"features": torch.eye(4, 2).double()}, ["float32", "float64", "rank 1"]),
        ({"features": torch.full((4, 2), 3e38)}, []),
        ({"options": {"seed": 7}}, ["seed: 0 on rank 0, but 7 on rank 1"]),
        ({"options": {"inv_delta": [1.0, 2.0]}}, ["inv_delta: None on rank 0", "rank 1"]),
        ({"options": {"inv_delta": [2.0, 1.0]}}, ["inv_delta: 2 is followed by 1", "(on rank 1)"]),
        ({"targets": Ellipsis}, ["targets: cannot be read", "(on rank 1)"]),
    ],
    ids=str,
)
def test_an_error_on_one_rank_is_the_same_on_all(ranks, change, words):
    size, call = ranks
    good = {"features": torch.arange(8.0).reshape(4, 2), "targets": torch.tensor([0, 1, 0, 1]), "options": {}}
    calls = [tuple(({**good, **change} if rank == 1 else good).values()) for rank in range(size)]
    answers = call(measure, *calls)
    if not words:
        assert all(np.isfinite(answer.lfr).all() for answer in answers)
        return
    assert len(set(answers)) == 1
    assert answers[0].startswith("InputError ")
    assert "\n" not in answers[0]
    assert all(word in answers[0] for word in words), answers[0]


def test_what_is_wrong_everywhere_blames_no_rank(ranks):
    size, call = ranks
    bad = (torch.arange(8.0).reshape(4, 2), torch.tensor([0, 1, 0, 1]), {"rows": 1})
    for answer in call(measure, *[bad] * size):
        assert answer.startswith(f"InputError rows: 1 of {4 * size} points")


def test_another_failure_on_one_rank_does_not_hang(ranks):
    size, call = ranks
    x, y = torch.arange(8.0).reshape(4, 2), torch.tensor([0, 1, 0, 1])
    *others, _ = call(measure, *[(x, y, {})] * (size - 1), (x, y, {"device": "cuda:99"}))
    assert all(answer.endswith(f"(on rank {size - 1})") for answer in others), others


def test_a_bad_option_on_one_rank_is_the_same_on_all(ranks):
    size, call = ranks
    good, bad = (torch.randn(5, 6), None, {}), (torch.randn(5, 6), None, {"rows": -1})
    answers = call(monitor_badly, *[good] * (size - 1), bad)
    assert len(set(answers)) == 1
    assert answers[0].startswith("InputError rows: -1")
    assert answers[0].endswith(f"(on rank {size - 1})")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"targets": [0, 1]}, "InputError targets: 2 entries for 5 inputs"),
        ({"inputs": torch.randn(0, 6), "targets": []}, "InputError inputs: none given"),
        ({"targets": 3}, "InputError targets: "),
        ({"options": {"whole": True, "layers": []}}, "InputError layers: "),
        ({"options": {"whole": True, "layers": [1.5]}}, "InputError layers: [1.5] has no names"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_batch_or_with_names_on_one_rank_is_the_same_on_all(ranks, change, words):
    size, call = ranks
    good = {"inputs": torch.randn(5, 6), "targets": [0, 1, 0, 1, 0], "options": {"whole": True}}
    answers = call(layers_badly, *[tuple(good.values())] * (size - 1), tuple({**good, **change}.values()))
    if not words:
        assert answers == [["1"]] * size
        return
    assert len(set(answers)) == 1
    assert answers[0].startswith(words)
    assert answers[0].endswith(f"(on rank {size - 1})")


def test_monitor_under_ddp(ranks, tmp_path):
    from layerfreq import Run, layer_spectra

    size, call = ranks
    part = N // size
    x, y = data(dtype=torch.float32)
    x, y = (x - 40) / 3, y // 3
    run = str(tmp_path / "run")
    (frame, state, silent), *others = call(
        train, *((a, b, run) for a, b in zip(x.split(part), y.split(part), strict=True))
    )
    taken = call(monitor_badly, *[(x, run)] * size)
    wrong = call(monitor_badly, *[(x, str(tmp_path / "new"))] * (size - 1), (torch.randn(5, 7), None))
    assert not silent
    assert all(frame.equals(other) and silent for other, _, silent in others)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5))
    model.load_state_dict(state)
    one = layer_spectra(model, x, y).to_frame()
    assert list(frame["layer"]) == list(one["layer"])
    np.testing.assert_allclose(frame["lfr"], one["lfr"], atol=1e-6)
    np.testing.assert_allclose(frame["inv_delta"], one["inv_delta"], rtol=1e-5)
    written = Run(run)
    assert written.steps() == [0, 2]
    assert written.metrics["loss"].tolist() == [0, 1, 2]
    last = written.spectra.query("step == 2 and scale == 'raw'")
    np.testing.assert_allclose(last["lfr"], frame["lfr"])
    assert all("holds another run" in text and text.endswith("(on rank 0)") for text in taken), taken
    assert wrong[0].startswith("InputError inputs: Sequential does not run on float32")
    assert wrong[0].endswith(f"(on rank {size - 1})")


@pytest.mark.needs("two GPUs")
@pytest.mark.parametrize("backend", ["nccl", "cpu:gloo,cuda:nccl"])
def test_nccl_finds_what_one_process_finds(backend, tmp_path):
    x, y = data()
    one = spectrum(x, y, engine="blocked")
    with world(2, tmp_path, backend) as call:
        for each in call(
            measure, *((a, b, {"device": f"cuda:{r}", "engine": "blocked"}) for r, (a, b) in enumerate(parts(2, x, y)))
        ):
            same(one, each, 1e-9)


@pytest.mark.parametrize("group", ["world", -100, object()])
def test_what_is_no_group_is_refused(group):
    with refuses("group", Code.VALUE):
        spectrum(torch.ones(3, 2), [0, 1, 1], group=group)
    with refuses("group", Code.VALUE):
        Shards(group)
