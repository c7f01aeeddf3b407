"""Callbacks around `Monitor` for training frameworks, one per file; none is imported with the core.

Your own loop needs none of them: create a monitor before it, add a line in it, and pass trackers as an argument.

```python
from layerfreq import Monitor
from layerfreq.trackers import TensorBoard

monitor = Monitor(model, inputs, targets, run="runs/mine", when="log", trackers=[TensorBoard("runs/board")])
for step, (x, y) in enumerate(loader):
    monitor.measure(step)
    optimizer.zero_grad()
    loss(model(x), y).backward()
    optimizer.step()
monitor.close()
```

Lightning, Hugging Face's Trainer and DeepXDE (on PyTorch) take a callback with the same arguments, without the model:
`LayerSpectraCallback` of `layerfreq.integrations.lightning`, `.transformers` and `.deepxde`.
"""
