"""200 heads on 5,000 x 500 features: `python benchmarks/heads.py [--learnable]`.

Prints the time of one batch of 25 seeds x 8 learning rates (one hidden layer of 100, 10 classes, 1,500 minibatch steps
of 128). The labels are random, so that no head arrives and leaves the batch: the longest that it can take. With
--learnable they follow the features.
"""

import argparse
import time

import numpy as np
import torch

from layerfreq.relearn.heads import fixed_head, train_heads
from layerfreq.relearn.predictors import constant_loss, standardise

N, D, C, SEEDS, STEPS, BATCH = 5000, 500, 10, 25, 1500, 128
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

options = argparse.ArgumentParser()
options.add_argument("--learnable", action="store_true")
options.add_argument("--threads", type=int, default=2)
options.add_argument("--steps", type=int, default=STEPS)
arguments = options.parse_args()
torch.set_num_threads(arguments.threads)
generator = torch.Generator().manual_seed(0)
x = standardise(torch.randn(N, D, generator=generator) / torch.arange(1, D + 1) ** 0.5)
y = torch.randint(0, C, (N,), generator=generator)
if arguments.learnable:
    y = (x @ torch.randn(D, C, generator=generator)).argmax(dim=1)
heads = [fixed_head("hidden-1", D, C, seed, 1.0) for seed in range(SEEDS)]
errors = [share * constant_loss(y) for share in (0.75, 0.5, 0.25, 0.1)]
wall, cpu = time.perf_counter(), time.process_time()
curves = train_heads(heads, x, y, RATES, errors, steps=arguments.steps, batch=BATCH, keep=2)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
arrived = np.isfinite(curves.reached).mean(axis=(0, 1))
print(f"{SEEDS * len(RATES)} heads, {N} x {D} features, {curves.steps[-1]} steps, {torch.get_num_threads()} threads:")
print(f"  {wall:.0f} s, {cpu:.0f} s of processor time; arrived at the errors: {' '.join(f'{a:.0%}' for a in arrived)}")
