"""A model's answers to a block of questions."""

from __future__ import annotations

import numpy as np
import torch

from multiscale.model.network import MultiscaleByteModel
from multiscale.model.packed import PackedRows, check_packable, packed_logits
from multiscale.vqa.data.blocks import Block
from multiscale.vqa.data.rows import Row, image_first_row, question_first_row, stack_rows
from multiscale.vqa.layout import VqaLayout
from multiscale.vqa.preprocess import encode_pixels


@torch.inference_mode()
def answer_block(model: MultiscaleByteModel, layout: VqaLayout, block: Block) -> tuple[list[str], np.ndarray]:
    """The most likely answer to every question, and the probability of each class among the classes (M, classes).

    Questions about one image share its computation where the model allows it; what comes out is the same.
    """
    words, ids = list(layout.answers), torch.tensor(list(layout.answers.values()))
    logits = np.zeros((len(block.questions), len(words)), np.float32)
    is_image_first = layout.order == "image_question_answer"
    ask = _ask_alone if not _is_packable(model, layout) else _ask_together if is_image_first else _ask_side_by_side
    for image in range(len(block)):
        numbers, asked = block.asked(image)
        if len(numbers):
            content = encode_pixels(block.pixels[image], layout.image)
            found = ask(model, layout, content, [question for question, _ in asked])
            logits[numbers] = found[:, ids.to(found.device)].float().cpu().numpy()
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return [words[i] for i in logits.argmax(1)], shifted / shifted.sum(1, keepdims=True)


def _is_packable(model: MultiscaleByteModel, layout: VqaLayout) -> bool:
    if layout.align != model.config.seq_lens[-1]:
        return False
    try:
        check_packable(model)
    except ValueError:
        return False
    return True


def _ask_together(model: MultiscaleByteModel, layout: VqaLayout, content: bytes, questions: list[str]) -> torch.Tensor:
    some_answer = next(iter(layout.answers))
    rest = [len(layout.question_segment(q)) + len(layout.answer_segment(some_answer)) for q in questions]
    patches = (len(layout.image_segment(content)) + sum(rest)) // layout.align
    row = image_first_row(layout, content, None, [(q, some_answer) for q in questions], patches, len(questions))
    return _logits(model, [row])[0, :, 0]


def _ask_side_by_side(
    model: MultiscaleByteModel, layout: VqaLayout, content: bytes, questions: list[str]
) -> torch.Tensor:
    some_answer = next(iter(layout.answers))
    patches = [len(layout.sequence(content, q, some_answer)) // layout.align for q in questions]
    rows = [question_first_row(layout, content, (q, some_answer), 0, max(patches)) for q in questions]
    return _logits(model, rows)[:, 0, 0]


def _logits(model: MultiscaleByteModel, rows: list[Row]) -> torch.Tensor:
    device, arrays = next(model.parameters()).device, stack_rows(rows)
    names = ("ids", "branch", "scored", "weights")
    return packed_logits(model, PackedRows(*(torch.from_numpy(arrays[n].astype(np.int64)) for n in names)).to(device))


def _ask_alone(model: MultiscaleByteModel, layout: VqaLayout, content: bytes, questions: list[str]) -> torch.Tensor:
    device = next(model.parameters()).device
    return torch.stack([model(torch.tensor([layout.prompt(content, q)], device=device))[0, -1] for q in questions])
