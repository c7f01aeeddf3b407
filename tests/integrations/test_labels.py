"""Labels in batches that are dicts: those of the next tokens, of the tokens themselves, and a decoder's input."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from layerfreq import Run, hidden_layers, layer_spectra
from layerfreq.isolation.preserve import untouched
from layerfreq.network.labelled import following, shifts

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from layerfreq.integrations.transformers import LayerSpectraCallback  # noqa: E402
from tests.helpers.refusals import Code, refuses  # noqa: E402
from tests.integrations.test_transformers import fit  # noqa: E402

WORDS = 12
IDS = torch.randint(2, WORDS, (24, 6), generator=torch.Generator().manual_seed(0))
GRID = [0.1, 1.0, 10.0]
SMALL = {"vocab_size": WORDS, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
WIDE |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "vocab_size": WORDS}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}


class Plain(nn.Module):
    """A language model of one's own, whose loss compares each token with its own label, or with the next one's."""

    def __init__(self, causal):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.hidden, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, 8), nn.Linear(8, WORDS)
        self.causal = causal

    def forward(self, input_ids, labels=None):
        logits = self.head(torch.tanh(self.hidden(self.embed(input_ids))))
        if labels is None:
            return {"logits": logits}
        pair = (logits[:, :-1], labels[:, 1:]) if self.causal else (logits, labels)
        return {"loss": nn.functional.cross_entropy(pair[0].flatten(0, 1), pair[1].flatten()) + 3, "logits": logits}


class Unknown(Plain):
    """One that tells nothing but the loss."""

    def forward(self, input_ids, labels=None):
        out = super().forward(input_ids, labels)
        return out if labels is None else {"loss": out["loss"]}


class UnknownForCausalLM(Unknown):
    pass


def made(name):
    torch.manual_seed(0)
    config, model = {
        "gpt2": ("GPT2Config", "GPT2LMHeadModel"),
        "llama": ("LlamaConfig", "LlamaForCausalLM"),
        "mixtral": ("MixtralConfig", "MixtralForCausalLM"),
        "bert": ("BertConfig", "BertForMaskedLM"),
        "bert, causal": ("BertConfig", "BertLMHeadModel"),
        "bart": ("BartConfig", "BartForCausalLM"),
        "distilbert": ("DistilBertConfig", "DistilBertForMaskedLM"),
    }[name]
    options = {**SMALL, "intermediate_size": 8, "max_position_embeddings": 8, "pad_token_id": 0, "bos_token_id": 1}
    options["eos_token_id"] = 1
    if name == "gpt2":
        options |= {"n_positions": 8}
    if name == "bart":
        options = {**WIDE, **SPECIAL, "max_position_embeddings": 8}
    if name == "distilbert":
        options = {"vocab_size": WORDS, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 8}
    if name == "mixtral":
        options |= {"num_local_experts": 2, "output_router_logits": True}
    if name in ("llama", "mixtral"):
        options |= {"num_key_value_heads": 1}
    if name == "bert, causal":
        options |= {"is_decoder": True}
    return getattr(transformers, model)(getattr(transformers, config)(**options)).eval()


def by_gradient(model, ids):
    """Whether the loss hangs on the last token's logits: the other way round, by differentiation."""
    out = model(input_ids=ids, labels=ids)
    (slope,) = torch.autograd.grad(out["loss"], out["logits"])
    return not slope[:, -1].any()


@pytest.mark.parametrize(
    ("name", "shifted"),
    [
        ("gpt2", True),
        ("llama", True),
        ("mixtral", True),
        ("bert", False),
        ("distilbert", False),
        ("bert, causal", True),
        ("bart", None),
    ],
)
def test_whether_labels_are_shifted_is_found_out_from_what_the_model_does(name, shifted):
    model = made(name)
    with untouched(model):
        found = shifts(model, {"input_ids": IDS}, "labels", IDS)
    assert found == by_gradient(model, IDS)
    assert shifted in (None, found)


