"""Advice for each token: heads are held out by text, intervals are over texts, and only what fits is taken."""

import numpy as np
import pytest
import torch
from torch import nn

from layerfreq import advise
from layerfreq.advice import heads, points
from layerfreq.advice.heads import coordinates, held_out, shuffled
from layerfreq.advice.result import Gap
from layerfreq.errors import InputError
from layerfreq.network.labelled import following
from tests.helpers.refusals import Code, refuses

G = torch.Generator().manual_seed(0)
IDS = torch.randint(0, 6, (40, 7), generator=G)


class Tagger(nn.Module):
    """Tells of each token whether it is odd: from a one-hot embedding, by a hidden layer that keeps it."""

    def __init__(self, classes=2, channel_first=False):
        super().__init__()
        self.embed = nn.Embedding(6, 6)
        self.hidden = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.head = nn.Linear(6, classes)
        self.channel_first = channel_first
        with torch.no_grad():
            for weight in (self.embed.weight, self.hidden[0].weight):
                weight.copy_(torch.eye(6))
            self.head.weight.copy_(torch.nn.functional.one_hot(torch.arange(6) % classes).T.float())
            for bias in (self.hidden[0].bias, self.head.bias):
                bias.zero_()

    def forward(self, ids):
        out = self.head(self.hidden(self.embed(ids)))
        return out.movedim(-1, 1) if self.channel_first else out


