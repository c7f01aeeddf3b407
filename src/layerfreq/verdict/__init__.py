"""Statistics over runs and seeds: does deeper mean lower frequency, and is that why depth makes training faster."""

from layerfreq.runs.several import expand
from layerfreq.verdict.depth import PERCENT, ScaleVerdict, Verdict, judge, medians_of, verdict
from layerfreq.verdict.speedup import Finding

__all__ = ["PERCENT", "Finding", "ScaleVerdict", "Verdict", "expand", "judge", "medians_of", "verdict"]
