"""Built-in stage blocks; importing this package registers them."""

from multiscale.model.blocks import gru, mamba1, mamba2, transformer  # noqa: F401
