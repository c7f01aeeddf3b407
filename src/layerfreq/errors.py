"""The errors that bad input gets: one line that names the argument, the value and the remedy."""

from __future__ import annotations

import contextlib
import re
import reprlib
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

_OWN = (str(Path(__file__).parent), contextlib.__file__, "<@beartype")


_BATCH_FIRST = "the first dimension must be the batch"


class Refusal(Enum):
    """Why a layer is not measured.

    `TOGETHER` alone refuses nothing: such a layer is measured, and a warning says so.

    Attributes:
        short: In two words or so, for a table.
        long: In a sentence without its stop, with a remedy where there is one.
    """

    AROUND = ("way around", "the output depends on the input by another way too (a skip connection or a second branch)")
    DERIVATIVES = (
        "derivatives",
        "the output holds derivatives with respect to the inputs, taken inside forward, which pass through every "
        "layer; let forward return the network's own output, too",
    )
    NO_FLOATS = ("no floats", "it returns no floating tensor (of complex ones torch.view_as_real makes floats)")
    NO_ROWS = (
        "no sample axis",
        f"its output has not one row for each input; {_BATCH_FIRST}, so choose another layer",
        f"run on {{n}} points it returns {{shape}}, not a row for each; {_BATCH_FIRST}, so choose another layer",
    )
    PACKED = (
        "packed sequence",
        "it returns a packed sequence, the tokens of all points mixed; choose its h_n, or a layer after unpacking",
    )
    OTHER_AXIS = (
        "other axis",
        f"its output has the samples on another axis than the first, but {_BATCH_FIRST}; pass batch_first=True where "
        "a module knows it, or choose another layer",
        f"run on {{n}} points it returns {{shape}}, with these on axis {{axis}}, but {_BATCH_FIRST}; pass "
        "batch_first=True where a module knows it, or choose another layer",
    )
    OTHER_ORDER = (
        "other order",
        "it returns points in another order than they came in (sorted, shuffled, or another axis than the first is the "
        "batch), so that targets would go to other points; keep the order, or choose another layer",
    )
    ROUTED = (
        "some points",
        "it gets only the points whose own values send them there, as an expert does; choose the layer around it",
    )
    UNSURE = (
        "other place",
        "what runs depends on the batch, and so does the place that has this name; choose a module around it",
    )
    PAIRS = (
        "pairs of points",
        "its columns are the points of a batch as its rows are (such as the similarities of all with all), so that it "
        "has no features of one point; choose a layer before it",
    )
    TOGETHER = (
        "depends on batch",
        "its features of a point change with the other points of a batch (attention or statistics over the batch, or "
        "noise), so that what is measured depends on the batches, too",
    )
    NOT_DENSE = ("not dense", "it returns a nested or sparse tensor; make it dense in the model, or choose another")
    IN_VMAP = ("inside vmap", "inside torch.func.vmap a module sees one point at a time; call it on all of them")
    NOTHING_ABOVE = ("nothing above", "no parameters follow, so nothing is left to learn above it")
    NOT_CALLED = (
        "not called",
        "forward does not call it in eval mode, or not for the few points that are traced; another module may use its "
        "parameters",
    )
    CONTAINER = ("container", "it is not called itself; see its parts")
    NO_ACTIVATION = (
        "no activation",
        "a linear map, a norm, an embedding or the like: what an activation makes of it is the cut",
    )
    ACTIVATION_NEXT = ("activation next", "its output goes straight into an activation, which is the cut")
    SAME_AS = ("same as", "it returns the very value of another layer")
    AXIS_UNCLEAR = (
        "axis unclear",
        "it cannot be told which axis holds the features; say it, as in --reading positions:-1",
        "reading: cannot tell which axis of an output {shape} holds the features; say '{name}:1' or '{name}:-1'",
    )
    NO_SUCH_AXIS = (
        "no such axis",
        "the axis of the reading is not one of its features; choose another reading",
        "reading: axis {axis} of an output {shape}; it has fewer, and samples are axis 0",
    )
    NO_TOKENS = (
        "no row of tokens",
        "it has more axes than a row of tokens; choose another reading",
        "reading: {name!r} of an output {shape}, which is not a row of tokens; choose another",
    )
    NO_POSITIONS = (
        "no positions",
        "it has no positions to be read by",
        "reading: {name!r} of an output {shape} without positions; leave the layer out",
    )

    def __init__(self, short: str, long: str, case: str = "") -> None:
        self.short, self.long, self._case = short, long, case or long

    def of(self, **case: Any) -> Refused:
        """Return the refusal of one layer, with what it says of that layer's numbers."""
        return Refused(self, self._case.format(**case))


