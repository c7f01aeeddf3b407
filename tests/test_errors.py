"""Errors of bad input: what they say of themselves, across processes too, and that every one in the package does."""

import ast
import copy
import pickle
from pathlib import Path

import pytest

import layerfreq
from layerfreq import errors
from layerfreq.errors import (
    Code,
    InputError,
    Refusal,
    UnknownName,
    a_kind,
    alone,
    blame,
    converting,
    naming,
    under,
    with_article,
)
from layerfreq.extras import MissingPackage
from tests.helpers.refusals import refuses

PLACE = Path("runs/a")
FAULT = RuntimeError("no\nroom")
MADE = [
    (errors.is_not("rows", 2.5, "an integer", "None for all"), Code.VALUE, ("2.5", "pass None for all")),
    (errors.unknown("engine", "cpus", ["cpu", "auto"]), Code.UNKNOWN, ("'cpus'", "did you mean 'cpu'?")),
    (errors.unknown("variant", 7, [1, 2]), Code.UNKNOWN, ("7", "known are: 1, 2")),
    (errors.unknown("layer", "a" * 50, []), Code.UNKNOWN, ("a" * 50, "there are none")),
    (errors.none_given("scale", "'raw'"), Code.EMPTY, ("none given", "pass 'raw'")),
    (errors.not_finite("features", 2, 9), Code.NOT_FINITE, ("2 of 9 points", "drop them")),
    (errors.wrong_length("targets", 3, 4), Code.SHAPE, ("3 entries for 4 inputs", "pass one for each")),
    (errors.wrong_length("targets", "(3,)", 4, "points"), Code.SHAPE, ("(3,) for 4 points", "pass one for each")),
    (errors.together("rows", "rtol=0.1", "leave one out"), Code.CONFLICT, ("rtol=0.1", "leave one out")),
    (errors.unsupported("features", "complex64", "floats"), Code.UNSUPPORTED, ("complex64", "pass floats")),
    (
        errors.failed("when", "the function fails", FAULT),
        Code.FAILED,
        ("the function fails (RuntimeError: no)", "fix it"),
    ),
    (errors.no_such("data", "file", PLACE), Code.MISSING, ("no file 'runs/a'", "check the path")),
    (errors.damaged("run", PLACE, FAULT, "move it away"), Code.DAMAGED, ("'runs/a' is damaged (no)", "move it away")),
    (errors.damaged("run", PLACE, None, "move it away"), Code.DAMAGED, ("'runs/a' is damaged;", "move it away")),
    (Code.EXISTS("out: 'a' is a folder; name a file"), Code.EXISTS, ("'a'", "name a file")),
]


@pytest.mark.parametrize(("error", "code", "parts"), MADE, ids=[str(one[0]) for one in MADE])
def test_a_line_names_argument_value_and_remedy(error, code, parts):
    line = str(error)
    assert error.code is code
    assert line.startswith(f"{error.argument}: ")
    assert all(part in line for part in parts)
    assert "; " in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("line", "argument"),
    [
        ("input-shape: 3; pass two", "input-shape"),
        ("layer '2': no longer there; begin anew", "layer"),
        ("layer 'a.b:1': features: NaN; drop them", "features"),
        ("probes['b']: targets['c']: 60 entries; pass 9", "targets"),
        ("metric 'loss': 'x' is not a number", "metric"),
        ("it returns no floats", None),
    ],
)
def test_the_argument_is_what_the_line_begins_with(line, argument):
    assert InputError(line).argument == argument


REFUSED = InputError(Refusal.NO_FLOATS.of())


@pytest.mark.parametrize(
    "error",
    [
        under(errors.unknown("engine", "cpus", ["cpu"]), "layer '2'"),
        under(REFUSED, "layer '2'"),
        MissingPackage("report: needs plotly; pip install plotly", Code.PACKAGE),
        UnknownName("layer: unknown '9'; there are none", Code.UNKNOWN),
    ],
    ids=str,
)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_copies_in_other_processes_say_the_same(error, way):
    found = way(error)
    assert type(found) is type(error)
    assert (str(found), found.argument, found.code) == (str(error), error.argument, error.code)
    assert str(found.refused) == str(error.refused)


def test_places_and_other_names_keep_argument_and_code():
    with refuses("features", Code.NOT_FINITE, "layer '2': features: "), blame("2"):
        raise errors.not_finite("features", 1, 2)
    with refuses("layer", Code.UNSUPPORTED, "layer '2': it returns") as caught, blame("2"):
        raise REFUSED
    assert caught.value.refused.why is Refusal.NO_FLOATS
    with refuses("outputs", Code.UNSUPPORTED, "view_as_real(outputs)"), naming("outputs"):
        raise errors.unsupported("features", "complex64", "torch.view_as_real(features)")
    with refuses("period", Code.VALUE, "could not convert", "pass sides"), converting("period", "sides"):
        float("x")
    with refuses("period", Code.EMPTY), converting("period", "sides"):
        raise errors.none_given("period", "sides")
    assert alone(under(REFUSED, "layer '2'")).__traceback__ is None


MAKERS = (
    "is_not",
    "unknown",
    "none_given",
    "not_finite",
    "wrong_length",
    "together",
    "unsupported",
    "failed",
    "no_such",
)
MAKERS += ("damaged", "naming", "converting")
# Named by a constant elsewhere, by `blame`, by another rank, and by what a caller hands in.
OTHERS = {
    "engines/cpu/given.py",
    "network/extract.py",
    "network/reading.py",
    "data/distributed.py",
    "loading/state_dicts.py",
}
WITHOUT = "report/sections"  # half a sentence on why a page lacks a section, which nobody is to catch


def said(node, constants):
    """The text of an expression, where x stands for what is not known before, or None for what is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(said(part, constants) or "x" for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "'x'" if node.conversion == ord("r") else said(node.value, constants)
    if isinstance(node, ast.BinOp):
        return said(node.left, constants)
    return constants.get(node.id) if isinstance(node, ast.Name) else None


def made_in(file):
    """Every error that a file makes: the line, and what its message or its argument is."""
    tree = ast.parse(file.read_text())
    texts = [(one.targets[0], one.value) for one in ast.walk(tree) if isinstance(one, ast.Assign)]
    constants = {}
    for target, value in texts:
        if isinstance(target, ast.Name) and (text := said(value, constants)):
            constants[target.id] = text
    for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call) and one.args):
        name = ast.unparse(call.func)
        text = said(call.args[0], constants)
        if name in ("InputError", "MissingPackage") or name.startswith("Code."):
            yield call.lineno, text
        elif name in MAKERS and text is not None:
            yield call.lineno, f"{text}: "


def test_every_error_names_its_argument():
    home, found = Path(layerfreq.__file__).parent, []
    for file in sorted(home.rglob("*.py")):
        if WITHOUT not in file.as_posix() and file.name != "errors.py":
            found += [(file.relative_to(home).as_posix(), line, text or "x") for line, text in made_in(file)]
    assert len(found) > 300
    nameless = [one for one in found if InputError(one[2]).argument is None]
    assert {one[0] for one in nameless} <= OTHERS, nameless


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (name, f"{article} {name}")
        for article, names in {
            "an": ("int", "object", "Identity", "Embedding", "LSTM", "MLP", "RNNCell", "ndarray", "Upsample", "_io"),
            "a": ("list", "Sequential", "LayerNorm", "ReLU", "UNet", "UserDict", "str", "GRU", "CNN", "Mish", "Unet"),
        }.items()
        for name in names
    ],
)
def test_kinds_have_the_article_that_is_said(name, said):
    assert with_article(name) == a_kind(type(name, (), {})()) == said
