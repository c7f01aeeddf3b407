"""Models in the styles of public repositories, and the cuts that a person would name: images, numbers, physics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

N, D = 9, 8


@dataclass(frozen=True)
class Style:
    """A model, and what is to be found in it.

    Attributes:
        name: What it is.
        source: Where such models are found.
        build: Makes the model.
        draw: Makes its inputs.
        cuts: The names that a person would give, or words of the reason why there are none.
        holds: Names that must be in `refused`.
    """

    name: str
    source: str
    build: Callable[[], nn.Module]
    draw: Callable[[], Any]
    cuts: list[str] | str
    holds: tuple[str, ...] = ()


class Net(nn.Module):
    """Named modules, run by a function of the model and its inputs."""

    def __init__(self, run, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.run = run

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def fc(a=D, b=D):
    return nn.Linear(a, b)


def many(make, n):
    return nn.ModuleList([make() for _ in range(n)])


def flat():
    return torch.randn(N, D)


def image(c=3, side=8):
    return torch.randn(N, c, side, side)


def chained(bend):
    """Two hidden layers with any function between."""
    return lambda: Net(lambda m, x: m.c(bend(m.b(bend(m.a(x))))), a=fc(), b=fc(), c=fc(D, 2))


class Sine(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.linear = nn.Linear(a, b)

    def forward(self, x):
        return torch.sin(30 * self.linear(x))


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class PreActivation(nn.Module):
    def __init__(self, d=D):
        super().__init__()
        self.f, self.g, self.relu = fc(d, d), fc(d, d), nn.ReLU()

    def forward(self, x):
        return x + self.g(self.relu(self.f(self.relu(x))))


class Inverted(nn.Module):
    """An inverted residual: expand, depthwise, project."""

    def __init__(self, a, b, stride=1):
        super().__init__()
        self.same = a == b and stride == 1
        self.conv = nn.Sequential(
            nn.Conv2d(a, 4 * a, 1, bias=False), nn.BatchNorm2d(4 * a), nn.ReLU6(inplace=True),
            nn.Conv2d(4 * a, 4 * a, 3, stride, 1, groups=4 * a, bias=False), nn.BatchNorm2d(4 * a),
            nn.ReLU6(inplace=True), nn.Conv2d(4 * a, b, 1, bias=False), nn.BatchNorm2d(b),
        )  # fmt: skip

    def forward(self, x):
        return x + self.conv(x) if self.same else self.conv(x)


def mobile():
    """Fresh, with outputs of 1e-10."""
    body = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)]
    model = nn.Sequential(*body, *[Inverted(8, 8) for _ in range(3)], Pooled(8))
    for p in model.parameters():
        if p.ndim == 4:
            nn.init.normal_(p, 0, 1e-2)
    return model


class Pooled(nn.Module):
    def __init__(self, c, classes=3):
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(c, classes)

    def forward(self, x):
        return self.fc(self.pool(x).flatten(1))


class Basic(nn.Module):
    """A residual block with an empty Sequential for a shortcut, as of CIFAR networks."""

    def __init__(self, a, b, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        self.shortcut = nn.Sequential()
        if stride > 1 or a != b:
            self.shortcut = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return F.relu(out)


def cifar_resnet():
    def run(m, x):
        out = F.relu(m.bn1(m.conv1(x)))
        return m.linear(F.avg_pool2d(m.layer2(m.layer1(out)), 4).flatten(1))

    one, two = nn.Sequential(Basic(4, 4), Basic(4, 4)), nn.Sequential(Basic(4, 8, 2))
    stem = nn.Conv2d(3, 4, 3, 1, 1)
    return Net(run, conv1=stem, bn1=nn.BatchNorm2d(4), layer1=one, layer2=two, linear=nn.Linear(8, 3))


def changed(model, change):
    with torch.no_grad():
        change(model)
    return model


def mlp(*end):
    return nn.Sequential(fc(), nn.Tanh(), fc(), nn.ReLU(), fc(D, 3), *end)


class Dense(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(a), nn.Conv2d(a, b, 3, 1, 1)

    def forward(self, x):
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


def unet(m, x):
    a = F.relu(m.down(x))
    b = F.relu(m.up(F.interpolate(F.relu(m.mid(F.max_pool2d(a, 2))), scale_factor=2)))
    return m.out(torch.cat([a, b], 1))


def inline(m, x):
    for f in m.fs:
        x = x + F.relu(f(x))
    return m.head(x)


def inline_in_place(m, x):
    x = m.stem(x)
    for f in m.fs:
        x += m.act(f(x))
    return m.head(x)


def lenet(m, x):
    x = F.max_pool2d(F.relu(m.conv1(x)), 2)
    x = m.dropout2(F.relu(m.fc1(m.dropout1(x).flatten(1))))
    return F.log_softmax(m.fc2(x), dim=1)


class Result:
    def __init__(self, scores):
        self.scores = scores


def derived(m, x):
    x = x.requires_grad_(True)
    u = m.net(x)
    return u, torch.autograd.grad(u.sum(), x, create_graph=True)[0]


def vae(m, x):
    h = F.relu(m.enc(x))
    mu, logvar = m.mu(h), m.logvar(h)
    z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
    return torch.sigmoid(m.out(F.relu(m.dec(z)))), mu, logvar


def sparse_experts(m, x):
    h = F.relu(m.a(x))
    best, out = m.gate(h).argmax(-1), torch.zeros_like(h)
    for k, expert in enumerate(m.experts):
        out[best == k] = F.relu(expert(h[best == k]))
    return m.head(out)


def both(m, image, numbers):
    a, b = F.relu(m.a(image)), F.relu(m.b(numbers))
    return m.head(F.relu(m.fc(torch.cat([a, b], 1))))


STYLES = [
    Style("LeNet with dropout", "PyTorch's MNIST example",
          lambda: Net(lenet, conv1=nn.Conv2d(3, 4, 3), dropout1=nn.Dropout(), fc1=fc(36, D), dropout2=nn.Dropout(),
                      fc2=fc(D, 3)), image, ["conv1.relu", "fc1.relu"]),
    Style("residual network, empty shortcuts", "CIFAR repositories", cifar_resnet, image,
          ["bn1.relu", "layer1.0", "layer1.1", "layer2.0"], ("layer1.0.bn1.relu",)),
    Style("fresh inverted residuals", "mobile networks", mobile, image, ["2", "3", "4", "5"]),
    Style("dense blocks", "densely connected networks", lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), Dense(4, 4), Dense(8, 4), Pooled(12)), image, ["1", "2"]),
    Style("U-Net", "segmentation", lambda: Net(unet, down=nn.Conv2d(3, 4, 3, 1, 1), mid=nn.Conv2d(4, 4, 3, 1, 1),
                                               up=nn.Conv2d(4, 4, 3, 1, 1), out=nn.Conv2d(8, 2, 1)),
          image, ["down.relu", "up.cat"], ("mid.relu", "up.relu")),
    Style("VGG", "plain convolutional networks", lambda: nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.MaxPool2d(2)), nn.Flatten(),
        nn.Sequential(nn.Linear(36, D), nn.ReLU(True), nn.Dropout(), nn.Linear(D, 3))), image, ["0.1", "2.1"]),
    Style("squeeze and excitation, inline", "image classification", lambda: Net(
        lambda m, x: m.head((x * torch.sigmoid(m.up(F.relu(m.down(x.mean((2, 3))))))[:, :, None, None]).flatten(1)),
        down=fc(3, 2), up=fc(2, 3), head=fc(192, 2)), image, ["up.mul"], ("down.relu",)),
    Style("MLP, last bias 20,000", "regression", lambda: changed(mlp(), lambda m: m[4].bias.fill_(2e4)), flat,
          ["1", "3"]),
    Style("MLP, zero-initialised head", "fine-tuning", lambda: changed(mlp(), lambda m: m[4].weight.zero_()), flat,
          ["1", "3"]),
    Style("residuals, zero-initialised head", "fine-tuning", lambda: changed(
        nn.Sequential(*[PreActivation() for _ in range(3)], fc(D, 2)), lambda m: m[3].weight.zero_()), flat,
          ["0", "1", "2"]),
    Style("saturated sigmoid", "binary classification", lambda: changed(
        mlp(nn.Sigmoid()), lambda m: m[4].bias.fill_(300)), flat, ["1", "3"]),
    Style("inline residuals, outputs of 1e-12", "regression", lambda: changed(
        Net(inline, fs=many(fc, 4), head=fc(D, 2)), lambda m: m.head.weight.mul_(1e-12)), flat,
          ["fs.0.add", "fs.1.add", "fs.2.add", "fs.3.add"], ("fs.0.relu", "fs.3.relu")),
    Style("sine network", "implicit representations", lambda: nn.Sequential(Sine(D, D), Sine(D, D), fc(D, 1)), flat,
          ["0", "1"]),
    Style("sine network, inline", "implicit representations", chained(lambda z: torch.sin(30 * z)), flat,
          ["a.sin", "b.sin"]),
    Style("Gauss network", "implicit representations", chained(lambda z: torch.exp(-z.square())), flat,
          ["a.exp", "b.exp"]),
    *[Style(f"{name} between layers", "activations as functions", chained(f), flat, [f"a.{name}", f"b.{name}"])
      for name, f in [("cos", torch.cos), ("abs", torch.abs), ("square", torch.square), ("erf", torch.erf),
                      ("sinc", torch.sinc), ("softmax", lambda z: z.softmax(-1)), ("clamp", lambda z: z.clamp(0, 1)),
                      ("maximum", lambda z: torch.maximum(z, torch.zeros(())))]],
    Style("glu between layers", "gated networks", lambda: Net(
        lambda m, x: m.c(F.glu(m.b(F.glu(m.a(x))))), a=fc(D, 2 * D), b=fc(D, 2 * D), c=fc(D, 2)), flat,
          ["a.glu", "b.glu"]),
    Style("custom autograd.Function", "binarised networks", chained(Straight.apply), flat, ["a.sign", "b.sign"]),
    Style("where for a leaky ReLU", "hand-written activations", chained(lambda z: torch.where(z > 0, z, 0.1 * z)), flat,
          ["a.where", "b.where"]),
    Style("gated product, inline", "gated networks", lambda: Net(
        lambda m, x: m.c(F.silu(m.a(x)) * m.b(x)), a=fc(), b=fc(), c=fc(D, 2)), flat, ["b.mul"], ("a.silu",)),
    Style("inline residuals", "hand-written residual networks", lambda: Net(inline, fs=many(fc, 4), head=fc(D, 2)),
          flat, ["fs.0.add", "fs.1.add", "fs.2.add", "fs.3.add"], ("fs.0.relu",)),
    Style("inline residuals in place, one activation", "hand-written residual networks", lambda: Net(
        inline_in_place, stem=fc(), fs=many(fc, 3), act=nn.GELU(), head=fc(D, 2)), flat,
          ["act.add:1", "act.add:2", "act.add:3"], ("act:1",)),
    Style("pre-activation blocks", "residual networks, second version", lambda: nn.Sequential(
        *[PreActivation() for _ in range(4)], fc(D, 2)), flat, ["0", "1", "2", "3"], ("2.relu:1",)),
    Style("pre-activation blocks, norm and ReLU last", "residual networks, second version", lambda: nn.Sequential(
        fc(), *[PreActivation() for _ in range(2)], nn.BatchNorm1d(D), nn.ReLU(), fc(D, 2)), flat, ["1", "2", "4"]),
    Style("physics-informed, value and derivative", "PINNs", lambda: Net(
        derived, net=nn.Sequential(fc(), nn.Tanh(), fc(), nn.Tanh(), fc(D, 1))), flat, ["net.1", "net.3"]),
    Style("physics-informed, residual alone", "PINNs", lambda: Net(
        lambda m, x: (lambda u, g: g[:, :1] + u)(*derived(m, x)),
        net=nn.Sequential(fc(), nn.Softplus(), fc(), nn.Softplus(), fc(D, 1))), flat, "derivatives with respect to"),
    Style("force field", "interatomic potentials", lambda: Net(
        lambda m, x: (lambda e, g: {"energy": e, "forces": -g})(*derived(m, x)),
        net=nn.Sequential(fc(), nn.SiLU(), fc(D, 1))), flat, ["net.1"]),
    Style("hard boundary values", "PINNs", lambda: Net(
        lambda m, x: x[:, :1] * (1 - x[:, :1]) * m.net(x), net=mlp()), flat, "another way"),
    Style("variational autoencoder", "generative models", lambda: Net(
        vae, enc=fc(), mu=fc(D, 4), logvar=fc(D, 4), dec=fc(4, D), out=fc()), flat,
          ["enc.relu", "logvar.add", "dec.relu"]),
    Style("two inputs", "multimodal", lambda: Net(both, a=fc(), b=fc(4, D), fc=fc(2 * D, D), head=fc(D, 2)),
          lambda: (flat(), torch.randn(N, 4)), ["b.cat", "fc.relu"], ("a.relu", "b.relu")),
    Style("an object of one's own", "libraries", lambda: Net(lambda m, x: Result(m.net(x)), net=mlp()), flat,
          ["net.1", "net.3"]),
    Style("a distribution", "probabilistic models", lambda: Net(
        lambda m, x: torch.distributions.Normal(m.mu(h := m.net(x)), m.s(h).exp()), net=mlp(nn.ReLU()),
        mu=fc(3, 1), s=fc(3, 1)), flat, ["net.1", "net.3", "net.5"]),
    Style("class ids", "deployed classifiers", lambda: Net(lambda m, x: m.net(x).argmax(-1), net=mlp()), flat,
          ["net.1", "net.3"]),
    Style("decoded text", "recognition", lambda: Net(
        lambda m, x: ["abc"[i] for i in m.net(x).argmax(-1).tolist()], net=mlp()), flat, ["net.1", "net.3"]),
    Style("nothing of the inputs", "stubs", lambda: Net(lambda m, x: (m.net(x), 3.0)[1], net=mlp()), flat,
          "has nothing of the inputs"),
    Style("maxout", "hand-written activations", lambda: Net(
        lambda m, x: m.head(m.a(x).view(-1, 4, 2).amax(-1)), a=fc(), head=fc(4, 2)), flat, ["a.amax"]),
    Style("mixture of experts, sparse", "large models", lambda: Net(
        sparse_experts, a=fc(), gate=fc(D, 3), experts=many(fc, 3), head=fc(D, 2)), flat,
          ["a.relu", "experts.2.setitem"]),
    Style("torch.func.vmap", "functional libraries", lambda: Net(
        lambda m, x: torch.func.vmap(m.net)(x), net=mlp()), flat, "sees one point at a time"),
    Style("linear network", "baselines", lambda: nn.Sequential(fc(), fc(D, 2)), flat,
          "no activation before parameters"),
    Style("shared module, several calls", "weight sharing", lambda: Net(
        lambda m, x: m.out(m.act(m.f(m.act(m.f(x))))), f=fc(), act=nn.ReLU(), out=fc(D, 2)), flat, ["act:1", "act:2"]),
    Style("random Fourier features", "implicit representations", lambda: Fourier(), flat, ["cat", "net.1"]),
    Style("identity and dropout around", "configurable networks", lambda: nn.Sequential(
        nn.Identity(), fc(), nn.GELU(), nn.Identity(), nn.Dropout(), nn.Sequential(), fc(D, 2)), flat, ["2"]),
]  # fmt: skip


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("b", torch.randn(D, 4))
        self.net = nn.Sequential(fc(), nn.ReLU(), fc(D, 1))

    def forward(self, x):
        z = x @ self.b
        return self.net(torch.cat([z.sin(), z.cos()], -1))
