"""Comparisons of exported bundles with the models they came from. Uses both `model` and `export`."""
