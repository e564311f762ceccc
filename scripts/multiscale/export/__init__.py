"""Writes models as bundles: one ONNX graph per stage, weights stored once, a manifest."""