@pytest.mark.parametrize(
    ("model", "shifted"),
    [(Plain(True), True), (Plain(False), False), (Unknown(True), False), (UnknownForCausalLM(True), True)],
)
def test_models_of_ones_own_and_those_that_do_not_tell(model, shifted):
    with untouched(model):
        assert shifts(model, {"input_ids": IDS}, "labels", IDS) is shifted
        assert not shifts(model, {"input_ids": IDS}, "labels", IDS[:, 0])  # a label a text
        assert not shifts(model, {"input_ids": IDS}, "labels", IDS[:, :1])


class Rows(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, at):
        return self.rows[at]


def rows():
    return [{"input_ids": row, "labels": row, "name": "a text"} for row in IDS]


@pytest.mark.parametrize("shape", ["loader", "list", "data set"])
@pytest.mark.parametrize("causal", [True, False])
def test_each_token_is_measured_against_what_the_model_compares_it_with(shape, causal):
    model, options = Plain(causal), {"reading": "positions", "inv_delta": GRID, "engine": "reference"}
    given = {
        "loader": DataLoader(rows(), 7),
        "list": [{"input_ids": part, "labels": part.tolist(), "name": "a"} for part in IDS.split(5)],
        "data set": Rows([{"input_ids": row, "labels": row} for row in IDS]),
    }[shape]
    targets = following(IDS) if causal else IDS
    expected = layer_spectra(model, {"input_ids": IDS}, targets, **options)
    found = layer_spectra(model, given, **options)
    assert list(found) == list(expected)
    for layer, one in expected.items():
        np.testing.assert_allclose(found[layer].lfr, one.lfr, rtol=1e-6)
    itself = layer_spectra(model, {"input_ids": IDS}, IDS, **options)
    assert causal == (not np.allclose(itself["hidden.tanh"].lfr, expected["hidden.tanh"].lfr, rtol=1e-3))


class Needing(nn.Module):
    """A model that returns its loss, and does not run without labels: they have no default, or it takes their shape."""

    def __init__(self, loss, width, *, default):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, width))
        self.loss = loss
        if default:
            self.forward = self.later

    def forward(self, x, labels):
        logits = self.net(x)
        return {"loss": self.loss(logits, labels), "logits": logits}

    def later(self, x, labels=None):
        return Needing.forward(self, x, labels.view(labels.shape))


POINTS = torch.randn(24, 6, generator=torch.Generator().manual_seed(2))
NEEDED = {
    "class ids": (nn.functional.cross_entropy, 3, torch.arange(24) % 3),
    "numbers": (nn.functional.mse_loss, 2, POINTS[:, :2].sin()),
}


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize("kind", NEEDED)
def test_a_model_that_does_not_run_without_labels_gets_them(kind, default, tmp_path):
    """They are neither points nor a way around a layer; what is measured is the network in it, which needs none."""
    loss, width, labels = NEEDED[kind]
    model = Needing(loss, width, default=default)
    data = [{"x": x, "labels": y, "title": "a text"} for x, y in zip(POINTS, labels, strict=True)]
    options = {"inv_delta": GRID, "error": "filter", "when": 2}
    callback = LayerSpectraCallback(Rows(data), run=tmp_path / "run", **options)
    bare = Needing(loss, width, default=default)
    plain = Rows([{"x": one["x"], "labels": one["labels"]} for one in data])
    fit(tmp_path / "bare", model=bare, data=plain, max_steps=2)
    fit(tmp_path / "watched", [callback], model=model, data=plain, max_steps=2)
    for one, other in zip(model.parameters(), bare.parameters(), strict=True):
        assert torch.equal(one, other)
    expected = layer_spectra(model.net, POINTS, labels, inv_delta=GRID)
    kept = Run(tmp_path / "run").spectra.query("step == 2 and scale == 'raw'")
    assert list(kept["layer"].unique()) == [f"net.{name}" for name in expected] == ["net.1", "net.3"]
    assert Run(tmp_path / "run").errors["step"].unique().tolist() == [0, 2]
    given = [DataLoader(data, 7), [{"x": POINTS, "labels": labels}], Rows(data)]
    for layer, one in expected.items():
        np.testing.assert_allclose(kept[kept["layer"] == f"net.{layer}"]["lfr"], one.lfr, rtol=1e-6)
        for inputs in given:
            found = layer_spectra(model, inputs, inv_delta=GRID)[f"net.{layer}"]
            np.testing.assert_allclose(found.lfr, one.lfr, rtol=1e-6)


