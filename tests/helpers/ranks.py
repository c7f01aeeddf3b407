"""Processes in a gloo group that run what tests send them."""

import traceback
from contextlib import contextmanager
from datetime import timedelta

from tests.helpers.forked import context

SECONDS = 120  # a rank that has not answered by then hangs


@contextmanager
def world(size, folder, backend="gloo"):
    """Start processes that form a group; yields call(function, arguments of rank 0, of rank 1, ...) -> results."""
    pipes = [context.Pipe() for _ in range(size)]
    at = f"file://{folder}/meet"
    workers = [
        context.Process(target=_serve, args=(pipes[r][1], r, size, at, backend), daemon=True) for r in range(size)
    ]
    for worker in workers:
        worker.start()

    def call(function, *arguments):
        assert len(arguments) == size
        for (pipe, _), each in zip(pipes, arguments, strict=True):
            pipe.send((function, each))
        answers = []
        for rank, (pipe, _) in enumerate(pipes):
            assert pipe.poll(SECONDS), f"rank {rank} hangs"
            answers.append(pipe.recv())
        for answer in answers:
            assert not (isinstance(answer, str) and answer.startswith("Traceback")), answer
        return answers

    try:
        yield call
    finally:
        for pipe, _ in pipes:
            pipe.send(None)
        for worker in workers:
            worker.join(10)
            worker.kill()


def _serve(pipe, rank, size, at, backend):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if "nccl" in backend:
        torch.cuda.set_device(rank)
    limit = timedelta(seconds=SECONDS / 2)
    dist.init_process_group(backend, init_method=at, rank=rank, world_size=size, timeout=limit)
    while (job := pipe.recv()) is not None:
        function, arguments = job
        try:
            pipe.send(function(*arguments))
        except Exception:
            pipe.send(traceback.format_exc())
    dist.destroy_process_group()


def measure(features, targets, options):
    """Measure this rank's part together with the others; returns the spectrum, or the error's text."""
    import torch.distributed as dist

    from layerfreq import spectrum

    try:
        return spectrum(features, targets, group=dist.group.WORLD, **options)
    except Exception as error:
        return f"{type(error).__name__} {error}"


def measure_in_small_blocks(features, targets, options):
    """Measure with columns that come three at a time, to a few rows at a time."""
    from unittest.mock import patch

    width = 3 * features.shape[1] if len(features) else 3 * 6
    blocked, spectra, sharding = (
        f"layerfreq.{name}" for name in ("engines.blocked.HEIGHT", "measure.strategies.HELD", "data.distributed.BLOCK")
    )
    with patch(blocked, 4), patch(spectra, 1), patch(sharding, width):
        return measure(features, targets, options)


def train(inputs, labels, run):
    """Train a model under DDP, and monitor it; returns the last spectra as a frame, and a metric."""
    import torch
    import torch.distributed as dist
    from torch import nn

    from layerfreq import Monitor

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5))
    ddp = nn.parallel.DistributedDataParallel(model)
    monitor = Monitor(ddp, inputs, labels, run=run, when=2, group=dist.group.WORLD)
    optimizer = torch.optim.SGD(ddp.parameters(), 0.1)
    spectra = None
    for step in range(3):
        spectra = monitor.measure(step, loss=float(step)) or spectra
        optimizer.zero_grad()
        nn.functional.cross_entropy(ddp(inputs), labels).backward()
        if step < 2:
            optimizer.step()
    return spectra.to_frame(), {name: value for name, value in model.state_dict().items()}, monitor.run is None


def monitor_badly(inputs, run, options=None):
    """Begin to monitor where something is wrong on one rank; returns the error's text."""
    import torch.distributed as dist
    from torch import nn

    from layerfreq import Monitor

    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    try:
        Monitor(model, inputs, [0] * len(inputs), run=run, group=dist.group.WORLD, **(options or {}))
    except Exception as error:
        return f"{type(error).__name__} {error}"
    return "nothing"


def layers_badly(inputs, targets, options):
    """Measure a network's layers where something may be wrong on one rank; returns their names, or the error's text.

    Types are not checked, as they are not for users.
    """
    import torch
    import torch.distributed as dist
    from jaxtyping import config
    from torch import nn

    from layerfreq import layer_spectra

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    config.update("jaxtyping_disable", True)
    try:
        return list(layer_spectra(model, inputs, targets, inv_delta=[1.0], group=dist.group.WORLD, **options))
    except Exception as error:
        return f"{type(error).__name__} {error}"
    finally:
        config.update("jaxtyping_disable", False)


def measure_alone(features, targets, options):
    """Measure this rank's part without the others, though the group is up."""
    import torch.distributed as dist

    from layerfreq import spectrum

    return spectrum(features, targets, **options) if dist.get_rank() == 0 else None


