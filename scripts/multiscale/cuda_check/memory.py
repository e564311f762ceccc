"""What a check takes of the device's memory."""

from __future__ import annotations

import os
import subprocess

import torch


def used_memory() -> int:
    """Bytes of this process's; where the driver does not tell processes apart, of all."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    for line in subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines():
        pid, mebibytes = line.split(", ")
        if int(pid) == os.getpid() and mebibytes.isdigit():
            return int(mebibytes) << 20
    free, total = torch.cuda.mem_get_info()
    return total - free
