"""Checks of command lines that several programs share. Each raises ValueError naming the option and the bound."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch


def require_at_least(lowest: int, arguments: argparse.Namespace, *names: str) -> None:
    """Numbers, or every number of a list. Options that a task has not, or that are not given, pass."""
    for name, value in _numbers(arguments, names):
        if value < lowest:
            raise ValueError(f"{_option(name)}: {value:g} is not at least {lowest}")


def require_above_zero(arguments: argparse.Namespace, *names: str) -> None:
    for name, value in _numbers(arguments, names):
        if not value > 0:  # NaN is not, either
            raise ValueError(f"{_option(name)}: {value:g} is not above 0")


def require_device(name: str) -> None:
    """`name`: cpu, cuda, cuda:1, …"""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device: {name!r} is no device (cpu, cuda, cuda:1, …)") from None
    if device.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise ValueError(f"--device: {name}: PyTorch finds no CUDA device here")
    if (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device: {name}: there are {torch.cuda.device_count()} CUDA devices, numbered from 0")


def _numbers(arguments: argparse.Namespace, names: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    for name in names:
        given = getattr(arguments, name, None)
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, int | float):  # the same name may be a path in another task
                yield name, value


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