def parallel(how):
    """The wrapper of a model that a set-up means, for the CPU."""
    import torch
    from torch import nn

    def ddp(model):
        return nn.parallel.DistributedDataParallel(model)

    def fsdp(model):
        from torch.distributed.fsdp import FullyShardedDataParallel

        return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))

    def fsdp_each(model):
        from torch.distributed.fsdp import FullyShardedDataParallel
        from torch.distributed.fsdp.wrap import ModuleWrapPolicy

        policy = ModuleWrapPolicy({nn.TransformerEncoderLayer, nn.Embedding})
        return FullyShardedDataParallel(model, auto_wrap_policy=policy, device_id=torch.device("cpu"))

    def fully_shard_root(model):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        return fully_shard(model, mesh=init_device_mesh("cpu", (2,)))

    def fully_shard_each(model):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        for part in (model.stem, model.body):
            fully_shard(part, mesh=mesh)
        return fully_shard(model, mesh=mesh)

    return locals()[how]


def train_twice(network, how, options):
    """Train with and without a monitor; returns what differs, and how many layers were measured."""
    from tests.helpers.training import differences, train

    on, spectra = train(network, True, parallel=parallel(how), **options)
    off, _ = train(network, False, parallel=parallel(how), **options)
    return differences(on, off), len(spectra)


def error_of(network, run, points):
    """Measure the error of a network whose points lie on two ranks, so many on the first; returns it as a frame."""
    import torch
    import torch.distributed as dist

    from layerfreq import Monitor
    from tests.helpers.training import NETWORKS, data

    torch.manual_seed(0)
    wrapped = parallel("ddp")(NETWORKS[network]())
    x, y = (part.tensor_split([points])[dist.get_rank()] for part in data(network))
    options = {"error": "filter", "inv_delta": [0.1, 1.0, 10.0], "engine": "reference"}
    with Monitor(wrapped, x, y, run=run, group=dist.group.WORLD, **options) as monitor:
        monitor.measure(0)
        return monitor.error.to_frame()


def spectra_of(network, how, steps, points=None):
    """Measure a model under a wrapper, after some steps on other data a rank, before and after buffers are made alike.

    The first of two ranks gets so many points, or as many as the other. Returns two frames, whether buffers differed,
    and the state of the first rank's model where it is whole.
    """
    import torch
    import torch.distributed as dist
    from torch import nn

    from layerfreq import layer_spectra
    from tests.helpers.training import NETWORKS, data

    torch.manual_seed(0)
    model = NETWORKS[network]()
    wrapped = parallel(how)(model)
    x, y = data(network)
    points = len(x) // dist.get_world_size() if points is None else points
    x, y = (part.tensor_split([points])[dist.get_rank()] for part in (x, y))
    for _ in range(steps):
        nn.functional.cross_entropy(wrapped(x), y).backward()
    options = {"inv_delta": [0.1, 1.0, 10.0], "group": dist.group.WORLD}
    before = layer_spectra(wrapped, x, y, **options).to_frame()
    own = [b.clone() for b in model.buffers()]
    for buffer in model.buffers():
        dist.broadcast(buffer, 0)
    differed = any(not torch.equal(a, b) for a, b in zip(own, model.buffers(), strict=True))
    state = {name: value.clone() for name, value in model.state_dict().items()} if how == "ddp" else None
    return before, layer_spectra(wrapped, x, y, **options).to_frame(), differed, state


def several_of(network):
    """Measure several targets of this rank's part of the points, one of which fails on the last rank.

    Returns name -> spectra, and name -> what failed.
    """
    import torch
    import torch.distributed as dist

    from layerfreq import LayerSpectra
    from layerfreq.probe import Probe
    from tests.helpers.training import NETWORKS, data

    def sick(x, y, output):
        if dist.get_rank():
            raise ValueError("fails here")
        return output

    torch.manual_seed(0)
    model = NETWORKS[network]()
    x, y = (part.tensor_split([len(part) // 3])[dist.get_rank()] for part in data(network))
    each = {"labels": y, "says": lambda x, y, output: output.argmax(1), "sick": sick}
    options = {"group": dist.group.WORLD, "inv_delta": [0.1, 1.0, 10.0]}
    found = Probe.of(model, x, each, None, options).measure(model, strict=False)
    return {k: LayerSpectra(one.spectra[0]) for k, one in found.items()}, {k: one.failed for k, one in found.items()}


def begun_of(fault, folder):
    """What a callback tells at the beginning of a training on several ranks, whether it measures, and a later sum."""
    import warnings

    import torch
    import torch.distributed as dist
    from torch import nn

    from layerfreq.integrations.shell import Shell, Start

    rank = dist.get_rank()
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    shell = Shell(x, (x[:, 0] > 0).long(), "9" if fault == "layer" else None, folder, 1, (), {"inv_delta": [0.1, 1.0]})

    def start():
        if rank == 1 and fault == "prepare":
            raise KeyError("of one rank")
        if rank == 1 and fault == "forward":
            model.register_forward_pre_hook(lambda *_: 1 / 0)
        return Start(model)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        shell.begin(0, None, start)
        measures = shell.monitor is not None
        shell.measure(1)
        shell.close()
    after = torch.ones(1)
    dist.all_reduce(after)  # the ranks are still in step
    return measures, [str(one.message) for one in said], float(after)
