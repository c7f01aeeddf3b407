"""Which layers of a model can be measured, why the others cannot, and what measuring takes, as a table."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from torch import nn

from layerfreq.data.inputs import batches, count, is_loader
from layerfreq.data.scales import in_order
from layerfreq.data.validation import Scale, as_scale
from layerfreq.errors import InputError, Refusal, unknown
from layerfreq.inspection.modules import ModuleReport, inspect_model
from layerfreq.isolation.memory import read_memory

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 80


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """The result of `doctor`: one `ModuleReport` per module and activation function; its `repr` is a table.

    Attributes:
        modules: The reports, in the order in which the modules return.
        points: Number of points that the estimates are for.
        rows: Number of filter centres; None means all points.
        scales: Scales that the estimates are for.
        budget: Bytes that features may take.
        shown: Names of the modules that the table shows; None means all.

    Examples:
        >>> import torch
        >>> from layerfreq import doctor
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        >>> found = doctor(model, torch.randn(100, 4))
        >>> list(found.only(show="refused").to_frame()["reason"])
        ['no activation', 'nothing above']
    """

    modules: list[ModuleReport]
    points: int
    rows: int | None
    scales: tuple[Scale, ...]
    budget: int
    shown: frozenset[str] | None = None

    @property
    def measured(self) -> list[str]:
        """Names of the layers that are measured by default, as `hidden_layers` has them."""
        return [one.name for one in self.modules if not one.reason]

    @property
    def refused(self) -> dict[str, str]:
        """Name -> short reason, for the modules that are not measured by default."""
        return {one.name: one.reason for one in self.modules if one.reason}

    @property
    def seconds(self) -> float:
        """Estimated seconds for measuring the default layers once."""
        return sum(one.seconds or 0.0 for one in self.modules if not one.reason)

    def only(self, *names: str, show: str = "all") -> Diagnosis:
        """Return the same with a shorter table; the totals below it still cover the whole model.

        Args:
            names: Patterns of names, such as `"encoder.*"`; none means all.
            show: "measured" or "refused" for only these.

        Raises:
            InputError: If a pattern matches no module, or `show` is not one of these.
        """
        if show not in ("all", "measured", "refused"):
            raise unknown("show", show, ("all", "measured", "refused"))
        known = [one.name for one in self.modules]
        for pattern in names:
            if not any(fnmatchcase(name, pattern) or name == pattern for name in known):
                raise unknown("layers", pattern, known)
        chosen = frozenset(
            one.name
            for one in self.modules
            if (not names or any(fnmatchcase(one.name, p) or one.name == p for p in names))
            and (show == "all" or (show == "measured") == (not one.reason))
        )
        return replace(self, shown=chosen)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per shown module: name, kind, measured, reason, shape, d, memory, seconds, passes."""
        import pandas as pd

        columns = ["name", "kind", "measured", "reason", "shape", "d", "memory", "seconds", "passes"]
        rows = [{**asdict(one), "measured": not one.reason, "reason": one.reason} for one in self._shown()]
        return pd.DataFrame(rows, columns=pd.Index(columns)).astype({"d": "Int64", "memory": "Int64"})

    def _shown(self) -> list[ModuleReport]:
        return [one for one in self.modules if self.shown is None or one.name in self.shown]

    def __repr__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        width = shutil.get_terminal_size((WIDTH, 24)).columns
        table = Table(
            "layer", "measured", "output", "d", "memory", "time", box=box.SIMPLE_HEAD, collapse_padding=True,
            pad_edge=False,
        )  # fmt: skip
        table.columns[0].overflow = table.columns[1].overflow = "fold"
        for column in table.columns[2:]:
            column.justify, column.no_wrap = "right", True
        for one in self._shown():
            table.add_row(*_cells(one))
        page = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False, color_system=None)
        if table.row_count:
            page.print(table)
        for line in self._below():
            page.print(line)
        assert isinstance(page.file, io.StringIO)
        return "\n".join(line.rstrip() for line in page.file.getvalue().strip("\n").splitlines())

    def _repr_html_(self) -> str:
        """The table and the lines below it, as notebooks show them."""
        from html import escape

        table = self.to_frame().to_html(index=False, border=0, na_rep="-")
        return table + "".join(f"<p>{escape(line)}</p>" for line in self._below())

    def _below(self) -> list[str]:
        """What the words of the table mean, and what measuring all takes."""
        shown, lines = self._shown(), []
        for why in Refusal:
            if any(one.refusal is why for one in shown):
                lines.append(f"{why.short}: {why.long}")
        if any(one.passes > 1 for one in shown):
            runs = max(one.passes for one in shown)
            lines.append(f"*: features do not fit into memory; the model is run up to {runs} times for such a layer.")
        if self.shown is not None and len(shown) < len(self.modules):
            lines.append(f"{len(shown)} of {len(self.modules)} modules are shown.")
        centres = "" if self.rows is None else f", {min(self.rows, self.points)} filter centres"
        lines.append(
            f"{len(self.measured)} of {len(self.modules)} are measured by default, in about {duration(self.seconds)} "
            f"for {self.points} points{centres} at {' and '.join(in_order(self.scales))} scale, holding the features "
            f"of as many layers as fit into {decimal(self.budget)}. Times are estimated from small measurements on "
            "this machine; others with a size can be measured by name (layers=, --layers)."
        )
        return lines


