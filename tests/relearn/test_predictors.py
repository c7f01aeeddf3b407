"""Predictors on matrices whose answer is known."""

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from layerfreq import spectrum
from layerfreq.relearn.predictors import (
    constant_loss,
    effective_rank,
    energy_above_chance,
    feature_rms,
    initial_loss,
    kernel_alignment,
    predictors,
    probe_loss,
    standardise,
)

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(60) % 3
ONE_HOT = torch.nn.functional.one_hot(LABELS).float()


def balanced(k):
    """Features (60, k) with mean zero and k equal singular values."""
    x = torch.randn(60, k + 1, generator=GENERATOR, dtype=torch.float64)
    x[:, 0] = 1
    return torch.linalg.qr(x)[0][:, 1:]


@pytest.mark.parametrize("k", [1, 4, 9])
def test_equal_directions_are_counted(k):
    assert effective_rank(5 + 3 * balanced(k)) == pytest.approx(k)
    assert effective_rank(torch.ones(60, k)) == 0
    assert feature_rms(2 * balanced(k) + 7) == pytest.approx(2 * (k / 60) ** 0.5)


def test_alignment_is_one_with_the_targets_and_zero_across_them():
    assert kernel_alignment(ONE_HOT * 5 + 1, LABELS) == pytest.approx(1)
    within = torch.arange(60)[:, None].div(3, rounding_mode="floor").float()  # the same in each class
    assert kernel_alignment(within, LABELS) == pytest.approx(0, abs=1e-12)
    x, y = torch.randn(60, 5, generator=GENERATOR), torch.randn(60, 2, generator=GENERATOR)
    h = np.eye(60) - 1 / 60
    kx, ky = (h @ (a @ a.T).double().numpy() @ h for a in (x, y))
    expected = (kx * ky).sum() / np.linalg.norm(kx) / np.linalg.norm(ky)
    assert kernel_alignment(x, y) == pytest.approx(expected)
    wide = torch.randn(60, 80, generator=GENERATOR)
    kx = h @ (wide @ wide.T).double().numpy() @ h
    assert kernel_alignment(wide, y) == pytest.approx((kx * ky).sum() / np.linalg.norm(kx) / np.linalg.norm(ky))


def test_probes_of_what_says_all_and_what_says_nothing():
    assert probe_loss(ONE_HOT, LABELS) < 0.3 < probe_loss(torch.zeros(60, 2), LABELS)
    assert probe_loss(torch.zeros(60, 2), LABELS) == pytest.approx(np.log(3), rel=1e-3)
    x = torch.randn(60, 2, generator=GENERATOR)
    assert probe_loss(x, x @ torch.ones(2)) < 0.01
    assert initial_loss(torch.zeros(60, 2), LABELS) == pytest.approx(np.log(3))
    assert constant_loss(LABELS) == pytest.approx(np.log(3))
    assert constant_loss(torch.tensor([0.0, 2.0])) == pytest.approx(1)


def test_scale_is_seen_at_raw_and_not_at_rms_scale():
    x = torch.randn(60, 4, generator=GENERATOR)

    def known(x):
        raw, paper = (spectrum(x, LABELS, scale=scale, engine="reference") for scale in ("raw", "maxabs"))
        return predictors(x, LABELS, "rms", depth=2, found=raw, paper=paper)

    a, b = known(x), known(8 * x)
    assert b["feature_rms"] == pytest.approx(8 * a["feature_rms"])
    assert b["raw_median"] == pytest.approx(a["raw_median"] / 64, rel=1e-3)
    for name in set(a) - {"feature_rms", "raw_median"}:
        assert b[name] == pytest.approx(a[name], rel=1e-3), name
    assert a["depth"] == 2
    assert a["dimension"] == 4
    unit = standardise(x).double()
    assert float(unit.square().sum(dim=1).mean()) == pytest.approx(1)
    own = spectrum(unit, LABELS, engine="reference").median
    assert a["rms_median"] == pytest.approx(own, rel=1e-3)
    x = x.double() - x.double().mean(dim=0)
    x /= x.abs().amax(dim=0)
    assert a["maxabs_median"] == pytest.approx(spectrum(x, LABELS, engine="reference").median, rel=1e-3)
    c = known(8 * x * torch.tensor([1.0, 2.0, 4.0, 8.0]))  # that of the paper's scale does not see a dimension's range
    assert c["maxabs_median"] == pytest.approx(a["maxabs_median"], rel=1e-3)
    assert c["rms_median"] != pytest.approx(a["rms_median"], rel=0.05)


def test_shuffled_labels_have_no_energy_above_chance():
    x = torch.randn(300, 3, generator=GENERATOR)
    shuffled = torch.randint(0, 3, (300,), generator=GENERATOR)
    real = (x[:, 0] > 0).long()
    energies = [energy_above_chance(spectrum(x, y, engine="reference")) for y in (real, shuffled)]
    assert energies[0] > 10 * abs(energies[1])
