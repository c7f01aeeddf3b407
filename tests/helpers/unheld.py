"""Models whose state no measurement can put back, each of a few lines."""

import functools
import itertools

from tests.helpers.hostile import Net, scaled

CALLS = 0
CACHE = {}
LOST = {}  # name -> class, whose state cannot be


def lost(kind):
    LOST[kind.__name__] = kind
    return kind


@lost
class Closure(Net):
    def setup(self):
        count = 0

        def tick():
            nonlocal count
            count += 1
            return count

        self.tick = tick

    def act(self, x):
        return scaled(x, self.tick())


@lost
class ClosureOfAList(Net):
    def setup(self):
        seen = []
        self.stem.register_forward_hook(lambda m, a, out: seen.append(1))


@lost
class Global(Net):
    def act(self, x):
        global CALLS
        CALLS += 1
        return scaled(x, CALLS % 5)


@lost
class GlobalDict(Net):
    def act(self, x):
        CACHE[len(CACHE)] = 1
        return x


@lost
class OfItsClass(Net):
    calls = 0

    def act(self, x):
        type(self).calls += 1
        return x


@lost
class Remembering(Net):
    @functools.lru_cache(None)  # noqa: B019
    def once(self, n):
        return n

    def act(self, x):
        self.once(len(x))
        return x


@lost
class Iterators(Net):
    def setup(self):
        self.ids = itertools.count()

    def act(self, x):
        return scaled(x, next(self.ids))


@lost
class PythonGenerator(Net):
    def setup(self):
        self.ids = (i for i in range(10**6))

    def act(self, x):
        return scaled(x, next(self.ids) % 3)


@lost
class File(Net):
    def setup(self):
        import io

        self.log = io.StringIO()

    def act(self, x):
        self.log.write("x")
        return x
