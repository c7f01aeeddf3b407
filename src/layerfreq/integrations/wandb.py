"""Measurements in Weights & Biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layerfreq.integrations.extras import needs


class WandB:
    """Logs scalars over the axis `layerfreq/step`, and the figure as the image `layerfreq/layers`.

    An axis of its own, because W&B drops what is logged at a step that its own count has passed already.

    Args:
        run: A run of `wandb.init`, which stays open. None joins the run that is active at the first measurement, as
            that of the Hugging Face `Trainer`; without one, a run of its own is begun.
        **init: For `wandb.init` of a run of its own: project, dir, mode="offline", ...

    Raises:
        InputError: If the package is missing.
    """

    def __init__(self, run: Any = None, **init: Any) -> None:
        self._wandb = needs("wandb", "wandb")
        self._given, self._init = run, init
        self._run: Any = None
        self._own = False

    def log(self, step: int, scalars: dict[str, float], figure: Callable[[], Any]) -> None:
        """Log one measurement."""
        if self._run is None:
            self._run = self._given or self._wandb.run
            self._own = self._run is None
            if self._own:
                self._run = self._wandb.init(**self._init)
            self._run.define_metric("layerfreq/step")
            self._run.define_metric("layerfreq/*", step_metric="layerfreq/step")
        image = self._wandb.Image(figure())
        self._run.log({**scalars, "layerfreq/layers": image, "layerfreq/step": step})

    def close(self) -> None:
        """Finish the run, if it is our own."""
        if self._own:
            self._run.finish()
        self._run, self._own = None, False
