"""Model families of transformers, built small from their configurations, through `layerfreq analyze`.

Each is saved to a folder, as a training would leave it, and measured from there: end to end, or refused with a reason.
"""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
import transformers

from layerfreq import Run

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TOKENS = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
PATCHES = {"image_size": 16, "patch_size": 8}
N = 24


def ids(length=6):
    return torch.randint(3, 50, (N, length), generator=torch.Generator().manual_seed(1))


def noise(*shape):
    return torch.randn(N, *shape, generator=torch.Generator().manual_seed(1))


def bert():
    config = transformers.BertConfig(**SMALL, **TOKENS, max_position_embeddings=16, num_labels=3)
    return transformers.BertForSequenceClassification(config), {"input_ids": ids()}


def gpt2():
    config = transformers.GPT2Config(**TOKENS, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config), {"input_ids": ids()}


def llama():
    config = transformers.LlamaConfig(**SMALL, **TOKENS, num_key_value_heads=1)
    return transformers.LlamaForCausalLM(config), {"input_ids": ids()}


def t5():
    config = transformers.T5Config(
        **TOKENS, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config), {"input_ids": ids(), "decoder_input_ids": ids(4)}


def vit():
    return transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL, **PATCHES, num_labels=3)), {
        "pixel_values": noise(3, 16, 16)
    }


def resnet():
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=3
    )
    return transformers.ResNetForImageClassification(config), {"pixel_values": noise(3, 16, 16)}


def convnext():
    config = transformers.ConvNextConfig(
        hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=16, num_labels=3, layer_scale_init_value=0.1
    )
    return transformers.ConvNextForImageClassification(config), {"pixel_values": noise(3, 16, 16)}


def wav2vec2():
    config = transformers.Wav2Vec2Config(
        **SMALL, conv_dim=[8, 8], conv_stride=[5, 4], conv_kernel=[10, 8], num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, classifier_proj_size=8, num_labels=3,
    )  # fmt: skip
    return transformers.Wav2Vec2ForSequenceClassification(config), {"input_values": noise(400)}


def ast():
    config = transformers.ASTConfig(
        **SMALL, patch_size=4, num_mel_bins=8, max_length=16, frequency_stride=4, time_stride=4, num_labels=3
    )
    return transformers.ASTForAudioClassification(config), {"input_values": noise(16, 8)}


def clip():
    config = transformers.CLIPConfig(
        text_config={**SMALL, **TOKENS, "max_position_embeddings": 16, "projection_dim": 8},
        vision_config={**SMALL, **PATCHES, "projection_dim": 8},
        projection_dim=8,
    )
    return transformers.CLIPModel(config), {"input_ids": ids(), "pixel_values": noise(3, 16, 16)}


def mixtral():
    config = transformers.MixtralConfig(
        **SMALL, **TOKENS, num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2
    )
    return transformers.MixtralForCausalLM(config), {"input_ids": ids()}


def mamba():
    config = transformers.MambaConfig(**TOKENS, hidden_size=16, state_size=4, num_hidden_layers=2, intermediate_size=32)
    return transformers.MambaForCausalLM(config), {"input_ids": ids()}


def rwkv():
    config = transformers.RwkvConfig(
        **TOKENS, hidden_size=16, num_hidden_layers=2, attention_hidden_size=16, intermediate_size=32, context_length=16
    )
    return transformers.RwkvForCausalLM(config), {"input_ids": ids()}


def family(make, name, cuts):
    return pytest.param(make, cuts, id=make.__name__, marks=pytest.mark.compatibility("model family", name, "works"))


@pytest.fixture
def analyze(cli, tmp_path):
    """Save a model and its inputs, and analyze it by the command; return status, what it printed, complaint, run."""

    def run(model, inputs, *options):
        model.save_pretrained(tmp_path / "model")
        np.savez(tmp_path / "data.npz", targets=np.arange(N) % 3, **{key: x.numpy() for key, x in inputs.items()})
        data = ["--data", tmp_path / "data.npz"]
        return *cli("analyze", tmp_path / "model", *data, "--out", tmp_path / "run", *options), tmp_path / "run"

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """No figures, which take longer than all the rest."""
    monkeypatch.setattr("layerfreq.inspection.analysis.Run.plot", lambda run: None)
    monkeypatch.setattr("layerfreq.plots.save", lambda figure, folder, name: [])


