"""Files of a run: what they hold, and how damage is detected."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from layerfreq.data.validation import SCALES
from layerfreq.errors import Code, InputError, a_kind, damaged, shown
from layerfreq.files import sweep, write_whole

if TYPE_CHECKING:
    import pandas as pd

# What config.yaml says, where others count on its kind.
KINDS: dict[str, tuple[type, ...]] = {
    "environment": (dict,),
    "error": (int, float),
    "seeds": (list,),
    "parts": (list, dict),  # a mapping is a user's own
}
# What a step is called in experiments of versions that did not write it down.
UNITS = {"mlp": "epoch", "resnet": "epoch", "cause": "job", "controls": "epoch"}
PART = re.compile(r"[\w+=][\w .,+=-]{0,99}")  # the name of a part of a run, and so of a folder in it
SPECTRA = re.compile(r"step-(\d{12})\.parquet")
METRICS = re.compile(r"from-(\d{12})\.parquet")
TEXT = ("layer", "scale", "output", "method")
# Of a run.
PARTS = ("spectra", "errors", "metrics", "checkpoints", "figures", "config.yaml", "report.html", "notes.txt")
RESERVE = 32 << 20  # bytes that must be free before a run is begun
TRIES = 5  # attempts to read while a run is being rewound


def begin(path: Path, config: Mapping[str, Any], *, overwrite: bool) -> Path | None:
    """Create a run's folder with its `config.yaml`, and return the outermost folder created for it.

    Args:
        path: The folder, new or empty.
        config: Contents of `config.yaml`.
        overwrite: Remove an existing run in the folder; other files stay.

    Raises:
        InputError: If the folder holds something, cannot be written, or the disk is full.
    """
    replaced = overwrite and (path / "config.yaml").is_file()
    if replaced:
        remove_parts(path)
    if (path / "config.yaml").exists():
        remedy = f"choose another directory, resume it (run=Run({str(path)!r})) or replace it (overwrite=True)"
        raise Code.EXISTS(f"run: {str(path)!r} holds another run; {remedy}")
    if path.is_dir() and all(part.name.startswith(".partial-") for part in path.iterdir()):
        sweep(path)
    if path.exists() and not replaced and (not path.is_dir() or any(path.iterdir())):
        raise Code.EXISTS(f"run: {str(path)!r} is not an empty directory; choose another one")
    made = next((p for p in [*reversed(path.parents), path] if not p.exists()), None)
    try:
        path.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path).free
        if free < RESERVE:
            raise OSError(28, f"only {free >> 20} MiB free, {RESERVE >> 20} needed")
        text = yaml.safe_dump(plain(config), sort_keys=False)
        write_whole(path / "config.yaml", lambda at: at.write_text(text, encoding="utf-8"))
    except OSError as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise Code.FAILED(f"run: cannot write to {str(path)!r} ({error.strerror}); choose another place") from None
    return made


def read_config(path: Path, kinds: Mapping[str, tuple[type, ...]] = KINDS) -> dict[str, Any]:
    """Return the contents of a `config.yaml`, or of another file of names and values.

    Args:
        path: The file.
        kinds: Required types of some values.

    Raises:
        InputError: If it cannot be read, or has another form.
    """
    remedy = "fix it, or put a copy in its place"
    try:
        found = yaml.safe_load(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise damaged("run", path, error, remedy) from None
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise InputError(f"run: {str(path)!r} holds {a_kind(found)}, not names and values; {remedy}")
    if found.get("experiment") == "cause" and isinstance(found.get("parts"), dict):  # of versions that called them so
        found["studies"] = found.pop("parts")
    for name, some in kinds.items():
        if not isinstance(found.get(name), (*some, type(None))):
            raise Code.DAMAGED(f"run: {str(path)!r} says {name}: {shown(found[name])}, which it cannot be; {remedy}")
    return found


def unit_of(path: Path) -> str:
    """Return what a step of a run is called, see `Run.unit`."""
    about, parent = read_config(path / "config.yaml"), path.resolve().parent
    if "unit" not in about and "experiment" not in about and (parent / "config.yaml").is_file():
        about = read_config(parent / "config.yaml")
    return str(about.get("unit") or UNITS.get(str(about.get("experiment")), "step"))


def part_names(config: Mapping[str, Any]) -> list[str]:
    """Return the names of a run's parts from its config."""
    names = config.get("parts")
    return [name for name in names if is_part(name)] if isinstance(names, list) else []


def is_part(name: Any) -> bool:
    """Whether a part of a run may have this name."""
    return isinstance(name, str) and PART.fullmatch(name) is not None and name[-1] not in " ." and name not in PARTS


def refuse_parts(path: Path, names: Iterable[str]) -> None:
    """Raise an InputError if a run has parts, which hold the measurements."""
    for name in names:
        raise Code.CONFLICT(f"run: {str(path)!r} has parts {', '.join(names)}; take one, as run.parts[{name!r}]")


