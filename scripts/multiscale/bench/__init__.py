"""Baselines that the server is measured against: what PyTorch users have today."""