@pytest.mark.parametrize(
    ("make", "cuts"),
    [
        family(bert, "text encoder (BERT)", ["bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler.activation"]),
        family(gpt2, "decoder (GPT-2)", ["transformer.h.0", "transformer.h.1", "transformer"]),
        family(llama, "decoder (Llama)", ["model.layers.0", "model.layers.1", "model"]),
        family(vit, "vision transformer (ViT)", ["vit.layers.0", "vit.layers.1", "vit"]),
        family(
            resnet,
            "convolutional network (ResNet)",
            [
                "resnet.embedder.embedder.activation",
                "resnet.embedder",
                "resnet.encoder.stages.0.layers.0.activation",
                "resnet.encoder.stages.1.layers.0.activation",
                "resnet.encoder.stages.1.layers.1.activation",
            ],
        ),
        family(
            convnext,
            "convolutional network (ConvNeXt)",
            ["convnext.encoder.stages.0.layers.0", "convnext.encoder.stages.1.layers.0"],
        ),
        family(
            wav2vec2,
            "audio (Wav2Vec2)",
            [
                "wav2vec2.feature_extractor.conv_layers.0.activation",
                "wav2vec2.feature_extractor.conv_layers.1.activation",
                "wav2vec2.encoder.pos_conv_embed.add",
                "wav2vec2.encoder.layers.0",
                "wav2vec2.encoder.layers.1",
            ],
        ),
        family(
            ast,
            "audio (AST)",
            ["audio_spectrogram_transformer.layers.0", "audio_spectrogram_transformer.layers.1"],
        ),
        family(mixtral, "mixture of experts (Mixtral)", ["model.layers.0", "model.layers.1", "model"]),
        family(mamba, "state space (Mamba)", ["backbone.layers.0", "backbone.layers.1", "backbone"]),
        family(rwkv, "recurrent (RWKV)", ["rwkv.blocks.0", "rwkv.blocks.1", "rwkv"]),
        family(t5, "encoder-decoder (T5)", ["decoder.block.1.layer.2", "decoder"]),
    ],
)
def test_measured_end_to_end(analyze, undrawn, make, cuts):
    torch.manual_seed(0)
    status, printed, error, run = analyze(*make())
    assert (status, error) == (0, "")
    config, spectra = Run(run).config, Run(run).spectra
    assert config["layers"] == cuts
    assert list(dict.fromkeys(spectra["layer"])) == cuts
    assert np.isfinite(spectra["lfr"]).all()
    assert spectra.groupby(["layer", "scale"])["lfr"].max().min() > 0.9
    told = " ".join(printed.split())
    assert all(reason.partition(" (")[0] in told for reason in config["not a cut"].values())


@pytest.mark.compatibility(
    "model family",
    "multimodal (CLIP)",
    "works with a limit",
    "two towers, neither of which alone determines the output: name the layers",
)
def test_two_towers_want_their_layers_named(analyze):
    torch.manual_seed(0)
    model, inputs = clip()
    status, _, error, run = analyze(model, inputs)
    assert (status, len(error.strip().splitlines())) == (2, 1)
    assert all(words in error for words in ("no hidden layer found in CLIPModel", "another way too", "name layers"))
    assert not run.exists()
    layers = ["text_model.encoder.layers.1", "vision_model.encoder.layers.1"]
    status, _, error, run = analyze(model, inputs, *(word for layer in layers for word in ("--layers", layer)))
    assert (status, error) == (0, "")
    assert sorted(set(Run(run).spectra["layer"])) == layers
    assert (run / "figures" / "densities.pdf").exists()
