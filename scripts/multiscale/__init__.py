"""Training and export of Multiscale Byte Language Models (arXiv 2502.14553)."""

__version__ = "0.1.0"
