"""Measurements in MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from layerfreq.extras import needs

MOST = 1000  # metrics that MLflow takes in one call


class MLflow:
    """Logs metrics, and the figure as the artifact `layerfreq/step-<step>.png`.

    Args:
        run_id: A run, which stays open. None joins the run that is active at the first measurement; without one, a
            run of its own is begun in the active experiment.
        client: An `mlflow.MlflowClient`; None means one of the current tracking URI.

    Raises:
        InputError: If the package is missing.

    Examples:
        >>> tracker = MLflow(client=client)  # an mlflow.MlflowClient
        >>> tracker.log(0, {"layerfreq/raw/median/1": 4.5}, figure=plt.figure)
        >>> tracker.close()
    """

    def __init__(self, run_id: str | None = None, client: Any = None) -> None:
        self._mlflow = needs("mlflow", "layerfreq[mlflow]", "trackers")
        self._given, self._client = run_id, client
        self._run_id, self._own = None, False

    def log(self, step: int, scalars: dict[str, float], figure: Callable[[], Any]) -> None:
        """Log one measurement."""
        client = self._client or self._mlflow.MlflowClient()
        if self._run_id is None:
            active = None if self._given else self._mlflow.active_run()
            self._run_id = self._given or (active and active.info.run_id)
            if self._run_id is None:
                self._run_id, self._own = self._mlflow.start_run().info.run_id, True
        now = round(time.time() * 1000)
        metrics = [self._mlflow.entities.Metric(name, value, now, step) for name, value in scalars.items()]
        for start in range(0, len(metrics), MOST):
            client.log_batch(self._run_id, metrics=metrics[start : start + MOST])
        client.log_figure(self._run_id, figure(), f"layerfreq/step-{step:012d}.png")

    def close(self) -> None:
        """End the run, if it is our own."""
        if self._own:
            self._mlflow.end_run()
        self._run_id, self._own = None, False