def doctor(
    model: nn.Module,
    inputs: Any,
    *,
    points: int | None = None,
    rows: int | None = None,
    classes: int = 10,
    scale: str | Sequence[str] = "raw",
    reading: str = "flatten",
    memory: int | str | None = None,
) -> Diagnosis:
    """Report on every module: whether it is measured, or why not, and the cost. The model is left unchanged.

    Args:
        model: Any module.
        inputs: A few points as its forward takes them, or a loader of (inputs, targets), whose first batch is used.
        points: Number of points to plan for; None means as many as `inputs` has, or 2000 for a loader.
        rows: Number of filter centres; None means all points.
        classes: Number of classes of the targets.
        scale: As for `Monitor`: one or several of "raw", "rms" and "maxabs".
        reading: One name, as for `layer_spectra`.
        memory: As for `layer_spectra`.

    Raises:
        InputError: If an argument is not valid, or the model does not run on the inputs.

    Examples:
        >>> import torch
        >>> from layerfreq import doctor
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        >>> found = doctor(model, torch.randn(100, 4))
        >>> found.measured
        ['1']
        >>> found.refused
        {'0': 'no activation', '2': 'nothing above'}
    """
    if points is None:
        points = 2000 if is_loader(inputs) else max(2, count(inputs))
    for name, value, least in (("points", points, 2), ("rows", rows, 1), ("classes", classes, 1)):
        if value is not None and value < least:
            raise InputError(f"{name}: {value} is too few; pass at least {least}")
    scales: tuple[Scale, ...] = tuple(as_scale(one) for one in ([scale] if isinstance(scale, str) else scale))
    first, _ = next(iter(batches(inputs, whole=True)))
    reports = inspect_model(model, first, points, rows, min(classes, 128), reading, memory, scales)
    return Diagnosis(reports, points, rows, scales, read_memory(memory))


def _cells(one: ModuleReport) -> list[str]:
    shape = "-" if one.shape is None else "×".join(map(str, one.shape)) or "1"
    memory = "-" if one.memory is None else decimal(one.memory) + ("*" if one.passes > 1 else "")
    seconds = "-" if one.seconds is None else duration(one.seconds)
    said = f"no: {one.reason}" if one.reason else "yes"
    return [one.name, said, shape, str(one.d or "-"), memory, seconds]


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds < 60:
        return f"{seconds:.1g} s" if seconds < 1 else f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 3600 else f"{seconds / 3600:.2g} h"
