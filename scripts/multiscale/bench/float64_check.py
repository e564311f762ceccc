"""What a model predicts exactly, for benchmarks to compare a device's numbers with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from multiscale.bench.published_shapes import text_like
from multiscale.model.network import MultiscaleByteModel

BYTES_FILE, LOGPROBS_FILE = "check-bytes.bin", "check-logprobs.npy"


@torch.no_grad()
def write_check(model: MultiscaleByteModel, folder: Path, num_bytes: int, seed: int) -> str:
    """Full forward in float64: bytes, and float32 log-probs (N, V) after each of them. Turns the model into float64.

    Returns the device that computed it.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    content = text_like(num_bytes, seed)
    exact = model.double().to(device)
    ids = torch.tensor([list(content)], device=device)
    log_probs = torch.log_softmax(exact(ids)[0], -1).float().cpu().numpy()
    (folder / BYTES_FILE).write_bytes(content)
    np.save(folder / LOGPROBS_FILE, log_probs)
    return device
