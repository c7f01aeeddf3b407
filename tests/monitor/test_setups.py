"""Set-ups that people train in: what is measured there, and what measuring leaves behind."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel

from layerfreq import Monitor, hidden_layers, layer_features, layer_spectra, spectrum
from layerfreq.isolation.preserve import untouched
from tests.helpers.refusals import Code, refuses
from tests.helpers.training import data, mlp

GRID = [0.1, 1.0, 10.0]
X, Y = data("mlp", 40)


def works(name):
    return pytest.mark.compatibility("set-up", name, "works")


def curves(spectra):
    return {name: one.lfr.tolist() for name, one in spectra.items()}


def model_of(make=mlp):
    torch.manual_seed(0)
    model = make()
    model(X)  # batch norm has seen something
    return model


@pytest.fixture(scope="module")
def expected():
    return curves(layer_spectra(model_of(), X, Y, inv_delta=GRID))


def compiled_in_place(model, backend):
    model.compile(backend=backend)
    return model


def part_compiled(model, backend):
    model.body = torch.compile(model.body, backend=backend)
    return model


class Part(nn.Sequential):
    def forward(self, x):  # of torch.nn's own classes, compile() compiles nothing
        return super().forward(x)


def part_compiled_in_place(model, backend):
    model.body.compile(backend=backend)
    return model


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m, b: torch.compile(m, backend=b), marks=works("torch.compile before the monitor")),
        pytest.param(compiled_in_place, marks=works("model.compile() in place, before the monitor")),
        pytest.param(part_compiled, marks=works("compiled submodules")),
        pytest.param(part_compiled_in_place, marks=works("compiled submodules")),
    ],
)
@pytest.mark.parametrize("first", ["monitor", "compiler"])
def test_measuring_neither_compiles_nor_makes_anything_compiled_invalid(change, first, expected):
    graphs, runs = [], []

    def backend(graph, _):
        graphs.append(graph)
        return lambda *a: runs.append(1) or graph.forward(*a)

    torch._dynamo.reset()
    model = model_of()
    layers = list(expected) if change is part_compiled_in_place else None
    if change is part_compiled_in_place:
        model.body = Part(*model.body)
    monitor = Monitor(model, X, Y, layers=layers, inv_delta=GRID) if first == "monitor" else None
    trained = change(model, backend)
    monitor = monitor or Monitor(trained, X, Y, layers=layers, inv_delta=GRID)
    assert curves(monitor.measure(0)) == expected
    assert not graphs
    for step in range(3):
        trained(X).sum().backward()
        known, ran = len(graphs), len(runs)
        assert known
        assert ran
        monitor.measure(step)
        assert len(runs) == ran
        with torch.compiler.set_stance("fail_on_recompile"):
            trained(X).sum().backward()
        assert len(graphs) == known
        assert len(runs) > ran


@pytest.mark.slow
@works("torch.compile before the monitor")
def test_with_inductor_too(expected):
    torch._dynamo.reset()
    model = torch.compile(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)))
    try:
        with torch._inductor.config.patch(compile_threads=1):
            before = model(X)
    except Exception as error:
        pytest.skip(f"inductor: {type(error).__name__}")
    assert hidden_layers(model, X) == ["1"]
    with torch.compiler.set_stance("fail_on_recompile"):
        layer_spectra(model, X, Y, inv_delta=GRID)
        assert torch.equal(model(X), before)


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(torch.bfloat16, marks=works("autocast to bfloat16")),
        pytest.param(torch.float16, marks=works("autocast to float16 with GradScaler")),
    ],
)
def test_under_autocast_the_model_runs_narrow_and_sums_do_not(dtype):
    model = model_of()
    vectors = torch.randn(len(X), 200, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype):
        features = layer_features(model, X)
        inside = {name: layer_spectra(model, X, y, inv_delta=GRID) for name, y in (("ids", Y), ("wide", vectors))}
    assert features["body.1"].dtype == dtype
    assert layer_features(model, X)["body.1"].dtype == torch.float32
    for name, y in (("ids", Y), ("wide", vectors)):
        outside = {layer: spectrum(f, y, GRID) for layer, f in features.items()}
        assert curves(inside[name]) == curves(outside)
        for layer, f in features.items():
            oracle = spectrum(f.double(), y, GRID, engine="reference")
            np.testing.assert_allclose(outside[layer].lfr, oracle.lfr, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("engine", ["cpu", "blocked", "reference"])
def test_no_setting_of_the_caller_reaches_the_sums(engine, dtype):
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(150, 5, generator=random), torch.randn(150, 3, generator=random)
    one = spectrum(x, y, engine=engine)
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        torch.set_default_device("meta")
        with torch.autocast("cpu", dtype):
            other = spectrum(x, y, engine=engine)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == dtype
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_dtype(default)
        torch.set_default_device(None)
    for name in ("inv_delta", "lfr", "rdf", "neighbours", "chance"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("nested", [False, True])
def test_casts_without_gradient_do_not_stay_in_autocasts_cache(nested):
    """Also where the model's forward has an autocast of its own, which switches the cache on."""

    class Casting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model_of()

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16, enabled=nested):
                return self.net(x)

    model = Casting() if nested else model_of()
    with torch.autocast("cpu", torch.bfloat16):
        layer_spectra(model, X, Y, inv_delta=GRID)
        model(X).sum().backward()
    assert all(p.grad is not None and p.requires_grad for p in model.parameters())


