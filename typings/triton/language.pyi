# Triton is typed as unknown, so that `make lint` says the same whether it is installed or not.
from typing import Any

def __getattr__(name: str) -> Any: ...
