"""Error by frequency next to other tools, interleaved in one run: time, and what each makes of the same residual.

python benchmarks/error_spectra.py [grid] [scattered] [filter] [agree] [--side 1024] [--points 1000000] [--repeats 5]

Where the_well or exponax can be imported, they are run themselves; PDEBench's fRMSE and pysteps' rapsd are written down
here from their definitions: PDEBench sums |error_k|^2 over rings of floor(|k|) in a double loop over the modes whose
indices lie below half of the size, and averages rings below 4, 4 to 12, and above; rapsd averages |field_k|^2 / size
over rings of round(|k|), up to half of the longer side.
"""

import argparse
import math
import statistics
import time
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import torch

from layerfreq import error_spectrum, spectrum
from layerfreq.response import scattered


def fields(side, seed=0):
    """A target of falling spectrum and an output that lacks its high part, on a periodic grid of step 1."""
    rng = np.random.default_rng(seed)
    k = 2 * np.pi * np.fft.fftfreq(side)
    size = np.sqrt(k[:, None] ** 2 + k**2)
    waves = np.fft.fft2(rng.standard_normal((side, side))) / (0.05 + size) ** 1.5
    target, output = (np.fft.ifft2(waves * part).real for part in (1.0, np.exp(-((size / 0.5) ** 2))))
    x = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2).astype(float)
    return x, target, output


def the_well(target, output, bins=None):
    """Mean squared error by bin of |k|; the package's own default is three bins."""
    from the_well.benchmark.metrics.spectral import binned_spectral_mse

    meta = SimpleNamespace(n_spatial_dims=2)
    x, y = (torch.from_numpy(one)[..., None] for one in (output, target))
    found = binned_spectral_mse.eval(x, y, meta, bins=bins)
    energies = [value for name, value in found.items() if name.startswith("spectral_error_mse")]
    return np.array([float(value) for value in energies])


def pdebench_rings(target, output):
    """|error_k|^2 by ring as PDEBench's fRMSE takes it, before its root: one quarter of the modes, one at a time."""
    error = torch.from_numpy(target - output)
    half = len(error) // 2
    energy = torch.fft.fftn(error).abs() ** 2
    rings = torch.zeros(half, dtype=energy.dtype)
    for i in range(half):
        for j in range(half):
            ring = math.floor(math.sqrt(i * i + j * j))
            if ring < half:
                rings[ring] += energy[i, j]
    return rings.numpy() / error.numel() ** 2


def pdebench(target, output):
    """The three numbers that it reports, each the mean of root energies over rings."""
    root = np.sqrt(pdebench_rings(target, output))
    return np.array([root[:4].mean(), root[4:12].mean(), root[12:].mean()])


