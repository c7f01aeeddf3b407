"""A device that is only pretended: tensors live on the CPU, and what a GPU would not do is an error here.

Tensors that are "there" meet none that are "here", but for scalars; what makes the host wait is counted, by name.
"""

from collections import Counter
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

DEVICE = torch.device("cuda", 0)
WAITS = {"nonzero", "unique", "item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "cpu"}


def _tensors(values):
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


class Pretended(TorchFunctionMode):
    """Follows which tensors are there.

    Attributes:
        waits: What made the host wait for the device, and how often.
        launches: Operations on tensors that are there.
    """

    def __init__(self):
        super().__init__()
        self.waits, self.launches, self.off = Counter(), 0, False

    def there(self, tensor):
        return getattr(tensor, "_is_there", False)

    def bring(self, tensor):
        """Return a copy that is there."""
        copy = tensor.clone()
        copy._is_there = True
        return copy

    @contextmanager
    def real(self):
        """Let what happens inside see plain tensors."""
        self.off = True
        try:
            yield
        finally:
            self.off = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if self.off:
            return func(*args, **kwargs)
        name = (resolve_name(func) or getattr(func, "__name__", "")).split(".")
        name = name[-2] if name[-1] in ("__get__", "__set__") else name[-1]
        involved = list(_tensors([*args, *kwargs.values()]))
        there = [t for t in involved if self.there(t)]
        if name == "device":
            return DEVICE if there else func(*args, **kwargs)
        if name == "is_cuda":
            return bool(there)
        if name in (
            "shape",
            "dtype",
            "ndim",
            "size",
            "dim",
            "numel",
            "is_floating_point",
            "is_complex",
            "element_size",
        ):
            return func(*args, **kwargs)
        if name == "to":
            return self._to(func, args, kwargs, self.there(args[0]))
        target = kwargs.get("device")
        made = target is not None and torch.device(target).type == "cuda"
        if made:
            kwargs["device"] = "cpu"
        if name in WAITS and there:
            self.waits[name] += 1
        self._meet(name, involved, there, args)
        found = func(*args, **kwargs)
        if name in ("cpu", "numpy", "tolist", "item"):
            return found.clone() if name == "cpu" and there else found
        if there or made:
            self.launches += 1
            for tensor in _tensors([found]):
                tensor._is_there = True
        return found

    def _to(self, func, args, kwargs, is_there):
        wanted, rest = None, []
        for arg in args[1:]:
            if isinstance(arg, (torch.device, str)):
                wanted = torch.device(arg).type
            elif isinstance(arg, Tensor):
                wanted = "cuda" if self.there(arg) else "cpu"
                rest.append(arg.dtype)
            else:
                rest.append(arg)
        if "device" in kwargs:
            wanted = torch.device(kwargs.pop("device")).type
        moved = wanted is not None and (wanted == "cuda") != is_there
        found = func(args[0], *rest, **kwargs) if rest or kwargs else args[0]
        if moved:
            self.waits["to the host"] += is_there
            found = found.clone()
        if found is not args[0]:
            found._is_there = wanted == "cuda" if wanted else is_there
            self.launches += 1
        return found

    def _meet(self, name, involved, there, args):
        here = [t for t in involved if not self.there(t) and t.ndim]
        if not there or not here:
            return
        indexes = name in ("__getitem__", "__setitem__") and self.there(args[0])
        if not indexes or any(t is args[-1] for t in here):
            raise AssertionError(f"{name}: tensors of two devices")
        self.waits["index from the host"] += 1
