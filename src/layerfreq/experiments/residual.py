"""ResNet-18 for small images, and its variants with fewer residual blocks under one and the same head."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

CUTS = {"features": "S^[-3]", "hidden1": "S^[-2]", "hidden2": "S^[-1]"}  # module -> the data set that it puts out
VARIANTS = (1, 2, 3, 4)
# What the last block puts out is averaged over a grid, chosen such that every variant's head has 8 x width inputs.
GRIDS = {1: (1, 1), 2: (1, 2), 3: (2, 2), 4: (2, 4)}


class Block(nn.Module):
    """A basic residual block: two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""  # no shapes in the signature: checking them breaks tracing by torch.compile
        inside = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(inside)) + self.shortcut(x))


def network(variant: int, width: int, head: int, classes: int, *, stride: int = 1) -> nn.Sequential:
    """Return a variant: stem, residual blocks, features, and the fully connected head of three layers.

    Variant 1 has ResNet-18's four stages of two blocks (width, 2, 4 and 8 x width channels; the stem is the usual
    one for small images: 3 x 3, no pooling). Each next variant lacks one more of the last stages: 8, 6, 4 and 2
    blocks. The head is the same in all: 8 x width inputs, two hidden layers, one output a class.

    Args:
        variant: 1 to 4; the paper calls them -1 to -4.
        width: Channels of the first stage; ResNet-18 has 64.
        head: Width of the head's hidden layers.
        classes: Number of outputs.
        stride: Of the stem's convolution.
    """
    blocks: list[nn.Module] = []
    channels = width
    for stage in range(5 - variant):
        for first in (True, False):
            blocks.append(Block(channels, width << stage, 2 if first and stage else 1))
            channels = width << stage
    stem = nn.Conv2d(3, width, 3, stride, padding=1, bias=False)
    model = nn.Sequential(
        OrderedDict(
            stem=nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU()),
            blocks=nn.Sequential(*blocks),
            pool=nn.AdaptiveAvgPool2d(GRIDS[variant]),
            features=nn.Flatten(),
            linear1=nn.Linear(8 * width, head),
            hidden1=nn.ReLU(),
            linear2=nn.Linear(head, head),
            hidden2=nn.ReLU(),
            output=nn.Linear(head, classes),
        )
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return model
