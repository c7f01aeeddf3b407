"""From measuring to deciding: where to cut a network, where to take features from, whether it is deep enough."""

from layerfreq.advice.advise import advise
from layerfreq.advice.result import Advice

__all__ = ["Advice", "advise"]
