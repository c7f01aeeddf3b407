"""Rivals of the frequency in predicting how fast the layers above a cut learn, one function each.

Features are (n, d), targets (n,) class ids or (n, c) floats; every function returns one number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerfreq.data.validation import Scale
from layerfreq.extras import needs
from layerfreq.measure.result import Spectrum
from layerfreq.relearn.heads import fixed_head, point_losses


def feature_rms(features: Tensor) -> float:
    """Root mean square of |f - mean f|, the scale by which the spectrum's "rms" divides."""
    x = features.double()
    return float((x - x.mean(dim=0)).square().sum(dim=1).mean().sqrt())


def effective_rank(features: Tensor) -> float:
    """Exp of the entropy of the singular values of the centred features, as shares of their sum (Roy & Vetterli)."""
    x = features.double().numpy(force=True)
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    if values.sum() == 0:
        return 0.0
    shares = values / values.sum()
    from scipy.stats import entropy

    return float(np.exp(entropy(shares)))


def kernel_alignment(features: Tensor, targets: Tensor) -> float:
    """Centred alignment of the features' linear kernel with the targets' (Cortes et al.): 0 to 1."""
    x, y = features.double(), as_columns(targets)
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    # <Kx, Ky> = |x' y|^2 and |K|^2 = |x' x|^2 = |x x'|^2, so that no n x n matrix is needed.
    own = torch.linalg.matrix_norm(x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T)
    across = torch.linalg.matrix_norm(x.T @ y).square()
    return float(across / (own * torch.linalg.matrix_norm(y.T @ y)).clamp(min=1e-300))


def probe_loss(features: Tensor, targets: Tensor) -> float:
    """Training loss of scikit-learn's linear probe on features at unit rms, with unit ridge.

    Logistic regression's cross-entropy for class ids, ridge regression's mean squared error for floats.
    """
    linear, metrics = (needs(f"sklearn.{part}", "layerfreq[study]", "probe") for part in ("linear_model", "metrics"))
    x = standardise(features).numpy(force=True)
    y = targets.numpy(force=True)
    if targets.is_floating_point():
        return float(metrics.mean_squared_error(y, linear.Ridge(alpha=1.0).fit(x, y).predict(x)))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a probe that stopped at its limit is as good for ranking
        probe = linear.LogisticRegression(C=1.0, max_iter=200).fit(x, y)
    return float(metrics.log_loss(y, probe.predict_proba(x), labels=probe.classes_))


def initial_loss(features: Tensor, targets: Tensor) -> float:
    """Loss of three fresh heads before training, their mean."""
    outputs, d = outputs_of(targets), features.shape[1]
    with torch.no_grad():
        heads = [fixed_head("hidden-1", d, outputs, seed, d**-0.5) for seed in range(3)]
        losses = [float(point_losses(head(features.float()), targets).mean()) for head in heads]
    return float(np.mean(losses))


def energy_above_chance(spectrum: Spectrum) -> float:
    """Integral over ln(1/delta) of LFR above what shuffled labels would give."""
    from scipy.integrate import trapezoid

    return float(trapezoid(spectrum.lfr - spectrum.chance, np.log(spectrum.inv_delta)))


def predictors(
    features: Tensor, targets: Tensor, scale: Scale, *, depth: int, found: Spectrum, paper: Spectrum
) -> dict[str, float]:
    """Return every predictor of one cut, by name; NaN if there is none.

    Args:
        features: (n, d), as they are.
        targets: (n,) class ids or (n, c) floats.
        scale: Of the features that the heads get; the frequencies of peak and energy are in it, and so is the loss of
            the head before training.
        depth: Number of the cut.
        found: The spectrum of these features and targets, in raw or rms scale.
        paper: The same at maxabs scale.
    """
    raw, rms = found.to_scale("raw"), found.to_scale("rms")
    own = raw if scale == "raw" else rms
    given = features if scale == "raw" else standardise(features) * features.shape[1] ** 0.5
    return {
        "depth": float(depth),
        "feature_rms": feature_rms(features),
        "dimension": float(features.shape[1]),
        "effective_rank": effective_rank(features),
        "kernel_alignment": kernel_alignment(features, targets),
        "probe_loss": probe_loss(features, targets),
        "initial_loss": initial_loss(given, targets),
        "raw_median": _known(raw.median),
        "rms_median": _known(rms.median),
        "maxabs_median": _known(paper.median),
        "rdf_peak": _known(own.peak),
        "energy_above_chance": energy_above_chance(own),
    }


def standardise(features: Tensor) -> Tensor:
    """Return features at "rms" scale as `spectrum` has it: (f - mean f) / sqrt(mean |f - mean f|^2)."""
    x = features.double()
    x = x - x.mean(dim=0)
    spread = x.flatten(1).square().sum(dim=1).mean().sqrt()
    return (x / spread.clamp(min=1e-300)).to(features.dtype)


def as_columns(targets: Tensor) -> Tensor:
    """Return targets as (n, c) float64, class ids one-hot."""
    if targets.is_floating_point():
        return targets.double().reshape(len(targets), -1)
    return torch.nn.functional.one_hot(targets).double()


def outputs_of(targets: Tensor) -> int:
    """Return how many outputs a head for these targets has."""
    return as_columns(targets[:1]).shape[1] if targets.is_floating_point() else int(targets.max()) + 1


def constant_loss(targets: Tensor) -> float:
    """Return the loss of the best constant prediction: the labels' entropy, or the mean variance of the columns."""
    if targets.is_floating_point():
        return float(as_columns(targets).var(dim=0, unbiased=False).mean())
    shares = targets.bincount().double() / len(targets)
    return float(-(shares * shares.clamp(min=1e-300).log()).sum())


def _known(value: Any) -> float:
    return float("nan") if value is None else float(value)