def test_nor_in_the_cache_of_parametrizations():
    model = model_of()
    parametrizations.weight_norm(model.body[0])
    with parametrize.cached():
        layer_spectra(model, X, Y, inv_delta=GRID)
        assert not parametrize._cache
        model(X).sum().backward()
        assert len(parametrize._cache) == 1
    assert all(p.grad is not None for p in model.parameters())
    assert (parametrize._cache, parametrize._cache_enabled) == ({}, 0)


@works("spectral_norm, weight_norm")
@pytest.mark.parametrize(
    "norm",
    [parametrizations.spectral_norm, parametrizations.weight_norm, nn.utils.spectral_norm, nn.utils.weight_norm],
    ids=["parametrized spectral", "parametrized weight", "hooked spectral", "hooked weight"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_normalized_weights(norm):
    model = model_of()
    norm(model.body[0])
    output = model(X)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    weight = vars(model.body[0]).get("weight")
    assert list(layer_spectra(model, X, Y, inv_delta=GRID)) == ["stem.2", "body.1"]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert vars(model.body[0]).get("weight") is weight  # where hooks put it, with its graph
    output.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(torch.bfloat16, marks=works("parameters in bfloat16")),
        pytest.param(torch.float16, marks=works("parameters in float16")),
    ],
)
def test_narrow_parameters(dtype):
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    x = X.to(dtype)
    found = layer_spectra(model, x, Y, inv_delta=GRID)
    assert list(found) == ["1", "3"]
    with torch.no_grad():
        value = model[:2](x)
    assert found["1"].lfr.tolist() == spectrum(value, Y, GRID).lfr.tolist()


@works("EMA copies (AveragedModel)")
def test_the_average_and_the_model_have_the_same_names(expected):
    model = model_of()
    average = AveragedModel(model)
    assert curves(layer_spectra(average, X, Y, inv_delta=GRID)) == expected
    average.update_parameters(model)
    with torch.no_grad():
        model.stem[0].weight.mul_(3)
    assert curves(layer_spectra(average, X, Y, inv_delta=GRID)) == expected
    assert curves(layer_spectra(model, X, Y, inv_delta=GRID)) != expected


@works("frozen layers")
def test_frozen_altogether(expected):
    model = model_of().requires_grad_(False)
    assert curves(layer_spectra(model, X, Y, inv_delta=GRID)) == expected
    assert not any(p.requires_grad for p in model.parameters())


@works("torch.no_grad, torch.inference_mode")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("made_in", [torch.enable_grad, torch.inference_mode])
def test_grad_and_inference_modes(mode, made_in, expected):
    with made_in():
        model = model_of()
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        assert curves(layer_spectra(model, X, Y, inv_delta=GRID)) == expected
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())


@works("deterministic algorithms")
def test_deterministic_algorithms(expected):
    torch.use_deterministic_algorithms(True)
    try:
        assert curves(layer_spectra(model_of(), X, Y, inv_delta=GRID)) == expected
    finally:
        torch.use_deterministic_algorithms(False)


