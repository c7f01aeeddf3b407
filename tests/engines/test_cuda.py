"""The CUDA engine's own parts. Without a GPU its kernels run in Triton's interpreter, where Triton is installed."""

import os
import re
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from layerfreq import spectrum
from layerfreq.data.targets import as_targets
from layerfreq.engines import pick_engine
from tests.helpers.brute import brute, one_hot
from tests.helpers.points import points_of
from tests.helpers.refusals import Code, refuses

GPU = torch.cuda.is_available()
cuda, device = (sys.modules[f"layerfreq.engines.cuda.{name}"] for name in ("engine", "device"))
needs_triton, needs_gpu = pytest.mark.needs("triton"), pytest.mark.needs("a GPU")
DEVICE = "cuda" if GPU else "cpu"
CUTOFFS = np.geomspace(0.05, 2, 6)


def cloud(n, d, classes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype(np.float32), rng.permutation(np.arange(n) % classes)


def check(x, y, inv_delta, **options):
    s = spectrum(x, y, inv_delta, engine="cuda", device=DEVICE, center=False, **options)
    exact = brute(x, y if y.ndim > 1 else one_hot(y), s.inv_delta)
    assert np.abs(s.lfr - exact[0]).max() <= 1e-6
    assert np.abs(s.rdf - exact[1]).max() <= 1e-4 * np.abs(exact[1]).max()
    np.testing.assert_allclose(s.neighbours, exact[2], rtol=1e-4)


def cut(a, rounds):
    """Cut float32 to TF32's 10 bits of fraction: to the nearest, or towards zero as the matrix unit does."""
    bits = a.view(np.uint32) + np.uint32(0x1000 if rounds else 0)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def towards_zero(a):
    short = a.astype(np.float32)
    return np.where(np.abs(short) > np.abs(a), np.nextafter(short, np.float32(0)), short)


def product(x, y, parts, depth=8):
    """Emulate the kernel's matrix product; the unit takes `depth` coordinates, and cuts its sums towards zero."""
    total = np.zeros((len(x), len(y)), np.float32)
    for k in range(0, x.shape[1], cuda.BLOCK_K):
        chunk = np.zeros_like(total)
        for a, b in parts(x[:, k : k + cuda.BLOCK_K], y[:, k : k + cuda.BLOCK_K]):
            for at in range(0, cuda.BLOCK_K, depth):
                a8, b8 = (part[:, at : at + depth].astype(np.float64) for part in (a, b))
                chunk = towards_zero(chunk + a8 @ b8.T)
        total += chunk
    return total


def three(x, y):
    large, large_y = cut(x, True), cut(y, True)
    small, small_y = cut(x - large, False), cut(y - large_y, False)
    return [(small, large_y), (large, small_y), (large, large_y)]


def halves(x, y):
    """The same of two float16 to a number: (large, small) in units of their own, the product in theirs."""
    parts = [
        [part.numpy().T * unit.numpy()[:, None] for part in parts.float().unbind(dim=1)]
        for parts, unit in (cuda._halved(torch.from_numpy(np.ascontiguousarray(a.T))) for a in (x, y))
    ]
    return [(parts[0][1], parts[1][0]), (parts[0][0], parts[1][1]), (parts[0][0], parts[1][0])]


@pytest.mark.parametrize(("parts", "depth"), [(three, 8), (halves, 16)])
@pytest.mark.parametrize("sign", ["mixed", "positive"])
def test_three_products_are_as_accurate_as_one_of_float32(sign, parts, depth):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(64, 512)).astype(np.float32) for _ in range(2))
    if sign == "positive":
        x, y = np.abs(x), np.abs(y)
    exact = x.astype(np.float64) @ y.astype(np.float64).T
    size = (np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)) / 2
    plain = np.zeros((64, 64), np.float32)  # one float32 after the other
    for k in range(512):
        plain += x[:, k, None] * y[:, k]
    one, all_three, float32 = (
        np.abs(p - exact).max() / size.max()
        for p in (product(x, y, lambda a, b: [(cut(a, True), cut(b, True))]), product(x, y, parts, depth), plain)
    )
    assert all_three <= float32
    assert all_three <= 5e-7
    assert one > 20 * all_three


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_halves_keep_22_bits_at_any_size(size):
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)) * size
    x[::2] *= 1e-4  # most coordinates of a point far smaller than its largest
    x[:, 3] = 0
    parts, unit = cuda._halved(x)
    back = parts.double().sum(dim=1) * unit
    assert torch.all(torch.frexp(unit).mantissa == 0.5)
    assert torch.all((back - x).abs() <= 2.0**-22 * x.abs() + 2.0**-38 * x.abs().amax(dim=0))


