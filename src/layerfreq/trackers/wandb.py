"""Measurements in Weights & Biases."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

from layerfreq.errors import first_line
from layerfreq.extras import needs


class WandB:
    """Logs scalars over the axis `layerfreq/step`, and the figure as the image `layerfreq/layers`.

    An axis of its own, because W&B drops what is logged at a step that its own count has passed already.

    Args:
        run: A run of `wandb.init`, which stays open. None joins the run that is active at the first measurement, as
            that of the Hugging Face `Trainer`; without one, a run of its own is begun.
        **init: For `wandb.init` of a run of its own: project, dir, mode="offline", ...

    Raises:
        InputError: If the package is missing.

    Examples:
        >>> tracker = WandB(mode="disabled")
        >>> tracker.log(0, {"layerfreq/raw/median/1": 4.5}, figure=plt.figure)
        >>> tracker.close()
    """

    def __init__(self, run: Any = None, **init: Any) -> None:
        self._wandb = needs("wandb", "layerfreq[wandb]", "trackers")
        self._given, self._init = run, init
        self._run: Any = None
        self._own, self._drawn = False, True

    def log(self, step: int, scalars: dict[str, float], figure: Callable[[], Any]) -> None:
        """Log one measurement."""
        if self._run is None:
            self._run = self._given or self._wandb.run
            self._own = self._run is None
            if self._own:
                self._run = self._wandb.init(**self._init)
            self._run.define_metric("layerfreq/step")
            self._run.define_metric("layerfreq/*", step_metric="layerfreq/step")
        self._run.log({**scalars, **self._picture(figure), "layerfreq/step": step})

    def _picture(self, figure: Callable[[], Any]) -> dict[str, Any]:
        """Return the figure as pixels, since W&B takes matplotlib's own only with pyplot; nothing if that fails."""
        try:
            from PIL import Image

            pixels = io.BytesIO()
            figure().savefig(pixels, format="png")
            return {"layerfreq/layers": self._wandb.Image(Image.open(pixels))}
        except Exception as error:  # the numbers are worth more
            if self._drawn:
                warnings.warn(f"trackers: WandB gets only numbers, no figure ({first_line(error)})", stacklevel=5)
            self._drawn = False
            return {}

    def close(self) -> None:
        """Finish the run, if it is our own."""
        if self._own:
            self._run.finish()
        self._run, self._own = None, False
