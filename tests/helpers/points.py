"""Features in memory as engines see them, and a source that shows them in blocks."""

from layerfreq.data.distributed import Shards
from layerfreq.data.source import InMemory, Source
from layerfreq.engines import read_points


def points_of(x, scale="raw"):
    """Centre and size of features (n, d) in memory."""
    return read_points(InMemory(x), scale)


class InBlocks(Source):
    """Features that pass by in blocks of so many points, as if they were computed anew; counts the passes."""

    def __init__(self, x, size):
        super().__init__(x.device, Shards(count=len(x)))
        self.x, self.size, self.passes = x, size, 0

    def visit(self, see):
        self.passes += 1
        for first in range(0, len(self.x), self.size):
            see(first, self.x[first : first + self.size].clone())
