"""The model: configuration, stage blocks, network, checkpoints. Imports nothing of training or export."""