@dataclass(frozen=True)
class Refused:
    """That one layer is not measured.

    Attributes:
        why: The kind of reason.
        text: The reason, with the numbers of the case.
    """

    why: Refusal
    text: str

    def __str__(self) -> str:
        return self.text


class Code(Enum):
    """What is wrong with an argument.

    Examples:
        >>> from layerfreq.errors import Code
        >>> Code.SHAPE("targets: 3 entries for 4 points; pass one for each").argument
        'targets'
    """

    VALUE = "its type or its size is not what the argument takes"
    UNKNOWN = "a name that is not among those known"
    SHAPE = "a shape or a length that does not fit"
    NOT_FINITE = "NaN or infinite values"
    EMPTY = "nothing, or too little, is given"
    CONSTANT = "values do not vary, so that there is nothing to measure"
    CONFLICT = "arguments, passes over the data or processes contradict one another"
    UNSUPPORTED = "of a kind that cannot be measured, such as complex features or a refused layer"
    MEMORY = "memory does not suffice"
    FAILED = "the model, the data's code or another program fails"
    MISSING = "a file, folder, step or column that is not there"
    DAMAGED = "a file does not hold what it should"
    EXISTS = "a place that already holds something else"
    PACKAGE = "an optional package is needed"

    def __call__(self, said: str) -> InputError:
        """Return an error of this kind."""
        return InputError(said, self)


class InputError(ValueError):
    """An argument, a file or a folder that cannot be used as given; the message is one line.

    Attributes:
        argument: The name that the message begins with; of `layer '2': features: ...` it is `features`.
        code: What is wrong with it.
        refused: Why a layer cannot be measured, where that is the reason.

    Examples:
        >>> try:
        ...     spectrum(torch.tensor([[0.0], [float("nan")]]), torch.tensor([0, 1]))
        ... except InputError as error:
        ...     print(error.argument, error.code.name)
        features NOT_FINITE
    """

    def __init__(self, said: str | Refused, code: Code | None = None) -> None:
        super().__init__(str(said))
        named = _ARGUMENT.match(str(said))
        self.argument = named[1] if named else None
        self.refused = said if isinstance(said, Refused) else None
        self.code = code or (Code.UNSUPPORTED if self.refused else Code.VALUE)


_VOWEL = re.compile(r"_*(?:[AEIOaeio]|[Uu](?!s|ni|[Nn]et|int|[A-Z])|nd|[FHLMNRSX][A-Z\d])")
_PLACE = r"(?:\[[^]]*\]| '[^']*')?: "
_ARGUMENT = re.compile(rf"(?:(?:layer|probes){_PLACE}(?=[\w-]+{_PLACE}))?([\w-]+){_PLACE}")


def under(error: InputError, place: str) -> InputError:
    """Return the same error, about the same argument, with the place where it occurred before its message."""
    found = type(error)(f"{place}: {error}", error.code)
    found.argument, found.refused = error.argument or found.argument, error.refused
    return found


def alone(error: InputError) -> InputError:
    """Return the same error without the frames that it came through, which hold what was measured."""
    found = type(error)(str(error), error.code)
    found.argument, found.refused = error.argument, error.refused
    return found


def is_not(argument: str, value: Any, wanted: str, remedy: str) -> InputError:
    """Return the error for a value of the wrong type or size."""
    return InputError(f"{argument}: {shown(value)} is not {wanted}; pass {remedy}")


def unknown(argument: str, value: Any, known: Iterable[Any]) -> InputError:
    """Return the error for a name that is not among those known, with those nearest to it."""
    name = repr(value) if isinstance(value, str) else shown(value)
    return Code.UNKNOWN(f"{argument}: unknown {name}; {did_you_mean(str(value), map(str, known))}")


def none_given(argument: str, remedy: str) -> InputError:
    """Return the error for an argument that is empty, None or left out, but needed."""
    return Code.EMPTY(f"{argument}: none given; pass {remedy}")


def not_finite(argument: str, bad: int, n: int) -> InputError:
    """Return the error for NaN or infinite values in some of n points."""
    return Code.NOT_FINITE(f"{argument}: NaN or infinite in {bad} of {n} points; clean or drop them")


def wrong_length(argument: str, given: int | str, n: int, of: str = "inputs") -> InputError:
    """Return the error for a number of entries (or a text about it) that differs from that of something else."""
    entries = f"{given} entries" if isinstance(given, int) else given
    return Code.SHAPE(f"{argument}: {entries} for {n} {of}; pass one for each")


def together(argument: str, other: str, remedy: str) -> InputError:
    """Return the error for an argument given along with another that rules it out."""
    return Code.CONFLICT(f"{argument}: given together with {other}; {remedy}")


def unsupported(argument: str, what: Any, remedy: str) -> InputError:
    """Return the error for a type or dtype that cannot be measured."""
    return Code.UNSUPPORTED(f"{argument}: {what} is not supported; pass {remedy}")


