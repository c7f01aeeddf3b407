"""Statistics over runs and seeds: does deeper mean lower frequency, and is that why depth makes training faster.

The module is named as its first function is, and can be called as that: `layerfreq.verdict(runs)`.
"""

import sys
from types import ModuleType
from typing import Any

from layerfreq.runs.several import expand
from layerfreq.verdict.comparison import compare
from layerfreq.verdict.depth import PERCENT, ScaleVerdict, Verdict, judge, medians_of, verdict
from layerfreq.verdict.speedup import Finding

__all__ = ["PERCENT", "Finding", "ScaleVerdict", "Verdict", "compare", "expand", "judge", "medians_of", "verdict"]


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Verdict:
        return verdict(*args, **options)


_Callable.__call__.__doc__ = verdict.__doc__
sys.modules[__name__].__class__ = _Callable
