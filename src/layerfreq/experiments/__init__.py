"""The paper's experiments, one module each, on one small runner. To add one: write its file, and name it here."""

NAMES = ("depth", "sine", "mlp", "resnet", "cause")
