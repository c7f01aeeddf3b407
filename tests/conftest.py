"""Shapes in signatures are checked at run time in every test."""

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("layerfreq", "beartype.beartype")
settings.register_profile("layerfreq", deadline=None, max_examples=30)
settings.load_profile("layerfreq")
