"""In which block of a small transformer does a looked-up token become easy to read off?"""

# --8<-- [start:code]
import torch
from torch import nn

from layerfreq import layer_features, spectrum

LENGTH, TOKENS = 8, 8  # the first token t points at the token at place 1 + t, which is the answer


class Block(nn.Module):
    def __init__(self, width, heads=2):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.mlp(x)


class Transformer(nn.Module):
    def __init__(self, width=32, blocks=3):
        super().__init__()
        self.embed = nn.Embedding(TOKENS, width)
        self.position = nn.Parameter(torch.randn(LENGTH + 1, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.Linear(width, TOKENS)

    def forward(self, tokens):
        return self.head(self.blocks(self.embed(tokens) + self.position)[:, 0])


def draw(n):
    tokens = torch.randint(TOKENS, (n, LENGTH + 1))
    return tokens, tokens.gather(1, 1 + tokens[:, :1])[:, 0]


def measure(seed, steps=300, when=(0, 20, 40, 60, 80, 100, 150, 200, 300), n=1000):
    torch.manual_seed(seed)
    model = Transformer()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    tokens, answers = draw(n)  # measured on these; trained on others, new ones at every step
    rows = []
    for step in range(steps + 1):
        if step in when:
            with torch.no_grad():
                accuracy = (model(tokens).argmax(1) == answers).float().mean().item()
            for block, features in enumerate(layer_features(model, tokens, [f"blocks.{i}" for i in range(3)]).values()):
                features = features.reshape(n, LENGTH + 1, -1)
                for place, part in (("all", features), ("first", features[:, 0])):  # the head reads the first place
                    s = spectrum(part, answers, scale="rms")
                    known = (s.lfr - s.chance).max()
                    rows.append({"step": step, "block": block + 1, "place": place, "median": s.median,
                                 "resolution": s.resolution, "known": known, "accuracy": accuracy})  # fmt: skip
        batch, wanted = draw(128)
        loss = nn.functional.cross_entropy(model(batch), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rows


# --8<-- [end:code]
