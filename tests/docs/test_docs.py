"""The documentation builds without a warning, its code runs and prints what the pages say, its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.helpers import pages

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
WITH_CODE = [page for page in PAGES if "```python" in page.read_text()]
HOSTS = {"arxiv.org", "github.com", "keepachangelog.com", "semver.org"}


class TextModel(nn.Module):
    """Ids and a mask in, classes out."""

    def __init__(self):
        super().__init__()
        self.embed, self.act, self.head = nn.Embedding(20, 8), nn.Tanh(), nn.Linear(8, 2)

    def forward(self, ids, attention_mask):
        x = self.act(self.embed(ids)) * attention_mask[..., None]
        return self.head(x.sum(1) / attention_mask.sum(1, keepdim=True))


def a_users_names():
    """What pages take for granted: a model in training, and its data; a model of texts, and padded ones."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    inputs = torch.randn(1200, 4)
    labels = (inputs[:, 0] > 0).long()
    loader = DataLoader(TensorDataset(inputs, labels), 300, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids = torch.randint(1, 20, (60, 7))
    mask = (torch.arange(7) < torch.randint(2, 8, (60, 1))).long()
    texts = {"text_model": TextModel(), "ids": ids * mask, "mask": mask, "topics": ids[:, 0] % 2}
    names = {"model": model, "inputs": inputs, "labels": labels, "loader": loader, "optimizer": optimizer}
    return {**names, **texts, "torch": torch, "nn": nn}


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch):
    for package in ("sklearn", "lightning", "accelerate"):
        if f"import {package}\n" in page.read_text() or f"from {package}" in page.read_text():
            pytest.importorskip(package)
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    pages.run(page, a_users_names())


def test_the_tasks_of_the_questions_take_five_lines_each():
    """That they run, the test above shows."""
    tasks = (
        (ROOT / "docs" / "faq.md").read_text().partition("## Ten tasks")[2].partition("\n## ")[0].split("\n### ")[1:]
    )
    assert len(tasks) == 10
    for task in tasks:
        (code,) = re.findall(r"```python\n(.*?)```", task, re.DOTALL)
        assert task.splitlines()[0].endswith("?")
        assert 1 <= sum(bool(line.strip()) for line in code.splitlines()) <= 5


def test_output_that_differs_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    for said, same in (
        ("a 1.00\n", True),
        ("a 1.01\n", True),
        ("a 1.2\n", False),
        ("b 1\n", False),
        ("a 1 2\n", False),
    ):
        page.write_text(f"```python\nprint('a 1.00')\n```\n\n```text\n{said}\n```\n")
        if same:
            pages.run(page)
        else:
            with pytest.raises(AssertionError, match="prints"):
                pages.run(page)


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    # Not --quiet: a warning that is not shown is not counted, either.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?)[^"]*)"', page.read_text())
        assert not loaded, f"{page} loads {loaded} from elsewhere"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_or_known_hosts(page):
    text = re.sub(r"```.*?```|`[^`\n]+`", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)", text):
        if "://" in link:
            assert link.split("/")[2] in HOSTS, link
        elif not link.startswith("#"):
            assert (page.parent / link.partition("#")[0]).exists(), link
