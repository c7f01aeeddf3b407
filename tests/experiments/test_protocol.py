"""Every experiment has what the command line asks for, and is set by name."""

import inspect
from dataclasses import fields, is_dataclass

import pytest

pytest.importorskip("lightning_fabric")

from layerfreq.experiments import NAMES, Compared, Experiment, Rebuildable, experiment
from tests.helpers.refusals import Code, refuses


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_one(name):
    found = experiment(name)
    assert isinstance(found, Experiment)
    for kind, method in ((Experiment, "run"), (Experiment, "present"), (Compared, "beside"), (Rebuildable, "rebuild")):
        if isinstance(found, kind):
            asked = [one for one in inspect.signature(getattr(kind, method)).parameters if one != "self"]
            assert list(inspect.signature(getattr(found, method)).parameters) == asked, method
    assert {"smoke", "small"} <= set(found.PRESETS)
    for config in found.PRESETS.values():
        assert is_dataclass(config)
        assert all(field.kw_only for field in fields(config))
        with pytest.raises(AttributeError):
            setattr(config, fields(config)[0].name, None)


def test_what_is_compared_and_what_is_built_anew():
    assert {name for name in NAMES if isinstance(experiment(name), Compared)} == {"depth", "sine", "mlp", "resnet"}
    assert {name for name in NAMES if isinstance(experiment(name), Rebuildable)} == {"mlp", "resnet", "controls"}


def test_an_unknown_experiment_is_one_line():
    with refuses("experiment", Code.UNKNOWN, "'slp'"):
        experiment("slp")
