"""What a refusal is checked by: its argument and its kind, not its words."""

from contextlib import contextmanager

import pytest

from layerfreq.errors import Code, InputError

__all__ = ["Code", "refuses"]


@contextmanager
def refuses(argument, code, *named):
    """Expect an InputError of an argument and of a kind, in one line that names what else is to be named."""
    with pytest.raises(InputError) as caught:
        yield caught
    line = str(caught.value)
    assert (caught.value.argument, caught.value.code) == (argument, code), line
    assert "\n" not in line
    assert all(str(each) in line for each in named), line
