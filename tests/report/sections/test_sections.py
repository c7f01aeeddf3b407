"""Each section says what the measure says that it shows, of the points that it could afford."""

import re

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("safetensors")

from layerfreq.errors import InputError
from layerfreq.network.extract import layer_features
from layerfreq.related import axis_frequencies, image_frequency, run_axis_frequencies, suspects
from layerfreq.report.sections import images as by_image
from layerfreq.report.sections.axis import axis
from layerfreq.report.sections.changes import changes
from layerfreq.report.sections.disagreeing import disagreeing
from layerfreq.report.sections.images import images as image_section
from layerfreq.report.sections.section import SECONDS
from layerfreq.runs.weights import weights_at

from .conftest import WRONG, Recurrent, in_time, keep, of_images, trained, waves


def rows(html):
    """The rows of the tables in a section's HTML."""
    return [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]


def test_drawn_points_are_the_same_ones_and_more_where_more_can_be_afforded(tmp_path):
    x, y = waves()
    one = trained(keep(tmp_path / "run", in_time()), in_time(), x, y)
    few, more = one.drawn(10).tolist(), one.drawn(30).tolist()
    assert set(few) < set(more)
    assert few == sorted(few) != list(range(10))
    assert one.drawn(60).tolist() == list(range(60))
    assert one.at(one.drawn(60)) is x
    assert torch.equal(one.at(one.drawn(10)), x[few])
    assert (one.told(10), one.told(60)) == ("10 of 60 points", "60 points")


def test_axis_by_layer_over_the_kept_steps(tmp_path):
    x, y = waves()
    run = keep(tmp_path / "run", in_time())
    found = axis(trained(run, in_time(), x, y))
    table = run_axis_frequencies(run, in_time(), x)
    assert found.about["layers"] == ["1", "3"]
    assert list(found.arrays["steps"][0]) == [0, 10, 20]
    for name in ("focus", "centroid", "chance_focus", "chance_centroid"):
        expected = table.pivot(index="layer", columns="step", values=name).to_numpy()
        np.testing.assert_allclose(found.arrays[name][0], expected)
    assert "60 points and 3 of 3 kept steps" in found.below


def test_axis_of_sequences_is_time_and_not_their_channels(tmp_path):
    x = torch.randn(30, 12, 2, generator=torch.Generator().manual_seed(0))
    found = axis(trained(keep(tmp_path / "run", Recurrent(), (0,)), Recurrent(), x, None))
    expected = axis_frequencies(Recurrent(), x, ["act"], axis=1, channels=-1)
    np.testing.assert_allclose(found.arrays["centroid"][0], [[expected["centroid"].item()]])


def test_suspects_are_the_points_with_another_label_than_their_like(tmp_path):
    x, y = waves()
    one = trained(keep(tmp_path / "run", in_time()), in_time(), x, y, layers=["1", "3"])
    found = disagreeing(one)
    assert found.about["layers"] == ["1", "3"]
    features = layer_features(one.model, x, ["1", "3"])
    for at, layer in enumerate(("1", "3")):
        expected = suspects(features[layer], y)
        scores, ranks = np.sort(expected.score)[::-1], found.arrays["ranks"][0]
        np.testing.assert_allclose(found.arrays["score"][0][at], scores[ranks - 1])
        table = [row for row in rows(found.below.split("<details")[at + 1]) if row[0].isdigit()]
        assert len(table) == 20
        assert {int(row[1]) for row in table[:3]} == set(WRONG)
        assert [int(row[1]) for row in table] == expected.order[:20].tolist()
        assert all(row[2] != row[3] for row in table[:3])
        assert f"{expected.worse} of 60 points" in found.below
    # Chance is a mean over ranks: in all as great as the points' own.
    assert found.arrays["chance"][0].mean() == pytest.approx(expected.chance.mean(), rel=0.1)


def test_suspects_of_a_part_of_the_points_have_the_places_of_all(tmp_path):
    x, y = waves()
    one = trained(
        keep(tmp_path / "run", in_time()), in_time(), x, y, each=SECONDS / 40.5 / 2
    )  # two layers are two passes
    found = disagreeing(one)
    places = set(one.drawn(40).tolist())
    assert "40 of 60 points" in found.html
    named = [int(row[1]) for row in rows(found.below) if row[0].isdigit()]
    assert set(named) <= places
    assert set(WRONG) & places <= set(named[:3])


def test_suspects_of_numbers_show_numbers(tmp_path):
    x, _ = waves()
    y = torch.linspace(-1, 1, 240).reshape(60, 4)
    found = disagreeing(trained(keep(tmp_path / "run", in_time()), in_time(), x, y))
    (first, *_) = [row for row in rows(found.below) if row[0] == "1"]
    assert first[2].endswith(", …")
    assert first[2].count(",") == 3


