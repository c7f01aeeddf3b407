"""Layers of every kind: the features are what a hook of our own sees, or the refusal says why not in one line."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from layerfreq import hidden_layers, layer_features, layer_spectra, split
from tests.helpers.kinds import D, N, T, check, flat, image, kind, seen, sequence
from tests.helpers.refusals import Code, refuses
from tests.helpers.styles import Net


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@kind("LayerNorm, Linear")
def test_layer_norm():
    model = nn.Sequential(nn.Linear(D, D), nn.LayerNorm(D), nn.GELU(), nn.Linear(D, 2))
    check(model, flat(), "1", ["2"])
    check(model, flat(), "0")


@kind("convolutions, batch norm, pooling")
def test_convolutions():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(2)
    )
    model(image())
    for layer in "0123":
        check(model, image(), layer, ["2"])


@kind("dropout (off while measured)")
def test_dropout():
    model = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Dropout(0.5), nn.Linear(D, 2))
    check(model, flat(), "2", ["1"])
    x = flat()
    found = layer_features(model, x, ["1", "2"])
    assert torch.equal(found["1"], found["2"])


@kind("MultiheadAttention")
@pytest.mark.parametrize("weights", [True, False])
def test_attention_returns_a_tuple(weights):
    def run(m, x):
        out, maps = m.attn(x, x, x, need_weights=weights)
        assert (maps is not None) == weights
        return m.head(torch.relu(m.fc(x + out)).mean(1))

    model = Net(run, attn=nn.MultiheadAttention(D, 2, batch_first=True), fc=nn.Linear(D, D), head=nn.Linear(D, 2))
    check(model, sequence(), "attn", ["attn.add", "fc.relu"])
    with refuses("layers", Code.UNKNOWN, "'attn.out_proj'"):
        layer_features(model, sequence(), "attn.out_proj")


def encoder(**options):
    layer = nn.TransformerEncoderLayer(D, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2, **options)


@kind("TransformerEncoder, TransformerEncoderLayer (measured without their fast path)")
def test_the_fast_path_of_transformer_encoders(monkeypatch):
    model = nn.Sequential(encoder(), nn.Flatten(), nn.Linear(T * D, 2))
    cuts, x = ["0.layers.0", "0.layers.1"], sequence()
    fused = []
    kernel = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a: fused.append(1) or kernel(*a))
    with torch.no_grad():
        fast = model[0].eval()(x).flatten(1)
    assert fused  # so there is a fast path, and it is this one
    fused.clear()
    torch.testing.assert_close(layer_features(model, x, "0")["0"], fast, rtol=1e-4, atol=1e-5)
    for layer in ("0.layers.0", "0.layers.1", "0.layers.0.linear1", "0.layers.1.norm2"):
        check(model, x, layer, cuts)


@kind(
    "TransformerEncoder with src_key_padding_mask",
    "works with a limit",
    "padded positions have the values of the path without nested tensors, not zeros; label them -100",
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padded_transformer_encoders():
    mask = torch.arange(T) >= torch.randint(2, T, (N, 1))
    model = Net(lambda m, x: m.head(m.body(x, src_key_padding_mask=mask[: len(x)]).mean(1)),
                body=encoder(), head=nn.Linear(D, 2))  # fmt: skip
    x = sequence()
    with torch.no_grad():
        expected = model.eval().body(x, src_key_padding_mask=mask)
    with pytest.warns(UserWarning, match="other points"):  # the mask above does not follow the points
        got = layer_features(model, x, "body.layers.1")["body.layers.1"].view(N, T, D)
    torch.testing.assert_close(got[~mask], expected[~mask], rtol=1e-4, atol=1e-5)
    assert not got[mask].eq(0).any()


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, marks=kind(f"{make.__name__} with batch_first")) for make in (nn.RNN, nn.GRU, nn.LSTM)],
)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}])
def test_recurrent_modules_return_tuples(make, options):
    width = 6 * (2 if options else 1)
    model = Net(lambda m, x: m.head(m.rnn(x)[0]), rnn=make(D, 6, batch_first=True, **options), head=nn.Linear(width, 2))
    check(model, sequence(), "rnn", ["rnn"])
    assert layer_features(model, sequence(), "rnn", reading="mean")["rnn"].shape == (N, width)


@kind("one module under two names")
def test_tied_modules():
    one = nn.Linear(D, D)
    model = Net(lambda m, x: m.head(torch.tanh(m.a(x))), a=one, b=one, head=nn.Linear(D, 2))
    x = flat()
    assert torch.equal(layer_features(model, x, "b")["a"], seen(model, "a", x))
    twice = Net(lambda m, x: m.head(torch.tanh(m.b(torch.tanh(m.a(x))))), a=one, b=one, head=nn.Linear(D, 2))
    check(twice, x, "a", number=2)
    with refuses("layers", Code.UNKNOWN, "'b'", "'a'"):
        layer_features(twice, x, "b")
    assert torch.equal(layer_features(twice, x, "b:2")["a:2"], seen(twice, "b", x, 2))


@kind("weights shared by two modules")
def test_tied_weights():
    model = Net(lambda m, x: F.linear(torch.tanh(m.fc(m.embed(x))), m.embed.weight),
                embed=nn.Embedding(11, D), fc=nn.Linear(D, D))  # fmt: skip
    ids = torch.randint(0, 11, (N, T))
    check(model, ids, "embed", ["fc.tanh"])
    check(model, ids, "fc")


@kind("a module called several times (`name:2`)")
def test_repeated_modules():
    model = Net(
        lambda m, x: m.head(m.act(m.fc(m.act(m.fc(x))))), fc=nn.Linear(D, D), act=nn.ReLU(), head=nn.Linear(D, 2)
    )
    for number in (1, 2):
        check(model, flat(), "act", ["act:1", "act:2"], number)
        check(model, flat(), "fc", number=number)


@kind("activations in place, as modules and functions")
def test_activations_in_place():
    model = nn.Sequential(
        nn.Linear(D, D), nn.ReLU(inplace=True), nn.Linear(D, D), nn.SiLU(inplace=True), nn.Linear(D, 2)
    )
    for layer in "0123":  # what a linear layer returns is written over, after it was seen
        check(model, flat(), layer, ["1", "3"])
    model = Net(lambda m, x: m.head(F.relu_(m.fc(x))), fc=nn.Linear(D, D), head=nn.Linear(D, 2))
    check(model, flat(), "fc", ["fc.relu"])
    x = flat()
    assert torch.equal(layer_features(model, x)["fc.relu"], seen(model, "fc", x).relu())


@kind("functional activations (`name.relu`)")
@pytest.mark.parametrize("act", [F.relu, torch.tanh, torch.Tensor.sigmoid, F.gelu, F.leaky_relu, F.softplus])
def test_functional_activations(act):
    model = Net(lambda m, x: m.head(act(m.fc(x))), fc=nn.Linear(D, D), head=nn.Linear(D, 2))
    x = flat()
    ((name, features),) = layer_features(model, x).items()
    assert name == f"fc.{act.__name__}"
    torch.testing.assert_close(features, act(seen(model, "fc", x)))


class Snake(nn.Module):
    def forward(self, x):
        return x + x.sin().square()


@kind("activation modules of one's own")
def test_activation_modules_of_ones_own():
    model = nn.Sequential(nn.Linear(D, D), Snake(), nn.Dropout(), nn.Linear(D, 2))
    check(model, flat(), "1", ["1"])


@dataclass(frozen=True)
class Output:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


Both = namedtuple("Both", "logits more")
FORMS = {
    "dict": lambda z: {"logits": z, "more": [z, None]},
    "dataclass": lambda z: Output(z),
    "tuple": lambda z: (z, {"more": z}),
    "named tuple": lambda z: Both(z, None),
}


@kind("models and blocks that return dicts, tuples, named tuples, dataclasses")
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_output(form):
    def block(m, x):
        return FORMS[form](torch.relu(m.fc(x)))

    def run(m, x):
        z = m.block(x)
        z = z["logits"] if isinstance(z, dict) else z[0] if isinstance(z, tuple) else z.logits
        return FORMS[form](m.head(z))

    model = Net(run, block=Net(block, fc=nn.Linear(D, D)), head=nn.Linear(D, 2))
    x = flat()
    assert torch.equal(layer_features(model, x, "block")["block"], seen(model, "block.fc", x).relu())
    assert hidden_layers(model, x) == ["block"]
    before, after = split(model, "block", x)
    expected, got = (z["logits"] if form == "dict" else z[0] if "tuple" in form else z.logits
                     for z in (model(x), after(before(x))))  # fmt: skip
    assert torch.equal(expected, got)


@kind("ModelOutput of transformers")
def test_model_outputs():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    model = Net(lambda m, x: outputs.SequenceClassifierOutput(logits=m.head(torch.relu(m.fc(x)))),
                fc=nn.Linear(D, D), head=nn.Linear(D, 2))  # fmt: skip
    check(model, flat(), "fc", ["fc.relu"])


@kind("ModuleList, ModuleDict")
def test_containers():
    model = Net(lambda m, x: m.heads["b"](m.act(m.layers[1](m.act(m.layers[0](x))))), act=nn.ReLU(),
                layers=nn.ModuleList([nn.Linear(D, D), nn.Linear(D, D)]),
                heads=nn.ModuleDict({"a": nn.Linear(D, 2), "b": nn.Linear(D, 3)}))  # fmt: skip
    check(model, flat(), "layers.1", ["act:1", "act:2"])
    check(model, flat(), "heads.b")
    with refuses("layers", Code.UNKNOWN, "'heads.a'"):
        layer_features(model, flat(), "heads.a")


@kind("embeddings of token ids")
def test_embeddings():
    model = nn.Sequential(nn.Embedding(11, D), nn.Linear(D, D), nn.ReLU(), nn.Linear(D, 2))
    check(model, torch.randint(0, 11, (N, T)), "0", ["2"])
    bag = nn.Sequential(nn.EmbeddingBag(11, D), nn.Tanh(), nn.Linear(D, 2))
    check(bag, torch.randint(0, 11, (N, T)), "0", ["1"])


@kind("residual blocks, added in place too")
def test_residual_blocks():
    def run(m, x):
        out = m.two(torch.relu(m.one(x)))
        out += x
        return torch.relu_(out)

    block = [Net(run, one=nn.Linear(D, D), two=nn.Linear(D, D)) for _ in range(2)]
    model = nn.Sequential(nn.Linear(D, D), nn.ReLU(), *block, nn.Linear(D, 2))
    check(model, flat(), "2", ["1", "2", "3"])
    check(model, flat(), "2.two")


class Symmetric(nn.Module):
    def forward(self, w):
        return w.triu() + w.triu(1).T


@kind("parametrized weights (weight_norm, spectral_norm, one's own)")
@pytest.mark.parametrize("change", ["weight_norm", "spectral_norm", "orthogonal", "own"])
def test_parametrized_weights(change):
    def layer(width):
        one = nn.Linear(width, width, bias=False)
        if change == "own":
            return parametrize.register_parametrization(one, "weight", Symmetric())
        return getattr(parametrizations, change)(one)

    model = nn.Sequential(layer(D), nn.ReLU(), layer(D))
    check(model, flat(), "0", ["1"])
    x = torch.randn(D, D)  # as many points as the weight has rows: it must not be taken for features
    assert hidden_layers(model, x) == ["1"]


@kind(
    "lazy modules before their first call",
    "refused",
    "'0.weight' is lazy and has no shape yet; run the model once on a batch",
)
def test_lazy_modules():
    model = nn.Sequential(nn.LazyLinear(D), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))
    for measure in (hidden_layers, layer_features, lambda m, x: layer_spectra(m, x, torch.arange(N))):
        with refuses("model", Code.UNSUPPORTED, "'0.weight'"):
            measure(model, flat())
    assert isinstance(model[0].weight, nn.UninitializedParameter)
    model(flat())
    check(model, flat(), "2", ["2"])


@kind("modules quantised dynamically", "works with a limit", "name the layers: they have no parameters to find cuts by")
@pytest.mark.filterwarnings("ignore")
def test_quantised_dynamically():
    model = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, 2)).eval()
    model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    x = flat()
    assert torch.equal(layer_features(model, x, "1")["1"], seen(model, "1", x))
    with refuses("model", Code.UNSUPPORTED):
        hidden_layers(model, x)


@kind("quantised tensors", "refused", "it returns no floating tensor")
@pytest.mark.filterwarnings("ignore")
def test_quantised_tensors():
    model = Net(lambda m, x: m.q(x).dequantize(), q=Net(lambda m, x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)))
    with refuses("layer", Code.UNSUPPORTED, "layer 'q'"):
        layer_features(model, flat(), "q")


@kind("complex outputs", "refused", "it returns no floating tensor (of complex ones torch.view_as_real makes floats)")
def test_complex_outputs():
    model = Net(lambda m, x: m.head(m.fft(x).abs()), fft=Net(lambda m, x: torch.fft.fft(x)), head=nn.Linear(D, 2))
    with refuses("layer", Code.UNSUPPORTED, "layer 'fft'"):
        layer_features(model, flat(), "fft")


@kind(
    "models of torch.jit",
    "refused",
    "takes no hooks; pass the module before torch.jit",
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_scripted_models(how):
    plain, x = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, 2)), flat()
    model = torch.jit.script(plain) if how == "script" else torch.jit.trace(plain, x)
    for measure in (hidden_layers, layer_features, lambda m, x: split(m, "1", x)):
        with refuses("model", Code.UNSUPPORTED):
            measure(model, x)


@kind("scripted modules inside a model", "works with a limit", "what they and their parts return cannot be measured")
@pytest.mark.filterwarnings("ignore")
def test_scripted_modules_inside():
    body = torch.jit.script(nn.Sequential(nn.Linear(D, D), nn.ReLU()))
    model = Net(lambda m, x: m.head(torch.tanh(m.fc(m.body(x)))), body=body, fc=nn.Linear(D, D), head=nn.Linear(D, 2))
    x = flat()
    assert torch.equal(layer_features(model, x)["fc.tanh"], seen(model, "fc", x).tanh())
    with refuses("layers", Code.UNKNOWN, "'body.1'"):
        layer_features(model, x, "body.1")


@kind("nn.DataParallel")
def test_data_parallel():
    device = "cuda" if torch.cuda.is_available() else "cpu"  # where there are GPUs, the model has to be on one
    plain, x = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, 2)).to(device), flat().to(device)
    assert hidden_layers(nn.DataParallel(plain), x) == ["1"]
    assert torch.equal(layer_features(nn.DataParallel(plain), x)["1"], seen(plain, "1", x))


@kind("wrappers of one's own with `.module` (names begin with `module.`)")
def test_wrappers():
    plain = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, 2))
    model = Net(lambda m, x: m.module(x / 2), module=plain)
    check(model, flat(), "module.1", ["module.1"])