def rapsd(field):
    """Power by ring of round(|k|), a mean over modes."""
    side = len(field)
    index = np.fft.fftshift(np.fft.fftfreq(side, 1 / side))
    ring = np.sqrt(index[:, None] ** 2 + index**2).round()
    power = np.abs(np.fft.fftshift(np.fft.fft2(field))) ** 2 / field.size
    return np.array([power[ring == r].mean() for r in range(side // 2 + 1 if side % 2 == 0 else side // 2)])


def exponax(target, output, low, high):
    """Mean squared error of a band of mode indices."""
    from exponax.metrics import fourier_MSE

    return float(fourier_MSE(output[None], target[None], low=low, high=high))


def interleaved(ways, repeats):
    """Seconds of each way, in turns; the first turn is thrown away."""
    times = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if turn:
                times[name].append(time.perf_counter() - begun)
    return times


def show(times, first):
    """A Markdown table, ratios as medians of pairs."""
    print(f"| way | median, s | over {first}, median of pairs |\n|---|---|---|")
    for name, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, times[first], strict=True))
        print(f"| {name} | {statistics.median(found):.3g} | {ratio:.2f} |")
    print()


def grid(options):
    x, target, output = fields(options.side)
    flat = target.reshape(-1), output.reshape(-1)
    ways = {"layerfreq grid, all rings": lambda: error_spectrum(x, *flat, method="grid")}
    if find_spec("the_well"):
        ways["the_well, 3 bins"] = lambda: the_well(target, output)
    ways["PDEBench's fRMSE (formula)"] = lambda: pdebench(target, output)
    print(f"\nGrid of {options.side} x {options.side}, float64, {torch.get_num_threads()} threads\n")
    show(interleaved(ways, options.repeats), "layerfreq grid, all rings")


def scatter(options):
    rng = np.random.default_rng(0)
    n, most = options.points, 50
    x = rng.uniform(0, 1, (n, 2))
    y = np.sin(2 * np.pi * (3 * x[:, 0] + x[:, 1]))
    k = 2 * np.pi * np.arange(most + 1)
    shape = (2 * most + 1,) * 2
    part = max(1, n // 200)
    values = np.stack([y, 0.5 * y], axis=1)
    turned = 2 * np.pi * x
    ways = {
        "error_spectrum, scattered": lambda: error_spectrum(x, y, 0.5 * y, k, method="scattered", period=1.0),
        "its sums alone": lambda: scattered._way(n, math.prod(shape))[0](turned, values, shape),
        f"direct sums of 1 point in {n // part}": lambda: scattered.direct(turned[:part], values[:part], shape),
    }
    finufft = "finufft" if find_spec("finufft") else "direct sums: finufft is not installed"
    print(f"\n{n} scattered points in 2-D, {math.prod(shape)} frequencies, 2 columns, {finufft}\n")
    times = interleaved(ways, options.repeats)
    name = f"direct sums of 1 point in {n // part}"
    times["direct sums of all, extrapolated"] = [n / part * one for one in times[name]]
    show(times, "its sums alone")


def filters(options):
    print("\nFilter, 64 cutoffs, against `spectrum` of the target on the same points\n")
    for n, d, columns in ((2000, 64, 1), (5000, 512, 1), (5000, 512, 10)):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(n, d, generator=generator)
        y, out = (torch.randn(n, columns, generator=generator) for _ in range(2))
        k = np.geomspace(0.5, 3, 64) / math.sqrt(d)
        ways = {
            "spectrum": lambda: spectrum(x, y, k**2),  # noqa: B023 (called at once)
            "error_spectrum, filter": lambda: error_spectrum(x, y, out, k, method="filter"),  # noqa: B023
        }
        print(f"n = {n}, d = {d}, {columns} columns\n")
        show(interleaved(ways, options.repeats), "spectrum")


def agree(options):
    """What each tool makes of one residual, odd and even sizes."""
    for side in (64, 63):
        x, target, output = fields(side, seed=1)
        error = target - output
        mse = np.mean(error**2)
        ours = error_spectrum(x, target.reshape(-1), output.reshape(-1), method="grid")
        step = ours.k[1]
        print(f"\n{side} x {side}: mean squared error {mse:.6g}; share of it that the bands hold\n")
        print("| tool | share of the MSE | against the same modes here |\n|---|---|---|")
        print(f"| layerfreq, rings | {ours.error_energy.sum() / mse:.6f} | |")
        if find_spec("the_well"):
            edges = torch.from_numpy(np.concatenate([[0.0], (np.arange(side // 2 + 1) + 0.5) * step]))
            theirs = the_well(target, output, edges)
            bands = ours.error_energy[: len(theirs)]
            print(f"| the_well, default bins | {the_well(target, output).sum() / mse:.6f} | |")
            print(f"| the_well, edges half-way | {theirs.sum() / mse:.6f} | {worst(theirs, bands)} |")
        if find_spec("exponax"):
            whole = exponax(target, output, None, None)
            box = [np.mean(np.abs(band(error, low, low, "box")) ** 2) for low in range(1, 6)]
            theirs = np.array([exponax(target, output, low, low) for low in range(1, 6)])
            print(f"| exponax | {whole / mse:.6f} | boxes of max(\\|i\\|, \\|j\\|): {worst(theirs, np.array(box))} |")
        quarter = pdebench_rings(target, output)
        print(f"| PDEBench's fRMSE | {quarter.sum() / mse:.6f} | |")
        modes = np.bincount(np.rint(np.hypot(*indices(side))).astype(int).ravel())
        power = rapsd(error)
        sums = power * modes[: len(power)] / error.size
        print(
            f"| pysteps' rapsd of the error | {sums.sum() / mse:.6f} | {worst(sums, ours.error_energy[: len(sums)])} |"
        )


def indices(side):
    one = np.fft.fftfreq(side, 1 / side)
    return np.meshgrid(one, one, indexing="ij")


def band(error, low, high, shape):
    """The part of a field in modes whose index is in low .. high, by ring or by box."""
    i, j = np.abs(indices(len(error)))
    size = np.maximum(i, j) if shape == "box" else np.hypot(i, j)
    return np.fft.ifft2(np.fft.fft2(error) * ((size >= low) & (size <= high)))


def worst(theirs, ours):
    return f"differs by {np.max(np.abs(theirs - ours)) / np.max(ours):.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = {"grid": grid, "scattered": scatter, "filter": filters, "agree": agree}
    parser.add_argument("what", nargs="*", choices=[*ways, []], default=[])
    for name, value in (("side", 1024), ("points", 1_000_000), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    for name in options.what or ways:
        ways[name](options)


if __name__ == "__main__":
    main()
