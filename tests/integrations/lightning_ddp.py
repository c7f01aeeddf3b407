"""A program that trains on two processes with two callbacks; its argument is the folder it writes to."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

if __name__ == "__main__":
    import lightning.pytorch as lightning
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from layerfreq.integrations.lightning import LayerSpectraCallback
    from tests.integrations.test_lightning import QUIET, Module
    from tests.integrations.training import GRID, X, Y

    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    data = TensorDataset(X, Y)
    callbacks = [
        LayerSpectraCallback(X, Y, run=folder / "run", when=2, inv_delta=GRID),
        LayerSpectraCallback(DataLoader(data, 5), run=folder / "loader", when=4, inv_delta=GRID),
    ]
    trainer = lightning.Trainer(
        max_steps=4, callbacks=callbacks, devices=2, strategy="ddp", enable_checkpointing=False, **QUIET
    )
    module = Module()
    module.net[1] = torch.nn.Identity()  # of batch norm, each rank would have statistics of its own
    trainer.fit(module, DataLoader(data, 8))
    if trainer.is_global_zero:
        torch.save(module.state_dict(), folder / "last.pt")
