"""What docs/extending.md registers with one line works like what is there."""

import json
import re
import sys
from pathlib import Path

import pytest

from layerfreq import Run, experiments
from layerfreq.cli.program import main

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()


def test_the_experiment_is_one_file_and_one_name(tmp_path, monkeypatch, capsys):
    pytest.importorskip("lightning_fabric")
    section = PAGE.partition("## An experiment")[2]
    (tmp_path / "halves.py").write_text(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1])
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path)])
    monkeypatch.setattr(experiments, "NAMES", (*experiments.NAMES, "halves"))
    monkeypatch.delitem(sys.modules, "layerfreq.experiments.halves", raising=False)
    monkeypatch.chdir(tmp_path)
    arguments = ["reproduce", "halves", "--preset", "smoke", "--seed", "0", "--seed", "1", "--json", "--out", "run"]
    monkeypatch.setattr(sys, "argv", ["layerfreq", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    found = json.loads(capsys.readouterr().out)
    assert not ended.value.code
    assert Run("run").steps() == [0, 1]
    medians = {(row["seed"], row["target"]): row["median"] for row in found["rows"]}
    assert all(medians[seed, "gap 1"] < medians[seed, "gap 0"] for seed in (0, 1))  # sides apart: smoother
