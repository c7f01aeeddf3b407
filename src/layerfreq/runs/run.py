"""A run on disk: safe from a kill at any moment, and read as data frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfreq.data.arraylike import as_frame
from layerfreq.data.notes import as_metrics, as_step
from layerfreq.errors import Code, InputError, Named, no_such
from layerfreq.files import Anchored, as_path, natural, write_whole
from layerfreq.layers import LayerSpectra
from layerfreq.response.result import ErrorSpectrum
from layerfreq.runs.errors import ERRORS, ERRORS_COLUMNS, frame_of, read_errors
from layerfreq.runs.files import (
    METRICS,
    SPECTRA,
    begin,
    by_step,
    forget_after,
    joined,
    part_names,
    read_config,
    read_frame,
    read_frames,
    refuse_parts,
    remove_run,
    steps_in,
    unit_of,
)
from layerfreq.runs.reader import medians
from layerfreq.runs.selection import at_scales, layers_at, measured_step, several, with_layers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SPECTRA_COLUMNS = ["step", "layer", "depth", "scale", "inv_delta", "lfr", "rdf", "chance", "neighbours", "stderr"]


class Run:
    """A directory with `config.yaml`, `spectra/`, `errors/` and `metrics/` in Parquet, checkpoints and figures.

    Every file is written under another name and then moved in one step, so that a reader finds it whole or not at all.
    The Parquet folders can be read without this package: `pandas.read_parquet(path / "spectra")`.

    Args:
        path: The directory of an existing run; `Run.create` makes a new one.

    Raises:
        InputError: If the directory holds no run.

    Examples:
        >>> x = torch.linspace(0, 1, 100)[:, None]
        >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> with Monitor(model, x, torch.sin(9 * x[:, 0]), run="run") as monitor:
        ...     for step in (0, 1):
        ...         found = monitor.measure(step, loss=1.0)
        >>> run = Run("run")
        >>> run.steps()
        [0, 1]
        >>> sorted(run.spectra["scale"].unique()), list(run.metrics["loss"])
        (['raw', 'rms'], [1.0, 1.0])
        >>> run[-1].to_frame()["layer"].unique().tolist(), run.medians["step"].unique().tolist()
        (['1'], [0, 1])
        >>> figure = run.plot(steps=[0, -1], scale="rms")
        >>> run.report("report.html").name
        'report.html'
        >>> [one.path.name for one in run.trainings()]
        ['run']
        >>> run.rewind(0)  # as a resumed training does
        >>> run.steps()
        [0]
    """

    path = Anchored()

    def __init__(self, path: str | Path) -> None:
        self.path = as_path(path, "run")
        if not (self.path / "config.yaml").is_file():
            raise Code.MISSING(f"run: no run at {str(path)!r} (config.yaml is missing); check the path")
        self._pending: list[dict[str, Any]] = []
        self._made: Path | None = None  # the outermost folder that was made for it

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any] | None = None, *, overwrite: bool = False) -> Run:
        """Create a run in a new or empty directory.

        Args:
            path: The directory; ~ is expanded.
            config: Contents of `config.yaml`.
            overwrite: Replace an existing run in the directory; other files stay.

        Raises:
            InputError: If the directory is not empty or cannot be written, or the disk is full.

        Examples:
            >>> Run.create("fresh", {"name": "first try"}).config["name"]
            'first try'
        """
        made = begin(as_path(path, "run"), config or {}, overwrite=overwrite)
        run = cls(path)
        run._made = made
        return run

    @property
    def config(self) -> dict[str, Any]:
        """The contents of `config.yaml`."""
        return read_config(self.path / "config.yaml")

    @property
    def parts(self) -> dict[str, Run]:
        """The runs inside this one by name, one for each target or probe set if a monitor has several; else empty.

        Examples:
            >>> x = torch.linspace(0, 1, 100)[:, None]
            >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
            >>> each = {"labels": torch.sin(9 * x), "residual": lambda x, y, output: y - output}
            >>> with Monitor(model, x, each, run="several") as monitor:
            ...     found = monitor.measure(0, loss=1.0)
            >>> {name: part.steps() for name, part in Run("several").parts.items()}
            {'labels': [0], 'residual': [0]}
        """
        inside = [self.path / name for name in part_names(self.config)]
        return Named("part", {path.name: type(self)(path) for path in inside if (path / "config.yaml").is_file()})

    @property
    def unit(self) -> str:
        """What a step is called in its config or that of its experiment; "step" by default."""
        return unit_of(self.path)

    @property
    def spectra(self) -> pd.DataFrame:
        """All measurements: step, layer, depth, scale, inv_delta, lfr, rdf, chance, neighbours, stderr."""
        return self._read("spectra", SPECTRA, SPECTRA_COLUMNS)

    @property
    def errors(self) -> pd.DataFrame:
        """Error by frequency: step, output, method, k, target_energy, error_energy, relative, chance, stderr.

        `output` is "all": all columns of the target together. `stderr` is 0 for exact measurements.
        """
        found = self._read("errors", ERRORS, ERRORS_COLUMNS)
        return found.loc[found["step"].isin(self.steps()), :].reset_index(drop=True)

    @property
    def metrics(self) -> pd.DataFrame:
        """All metrics: step and a column per metric; one row per step, with the values recorded last."""
        return by_step(self._read("metrics", METRICS, ["step"]))

    @property
    def medians(self) -> pd.DataFrame:
        """The medians: one row per step, layer and scale, with their error and resolution.

        Columns step, layer, depth, scale, median (1/delta; NaN if the cutoffs do not reach it), error (standard error
        of log2 of the median; NaN if all points were filter centres), peak, at_edge (whether the peak is only a bound),
        resolution, and resolved (whether the median is within the resolution; beyond it, it is meaningless).

        Examples:
            >>> medians = run.medians
            >>> medians[["layer", "scale"]].to_numpy().tolist()
            [['1', 'raw'], ['1', 'rms']]
            >>> table = medians[medians.scale == "rms"].pivot(index="step", columns="layer", values="median")
        """
        return medians(self.spectra)

    def __getitem__(self, step: int | tuple[int, str]) -> LayerSpectra:
        """Return the measurement of a step: `run[200]`, `run[-1]` for the last one, `run[200, "maxabs"]`.

        Args:
            step: A measured step, or -1, -2, ... from the end; optionally with a scale (default: the monitor's first).

        Raises:
            InputError: If the step was not measured, or not at that scale.
        """
        at, scale = step if isinstance(step, tuple) and len(step) == 2 else (step, None)
        refuse_parts(self.path, self.parts)
        at = measured_step(at, steps_in(self.path / "spectra"), self.path)
        frame = joined([read_frame(self._spectra_at(at), SPECTRA, SPECTRA_COLUMNS)])
        return layers_at(frame, scale, self.config.get("options"))

    if not TYPE_CHECKING:
        __iter__ = None  # numbers are steps, not places: iterate over `steps()`

    def steps(self) -> list[int]:
        """Return the measured steps in order: those with spectra, or with errors if no layers are measured.

        For a run with parts they are the steps of any part; `run.parts[name].steps()` are those of one.
        """
        found = steps_in(self.path / "spectra")
        if not found and (parts := self.parts):
            return sorted({step for part in parts.values() for step in part.steps()})
        layerless = not found and (self.path / "errors").is_dir() and not self.config.get("layers")
        return steps_in(self.path / "errors") if layerless else found

    def write_errors(self, step: int, error: ErrorSpectrum) -> None:
        """Write one measurement of the error, whole or not at all; call it before the spectra of the same step.

        Examples:
            >>> x = torch.linspace(0, 1, 50)
            >>> run.write_errors(0, layerfreq.error_spectrum(x, torch.sin(9 * x), 0 * x))
            >>> list(run.errors["relative"].round(1)[:2])
            [1.0, 1.0]
        """
        step = as_step(step)
        self._write_frame("errors", f"step-{step:012d}", frame_of(step, error))

    def write_spectra(self, step: int, frame: pd.DataFrame) -> None:
        """Write one measurement, whole or not at all, replacing an earlier one of the same step.

        Examples:
            >>> run.write_spectra(7, run[0].to_frame())
            >>> run.steps()
            [0, 7]
        """
        step, frame = as_step(step), as_frame(frame, "frame", SPECTRA_COLUMNS[1:], "LayerSpectra.to_frame()")
        frame = frame.assign(step=step)
        self._write_frame("spectra", f"step-{step:012d}", frame.loc[:, SPECTRA_COLUMNS])

    def log(self, step: Any, /, **metrics: Any) -> None:
        """Record metrics of a step; they are written at the next `flush`.

        Raises:
            InputError: If the step or a metric is not a number; nothing is recorded then.

        Examples:
            >>> run.log(3, loss=0.5)
            >>> run.flush()
            >>> list(run.metrics["loss"])
            [0.5]
        """
        step, (kept, refused) = as_step(step), as_metrics(metrics)
        for name, why in refused.items():
            raise InputError(f"metric {name!r}: {why}")
        if self._pending and self._pending[-1]["step"] == step:
            self._pending[-1].update(kept)
        else:
            self._pending.append({"step": step, **kept})

    def note(self, text: str) -> None:
        """Add a line to `notes.txt`: what could not be measured, and why.

        Examples:
            >>> run.note("step 3: the learning rate was halved by hand")
        """
        with (self.path / "notes.txt").open("a", encoding="utf-8") as file:
            file.write(" ".join(str(text).split()) + "\n")

    def flush(self) -> None:
        """Write the metrics recorded so far.

        Examples:
            >>> run.log(3, loss=0.5)
            >>> run.flush()
        """
        if not self._pending:
            return
        import pandas as pd

        frame = pd.DataFrame(self._pending)
        name = f"from-{int(frame['step'].iloc[0]):012d}"
        before = self.path / "metrics" / f"{name}.parquet"
        if before.exists():
            frame = by_step(pd.concat([read_frame(before, METRICS, ["step"]), frame], ignore_index=True))
        self._write_frame("metrics", name, frame)
        self._pending = []

    def rewind(self, step: int) -> None:
        """Remove metrics and measurements after a step, because training resumes from there.

        Examples:
            >>> run.rewind(0)  # as a training does that resumes there
            >>> run.steps()
            [0]
        """
        step = -1 if isinstance(step, int) and step == -1 else as_step(step)
        self._pending = []
        for part in self.parts.values():
            part.rewind(step)
        forget_after(self.path, step)

    def remove(self) -> None:
        """Remove the run's files, and the folders created for it if nothing else is in them.

        Examples:
            >>> run.remove()
            >>> run.path.exists()
            False
        """
        remove_run(self.path, self._made)

    def _spectra_at(self, step: int) -> Path:
        return self.path / "spectra" / f"step-{step:012d}.parquet"

    def plot(self, steps: Any = None, layers: Any = None, scale: Any = None) -> Figure:
        """Draw the density per octave by layer: one panel per step, one row per scale, sharing their y axis.

        Args:
            steps: A measured step, or several; -1 is the last one. None means up to six of them.
            layers: Names, patterns such as "blocks.*", or indices (0 is the first layer, -1 the last), one or several.
                None means all.
            scale: "raw", "rms" or "maxabs", or several; None means all that were measured.

        Returns:
            A Matplotlib figure: `run.plot().savefig("densities.pdf")`.

        Raises:
            InputError: If nothing was measured yet, or a step, layer or scale was not measured.
        """
        from layerfreq.plots import figure_epochs

        frame = self.spectra
        if not len(frame):
            raise no_such("run", "measurement in", self.path, "measure at least one step first")
        if steps is not None:
            wanted = [measured_step(one, self.steps(), self.path) for one in several(steps, "steps")]
            frame = frame[frame["step"].isin(wanted)]
        if layers is not None:
            frame = with_layers(frame, layers)
        if scale is not None:
            frame = at_scales(frame, scale)
        return figure_epochs(frame, self.unit)

    def plot_errors(self) -> Figure:
        """Draw a map of the relative error over step and frequency, and up to which frequency the target is learned.

        Raises:
            InputError: If no error by frequency was measured.

        Examples:
            >>> x = torch.linspace(0, 1, 50)
            >>> run.write_errors(0, layerfreq.error_spectrum(x, torch.sin(9 * x), 0 * x))
            >>> figure = run.plot_errors()
        """
        from layerfreq.response.figure import figure_learning

        measured = list(read_errors(self.errors))
        if not measured:
            raise no_such("run", "error by frequency in", self.path, "pass Monitor(..., error='auto')")
        return figure_learning(measured, self.unit)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report of this run, or of the trainings inside it, as one self-contained HTML file.

        Args:
            path: The file; None means `report.html` in the run's folder.

        Returns:
            The path.

        Raises:
            InputError: If nothing was measured yet, or plotly is not installed.
        """
        from layerfreq.report import write_report

        return write_report([self], path)

    def trainings(self) -> list[Run]:
        """Return the runs that hold measurements or metrics: this one, its parts, or those in its folders, in order."""
        if parts := self.parts:
            return list(parts.values())
        if any(next((self.path / folder).glob("*.parquet"), None) for folder in ("spectra", "errors", "metrics")):
            return [self]
        inside = [part.parent for part in self.path.glob("*/config.yaml")]
        return [Run(path) for path in sorted(inside, key=lambda path: natural(path.name))]

    def _repr_html_(self) -> str:
        """Return the `repr` for notebooks: the run, and the medians of its last measured step by layer."""
        head = f"<p>{escape(repr(self))}</p>"
        if not steps_in(self.path / "spectra"):
            return head
        return f"{head}<p>{escape(self.unit)} {self.steps()[-1]}</p>{self[-1]._repr_html_()}"

    def __repr__(self) -> str:
        steps = self.steps()
        when = f"steps {steps[0]} .. {steps[-1]}" if steps else "nothing measured yet"
        with suppress(InputError):  # of a damaged config, which says so where it is read
            when += f", parts {', '.join(self._told_parts(len(steps)))}" if self.parts else ""
        return f"Run({str(self.path)!r}, {len(steps)} measurements, {when})"

    def _told_parts(self, most: int) -> Iterator[str]:
        for name, part in self.parts.items():
            has = len(part.steps())
            yield name if has == most else f"{name} ({has} of {most})"

    def _read(self, folder: str, pattern: re.Pattern[str], columns: list[str]) -> pd.DataFrame:
        import pandas as pd

        frames = read_frames(self.path / folder, pattern, columns)
        if not frames:
            refuse_parts(self.path, self.parts)
        return joined(frames) if frames else pd.DataFrame(columns=pd.Index(columns))

    def _write_frame(self, folder: str, name: str, frame: pd.DataFrame) -> None:
        (self.path / folder).mkdir(exist_ok=True)
        write_whole(self.path / folder / f"{name}.parquet", lambda at: frame.to_parquet(at, index=False), self.path)
