"""What the tests of callbacks share: a probe set, and runs compared bit for bit."""

import pandas as pd
import torch

from layerfreq import Run

X = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long()
GRID = [0.01, 0.1, 1.0, 10.0]


def assert_same_run(one, other):
    """Spectra, errors and metrics are the same, bit for bit."""
    a, b = Run(one), Run(other)
    assert a.steps() == b.steps()
    assert len(a.spectra) > 0
    pd.testing.assert_frame_equal(a.errors, b.errors, check_exact=True)
    pd.testing.assert_frame_equal(a.spectra, b.spectra, check_exact=True)
    columns = sorted(a.metrics.columns)
    assert columns == sorted(b.metrics.columns)
    pd.testing.assert_frame_equal(a.metrics[columns], b.metrics[columns], check_exact=True)
    assert len(a.metrics) > 0