@works("default dtype float64")
def test_a_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        found = layer_spectra(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)), X.double(), Y)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.isfinite(found["1"].lfr).all()


@pytest.mark.compatibility("set-up", "weights on the meta device", "refused", '"meta", without values; load weights')
def test_meta():
    with torch.device("meta"):
        model = mlp()
    for call in (lambda: hidden_layers(model, X), lambda: Monitor(model, X, Y), lambda: layer_features(model, X)):
        with refuses("model", Code.UNSUPPORTED, "'stem.0.weight'"):
            call()


@pytest.mark.compatibility("set-up", "lazy modules", "works with a limit", "once the model has seen a batch")
def test_lazy_modules():
    model = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(3))
    with refuses("model", Code.UNSUPPORTED, "'0.weight'"):
        layer_spectra(model, X, Y)
    model(X)
    assert list(layer_spectra(model, X, Y, inv_delta=GRID)) == ["1"]


@works("forward hooks of the user's own")
def test_hooks_see_what_they_saw_and_stay_in_order():
    model, seen = model_of(), []
    for i in range(2):
        model.body[1].register_forward_hook(lambda *_, i=i: seen.append(i))
    model.body[1].register_forward_hook(lambda _, __, output: output + 1)
    before = list(model.body[1]._forward_hooks.items())
    raised = layer_features(model, X, "body.1")["body.1"]
    assert list(model.body[1]._forward_hooks.items()) == before
    assert raised.min() == 1  # what the layers above get
    assert seen[:2] == [0, 1]


class Exits(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.act, self.high, self.relu, self.out = (
            nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3),
        )  # fmt: skip

    def forward(self, x):
        x = self.act(self.low(x))
        return x[:, :3] if x.shape[0] == 5 else self.out(self.relu(self.high(x)))


@pytest.mark.compatibility(
    "set-up", "a forward that returns early", "works with a limit", "of layers that every batch reaches"
)
def test_early_exits():
    model, batches = Exits(), [(X[:8], Y[:8]), (X[8:13], Y[8:13])]
    assert layer_spectra(model, batches, layers="act", inv_delta=GRID)["act"].n == 13
    with refuses("layer", Code.UNSUPPORTED, "layer 'relu'"):
        layer_spectra(model, batches, layers="relu", inv_delta=GRID)


class Remembering(nn.Module):
    """Keeps what people keep: counts, the last output, a history, a table, noise of its own; acts in eval()."""

    def __init__(self):
        super().__init__()
        self.net, self.steps, self.last, self.history, self.table = model_of(), 0, None, [], {}
        self.scale, self.noise = torch.ones(3), torch.Generator().manual_seed(5)

    def train(self, mode=True):
        self.merged = not mode
        return super().train(mode)

    def forward(self, x):
        x = self.net(x)
        self.steps += 1
        self.last = x
        self.history.append(x)
        self.table["last"] = x
        self.scale *= 2
        self.fresh = x
        return x + torch.randn(x.shape, generator=self.noise)


def test_what_modules_remember_is_put_back():
    model = Remembering().train()
    model(X)
    before = dict(vars(model))
    kept = before["history"], list(before["history"]), dict(before["table"]), before["scale"].clone()
    noise = model.noise.get_state()
    layer_spectra(model, X, Y, layers="net.body.1", inv_delta=GRID)
    hidden_layers(model, X)
    assert {name: id(value) for name, value in vars(model).items()} == {n: id(v) for n, v in before.items()}
    assert model.history is kept[0]
    assert [id(t) for t in model.history] == [id(t) for t in kept[1]]
    assert {k: id(v) for k, v in model.table.items()} == {k: id(v) for k, v in kept[2].items()}
    assert torch.equal(model.scale, kept[3])
    assert torch.equal(model.noise.get_state(), noise)
    assert model.merged is False


def test_all_is_put_back_when_the_model_raises():
    model = model_of()
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(ZeroDivisionError), untouched(model):
            raise ZeroDivisionError
        assert torch.is_autocast_cache_enabled()
    assert torch.is_grad_enabled()
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())
