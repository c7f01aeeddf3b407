"""Models, and data, by the name of a factory; and models in Hugging Face's layout."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerfreq.errors import Code, InputError, a_kind, did_you_mean, failed, is_not, no_such
from layerfreq.extras import needs
from layerfreq.files import as_path
from layerfreq.loading.hub import missing
from layerfreq.loading.state_dicts import Checkpoint, fit, load_into, read_checkpoint


@dataclass(frozen=True)
class Source:
    """A model and where it came from.

    Attributes:
        model: The module.
        name: A short name, for a folder.
        pretrained: The hub id or folder that also holds its tokenizer or image processor; None for a factory's.
    """

    model: nn.Module
    name: str
    pretrained: str | None = None


def find_model(name: str, seed: int = 0) -> Source:
    """Return the model with a given name.

    Args:
        name: MODULE:FACTORY, where the factory takes no arguments and returns a module, or is one; or a local folder
            with a `config.json`, or a hub id, of a model of `transformers`.
        seed: Seed for the weights that a factory draws. The global random state is not touched.

    Raises:
        InputError: If the model does not exist or cannot be created.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        folder = as_path(name, "model")
        if folder.is_dir() or ":" not in name:
            if not folder.is_dir() and (folder.is_absolute() or name[0] in ".~" or name.count("/") > 1):
                raise no_such("model", "folder", name, "pass one, a hub id, or MODULE:FACTORY")
            where = str(folder) if folder.is_dir() else name
            return Source(pretrained(where), folder.resolve().name if folder.is_dir() else Path(name).name, where)
        model = make(name, "model", seed)
    if not isinstance(model, nn.Module):
        raise InputError(f"model: {name!r} returns {a_kind(model)}, not a torch.nn.Module; name another factory")
    return Source(model, name.partition(":")[2])


def make(name: str, argument: str, seed: int | None = None) -> Any:
    """Import `MODULE:ATTRIBUTE`, also from the current directory, and call it unless it is a module.

    Args:
        name: A dotted module, a colon, and a dotted name in it.
        argument: Its name, for messages.
        seed: Seed for PyTorch's random state before the call, which importing may have changed; None leaves it.

    Raises:
        InputError: If it cannot be imported, or called without arguments.
    """
    home, _, attribute = name.partition(":")
    if not home or not attribute:
        raise is_not(argument, name, "MODULE:FACTORY", "both, as in package.module:factory")
    if home.endswith(".py") or os.sep in home:
        better = home.removesuffix(".py").strip("./").replace(os.sep, ".")
        raise InputError(f"{argument}: {home!r} is a file; name the module as Python imports it: {better}:{attribute}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(home)
    except ModuleNotFoundError as error:
        raise no_such(argument, f"module {error.name!r} for", name, "start in its folder, or install it") from None
    except (Exception, SystemExit) as error:
        raise failed(argument, f"importing {home!r} failed", error) from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [key for key in vars(found) if not key.startswith("_")] if hasattr(found, "__dict__") else []
            raise Code.UNKNOWN(f"{argument}: {home!r} has no {attribute!r}; {did_you_mean(part, known)}")
        found = getattr(found, part)
    if isinstance(found, nn.Module) or not callable(found):
        return found
    if seed is not None:
        torch.manual_seed(seed)
    try:
        return found()
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise failed(argument, f"calling {name!r} failed", error, "name one that works without arguments") from None


def pretrained(name: str) -> nn.Module:
    """Load a model of `transformers` from a local folder, the local cache, or the hub; its own code is never run.

    The class is the one named in its configuration. Its forward returns only the main output (the logits, else the last
    hidden state), so that a cut need not determine caches and intermediate results.

    Raises:
        InputError: If there is none, the hub cannot be reached, or it lacks weights.
    """
    transformers = _transformers()
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise no_such("model", "config.json in", name, "pass a folder of save_pretrained, or MODULE:FACTORY")
    local = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **local)
    except OSError as error:
        if Path(name).is_dir():
            raise failed("model", f"cannot read {name!r}", error, "save it again") from None
        absent = missing("model", name, "pass a folder of save_pretrained, or MODULE:FACTORY")
        if absent is not None:
            raise absent from None
        local["local_files_only"] = False
        config = _loaded(name, lambda: transformers.AutoConfig.from_pretrained(name, **local))
    except Exception as error:
        raise _refusal(name, error) from None
    named = getattr(config, "architectures", None)
    name_of_kind = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else "AutoModel"
    kind = getattr(transformers, name_of_kind, transformers.AutoModel)
    if not (isinstance(kind, type) and hasattr(kind, "from_pretrained")):
        raise Code.DAMAGED(f"model: {name!r} has no known architecture ({name_of_kind!r}); fix config.json")
    model, info = _loaded(
        name, lambda: kind.from_pretrained(name, output_loading_info=True, dtype=torch.float32, **local)
    )
    if info["missing_keys"]:
        lacking = ", ".join(sorted(info["missing_keys"])[:3])
        raise Code.DAMAGED(f"model: {name!r} lacks weights for {lacking}; save it whole")
    model.register_forward_hook(_main_output)
    return model


def load_checkpoint(source: Source, path: str | Path) -> Checkpoint:
    """Load a checkpoint into a model; folders of `transformers` are read by `transformers`.

    Returns:
        The checkpoint; where `transformers` has read it, with an empty state.

    Raises:
        InputError: If it cannot be read, or does not fit.
    """
    path = as_path(path, "checkpoint")
    if source.pretrained is None or not (path / "config.json").is_file():
        checkpoint = read_checkpoint(path)
        load_into(source.model, checkpoint)
        return Checkpoint(path, {}, checkpoint.counter, checkpoint.count)
    state = pretrained(str(path)).state_dict()
    name = type(source.model).__name__
    source.model.load_state_dict(fit(source.model.state_dict(), state, f"checkpoint: {str(path)!r}", name))
    return Checkpoint(path, {})


def processor(source: Source, kind: str) -> Any | None:
    """Return the AutoTokenizer, AutoImageProcessor, ... stored with a model's weights, or None."""
    if source.pretrained is None:
        return None
    load = getattr(_transformers(), kind).from_pretrained
    unknown = OSError, ValueError, ImportError, KeyError, TypeError  # there is none, or none that this model knows
    with suppress(*unknown):
        return load(source.pretrained, trust_remote_code=False, local_files_only=True)
    if Path(source.pretrained).is_dir() or missing("model", source.pretrained, "save it") is not None:
        return None
    with suppress(*unknown):
        return load(source.pretrained, trust_remote_code=False)
    return None


def _main_output(_: nn.Module, __: Any, output: Any) -> Any:
    for name in ("logits", "last_hidden_state"):
        if isinstance(output, Mapping) and output.get(name) is not None:
            return output[name]
    return output


def _transformers() -> Any:
    transformers = needs("transformers", "layerfreq[transformers]", "model")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _loaded(name: str, load: Any) -> Any:
    try:
        return load()
    except Exception as error:
        raise _refusal(name, error) from None


def _refusal(name: str, error: Exception) -> InputError:
    if "trust_remote_code" in str(error):
        return Code.UNSUPPORTED(f"model: {name!r} wants to run its own code, which is not run; pass MODULE:FACTORY")
    return failed("model", f"cannot load {name!r}", error, "check it, or your version of transformers")
