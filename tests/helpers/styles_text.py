"""Models in the styles of public repositories, and the cuts that a person would name: texts, series, graphs."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.helpers.styles import D, N, Net, Style, fc, many

T = 6
SMALL = {"vocab_size": 50, "pad_token_id": 0}
LENGTHS = torch.tensor([6, 2, 5, 3, 6, 4, 2, 6, 3])


def ids(t=T):
    return torch.randint(3, 50, (N, t))


def there(t=T):
    return (torch.arange(t) < LENGTHS[:, None]).long()


def padded():
    return {"input_ids": ids() * there(), "attention_mask": there()}


def bert(kind="BertForSequenceClassification", **more):
    def build():
        import transformers

        config = transformers.BertConfig(
            **SMALL, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=16, **more,
        )  # fmt: skip
        return getattr(transformers, kind)(config)

    return build


def distilbert():
    import transformers

    config = transformers.DistilBertConfig(
        **SMALL, dim=16, n_layers=3, n_heads=2, hidden_dim=32, max_position_embeddings=16
    )
    return transformers.DistilBertForSequenceClassification(config)


def gpt2(kind="GPT2LMHeadModel"):
    def build():
        import transformers

        config = transformers.GPT2Config(**SMALL, n_positions=16, n_embd=16, n_layer=3, n_head=2)
        return getattr(transformers, kind)(config)

    return build


def llama():
    import transformers

    config = transformers.LlamaConfig(
        **SMALL, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_key_value_heads=1
    )
    return transformers.LlamaForCausalLM(config)


def opt():
    import transformers

    config = transformers.OPTConfig(
        **SMALL, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32, max_position_embeddings=20,
        word_embed_proj_dim=16,
    )  # fmt: skip
    return transformers.OPTForCausalLM(config)


def cnn(m, x, lengths):
    h = F.relu(m.conv(x.transpose(1, 2))).transpose(1, 2)
    kept = torch.arange(h.shape[1])[None] < lengths[:, None]
    return m.head(h.masked_fill(~kept[..., None], 0).sum(1) / lengths[:, None])


def encoder(layers=2):
    layer = nn.TransformerEncoderLayer(D, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def mean_of_tokens(m, x, mask):
    h = m.body(x, src_key_padding_mask=~mask.bool())
    return m.head((h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def with_own_mask(m, x):
    mask = x == 0
    h = m.body(m.embed(x), src_key_padding_mask=mask)
    return m.head((h * ~mask[..., None]).sum(1) / (~mask).sum(1, keepdim=True))


def causal(m, x, mask):
    return m.head(m.body(x, mask=mask))


def at_state(m, x):
    return m.head(m.rnn(x)[1][-1])


def at_state_of_lstm(m, x):
    _, (h, _) = m.rnn(x)
    return m.head(F.relu(m.fc(torch.cat([h[-2], h[-1]], -1))))


def packed(ordered):
    def run(m, x, lengths):
        z = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=ordered)
        z, _ = pad_packed_sequence(m.rnn(z)[0], batch_first=True, total_length=T)
        return m.head(F.relu(m.fc(z[torch.arange(len(z)), lengths - 1])))

    return lambda: Net(run, rnn=nn.GRU(D, 6, batch_first=True), fc=fc(6, D), head=fc(D, 2))


def last_of_cells(m, x):
    h = x.new_zeros(len(x), D)
    for t in range(x.shape[1]):
        h = m.cell(x[:, t], h)
    return m.head(h)


def sequence():
    return torch.randn(N, T, D)


def graph(m, x, edges):
    for layer in (m.a, m.b):
        sums = torch.zeros(len(x), D).index_add(0, edges[1], layer(x)[edges[0]])
        x = F.relu(sums)
    return m.head(x)


def dense_graph(m, x, adjacency):
    return m.head(F.elu(adjacency @ m.b(F.elu(adjacency @ m.a(x)))))


class Block(nn.Module):
    """A pre-norm transformer block, as of small teaching repositories."""

    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attn = nn.MultiheadAttention(D, 2, batch_first=True)
        self.mlp = nn.Sequential(fc(D, 16), nn.GELU(), fc(16, D))

    def forward(self, x, mask=None):
        z = self.ln1(x)
        x = x + self.attn(z, z, z, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln2(x))


def teaching_gpt(m, x):
    t = x.shape[1]
    mask = torch.full((t, t), -torch.inf).triu(1)
    x = m.tok(x) + m.pos(torch.arange(t))
    for block in m.blocks:
        x = block(x, mask)
    return m.head(m.ln(x))


def rising(m, x):
    assert bool((x[1:, 0] > x[:-1, 0]).all())
    return m.head(torch.tanh(m.a(x)))


def fixed(m, x):
    return m.head(torch.tanh(m.a(x) + m.b(torch.ones(N, D))))


def prototypes(m, x):
    z = torch.cat([x, torch.ones(2, D)])
    z = F.relu(m.a(z))
    assert len(z) == N + 2
    return m.head(F.relu(m.b(z[:N])))


def unrolled(m, x):
    for _ in range(2):
        x = m.body(x)
    return m.head(x)


def sums_of_attention(m, x):
    for one in m.attention:
        x = x + one(x, x, x)[0]
    return m.head(x)


BERT = ["bert.encoder.layer.0", "bert.encoder.layer.1", "bert.encoder.layer.2", "bert.pooler.activation"]
GPT = ["transformer.h.0", "transformer.h.1", "transformer.h.2", "transformer"]
ENCODER = ["body.layers.0", "body.layers.1"]
STYLES = [
    Style("BERT, one length", "Hugging Face", bert(), lambda: {"input_ids": ids()}, BERT),
    Style("BERT, padded", "Hugging Face", bert(), padded, BERT),
    Style("BERT, padded, all hidden states", "Hugging Face", bert(output_hidden_states=True), padded, BERT),
    Style("BERT, padded, segments", "Hugging Face", bert(),
          lambda: {**padded(), "token_type_ids": (torch.arange(T) > 1).long().repeat(N, 1)}, BERT),
    Style("BERT, padded, loss from labels", "Hugging Face", bert(),
          lambda: {**padded(), "labels": torch.randint(0, 2, (N,))}, BERT),
    Style("BERT for tokens, padded", "Hugging Face", bert("BertForTokenClassification"), padded, BERT[:3]),
    Style("DistilBERT, padded", "Hugging Face", distilbert, padded,
          [f"distilbert.transformer.layer.{i}" for i in range(3)] + ["pre_classifier.relu"]),
    Style("GPT-2, padded", "Hugging Face", gpt2(), padded, GPT),
    Style("GPT-2, padded on the left, positions", "Hugging Face", gpt2(),
          lambda: {"input_ids": ids(), "attention_mask": there().flip(1),
                   "position_ids": (there().flip(1).cumsum(1) - 1).clamp(0)}, GPT),
    Style("GPT-2 for sequences", "Hugging Face", gpt2("GPT2ForSequenceClassification"), padded, GPT),
    Style("Llama, padded", "Hugging Face", llama, padded, ["model.layers.0", "model.layers.1", "model"]),
    Style("OPT, padded: positions counted from the mask", "Hugging Face", opt, padded,
          ["model.decoder.layers.0", "model.decoder.layers.1", "model.decoder"]),
    Style("convolutions, lengths", "text classification", lambda: Net(
        cnn, conv=nn.Conv1d(D, D, 3, padding=1), head=fc(D, 2)), lambda: (sequence(), LENGTHS), ["conv.relu"]),
    Style("encoder, padding mask, mean of tokens", "sentence encoders", lambda: Net(
        mean_of_tokens, body=encoder(), head=fc(D, 2)), lambda: (sequence(), there()), ENCODER),
    Style("encoder, float mask", "sentence encoders", lambda: Net(
        mean_of_tokens, body=encoder(), head=fc(D, 2)), lambda: (sequence(), there().float()), ENCODER),
    Style("encoder, mask made from ids", "text classification", lambda: Net(
        with_own_mask, embed=nn.Embedding(50, D), body=encoder(), head=fc(D, 2)), lambda: ids() * there(), ENCODER),
    Style("encoder, one causal mask for all", "language models", lambda: Net(causal, body=encoder(), head=fc(D, 50)),
          lambda: (sequence(), torch.full((T, T), -torch.inf).triu(1)), ENCODER),
    Style("encoder, one causal mask, T = n", "language models", lambda: Net(causal, body=encoder(), head=fc(D, 50)),
          lambda: (torch.randn(N, N, D), torch.full((N, N), -torch.inf).triu(1)), ENCODER),
    Style("teaching GPT", "language models", lambda: Net(
        teaching_gpt, tok=nn.Embedding(50, D), pos=nn.Embedding(T, D), blocks=many(Block, 3), ln=nn.LayerNorm(D),
        head=fc(D, 50)), ids, ["blocks.0", "blocks.1", "blocks.2"]),
    Style("sums of attention alone", "attention studies", lambda: Net(
        sums_of_attention, attention=many(lambda: nn.MultiheadAttention(D, 2, batch_first=True), 2), head=fc(D, 2)),
          sequence, ["attention.0.add", "attention.1.add"]),
    Style("GRU, read at h_n", "time series", lambda: Net(at_state, rnn=nn.GRU(D, 6, batch_first=True), head=fc(6, 2)),
          sequence, ["rnn.h_n"]),
    Style("LSTM in both directions, h_n", "time series", lambda: Net(
        at_state_of_lstm, rnn=nn.LSTM(D, 6, 2, batch_first=True, bidirectional=True), fc=fc(12, D), head=fc(D, 2)),
          sequence, ["rnn.h_n", "fc.relu"]),
    Style("LSTM, last step", "time series", lambda: Net(
        lambda m, x: m.head(m.rnn(x)[0][:, -1]), rnn=nn.LSTM(D, 6, batch_first=True), head=fc(6, 2)), sequence,
          ["rnn"]),
    Style("cells in a loop", "time series", lambda: Net(last_of_cells, cell=nn.GRUCell(D, D), head=fc(D, 2)), sequence,
          [f"cell:{T}"]),
    Style("packed, sorted lengths", "text classification", packed(True),
          lambda: (sequence(), LENGTHS.sort(descending=True).values), ["fc.relu"]),
    Style("packed, any lengths", "text classification", packed(False), lambda: (sequence(), LENGTHS), ["fc.relu"]),
    Style("unrolled blocks", "deep equilibrium", lambda: Net(unrolled, body=Block(), head=fc(D, 2)), sequence,
          ["body:1", "body:2"]),
    Style("graph network, edges", "graph repositories", lambda: Net(graph, a=fc(), b=fc(), head=fc(D, 2)),
          lambda: (torch.randn(N, D), torch.stack([torch.arange(N), torch.arange(N).roll(1)])), ["a.relu", "b.relu"]),
    Style("graph network, adjacency", "graph repositories", lambda: Net(dense_graph, a=fc(), b=fc(), head=fc(D, 2)),
          lambda: (torch.randn(N, D), torch.eye(N).roll(1, 0) * 0.5), ["a.elu", "b.elu"]),
    Style("inputs that must rise", "time to event", lambda: Net(rising, a=fc(), head=fc(D, 2)),
          lambda: torch.randn(N, D).sort(0).values, ["a.tanh"]),
    Style("a state of a fixed batch", "stateful networks", lambda: Net(fixed, a=fc(), b=fc(), head=fc(D, 2)),
          lambda: torch.randn(N, D), ["b.tanh"]),
    Style("prototypes beside the batch", "few-shot learning", lambda: Net(prototypes, a=fc(), b=fc(), head=fc(D, 2)),
          lambda: torch.randn(N, D), ["b.relu"]),
]  # fmt: skip
