"""The paper's four residual networks for small images: from three stages of blocks down to none, under one head.

As in the authors' repository, Johnzhx/DeepFrequencyPrinciple (2020), which uses Keras; what its code leaves to Keras is
inferred: zero initial biases, and the constants of batch normalisation. Two details are not carried over: convolutions
have no biases, which the following batch normalisation would cancel, and those of stride 2 are padded equally on both
sides.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

CUTS = {"hidden1": "S^[-3]", "hidden2": "S^[-2]"}  # module -> the data set that it puts out
VARIANTS = (1, 2, 3, 4)
DROPOUT = 0.1
POOL = 4


class Block(nn.Module):
    """A residual block: two 3 x 3 convolutions, each normalised and cut by a ReLU, and a shortcut; ReLU of the sum.

    Where the stride is 2 the shortcut is a 1 x 1 convolution, normalised and cut too.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.second = _convolution(outputs, outputs, 3, 1)
        self.shortcut = nn.Identity() if stride == 1 else _convolution(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""  # no shapes in the signature: checking them breaks tracing by torch.compile
        return self.relu(self.second(self.first(x)) + self.shortcut(x))


def network(variant: int, width: int, head: int, classes: int, size: tuple[int, int] = (32, 32)) -> nn.Sequential:
    """Return a variant: stem, stages of two residual blocks, and the fully connected head of three layers.

    Variant 1 has three stages (width, 2 and 4 x width channels, each after the first at half the resolution). Each
    further variant drops one more of the last stages: 6, 4, 2 and 0 blocks. Only the number of inputs of the head
    differs: 16, 32, 64 and 64 x width for images of 32 x 32 pixels.

    Args:
        variant: 1 to 4; the paper calls them -1 to -4.
        width: Channels of stem and first stage; the paper has 64.
        head: Width of the head's two hidden layers; the paper has 1024.
        classes: Number of outputs, logits.
        size: Height and width of the images, multiples of 4 and at least 16.
    """
    stages: list[nn.Module] = []
    channels, (rows, columns) = width, size
    for stage in range(4 - variant):
        stride, outputs = (2, 2 * channels) if stage else (1, channels)
        stages.append(nn.Sequential(Block(channels, outputs, stride), Block(outputs, outputs, 1), nn.Dropout(DROPOUT)))
        channels, rows, columns = outputs, rows // stride, columns // stride
    model = nn.Sequential(
        OrderedDict(
            stem=nn.Sequential(*_convolution(3, width, 3, 1), nn.Dropout(DROPOUT)),
            stages=nn.Sequential(*stages),
            pool=nn.Sequential(nn.AvgPool2d(POOL), nn.Dropout(DROPOUT)),
            features=nn.Flatten(),
            linear1=nn.Linear(channels * (rows // POOL) * (columns // POOL), head),
            hidden1=nn.ReLU(),
            linear2=nn.Linear(head, head),
            hidden2=nn.ReLU(),
            output=nn.Linear(head, classes),
        )
    )
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Return convolution, batch normalisation with Keras' constants (its momentum .99 is 0.01 here), and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
        nn.ReLU(),
    )
