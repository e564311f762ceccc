"""Checks the CUDA operators (native/cuda) against the reference (native/reference) and times them. Needs a GPU."""
