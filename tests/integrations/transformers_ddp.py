"""A program that trains on two processes with two callbacks; its argument is the folder it writes to."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

if __name__ == "__main__":
    import torch

    from layerfreq.integrations.transformers import LayerSpectraCallback
    from tests.integrations.test_transformers import Classifier, Rows, fit
    from tests.integrations.training import GRID, X, Y

    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    callbacks = [
        LayerSpectraCallback({"x": X}, Y, run=folder / "run", when=2, inv_delta=GRID),
        LayerSpectraCallback(Rows(), run=folder / "set", when=2, inv_delta=GRID),
    ]
    model = Classifier()
    model.net[1] = torch.nn.Identity()  # of batch norm, each rank would have statistics of its own
    trainer = fit(folder, callbacks, model=model, max_steps=4)
    assert trainer.args.world_size == 2
    if trainer.is_world_process_zero():
        torch.save(model.state_dict(), folder / "last.pt")
    torch.distributed.barrier()  # a rank that leaves early can take the other one's connections with it
    torch.distributed.destroy_process_group()