def test_images_by_class(tmp_path, images, monkeypatch):
    x, y = images
    one = trained(keep(tmp_path / "run", of_images()), of_images(), x, y)
    found, expected = image_section(one), image_frequency(one.model, x, y, patch=1)
    np.testing.assert_allclose(found.arrays["loss"][0], expected.loss)
    assert found.about == {"classes": [0, 1, 2], "size": [8, 8]}
    table = rows(found.below)[1:]
    assert [row[:3] for row in table] == [[str(c), "20", f"{a:.2f}"] for c, a in enumerate(expected.accuracy)]
    monkeypatch.setattr(by_image, "BLOCKS", (4,))
    monkeypatch.setattr(by_image, "CLASSES", 2)
    found = image_section(one)
    assert "blocks of 2 × 2 frequencies at a time, the first 2 of 3 classes" in found.html
    assert len(found.arrays["loss"][0]) == 2


def test_slower_networks_get_larger_blocks_and_then_fewer_images(tmp_path, images):
    run = keep(tmp_path / "run", of_images())
    at_once, slower = (trained(run, of_images(), *images, each=each) for each in (0.0, SECONDS / 2000))
    assert "each frequency by itself" in image_section(at_once).html
    assert "on 60 images" in image_section(at_once).html
    assert "blocks of 2 × 2" in image_section(slower).html


@pytest.mark.parametrize(
    ("section", "part", "words"),
    [
        (changes, {"each": 10.0}, "would take"),
        (changes, {"own": 10.0}, "would take"),
        (axis, {"each": 10.0}, "would take"),
        (disagreeing, {"each": 10.0}, "would take"),
        (image_section, {"each": 10.0}, "inputs are not images"),
        (disagreeing, {"targets": None}, "no targets"),
        (disagreeing, {"targets": torch.zeros(60, 3, dtype=torch.long)}, "no targets"),
        (changes, {"steps": (0,)}, "weights of one step only"),
        (changes, {"inputs": torch.zeros(60, 1, 24, dtype=torch.long)}, "not coordinates"),
    ],
)
def test_what_cannot_be_shown_is_a_reason(tmp_path, section, part, words):
    x, y = waves()
    run = keep(tmp_path / "run", in_time(), part.pop("steps", (0, 10, 20)))
    with pytest.raises(InputError, match=words):
        section(trained(run, in_time(), **{"inputs": x, "targets": y, **part}))


def test_intervals_in_which_nothing_changed_or_weights_are_damaged_say_so(tmp_path):
    run, (x, y) = keep(tmp_path / "run", in_time(), (0, 10, 20, 30)), waves()
    weights_at(run.path, 10).write_bytes(weights_at(run.path, 0).read_bytes())
    weights_at(run.path, 20).write_bytes(b"half")
    found = changes(trained(run, in_time(), x, y))
    assert [row[0] for row in rows(found.html)[1:]] == ["0 to 10", "10 to 20", "20 to 30"]
    said = [row[1] for row in rows(found.html)[1:]]
    assert "the same as before" in said[0]
    assert ["is damaged" in one for one in said] == [False, True, True]


def test_slower_networks_have_fewer_intervals_and_then_fewer_points(tmp_path):
    run, (x, y) = keep(tmp_path / "run", in_time(), range(9)), waves()
    for passes, many, used in ((60, 8, "60 points"), (30, 4, "60 points"), (15, 2, "60 points"), (14.5, 2, "30 of 60")):
        each = SECONDS / 60 / passes if passes != 14.5 else SECONDS / 30.5 / 14
        found = changes(trained(run, in_time(), x, y, each=each))
        assert len(rows(found.html)) == 1 + many
        assert f"at {used}" in found.html


def test_readings_of_some_layers_are_the_runs_own(tmp_path, images):
    run = keep(tmp_path / "run", of_images(), config={"reading": {"1": "mean"}})
    one = trained(run, of_images(), *images, layers=["1"])
    expected = suspects(layer_features(one.model, images[0], ["1"], reading="mean")["1"], images[1])
    table = [row for row in rows(disagreeing(one).below) if row[0].isdigit()]
    assert [int(row[1]) for row in table] == expected.order[:20].tolist()


def test_what_is_no_image_or_has_no_axis_is_a_reason(tmp_path, images):
    x, y = images
    run = keep(tmp_path / "run", of_images())
    for part, words in (({"targets": y.double()}, "class ids"), ({"each": 1.0}, "would take")):
        with pytest.raises(InputError, match=words):
            image_section(trained(run, of_images(), x, **{"targets": y, **part}))
    flat = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    with pytest.raises(InputError, match="no layer with a time or space axis"):
        axis(trained(keep(tmp_path / "flat", flat), flat, torch.randn(30, 3), None))
    read = keep(tmp_path / "read", in_time(), config={"reading": "positions"})
    with pytest.raises(InputError, match="by position"):
        disagreeing(trained(read, in_time(), *waves()))
    read = keep(tmp_path / "own", in_time(), config={"reading": "<lambda>"})
    with pytest.raises(InputError, match="by a function"):
        disagreeing(trained(read, in_time(), *waves()))