def failed(argument: str, what: str, error: BaseException, remedy: str = "fix it") -> InputError:
    """Return the error for an exception from a user's or another library's code."""
    return Code.FAILED(f"{argument}: {what} ({first_line(error, kind=True)}); {remedy}")


def no_such(argument: str, kind: str, name: Any, remedy: str = "check the path") -> InputError:
    """Return the error for a file, folder, step or column that is not there."""
    return Code.MISSING(f"{argument}: no {kind} {str(name)!r}; {remedy}")


def damaged(argument: str, path: Path, error: BaseException | None, remedy: str, what: str = "damaged") -> InputError:
    """Return the error for a file that cannot be read, with what the reader says."""
    said = f" ({first_line(error)})" if error else ""
    return Code.DAMAGED(f"{argument}: {str(path)!r} is {what}{said}; {remedy}")


@contextmanager
def blame(layer: str) -> Iterator[None]:
    """Let an InputError raised inside name the layer."""
    try:
        yield
    except InputError as error:
        raise under(error, f"layer {layer!r}") from None


@contextmanager
def converting(argument: str, remedy: str) -> Iterator[None]:
    """Let a conversion to numbers that fails inside name the argument."""
    try:
        yield
    except InputError:
        raise
    except (OverflowError, TypeError, ValueError, RuntimeError) as error:
        said = f"{argument}: cannot be read as numbers ({first_line(error)}); pass {remedy}"
        raise InputError(said) from None


@contextmanager
def naming(argument: str) -> Iterator[None]:
    """Let an InputError raised inside name another argument, whose value a general checker was used for."""
    try:
        yield
    except InputError as error:
        raise type(error)(re.sub(rf"\b{error.argument}\b", argument, str(error)), error.code) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a remedy, without a final stop, that suggests the known names nearest to the one that was asked for."""
    known = list(known)
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"known are: {shown}" if known else "there are none"


def first_line(error: BaseException, *, kind: bool = False, most: int = 160) -> str:
    """Return the first line of an exception's message, or its kind if there is none.

    Args:
        error: The exception.
        kind: Put its kind before it.
        most: Characters that it may have.
    """
    text, name = str(error).strip(), type(error).__name__
    if not text:
        return name
    return ((f"{name}: " if kind else "") + text.splitlines()[0])[:most]


def shown(value: Any) -> str:
    """Return a short text for a value, whatever it is."""
    try:
        text = reprlib.repr(value)
    except Exception:  # of anybody's classes
        text = a_kind(value)
    return " ".join(text.split())[:80]


def a_kind(value: Any) -> str:
    """Return the name of a value's type with its article.

    Examples:
        >>> a_kind(7), a_kind([]), a_kind(torch.nn.LSTM(1, 1)), a_kind(torch.nn.Unfold(2))
        ('an int', 'a list', 'an LSTM', 'an Unfold')
    """
    return with_article(type(value).__name__)


def with_article(name: str) -> str:
    """Return a name after "a" or "an", as it is said: initials letter by letter."""
    return f"{'an' if _VOWEL.match(name) else 'a'} {name}"


def listed(values: Any, argument: str, what: str) -> list[Any]:
    """Return what was passed for an argument that takes several things, called `what`, as a list.

    Raises:
        InputError: If it is not iterable, such as a single number.
    """
    try:
        return list(values)
    except TypeError:
        raise is_not(argument, values, "a list", f"{what}, such as [...]") from None


T = TypeVar("T")


class UnknownName(InputError, KeyError):
    """A name that a mapping does not have; also a KeyError."""

    __str__ = Exception.__str__  # that of KeyError puts quotes around


class Named(dict[str, T]):
    """A dictionary whose error for an unknown name is one line.

    Args:
        what: What its values are, in the singular.
        values: The values by name.
    """

    def __init__(self, what: str, values: Mapping[str, T]) -> None:
        super().__init__(values)
        self._what = what

    def __missing__(self, name: Any) -> T:
        raise UnknownName(str(unknown(self._what, name, self)), Code.UNKNOWN)


class LayerWarning(UserWarning):
    """A warning about a layer before it is measured; left out where the reasons of all layers are listed."""


def warn_caller(message: str, kind: type[Warning] = UserWarning, *, again: bool = False) -> None:
    """Warn at the line outside the package that called it, however deep inside the reason was found.

    With `again`, also if the same was said there before, as in the last training of a session: Python says it once.
    """
    frame = sys._getframe()
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(_OWN) or "jaxtyping" in frame.f_code.co_filename
    ):
        frame = frame.f_back
    said = None if again else frame.f_globals.setdefault("__warningregistry__", {})
    where = frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__", "")
    warnings.warn_explicit(message, kind, *where, registry=said)
