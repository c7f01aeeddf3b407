"""The probe set in the shapes that trainers know: data sets, loaders of dicts, and each rank's part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, RandomSampler, Subset

from layerfreq.data.inputs import BATCH, LABELS, count, is_dataset, is_loader, one_pass, pair_of, stacked, take
from layerfreq.errors import Code, none_given, together
from layerfreq.network.outputs import as_wanted


def probe_set(
    inputs: Any,
    targets: Any = None,
    rank: int = 0,
    ranks: int = 1,
    collate: Callable[[Any], Any] | None = None,
    convert: Callable[[Any], Any] | None = None,
    *,
    whole: bool = False,
) -> tuple[Any, Any]:
    """Bring a probe set into a form that `Monitor` takes, and take one rank's part of it.

    Points of a tensor or a data set are cut into equal runs, loaders are dealt out batch by batch; a loader with a
    `DistributedSampler` is one part already.

    Args:
        inputs: What a model's forward takes, or a loader or data set of (input, target) pairs or of dicts.
        targets: The targets, or None if the inputs bring their own; in dicts, they are what `LABELS` names. Or
            functions, or several by name, as for `layer_spectra`.
        rank: Whose part.
        ranks: Number of parts.
        collate: What makes a batch of a data set's items; None means PyTorch's own way.
        convert: What is done to inputs before the model gets them; None means nothing.
        whole: Make one batch of a data set's part; a loader's batches stay as they are.

    Returns:
        Inputs and targets, the latter None if the former are a loader that was given none.

    Raises:
        InputError: If there are no targets, fewer points than ranks, or a shuffled loader, or arrays with a loader, for
            several ranks.
    """
    dataset, collate = is_dataset(inputs), collate or stacked
    if isinstance(targets, Mapping) or callable(targets):
        if not is_loader(inputs):
            return _part(inputs, targets, rank, ranks, convert)
        _, wanted = as_wanted(inputs, targets)
        if ranks > 1 and any(one is not None and not callable(one) for one in (wanted or {}).values()):
            raise together("targets", "a loader, whose batches differ by rank", "let the loader bring them")
        return probe_set(inputs, None, rank, ranks, collate, convert, whole=whole)[0], targets
    if targets is None and dataset and not isinstance(inputs, IterableDataset):
        at = _run(len(inputs), rank, ranks)  # pyright: ignore[reportArgumentType]
        size = max(1, at.stop - at.start) if whole else BATCH
        found = Batches(DataLoader(Subset(inputs, range(at.start, at.stop)), size, collate_fn=collate), convert)
        return (list(found) if whole else found), None
    if targets is None and (dataset or is_loader(inputs)):
        if dataset:
            inputs = DataLoader(inputs, BATCH, collate_fn=collate)
        whole = ranks == 1 or isinstance(getattr(inputs, "sampler", None), DistributedSampler)
        if not whole and isinstance(getattr(inputs, "sampler", None), RandomSampler):
            raise Code.CONFLICT("inputs: a shuffled loader, which differs from rank to rank; pass shuffle=False")
        return (Batches(inputs, convert) if whole else Batches(inputs, convert, rank, ranks)), None
    if targets is None:
        raise none_given("targets", "one for each input, or a loader or data set that has both")
    return _part(inputs, targets, rank, ranks, convert)


def _part(inputs: Any, targets: Any, rank: int, ranks: int, convert: Callable[[Any], Any] | None) -> tuple[Any, Any]:
    """Return a rank's part of inputs and targets that are held in one piece."""
    inputs = inputs if convert is None else convert(inputs)
    if ranks == 1:
        return inputs, targets
    n = count(inputs)
    at = _run(n, rank, ranks)
    if isinstance(targets, Mapping):
        return take(inputs, at, n), {name: one if callable(one) else one[at] for name, one in targets.items()}
    return take(inputs, at, n), targets if callable(targets) else targets[at]


def _run(n: int, rank: int, ranks: int) -> slice:
    if n < ranks:
        raise Code.EMPTY(f"inputs: {n} points for {ranks} ranks; pass at least one for each")
    return slice(n * rank // ranks, n * (rank + 1) // ranks)


class Batches:
    """Some batches of a loader, as (inputs, targets) pairs, or dicts with labels.

    Args:
        loader: An iterable of pairs, or of dicts with labels among them.
        convert: What is done to inputs; None means nothing.
        first: The number of the first batch.
        every: The distance to the next one.
    """

    def __init__(
        self, loader: Any, convert: Callable[[Any], Any] | None = None, first: int = 0, every: int = 1
    ) -> None:
        self.loader, self._convert, self._first, self._every = loader, convert, first, every
        for name in (
            "generator",
            "sampler",
            "batch_sampler",
            "dataset",
        ):  # their random state is put back after measuring
            setattr(self, name, getattr(loader, name, None))

    def __iter__(self) -> Iterator[Any]:
        if iter(self.loader) is self.loader:
            raise one_pass()
        some = False
        for batch in islice(self.loader, self._first, None, self._every):
            some = True
            yield _converted(batch, self._convert)
        if not some and self._first:
            raise Code.EMPTY(f"inputs: fewer batches than the {self._every} ranks; pass smaller batches")


def _converted(batch: Any, convert: Callable[[Any], Any] | None) -> Any:
    """Convert a batch's inputs; a dict stays one, since its labels are not yet the targets that a model has."""
    x, y = pair_of(batch)
    x = x if convert is None else convert(x)
    if isinstance(batch, Mapping):
        return {**x, next(name for name in LABELS if batch.get(name) is not None): y}
    return x, y
