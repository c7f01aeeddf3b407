"""Lines and the mean of their slopes, held to SciPy's."""

import numpy as np
import pytest

from layerfreq.verdict.regression import fit_line, mean_slope


def test_lines_are_least_squares():
    rng = np.random.default_rng(0)
    x, y = rng.random(6), rng.random(6)
    from scipy.stats import linregress, t

    expected: object = linregress(x, y)
    line = fit_line(x, y)
    assert line.slope == pytest.approx(expected.slope)
    assert line.variance**0.5 == pytest.approx(expected.stderr)
    half = t.ppf(0.975, 4) * expected.stderr
    assert mean_slope([[line]]).interval == pytest.approx((expected.slope - half, expected.slope + half))
    assert fit_line([1, 1], [1, 2]) is None
    noisy = fit_line([0, 1, 2], [0, 1, 2], [0.3, 0.3, 0.3])  # no scatter, but the values are uncertain
    assert noisy.variance == pytest.approx(0.09 / 2)
    slopes = np.array([-1.0, -0.5, -0.7])
    effect = mean_slope([[fit_line([0, 1], [0, s])] for s in slopes])
    half = t.ppf(0.975, 2) * slopes.std(ddof=1) / 3**0.5
    assert effect.interval == pytest.approx((slopes.mean() - half, slopes.mean() + half))