def plain(value: Any) -> Any:
    """Return a value that YAML can hold; anything else becomes text."""
    if isinstance(value, Mapping):
        return {name if isinstance(name, (int, float)) else str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    item = getattr(value, "tolist", None)  # of NumPy's and PyTorch's numbers and arrays
    try:
        return str(value) if item is None else plain(item())
    except Exception:  # of anybody's classes
        return shown(value)


def read_frames(folder: Path, pattern: re.Pattern[str], columns: list[str]) -> list[pd.DataFrame]:
    """Read the Parquet files in one of a run's folders.

    Args:
        folder: The folder, which may be missing.
        pattern: Pattern of their names.
        columns: Required columns; all but those in `TEXT` are numbers.

    Raises:
        InputError: For a damaged file, or one that does not belong to a run, with its name.
    """
    for left in reversed(range(TRIES)):
        try:
            parts = sorted(one for one in folder.glob("*.parquet") if not one.name.startswith("."))
            return [read_frame(part, pattern, columns) for part in parts]
        except FileNotFoundError:  # the run is being rewound: look again at what is there
            if not left:
                raise Code.CONFLICT(f"run: files in {str(folder)!r} come and go; try again later") from None
            time.sleep(0.05)
    return []


def read_frame(part: Path, pattern: re.Pattern[str], columns: list[str]) -> pd.DataFrame:
    """Read one such file; arguments and errors as of `read_frames`.

    Raises:
        FileNotFoundError: If it is not there.
    """
    import pandas as pd

    if not pattern.fullmatch(part.name):
        raise Code.DAMAGED(f"run: {str(part)!r} is not a file of the run (of a sync client?); move it away")
    try:
        frame = pd.read_parquet(part)
    except FileNotFoundError:
        if part.is_symlink():
            raise Code.DAMAGED(f"run: {str(part)!r} leads nowhere; move it away") from None
        raise
    except Exception as error:  # damaged files raise dozens of types
        raise damaged("run", part, error, "move it away") from None
    for name in columns:
        if name not in frame:
            raise Code.DAMAGED(f"run: {str(part)!r} has no column {name!r}; move it away")
        number = pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name])
        if number == (name in TEXT) and len(frame):
            raise Code.DAMAGED(f"run: {str(part)!r} has {frame[name].dtype} in column {name!r}; move it away")
    if "scale" in columns and not bool(frame["scale"].isin(SCALES).to_numpy().all()):
        raise Code.DAMAGED(f"run: {str(part)!r} has other scales than {', '.join(SCALES)}; move it away")
    frame.attrs = _about(frame.attrs)  # pyright: ignore[reportAttributeAccessIssue]
    return frame


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return frames of a run as one, ordered by step, `attrs` included."""
    import pandas as pd

    about = {key: value for frame in frames for key, value in frame.attrs.items()}
    if "coincident" in about:  # which a step may have and another not
        known = [frame for frame in frames if "coincident" in frame.attrs and len(frame)]
        about["coincident"] = {int(frame["step"].iloc[0]): frame.attrs["coincident"] for frame in known}
    frame = pd.concat(frames, ignore_index=True)
    frame.attrs = about  # of measurements that differ (rows drawn until rtol holds), what the last one says
    return frame.sort_values("step", kind="stable", ignore_index=True)


def steps_in(folder: Path) -> list[int]:
    """Return the measured steps in a folder of a run, in order."""
    names = (SPECTRA.fullmatch(part.name) for part in folder.glob("step-*.parquet"))
    return sorted(int(name[1]) for name in names if name)


def forget_after(path: Path, step: int) -> None:
    """Remove later steps from a run's folder."""
    for folder in (path / "spectra", path / "errors"):
        for later in steps_in(folder):
            if later > step:
                (folder / f"step-{later:012d}.parquet").unlink()
    for part in (path / "metrics").glob("from-*.parquet"):
        if METRICS.fullmatch(part.name):
            _keep_metrics(part, step, path)


def _keep_metrics(part: Path, step: int, workroom: Path) -> None:
    """Keep a file's metrics up to a step; remove the file if there are none."""
    frame = read_frame(part, METRICS, ["step"])
    kept = frame.loc[frame["step"] <= step, :]
    if kept.empty:
        part.unlink()
    elif len(kept) < len(frame):
        write_whole(part, lambda at: kept.to_parquet(at, index=False), workroom)


def by_step(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each step, with the last number of each column."""
    if not frame["step"].duplicated().any():
        return frame
    return frame.groupby("step", as_index=False, sort=False).last()


def _about(attrs: Any) -> dict[str, Any]:
    """Return the `attrs` of a measurement that have the types that are written."""
    kinds = {"n": int, "rows": int, "floor": (int, float), "refused": dict, "failed": dict, "coincident": dict}
    items = attrs.items() if isinstance(attrs, Mapping) else ()
    return {name: value for name, value in items if name in kinds and isinstance(value, kinds[name])}


def remove_parts(path: Path) -> None:
    """Remove a run's files from its folder, `config.yaml` last, and those of its parts."""
    with suppress(InputError):  # a damaged one names none
        for name in part_names(read_config(path / "config.yaml")):
            if (path / name / "config.yaml").is_file() and not (path / name).is_symlink():
                remove_parts(path / name)
                with suppress(OSError):  # somebody else's files are in it
                    (path / name).rmdir()
    for name in sorted(PARTS, key=lambda name: name == "config.yaml"):
        part = path / name
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def remove_run(path: Path, made: Path | None) -> None:
    """Remove a run's files, and its folder and those from `made` on if nothing else is in them."""
    remove_parts(path)
    sweep(path)
    for folder in (path, *path.parents):
        ours = folder == path or (made is not None and folder.is_relative_to(made))
        if not ours or any(folder.iterdir()):
            break
        folder.rmdir()