def test_matrix_mode_is_never_plain_tf32():
    assert cuda.MATRIX_MODE == "tf32x3"
    folder = Path(cuda.__file__).parent
    products = re.findall(r"tl\.dot\(.*", (folder / "triton_kernels.py").read_text())
    assert len([p for p in products if "MATRIX_MODE" in p]) == 1
    assert len([p for p in products if "MATRIX_MODE" not in p]) == 3  # of float16
    assert "input_precision=MATRIX_MODE" in (folder / "triton_kernels.py").read_text()
    assert [cuda.matrix_mode(of) for of in ((7, 5), (8, 0), (9, 0), (12, 0))] == ["ieee", *["tf32x3"] * 3]


def compiled(folder, *arguments):
    """Return what `compile_kernel.py` prints, as numbers."""
    code = Path(__file__).parent / "compile_kernel.py"
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(folder)}
    command = [sys.executable, "-W", "error::UserWarning:triton", code, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [list(map(int, line.split())) for line in done.stdout.splitlines()]


ROOM = {75: 64, 86: 99, 90: 227, 100: 227}  # KiB of shared memory that a program may have, from Turing to Blackwell


@needs_triton
@pytest.mark.parametrize("halved", [False, True])
def test_kernel_compiles_without_spilling(tmp_path, halved):
    """With no GPU: three matrix instructions a step, powers by the special unit, no stack in use, room for all."""
    room = {90: ROOM[90]} if halved else ROOM
    found = compiled(tmp_path, *map(str, room), *["halves"] * halved)
    for (arch, most), (products, conversions, powers, stack, shared) in zip(room.items(), found, strict=True):
        assert arch != 90 or products == 3 * cuda.BLOCK_K // (16 if halved else 8)
        assert (products > 0) == (arch >= 80), arch
        assert (conversions > 0) == (arch >= 80 and not halved), arch
        assert powers > 0
        assert stack == 0, arch
        assert shared <= most << 10, arch


@needs_triton
def test_many_small_classes_take_small_tiles():
    x, y = cloud(120, 20, 40)
    x[5] = x[77]
    check(x, y, CUTOFFS)


@needs_triton
def test_classes_longer_than_a_tile_and_blocks_of_rows():
    x, y = cloud(300, 33, 3)
    x[:2] += 100  # far away: the ladder is long, and 1 and D take part
    check(x, y, CUTOFFS)


@needs_triton
def test_vectors():
    x, _ = cloud(150, 40, 1)
    y = np.random.default_rng(1).normal(size=(150, 5)) + 3
    x[3] = x[4] + 1e-3
    check(x, y, CUTOFFS)


@needs_triton
def test_twins_whose_distance_the_product_gets_wrong_by_a_little():
    x, y = cloud(96, 64, 3)
    x[48:] = x[:48] + 0.01 * x[::-1][:48]
    nearest = np.square(x[48:] - x[:48]).sum(axis=1)
    check(x, y, np.geomspace(0.3, 3, 5) / nearest.mean())


@needs_triton
def test_all_points_alike():
    s = spectrum(np.full((70, 20), 3.0), np.arange(70) % 2, CUTOFFS, engine="cuda", device=DEVICE)
    np.testing.assert_allclose(s.lfr, 0.5, rtol=1e-6)


@needs_triton
@pytest.mark.parametrize("vectors", [False, True])
def test_columns_may_come_block_by_block(vectors):
    x, labels = cloud(100, 18, 3)
    y = as_targets(np.stack([labels, labels**2], axis=1) + 0.5 if vectors else labels, len(x))
    points = points_of(torch.from_numpy(x).to(DEVICE))
    engine = cuda.Cuda(points, y, torch.from_numpy(CUTOFFS))
    (whole,) = engine.run(torch.arange(100))
    rows = engine.begin(torch.arange(100))
    for part in (slice(0, 37), slice(37, 37), slice(37, 100)):
        engine.add(rows, engine.prepare(replace(points, features=points.features[part], first=part.start)))
    parts = engine.finish(rows)
    for name in ("energy", "slope", "self_weight"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-6)


@needs_triton
@pytest.mark.parametrize("vectors", [False, True])
def test_halves_and_groups_of_blocks(monkeypatch, vectors):
    """Three blocks of centres in groups of two; columns without centres; twins, close pairs, points far away."""
    for name, value in {"HALVES": True, "GROUP": 2, "BLOCK_M": 32}.items():
        monkeypatch.setattr(cuda, name, value)
    x, labels = cloud(150, 40, 3)
    x[3], x[5], x[7] = x[4] + 1e-3, x[6], 10 * x[7]
    x[:, 2] *= 1e-6
    y = as_targets(np.stack([labels, labels**2], axis=1) + 0.5 if vectors else labels, len(x))
    points, index = points_of(torch.from_numpy(x).to(DEVICE)), torch.arange(0, 150, 2)
    inv_delta = torch.from_numpy(CUTOFFS[::2]) * 4 / points.spread
    engine = cuda.Cuda(points, y, inv_delta)
    rows = engine.begin(index)
    for part in (slice(0, 37), slice(37, 150)):
        engine.add(rows, engine.prepare(replace(points, features=points.features[part], first=part.start)))
    found = engine.finish(rows)
    (exact,) = cuda_free_reference(points, y, inv_delta, index)
    order = torch.argsort(found.rows)
    for name in ("energy", "slope", "self_weight"):
        ours, theirs = getattr(found, name)[order].cpu(), getattr(exact, name).cpu()
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(
    ("n", "capability", "amd", "triton", "name"),
    [
        (2000, (9, 0), None, True, "cuda"),
        (2000, (8, 0), None, True, "cuda"),
        (1024, (9, 0), None, True, "blocked"),
        (2000, (7, 5), None, True, "blocked"),
        (2000, (9, 4), "6.4", True, "blocked"),
        (2000, (9, 0), None, False, "blocked"),
    ],
)
def test_auto_takes_it_where_it_is_known_to_pay(monkeypatch, n, capability, amd, triton, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", amd)
    monkeypatch.setattr(device, "find_spec", lambda _: triton or None)
    monkeypatch.setattr(device, "why_not", lambda _: None)
    assert pick_engine("auto", torch.device("cuda"), n)[0] == name


@needs_triton
def test_where_triton_fails_auto_says_so_once_and_does_without(monkeypatch, recwarn):
    """As in containers without a C compiler: Triton compiles a library at its first use."""
    device._tell.cache_clear()
    tried = []

    def fail(*_, **__):
        tried.append(1)
        raise RuntimeError("Failed to find C compiler.\nMore lines")

    kernels = SimpleNamespace(write_one={(1,): fail}, add_exponentials=None)
    monkeypatch.setitem(sys.modules, "layerfreq.engines.cuda.triton_kernels", kernels)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(cuda, "check_device", lambda _: False)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **how: empty(*shape, **{**how, "device": "cpu"}))
    for _ in range(2):
        assert pick_engine("auto", torch.device("cuda"), 2000)[0] == "blocked"
    (warning,) = recwarn.list
    assert "(Failed to find C compiler.)" in str(warning.message)
    assert warning.filename == __file__
    with refuses("engine", Code.FAILED, "C compiler", "'blocked'"):
        spectrum(*cloud(20, 3, 2), engine="cuda")
    # What runs once is not tried again.
    kernels.write_one = {(1,): lambda *_, **__: tried.append(2)}
    monkeypatch.setattr(device, "_ready", set())
    for _ in range(2):
        assert pick_engine("auto", torch.device("cuda"), 2000)[0] == "cuda"
    assert tried.count(2) == 1


@needs_triton
@pytest.mark.parametrize("full", [False, True])
def test_a_kernel_that_does_not_fit_is_one_line(monkeypatch, full):
    """Triton's own errors are; where memory is short, fewer centres at a time are tried, and what is told is memory."""
    from triton.runtime.errors import OutOfResources

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    error = RuntimeError("Triton Error [CUDA]: out of memory") if full else OutOfResources(99, 64, "shared memory")

    def launch(*_):
        raise error

    monkeypatch.setattr(cuda.Cuda, "_launch", launch)
    with refuses("engine", Code.MEMORY if full else Code.FAILED, "memory", "fewer" if full else "'blocked'"):
        spectrum(*cloud(20, 3, 2), engine="cuda", device=DEVICE)


def test_features_on_the_cpu(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with refuses("engine", Code.UNSUPPORTED, "'cuda'", "'cuda'"):
        spectrum(*cloud(20, 3, 2), engine="cuda")


@needs_gpu
@needs_triton
@pytest.mark.parametrize("kind", ["random", "collapsed", "far"])
@pytest.mark.parametrize("d", [3, 64, 512, 3072])
@pytest.mark.parametrize("vectors", [False, True])
def test_a_gpu_agrees_with_float64(kind, d, vectors):
    rng = np.random.default_rng(d)
    y = rng.integers(0, 10, 3000)
    x = rng.normal(size=(3000, d)) + 1000 * (kind == "far")
    if kind == "collapsed":
        x = rng.normal(size=(10, d))[y] + 1e-4 * rng.normal(size=(3000, d))
    x = torch.from_numpy(x.astype(np.float32))
    y = torch.from_numpy(rng.normal(size=(3000, 4)) + 2 if vectors else y)
    s = spectrum(x, y, engine="cuda", device="cuda")
    exact = spectrum(x.double(), y, s.inv_delta, engine="blocked", device="cuda")
    assert np.abs(s.lfr - exact.lfr).max() <= 1e-5
    assert np.abs(s.rdf - exact.rdf).max() <= 1e-4 * np.abs(exact.rdf).max()
    np.testing.assert_allclose(s.neighbours, exact.neighbours, rtol=1e-3)


@needs_gpu
@needs_triton
def test_a_gpu_measures_distances_as_float32_does():
    """With plain TF32 products the errors would be a thousand times larger."""
    x = torch.randn(2000, 512, generator=torch.Generator().manual_seed(0)).cuda()
    y = torch.arange(2000) % 5
    points, targets = points_of(x), as_targets(y, 2000)
    engine = cuda.Cuda(points, targets, torch.tensor([8.0 / points.spread], dtype=torch.float64))
    (found,) = engine.run(torch.arange(2000))
    (exact,) = cuda_free_reference(points, targets, engine.inv_delta)
    order = torch.argsort(found.rows)
    error = (found.self_weight[order] / exact.self_weight - 1).abs().max()
    assert float(error) < 2e-5


def cuda_free_reference(points, targets, inv_delta, index=None):
    from layerfreq.engines import RowCurves
    from layerfreq.engines.reference import Reference

    parts = list(Reference(points, targets, inv_delta).run(torch.arange(len(points)) if index is None else index))
    names = ("rows", "energy", "slope", "self_weight")
    return [RowCurves(*(torch.cat([getattr(part, name) for part in parts]) for name in names))]
