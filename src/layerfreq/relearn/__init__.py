"""Whether frequency is the cause: fresh learning components trained above every cut, and what orders their steps."""

from layerfreq.relearn.study import Design, relearn, results
from layerfreq.verdict.ranking import league

__all__ = ["Design", "league", "relearn", "results"]
