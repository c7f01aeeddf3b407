"""A run on disk: written so that a kill at any instant leaves it whole, read as data frames."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from layerfreq.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SPECTRA_COLUMNS = [
    "step",
    "layer",
    "depth",
    "scale",
    "inv_delta",
    "lfr",
    "rdf",
    "chance",
    "neighbours",
    "stderr",
]
RESERVE = 32 << 20  # bytes that must be free before a run is begun


class Run:
    """A directory with `config.yaml`, `spectra/` and `metrics/` in Parquet, checkpoints and figures.

    Every file is written beside its place and moved there in one step, so that a reader finds it whole or not
    at all. The Parquet folders need nothing of ours: `pandas.read_parquet(path / "spectra")`.

    Args:
        path: The directory of an existing run; `Run.create` makes a new one.

    Raises:
        InputError: If there is no run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "config.yaml").is_file():
            raise InputError(f"run: no run at {str(path)!r} (config.yaml is missing); check the path")
        self._pending: list[dict[str, Any]] = []

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any] | None = None) -> Run:
        """Begin a run in a new or empty directory.

        Raises:
            InputError: If the directory holds something, cannot be written, or the disk is full.
        """
        path = Path(path)
        if (path / "config.yaml").exists():
            raise InputError(f"run: {str(path)!r} holds another run; choose another directory, or resume that one")
        if path.is_dir() and all(part.name.startswith(".partial-") for part in path.iterdir()):
            sweep(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"run: {str(path)!r} is not an empty directory; choose another one")
        made = next((p for p in [*reversed(path.parents), path] if not p.exists()), None)
        try:
            path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(path).free
            if free < RESERVE:
                raise OSError(28, f"only {free >> 20} MiB free, {RESERVE >> 20} needed")
            text = yaml.safe_dump(dict(config or {}), sort_keys=False)
            write_whole(path / "config.yaml", lambda at: at.write_text(text))
        except OSError as error:
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)
            raise InputError(f"run: cannot write to {str(path)!r} ({error.strerror}); choose another place") from None
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        """What `config.yaml` says."""
        return yaml.safe_load((self.path / "config.yaml").read_text()) or {}

    @property
    def spectra(self) -> pd.DataFrame:
        """All measurements so far: step, layer, depth, scale, inv_delta, lfr, rdf, chance, neighbours, stderr."""
        return self._read("spectra", SPECTRA_COLUMNS)

    @property
    def metrics(self) -> pd.DataFrame:
        """All metrics so far: step, and a column for each metric."""
        return self._read("metrics", ["step"])

    def steps(self) -> list[int]:
        """Return the steps measured so far, in order."""
        return sorted(int(p.stem.removeprefix("step-")) for p in (self.path / "spectra").glob("step-*.parquet"))

    def write_spectra(self, step: int, frame: pd.DataFrame) -> None:
        """Write one measurement, whole or not at all; the same step again replaces it."""
        frame = frame.assign(step=step)
        self._write_frame("spectra", f"step-{step:012d}", frame.loc[:, SPECTRA_COLUMNS])

    def log(self, step: int, **metrics: float) -> None:
        """Note metrics of a step; they reach the disk at the next `flush`."""
        self._pending.append({"step": step, **{name: float(value) for name, value in metrics.items()}})

    def flush(self) -> None:
        """Write the metrics noted so far."""
        if not self._pending:
            return
        import pandas as pd

        frame = pd.DataFrame(self._pending)
        name = f"from-{int(frame['step'].iloc[0]):012d}"
        before = self.path / "metrics" / f"{name}.parquet"
        if before.exists():
            frame = pd.concat([pd.read_parquet(before), frame], ignore_index=True)
        self._write_frame("metrics", name, frame)
        self._pending = []

    def rewind(self, step: int) -> None:
        """Forget metrics and measurements after a step, because training goes on from there."""
        import pandas as pd

        self._pending = []
        for later in self.steps():
            if later > step:
                self._spectra_at(later).unlink()
        for part in (self.path / "metrics").glob("from-*.parquet"):
            frame = pd.read_parquet(part)
            kept = frame.loc[frame["step"] <= step, :]
            if kept.empty:
                part.unlink()
            elif len(kept) < len(frame):
                self._write_frame("metrics", part.stem, kept)

    def _spectra_at(self, step: int) -> Path:
        return self.path / "spectra" / f"step-{step:012d}.parquet"

    def plot(self) -> Figure:
        """Draw the density per octave by layer, a panel a measured step and a row a scale, the paper's first."""
        from layerfreq.plots import figure_epochs

        return figure_epochs(self.spectra)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report of this run, or of the trainings inside it: one HTML file that needs nothing else.

        Args:
            path: Where it goes; None means `report.html` in the run's folder.

        Returns:
            Where it is.

        Raises:
            InputError: If nothing was measured yet, or plotly is not installed.
        """
        from layerfreq.report import write_report

        return write_report([self], path)

    def trainings(self) -> list[Run]:
        """Return the runs that hold measurements or metrics: this one, or those in its folders, in natural order."""
        if any(next((self.path / folder).glob("*.parquet"), None) for folder in ("spectra", "metrics")):
            return [self]
        inside = [part.parent for part in self.path.glob("*/config.yaml")]
        return [Run(path) for path in sorted(inside, key=lambda path: natural(path.name))]

    def __repr__(self) -> str:
        steps = self.steps()
        when = f"steps {steps[0]} .. {steps[-1]}" if steps else "nothing measured yet"
        return f"Run({str(self.path)!r}, {len(steps)} measurements, {when})"

    def _read(self, folder: str, columns: list[str]) -> pd.DataFrame:
        import pandas as pd

        parts = sorted((self.path / folder).glob("*.parquet"))
        if not parts:
            return pd.DataFrame(columns=pd.Index(columns))
        frames = [pd.read_parquet(part) for part in parts]
        about = {key: value for frame in frames for key, value in frame.attrs.items()}
        frame = pd.concat(frames, ignore_index=True)
        frame.attrs = about  # of measurements that differ (rows drawn until rtol holds), what the last one says
        return frame.sort_values("step", kind="stable", ignore_index=True)

    def _write_frame(self, folder: str, name: str, frame: pd.DataFrame) -> None:
        (self.path / folder).mkdir(exist_ok=True)
        write_whole(self.path / folder / f"{name}.parquet", lambda at: frame.to_parquet(at, index=False), self.path)


def write_whole(path: Path, write: Callable[[Path], Any], workroom: Path | None = None) -> None:
    """Write a file so that it is there whole or not at all, whatever happens meanwhile.

    Args:
        path: Where the file goes.
        write: Writes the file to the path that it is given.
        workroom: Where to write it first, on the same file system; None means beside its place.
    """
    handle, name = tempfile.mkstemp(prefix=".partial-", suffix=path.suffix, dir=workroom or path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:  # of the writers, some say neither which file nor, in plain words, what is wrong
        partial.unlink(missing_ok=True)
        why = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno or 0, why, str(path)) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def natural(name: str) -> list[Any]:
    """Return a key that sorts layer-10 after layer-9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name) if part]


def sweep(folder: Path) -> None:
    """Remove the half-written files that a killed process left in a folder that nobody writes to now."""
    for leftover in folder.rglob(".partial-*"):
        leftover.unlink(missing_ok=True)
