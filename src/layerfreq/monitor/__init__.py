"""Measuring while a network trains: what is measured when, and where it goes."""

from layerfreq.monitor.monitor import Monitor

__all__ = ["Monitor"]
