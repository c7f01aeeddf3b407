"""Models that keep state of every kind in places where a measurement must not leave a trace, each of a few lines."""

import functools
import random
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

D = 4


class Net(nn.Module):
    """Two layers; what `setup` gives it, `act` reads and changes in every forward pass."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(D, 6), nn.Linear(6, 3)
        self.setup()

    def setup(self):
        pass

    def act(self, x):
        return x

    def forward(self, x):
        return self.head(torch.tanh(self.stem(self.act(x))))


HELD = {}  # name -> class, all of whose state is put back


def held(kind):
    HELD[kind.__name__] = kind
    return kind


def scaled(x, count):
    return x * (1 + 0.01 * count)


@held
class NestedContainers(Net):
    def setup(self):
        self.state = {"a": [{"n": 0}, (1, [0])]}

    def act(self, x):
        self.state["a"][0]["n"] += 1
        self.state["a"][1][1][0] += 2
        return scaled(x, self.state["a"][0]["n"] + self.state["a"][1][1][0])


@held
class DequeOfTensors(Net):
    def setup(self):
        self.last = deque(maxlen=3)

    def act(self, x):
        self.last.append(x.detach().mean())
        return x + torch.stack(list(self.last)).sum()


@held
class Counters(Net):
    def setup(self):
        self.seen, self.by = Counter(), defaultdict(int)

    def act(self, x):
        self.seen["x"] += 1
        self.by[len(self.by) % 5] += 1
        return scaled(x, self.seen["x"] + len(self.by))


@held
class Subclasses(Net):
    class Mine(dict):
        count = 0

    class More(list):
        pass

    def setup(self):
        self.mine, self.more = self.Mine(a=0), self.More()
        self.mine.count, self.more.sum = 0, 0

    def act(self, x):
        self.mine["a"] += 1
        self.mine.count += 1
        self.more.append(1)
        self.more.sum += 1
        return scaled(x, self.mine["a"] + self.mine.count + len(self.more) + self.more.sum)


@held
class OrderMatters(Net):
    def setup(self):
        self.least = OrderedDict((k, k) for k in range(4))

    def act(self, x):
        self.least.move_to_end(next(iter(self.least)))
        return scaled(x, next(iter(self.least)))


@held
class Arrays(Net):
    def setup(self):
        self.total, self.parts = np.zeros(2), [np.zeros(2, np.int16), np.array([None, 0])]

    def act(self, x):
        self.total += 1
        self.parts[0][1] += 1
        self.parts[1][1] += 1
        return scaled(x, float(self.total[0]) + int(self.parts[0][1]) + self.parts[1][1])


@held
class CacheOfKeys(Net):
    @dataclass
    class Cache:
        keys: list = field(default_factory=lambda: [torch.zeros(1, D)])

    def setup(self):
        self.cache = self.Cache()

    def act(self, x):
        self.cache.keys[0] += x.detach().mean(0)
        self.cache.keys.append(x.detach()[:1])
        return x + torch.cat(self.cache.keys).sum() * 0.01


@held
class Slots(Net):
    class Small:
        __slots__ = ("count", "later")

    def setup(self):
        self.small = self.Small()
        self.small.count = 0

    def act(self, x):
        self.small.count += 1
        self.small.later = self.small.count
        return scaled(x, self.small.count)


@held
class PlainObjects(Net):
    def setup(self):
        self.a = SimpleNamespace(b=SimpleNamespace(c=0))
        self.user = UserDict(n=0)
        self.bits, self.set = bytearray(b"\0"), {0}

    def act(self, x):
        self.a.b.c += 1
        self.user["n"] += 1
        self.bits[0] = (self.bits[0] + 1) % 7
        self.set.add(len(self.set))
        return scaled(x, self.a.b.c + self.user["n"] + self.bits[0] + len(self.set))


@held
class GeneratorsInObjects(Net):
    def setup(self):
        self.rng = SimpleNamespace(a=[np.random.default_rng(1)], b={"c": random.Random(2)})
        self.bits = (np.random.PCG64(3), torch.Generator().manual_seed(4), np.random.RandomState(5))

    def act(self, x):
        noise = self.rng.a[0].normal() + self.rng.b["c"].random() + self.bits[0].random_raw() % 5
        return x + 0.01 * (noise + torch.rand(1, generator=self.bits[1]) + self.bits[2].rand())


@held
class GeneratorInAClosure(Net):
    def setup(self):
        rng = np.random.default_rng(1)
        self.noise = lambda: rng.normal()
        self.more = functools.partial(lambda r: r.random(), random.Random(3))

    def act(self, x):
        return x + 0.1 * self.noise() + self.more()


@held
class MaxNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 6, max_norm=0.5), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.embed((x[:, 0] > 0).long())))


@held
class CodebookByAverage(Net):
    def setup(self):
        self.book = nn.Parameter(torch.randn(3, D), requires_grad=False)

    def act(self, x):
        nearest = torch.cdist(x.detach(), self.book).argmin(1)
        with torch.no_grad():
            self.book[nearest] = 0.9 * self.book[nearest] + 0.1 * x
        return x + self.book[nearest]


@held
class DataWritten(Net):
    def act(self, x):
        self.stem.weight.data.mul_(0.99)
        self.head.bias.data = self.head.bias.data + 0.01
        return x


@held
class ThroughNumPy(Net):
    def act(self, x):
        self.stem.weight.detach().numpy()[0, 0] += 0.5
        return x


@held
class BackwardInside(Net):
    def act(self, x):
        with torch.enable_grad():
            nn.functional.linear(x, self.stem.weight).square().mean().backward()
        return x


@held
class TrainedOrNot(Net):
    def act(self, x):
        self.stem.weight.requires_grad_(not self.stem.weight.requires_grad)
        return scaled(x, self.stem.weight.requires_grad)


@held
class MadeInForward(Net):
    def act(self, x):
        if not hasattr(self, "late"):
            self.late, self.scale = nn.Linear(D, D), nn.Parameter(torch.rand(()))
            self.register_buffer("mean", x.detach().mean(0))
            self.late.register_forward_hook(lambda m, a, out: out * 1.5)
        self.mean += 0.1
        return self.late(x) * self.scale + self.mean


@held
class HooksInForward(Net):
    def act(self, x):
        self.stem.register_forward_hook(lambda m, a, out: out + 0.01)
        return x


@held
class ReplacedInForward(Net):
    def act(self, x):
        self.head.weight = nn.Parameter(self.head.weight.detach() * 0.999)
        return x


@held
class HiddenModule(Net):
    def setup(self):
        self.secret = [nn.BatchNorm1d(D)]

    def act(self, x):
        return self.secret[0](x)


@held
class OwnOptimizer(Net):
    def setup(self):
        self.temperature = nn.Parameter(torch.ones(()))
        self.steps = torch.optim.Adam([self.temperature], 0.1)

    def act(self, x):
        with torch.enable_grad():
            self.temperature.grad = (self.temperature * x.detach().mean()).detach()
        self.steps.step()
        return x * self.temperature


@held
class NegativeZeroAndNaN(Net):
    def setup(self):
        self.register_buffer("odd", torch.tensor([0.0, float("nan")]))

    def act(self, x):
        self.odd.neg_()
        return x * torch.copysign(torch.ones(()), self.odd[0])


@held
class WritesItsInput(Net):
    def act(self, x):
        x -= 0.5
        return x


@held
class ReluFirst(Net):
    def act(self, x):
        return nn.functional.relu_(x)
