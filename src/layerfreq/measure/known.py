"""Filter centres whose distances to all points are known, from one pass over wide features.

The features may be held, or pass by once, as a network computes them. Then nothing of them is kept if one batch has all
points (`seen`); otherwise only those of the filter centres, which are run before the other points (`in_pieces`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from layerfreq.data.distributed import Shards
from layerfreq.data.inputs import device_of
from layerfreq.data.source import See, Source
from layerfreq.data.targets import Targets, prepare_targets, read_targets
from layerfreq.data.validation import Curve, Scale, as_features
from layerfreq.engines import USUAL, Engine, RowCurves, pick_engine
from layerfreq.engines.base import FEWEST, out_of_memory
from layerfreq.engines.cpu.engine import Cpu
from layerfreq.engines.distances import BYTES, WIDE, Distances, can_look, look
from layerfreq.engines.passing import Passing
from layerfreq.errors import InputError, Refusal, first_line, warn_caller
from layerfreq.isolation.memory import group_by_memory
from layerfreq.isolation.preserve import sharded_modules
from layerfreq.isolation.torch_settings import own_settings
from layerfreq.measure.grid import a_few, covering
from layerfreq.measure.sampling import draw
from layerfreq.measure.strategies import work_on
from layerfreq.network.cuts import Cut
from layerfreq.network.extract import run_through
from layerfreq.network.outputs import ONE
from layerfreq.network.pieces import Held, Pieces

# Bytes of a layer's features in a batch whose size we choose. Beyond 32 MiB, the C library returns memory and asks for
# it anew at every layer, and touching it for the first time takes as long as a convolution.
PIECE = 1 << 24
DRIFT = 1e-4  # by which a point's features may depend on its batch, if batches are not those of the user


class Known:
    """Does what `Meeting` does, for known distances.

    Args:
        distances: Distances of the filter centres, and of the few points that the default grid depends on.
        targets: The targets of all points.
        centres: The filter centres.
    """

    def __init__(self, distances: Distances, targets: Targets, centres: Int64[Tensor, " r"]) -> None:
        self.points = distances.points
        self._distances, self._targets, self._asked = distances, targets, centres

    @classmethod
    def of(
        cls,
        source: Source,
        make_engine: type[Engine],
        targets: Targets,
        scale: Scale,
        centres: Int64[Tensor, " r"],
        *,
        room: int | None,
        own_grid: bool,
    ) -> Known | None:
        """Find the distances of the features that a source holds; None if that is not possible, or not quicker.

        Args:
            source: Source of the features.
            make_engine: The engine asked for.
            targets: The targets of all points.
            scale: As in `look`.
            centres: The filter centres.
            room: Bytes, as for `Meeting`.
            own_grid: Whether `own_grid` will be asked for.
        """
        if isinstance(source, Seen):
            return cls(source.distances[scale], targets, centres)
        features = source.features
        if features is None or not source.shards.alone or make_engine is not Cpu:
            return None
        index = _centres(features, centres, own_grid=own_grid)
        distances = look(features, index, scale) if can_look(features, len(index), room) else None
        return None if distances is None else cls(distances, targets, centres)

    def own_grid(self) -> Curve:
        """See `Meeting.own_grid`."""
        known = self._distances
        few = a_few(known.squared.shape[1], known.points.features, self._asked)
        few = torch.searchsorted(known.index, few)
        squared = known.squared[few.numpy()]
        return covering(float(squared.max()), np.where(squared > 0, squared, np.inf).min(axis=1))

    def begin(self, cutoffs: Tensor) -> None:
        """See `Meeting.begin`."""
        from layerfreq.engines.cpu.given import Given

        self._work = Given(self._distances, self._targets, cutoffs)

    def curves(self, index: Tensor) -> Iterator[RowCurves]:
        """See `Meeting.curves`."""
        return self._work.run(index)


class Seen(Source):
    """Features that have passed by, of which only distances are kept.

    Attributes:
        distances: scale -> distances.
        width: Number of features.
    """

    def __init__(self, distances: Mapping[Scale, Distances]) -> None:
        one = next(iter(distances.values()))
        super().__init__(one.points.features.device, Shards(count=one.squared.shape[1]))
        self.distances, self.width = distances, one.points.features.shape[1]

    def visit(self, see: See) -> None:
        """Raise, since the features are gone."""
        raise RuntimeError("the features have passed by, and only their distances were kept")

    def __len__(self) -> int:
        return self.shards.n

    @property
    def nbytes(self) -> int:
        """Bytes of the distances."""
        return sum(one.squared.nbytes for one in self.distances.values())


def seen(
    features: Tensor,
    targets: Any,
    scales: Sequence[Scale],
    *,
    inv_delta: Any = None,
    center: bool | None = None,
    rows: int | None = None,
    rtol: float | None = None,
    engine: str = "auto",
    device: str | torch.device | None = None,
    seed: int = 0,
    group: Any = None,
) -> Seen | None:
    """Find the distances of all points while a network computes their features.

    Args:
        features: (n, d) of all points; nothing of them is kept.
        targets: Targets of the points, as for `spectrum`; None if they are not known yet.
        scales: Scales at which to measure.
        inv_delta: As for `spectrum`, like all that follows.

    Returns:
        A source for `measure_source`; None if the features have to be held, or are bad input, which is reported when
        they are measured.
    """
    n, d = features.shape
    given = group is None and rtol is None and torch.device(device or "cpu").type == "cpu"
    if not given or (rows is not None and targets is None) or not can_look(features, rows or n, None):
        return None
    with torch.no_grad(), torch._C.DisableTorchFunction(), own_settings():  # hidden from the tracing of a model
        cutoffs = USUAL if inv_delta is None else len(inv_delta)
        if pick_engine(engine, features.device, n, d, cutoffs)[1] is not Cpu:
            return None
        known: dict[Scale, Distances] = {}
        try:
            x = as_features(features)
            centres = torch.arange(n) if rows is None else _drawn(targets, n, rows, center, seed)
            index = _centres(x, centres, own_grid=inv_delta is None)
            for scale in scales if can_look(x, len(index), None) else ():
                one = look(x, index, scale)
                if one is None:
                    return None
                known[scale] = one
        except InputError:
            return None
    return Seen(known) if known else None


def _drawn(targets: Any, n: int, rows: int, center: bool | None, seed: int) -> Tensor:
    """Return the filter centres that are drawn for targets."""
    y = prepare_targets(read_targets(targets, n), Shards(count=n), center=center, seed=seed)
    return draw(y, n, rows, None, seed).order


def _centres(features: Tensor, centres: Tensor, *, own_grid: bool) -> Tensor:
    """Return the filter centres, and the few points that the default grid depends on, in order."""
    few = a_few(len(features), features, centres) if own_grid else centres[:0]
    return torch.unique(torch.cat([centres, few]))


@dataclass
class Company:
    """What is known of how features depend on the other points of a batch.

    Attributes:
        changing: Layers whose features were found to depend on them.
        turn: How many passes found nothing, see `Pieces.beginning_with`.
        doubt: Layers that could not be measured on other batches than those that come, and what was raised.
    """

    changing: set[str] = field(default_factory=set)
    turn: int = 0
    doubt: tuple[set[str], str] | None = None

    @contextmanager
    def judged(self, model: nn.Module) -> Iterator[None]:
        """Warn that other batches do not work if those that come do, inside; else batches were not the reason."""
        try:
            yield
        except Exception:
            self.changing -= set() if self.doubt is None else self.doubt[0]
            self.doubt = None
            raise
        if self.doubt is not None:
            name, (_, why), self.doubt = type(model).__name__, self.doubt, None
            warn_caller(
                f"inputs: {name} does not run on these points in other batches ({why}); from now on, batches are taken "
                "as they come, and features are held"
            )


def in_pieces(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    cuts: Sequence[Cut],
    scale: Scale,
    budget: int,
    company: Company,
    options: Mapping[str, Any],
    each: Mapping[Any, Tensor] | None = None,
) -> Iterator[tuple[Cut, Seen | Tensor, Mapping[Any, Tensor]]]:
    """Let several batches of points pass by drawn filter centres, which are run first: one pass for many wide layers.

    Args:
        model: The model, unwrapped.
        inputs: As for `layer_features`.
        targets: In the shape of the inputs, or None.
        cuts: The layers.
        scale: Scale at which to measure.
        budget: Bytes for features.
        company: What was found before of how features depend on the batch; added to.
        options: Options of `spectrum`, checked.
        each: Name -> targets of points in one piece, instead of `targets`. Each has its own filter centres.

    Returns:
        Layers, their features or the distances kept of them, and name -> targets in the same order. Layers that are
        left out have to be measured in another way, which also reports what is wrong with them.
    """
    drawn = isinstance(options.get("rows"), int) and options.get("group") is None and scale != "maxabs"
    here = {torch.device(options.get("device") or "cpu").type, device_of(model).type} == {"cpu"}
    read = any(cut.reading.name == "positions" for cut in cuts)
    if not drawn or not here or read or not company.changing.isdisjoint(cut.name for cut in cuts):
        return
    widest = max(cut.each for cut in cuts) if cuts else 0
    if widest < WIDE * 4 or sharded_modules(model):  # bytes of float32; ranks of a sharded model have to run alike
        return
    try:
        first = targets if each is None else next(iter(each.values()), None)
        points = Pieces.of(model, inputs, first, budget // 4, max(FEWEST, PIECE // widest))
        each = {ONE: points.targets} if each is None and points is not None else each
        index = None if points is None or not each else _of_all(points.n, each, options)
    except InputError:
        return
    if points is None or index is None or each is None:
        return
    for some, wide in _lots(cuts, points.n, index, budget, options):
        with own_settings():
            takers = {cut.name: Passing(index, points.n) if cut.name in wide else Held(points.n) for cut in some}
        try:
            _pass_by(model, inputs, points.beginning_with(index, company.turn), some, takers)
        except _Depends as depends:
            company.changing.update(takers)
            warn_caller(f"layer {str(depends)!r}: {Refusal.TOGETHER.long}; from now on, batches are taken as they come")
            return
        except Exception as error:  # a model that does not run on these points together may raise anything
            if not out_of_memory(error):
                company.changing.update(takers)
                company.doubt = set(takers), first_line(error, kind=True)
            return
        company.turn += 1
        for cut in some:
            one = takers.pop(cut.name)
            with own_settings():
                found = one.features() if isinstance(one, Held) else one.distances()
            if found is not None:
                yield cut, Seen({scale: found}) if isinstance(found, Distances) else found, each


@own_settings()
def _of_all(n: int, each: Mapping[Any, Tensor], options: Mapping[str, Any]) -> Tensor | None:
    """Return all targets' filter centres, and points for default grids, in order; None if these are most points."""
    own_grid, how = options.get("inv_delta") is None, (options["rows"], options.get("center"), options.get("seed", 0))
    drawn = (_drawn(target, n, *how) for target in each.values())
    index = torch.unique(torch.cat([_centres(torch.empty(n, 0), one, own_grid=own_grid) for one in drawn]))
    return index if 2 * len(index) <= n else None


