"""The trackers, under the name that they had before they got a room of their own."""

from layerfreq.trackers import CSV, MLflow, TensorBoard, Tracker, WandB

__all__ = ["CSV", "MLflow", "TensorBoard", "Tracker", "WandB"]