class Causal(nn.Module):
    """A language model as Hugging Face has them, which is given its input as labels and compares with the next."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, labels=None):
        logits = self.model(ids)
        loss = (
            None
            if labels is None
            else nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        )
        return {"loss": loss, "logits": logits}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(heads, "STEPS", 20)
    monkeypatch.setattr(heads, "RATES", (0.1,))


@pytest.mark.parametrize("channel_first", [False, True])
def test_tags_that_a_hidden_layer_holds_are_told_at_each_token(channel_first):
    found = advise(Tagger(channel_first=channel_first), IDS, IDS % 2, reading="positions")
    assert (found.network, found.points, found.inputs) == (1, 280, 40)
    assert found.exit == "hidden.1"
    assert found.table["linear"].tolist() == [1.0]


def test_tokens_without_a_tag_do_not_count():
    tags = torch.where(torch.rand(IDS.shape, generator=G) < 0.5, IDS % 2, -100)
    tags[3] = -100
    found = advise(Tagger(), IDS, tags, reading="positions")
    assert (found.points, found.inputs) == (int((tags >= 0).sum()), 39)
    assert found.network == found.table["linear"].iloc[0] == 1


def test_a_language_model_is_judged_by_the_next_tokens():
    ids = (torch.arange(6).repeat(40, 2)[:, :8] + torch.randint(0, 6, (40, 1), generator=G)) % 6
    model = Tagger(classes=6)  # says the token itself
    with torch.no_grad():
        model.head.weight.copy_(torch.eye(6).roll(1, dims=0))  # the next in order, as in these texts
    found = advise(model, ids, following(ids), reading="positions")
    assert (found.network, found.points, found.inputs) == (1, 280, 40)
    assert found.exit == "hidden.1"
    as_they_come = [{"ids": some, "labels": some} for some in ids.split(16)]
    batched = advise(Causal(model), as_they_come, reading="positions")
    cost = ["layer", "time", "parameters"]
    assert batched.table.drop(columns=cost).equals(found.table.drop(columns=cost))
    wrong = advise(model, ids, ids, reading="positions")
    assert wrong.network == 0
    assert wrong.exit == "hidden.1"  # where the token itself can be told as well


@pytest.mark.parametrize("channel_first", [False, True])
def test_steps_of_a_series_have_inputs_of_their_own(channel_first):
    x = torch.randn(40, 5, 3, generator=G)
    y = (x[..., 0] > 0).long()
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    if channel_first:
        x, model = x.movedim(-1, 1), nn.Sequential(nn.Conv1d(3, 4, 1), nn.Tanh(), nn.Conv1d(4, 2, 1))
    found = advise(model, x, y, reading="positions").table.set_index("layer")
    assert found["dimension"].tolist() == [3, 4]
    assert found["linear"]["inputs"] > 0.9


def test_numbers_at_each_step_are_judged_by_r2():
    x = torch.randn(40, 5, 3, generator=G)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    y = model(x).detach()
    found = advise(model, x, y, reading="positions")
    assert (found.measure, found.points, found.inputs) == ("R2", 200, 40)
    assert found.network == pytest.approx(1, abs=1e-6)


def test_what_only_tells_texts_apart_tells_nothing_of_texts_that_were_held_out():
    """Every text has a label of its own, by chance, on all its tokens, and a place of its own."""
    groups = torch.arange(60).repeat_interleave(8)
    x = torch.eye(60)[groups] + 0.01 * torch.randn(480, 60, generator=G)
    y = (torch.arange(60) % 2)[torch.randperm(60, generator=G)][groups]
    by_text = held_out(coordinates(x), y, "linear", 0, groups).scores.mean()
    by_token = held_out(coordinates(x), y, "linear", 0).scores.mean()
    assert by_text < 0.65
    assert by_token > 0.9


def test_more_than_memory_holds_is_said_before_it_is_tried(monkeypatch):
    monkeypatch.setattr(points, "free_memory", lambda: 5000)  # of 40 texts, 7 tokens, 6 features, 4 bytes: 6720
    with refuses("inputs", Code.MEMORY, "6.72e-06 GB"):
        advise(Tagger(), IDS, IDS % 2, reading="positions")


def test_groups_stay_together_and_singles_are_as_without_groups():
    groups = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    found = shuffled(groups, 0)
    assert sorted(map(tuple, (one.tolist() for one in found))) == [(0, 1), (2,), (3, 4, 5), (6,)]
    x, y = torch.randn(60, 3, generator=G), torch.arange(60) % 2
    alone, none = (held_out(x, y, "linear", 0, given).scores for given in (torch.arange(60), None))
    np.testing.assert_array_equal(alone, none)


def test_intervals_are_those_of_the_texts_means():
    means = np.array([0.2, -0.1, 0.4, 0.0, 0.3])
    groups, zero = np.repeat(np.arange(5), 4), np.zeros(20)
    one, clustered = Gap.of(means, zero[:5]), Gap.of(np.repeat(means, 4), zero, groups)
    np.testing.assert_allclose([one.value, one.low, one.high], [clustered.value, clustered.low, clustered.high])
    own = np.arange(20)
    scores = np.random.default_rng(0).random(20)
    assert Gap.of(scores, zero, own) == Gap.of(scores, zero)


def test_intervals_hold_the_truth_where_tokens_of_a_text_err_together():
    """Of texts of unequal lengths; counting tokens as if they were drawn one by one holds it far too rarely."""
    draw = np.random.default_rng(0)
    clustered = single = 0
    for _ in range(400):
        groups = np.repeat(np.arange(40), draw.integers(3, 12, 40))
        apart = (draw.normal(size=40)[groups] + draw.normal(size=len(groups))) / 2
        one, other = Gap.of(apart, 0 * apart, groups), Gap.of(apart, 0 * apart)
        clustered += one.low <= 0 <= one.high
        single += other.low <= 0 <= other.high
    assert 0.92 < clustered / 400 < 0.98
    assert single / 400 < 0.75


class Pooled(Tagger):
    """One answer for each text."""

    def forward(self, ids):
        return super().forward(ids).mean(dim=1)


@pytest.mark.parametrize(
    ("model", "targets", "options", "words"),
    [
        (Pooled(), IDS[:, 0] % 2, {"reading": "positions"}, "returns (40, 2), nothing for each position"),
        (Tagger(), IDS[:, :5] % 2, {"reading": "positions"}, "targets: labels of 5 positions"),
        (Tagger(), IDS % 2, {}, "pass reading='positions'"),
        (Tagger(), IDS % 3, {"reading": "positions"}, "targets: class ids up to 2"),
        (Tagger(), IDS * 0 - 100, {"reading": "positions"}, "inputs: 0 are too few"),
        (
            Tagger(),
            torch.where(IDS < 9, -100, 0).index_fill(0, torch.arange(20), 1),
            {"reading": "positions"},
            "20 are",
        ),
        (Tagger(), IDS[:, 0] % 2, {"reading": {"hidden.1": "mean"}}, "one output per class"),
    ],
)
def test_what_does_not_fit_is_one_line(model, targets, options, words):
    with pytest.raises(InputError) as caught:
        advise(model, IDS, targets, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
