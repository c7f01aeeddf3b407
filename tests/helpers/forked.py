"""Children of tests come from one server, which has imported what they need: once, not again in each of them.

They start in no time and without this process's threads; packages that are missing are passed over.
"""

import multiprocessing

PRELOADED = [
    "tests.conftest",  # its shape checks, before anything of layerfreq is imported
    "layerfreq.cli.program",
    "layerfreq.experiments.cause",
    "layerfreq.relearn",
    "lightning_fabric",
    "sklearn.linear_model",
    "tests.helpers.ranks",
    "tests.helpers.training",
    "torch._dynamo",
    "torch.distributed.fsdp",
]

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(PRELOADED)


def started_server():
    """Return when children start in no time."""
    child = context.Process(target=int)
    child.start()
    child.join()
