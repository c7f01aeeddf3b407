"""Spectra kept in files come back bit for bit; what is none of them is one line."""

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
import torch

from layerfreq import LayerSpectra, Spectrum, spectrum
from tests.helpers.refusals import Code, refuses

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


@pytest.mark.parametrize("options", [{}, {"rows": 20}, {"scale": "maxabs", "center": True}, {"scale": "rms"}], ids=str)
def test_a_spectrum_comes_back_bit_for_bit(tmp_path, options):
    one = spectrum(X, Y, engine="reference", **options)
    path = one.save(tmp_path / "one.parquet")
    for again in (Spectrum.load(str(path)), Spectrum.from_frame(one.to_frame())):
        for field in fields(Spectrum):
            np.testing.assert_array_equal(getattr(again, field.name), getattr(one, field.name))
        assert repr(again) == repr(one)
        assert again.median == one.median
    assert [part.name for part in tmp_path.iterdir()] == ["one.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(path), one.to_frame())


def test_the_frame_of_layers_says_what_they_share():
    one = spectrum(X, Y, engine="reference")
    assert LayerSpectra({"a": one, "b": one}).to_frame().attrs.keys() == {"n", "rows", "floor", "refused"}


def test_a_written_copy_is_the_callers_own():
    one = spectrum(X, Y, [1.0, 2.0], engine="reference")
    frame = one.to_frame()
    again = Spectrum.from_frame(frame)
    frame["lfr"] = 0.0
    assert (again.lfr == one.lfr).all()


def test_what_holds_no_spectrum_is_one_line(tmp_path):
    one = spectrum(X, Y, [1.0, 2.0], engine="reference")
    with refuses("path", Code.MISSING):
        Spectrum.load(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with refuses("path", Code.DAMAGED):
        Spectrum.load(tmp_path / "text.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with refuses("path", Code.DAMAGED, "'inv_delta'"):
        Spectrum.load(tmp_path / "other.parquet")
    with refuses("path", Code.VALUE):
        one.save(tmp_path)
    with refuses("path", Code.VALUE):
        one.save(tmp_path / "nowhere" / "one.parquet")
    one.to_frame().to_csv(tmp_path / "one.csv", index=False)
    with refuses("frame", Code.MISSING, "'n'"):
        Spectrum.from_frame(pd.read_csv(tmp_path / "one.csv"))
    backwards = one.to_frame().iloc[::-1]
    with refuses("inv_delta", Code.VALUE):
        Spectrum.from_frame(backwards)
