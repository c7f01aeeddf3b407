"""Where a measurement is logged besides its run: one tracker per file."""

from layerfreq.trackers.csv import CSV
from layerfreq.trackers.mlflow import MLflow
from layerfreq.trackers.tensorboard import TensorBoard
from layerfreq.trackers.trackers import Tracker, Trackers
from layerfreq.trackers.wandb import WandB

__all__ = ["CSV", "MLflow", "TensorBoard", "Tracker", "Trackers", "WandB"]