def _lots(
    cuts: Sequence[Cut], n: int, index: Tensor, budget: int, options: Mapping[str, Any]
) -> Iterator[tuple[list[Cut], set[str]]]:
    """Iterate over groups of layers for which one pass has room, with the names of those that are wide."""
    grid, pairs, cpu = options.get("inv_delta"), len(index) * n, torch.device("cpu")
    cutoffs, engine = USUAL if grid is None else len(grid), options.get("engine", "auto")
    wide = {c.name for c in cuts if c.each >= WIDE * 4 and pick_engine(engine, cpu, n, c.each // 8, cutoffs)[1] is Cpu}
    sizes = [
        (c, 2 * len(index) * c.each + 8 * pairs, BYTES * pairs)
        if c.name in wide
        else (c, n * c.each, work_on(n * c.each, n, options))
        for c in cuts
    ]
    for some, held in group_by_memory(sizes, budget):
        if held and not wide.isdisjoint(c.name for c in some):
            yield some, wide


class _Depends(Exception):
    """A layer's features depend on what else is in a batch, so the rest of the pass would be useless."""


def _pass_by(
    model: nn.Module, inputs: Any, batches: Iterable[tuple[Any, Tensor]], cuts: Sequence[Cut], takers: Mapping[str, Any]
) -> None:
    """Run the model once over batches of inputs and the numbers of their points, the filter centres first."""

    def see(name: str, block: Tensor, n: int, numbers: Tensor | None) -> None:
        with torch.no_grad(), torch._C.DisableTorchFunction(), own_settings():
            takers[name].see(numbers, block)
            if takers[name].drift > DRIFT:
                raise _Depends(name)

    run_through(model, inputs, None, cuts, see, instead=batches)
