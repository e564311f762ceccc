"""ONNX emitters of the built-in blocks; importing this package registers them."""

from multiscale.export.emitters import gru, mamba1, mamba2, transformer  # noqa: F401
