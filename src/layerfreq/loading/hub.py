"""Whether a hub has something, asked once: without a network, its clients ask again and again for half a minute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from layerfreq.errors import Code, InputError, no_such

SECONDS = 10  # for an answer


def missing(kind: Literal["model", "dataset"], name: str, hint: str) -> InputError | None:
    """Return why there is no model or data set with a hub id to be had from the hub; None if there is one.

    Args:
        kind: Which of the two.
        name: The hub id.
        hint: What else to do, such as "pass a folder".
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    argument, what = {"model": ("model", "model"), "dataset": ("data", "data set")}[kind]
    try:
        getattr(HfApi(), f"{kind}_info")(name, timeout=SECONDS)
    except HFValidationError:
        return InputError(f"{argument}: {name!r} is neither a folder nor a hub id; {hint}")
    except RepositoryNotFoundError:
        return Code.MISSING(f"{argument}: the hub has no {what} {name!r} that is open to you; {hint}")
    except Exception:  # of the HTTP client's types, which change with its version
        return no_such(argument, "local copy, nor a connection to the hub, for", name, f"download it first, or {hint}")
    return None


@contextmanager
def cache_alone(datasets: Any) -> Iterator[None]:
    """Let the package `datasets` look in its cache alone."""
    config = datasets.config
    before = getattr(config, "HF_HUB_OFFLINE", False)
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before
