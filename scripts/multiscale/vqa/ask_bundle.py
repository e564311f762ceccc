"""Asks an exported bundle questions about images: the slow, readable reference of the server's `/v1/vqa`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from multiscale.export.bundle_writer import read_manifest
from multiscale.export.incremental_runner import IncrementalRunner
from multiscale.export.read_bundle import load_model
from multiscale.export.validate import log_softmax
from multiscale.vqa.data.blocks import Block
from multiscale.vqa.layout import VqaLayout
from multiscale.vqa.preprocess import encode_pixels

PREFILL_STEPS = 64


def read_layout(folder: Path) -> VqaLayout:
    """Raises ValueError for a bundle that answers no questions about images."""
    entry = read_manifest(folder).get("vqa")
    if entry is None:
        raise ValueError(f"{folder} answers no questions about images: its manifest has no vqa")
    return VqaLayout.from_manifest(entry)


class GraphAsker:
    """Runs the bundle's graphs, as the server does."""

    def __init__(self, folder: Path):
        self._layout, self._runner = read_layout(folder), IncrementalRunner(folder)

    def log_probs(self, image: bytes, questions: list[str]) -> np.ndarray:
        """(questions, answers), in nats, over the whole vocabulary. `image`: as `image_content` makes it."""
        rows, runner, seen = [], self._runner, None
        shared = self._layout.image_segment(image) if self._layout.order == "image_question_answer" else []
        for question in questions:
            ids = self._layout.prompt(image, question)
            if seen is None or not shared:
                runner.reset()
                runner.prefill([*shared, 0] if shared else ids, PREFILL_STEPS)
                seen = runner.snapshot()
            runner.restore(seen)
            for index in ids[len(runner.ids) :]:
                logits = runner.feed(index)
            rows.append(logits)
        return _of_answers(np.stack(rows), self._layout)


def graph_answers(folder: Path, block: Block) -> tuple[list[str], np.ndarray]:
    """As `answering.answer_block`, by the bundle's graphs: what the server answers, activations in its precision."""
    layout, asker = read_layout(folder), GraphAsker(folder)
    words, found = list(layout.answers), np.zeros((len(block.questions), len(layout.answers)), np.float32)
    for image in range(len(block)):
        numbers, asked = block.asked(image)
        if len(numbers):
            content = encode_pixels(block.pixels[image], layout.image)
            found[numbers] = asker.log_probs(content, [question for question, _ in asked])
    shifted = np.exp(found - found.max(1, keepdims=True))
    return [words[i] for i in found.argmax(1)], shifted / shifted.sum(1, keepdims=True)


class TorchAsker:
    """The full forward of PyTorch with the weights that the bundle holds."""

    def __init__(self, folder: Path):
        self._layout, self._model = read_layout(folder), load_model(folder)

    @torch.no_grad()
    def log_probs(self, image: bytes, questions: list[str]) -> np.ndarray:
        """As `GraphAsker.log_probs`."""
        rows = []
        for question in questions:
            ids = torch.tensor([self._layout.prompt(image, question)])
            rows.append(self._model(ids)[0, -1].float().numpy())
        return _of_answers(np.stack(rows), self._layout)


def _of_answers(logits: np.ndarray, layout: VqaLayout) -> np.ndarray:
    return log_softmax(logits)[:, list(layout.answers.values())]
