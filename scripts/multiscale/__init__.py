"""Training and export of Multiscale Byte Language Models (arXiv 2502.14553)."""

import os

# ONNX Runtime's builds tell Microsoft how they are used unless this is set before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