def test_a_language_model_that_needs_labels_is_measured_against_the_next_tokens():
    class Strict(Plain):
        def forward(self, input_ids, labels):
            return super().forward(input_ids, labels.clone())

    options = {"reading": "positions", "inv_delta": GRID, "engine": "reference"}
    expected = layer_spectra(Plain(True), {"input_ids": IDS}, following(IDS), **options)["hidden.tanh"]
    found = layer_spectra(Strict(True), DataLoader(rows(), 7), **options)["hidden.tanh"]
    np.testing.assert_allclose(found.lfr, expected.lfr, rtol=1e-6)


def test_following_tokens():
    tokens = torch.tensor([[3, 1, 4], [1, 5, -100]])
    assert following(tokens).tolist() == [[1, 4, -100], [5, -100, -100]]
    assert tokens.tolist() == [[3, 1, 4], [1, 5, -100]]


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_the_callback_measures_the_labels_that_the_trainer_compares(name, tmp_path):
    """Padding has no label; texts that no model takes are left out."""
    model = made(name)
    masked = IDS.where(torch.arange(6) < 4, -100)
    data = Rows([{"input_ids": a, "labels": b, "title": "x"} for a, b in zip(IDS, masked, strict=True)])
    options = {"reading": "positions", "inv_delta": GRID, "when": [2]}
    callback = LayerSpectraCallback(data, run=tmp_path / "run", **options)
    trained = fit(tmp_path, [callback], model=model, data=data, max_steps=2).model
    targets = following(masked) if name == "gpt2" else masked
    expected = layer_spectra(trained, {"input_ids": IDS}, targets, reading="positions", inv_delta=GRID)
    kept = Run(tmp_path / "run").spectra.query("step == 2 and scale == 'raw'")
    assert list(kept["layer"].unique()) == list(expected)
    for layer, one in expected.items():
        np.testing.assert_allclose(kept[kept["layer"] == layer]["lfr"], one.lfr, rtol=1e-5)
    with refuses("targets", Code.SHAPE, "'positions'"):
        strict = LayerSpectraCallback(data, inv_delta=GRID, on_error="raise")
        fit(tmp_path, [strict], model=model, data=data, max_steps=1)


def encoder_decoder(name):
    torch.manual_seed(0)
    if name == "t5":
        size = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": WORDS}
        return transformers.T5ForConditionalGeneration(transformers.T5Config(**size, **SPECIAL)).eval()
    kind = {"bart": "Bart", "whisper": "Whisper"}[name]
    more = {"num_mel_bins": 4, "max_source_positions": 4, "max_target_positions": 8} if name == "whisper" else {}
    config = getattr(transformers, f"{kind}Config")(**WIDE, **SPECIAL, **more)
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()


@pytest.mark.parametrize("name", ["t5", "bart", "whisper"])
def test_an_encoder_decoder_gets_its_decoders_input_from_the_labels(name, tmp_path):
    model = encoder_decoder(name)
    labels = IDS[:, :5].where(torch.arange(5) < 4, -100)
    sound = torch.randn(24, 4, 8, generator=torch.Generator().manual_seed(1))
    inputs = {"input_features": sound} if name == "whisper" else {"input_ids": IDS}
    shifted = torch.cat([torch.ones(24, 1, dtype=torch.long), labels[:, :-1]], dim=1)
    shifted = shifted.where(shifted >= 0, 0)
    given = [{**inputs, "labels": labels}]
    inputs["decoder_input_ids"] = shifted
    with torch.no_grad():
        inside = model(**{key: value for key, value in inputs.items() if key != "decoder_input_ids"}, labels=labels)
        torch.testing.assert_close(inside["logits"], model(**inputs)["logits"])  # what the model itself would make
    layers = [layer for layer in hidden_layers(model, given) if "decoder" in layer][:1]
    assert layers
    options = {"layers": layers, "reading": "positions", "inv_delta": GRID}
    expected = layer_spectra(model, inputs, labels, **options)[layers[0]]
    np.testing.assert_allclose(layer_spectra(model, given, **options)[layers[0]].lfr, expected.lfr, rtol=1e-6)
