"""Packed rows: every question is answered, and costs, as if it were asked alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel
from multiscale.model.packed import (
    VOID,
    PackedRows,
    block_mask,
    check_packable,
    dense_mask,
    longest_position,
    pack,
    packed_logits,
    packed_loss,
)
from multiscale.vqa.data.rows import LIST_WEIGHT, QUESTION_WEIGHT, Row, image_first_row, question_first_row
from multiscale.vqa.layout import ImageLayout, VqaLayout

LAYOUT = VqaLayout(align=8, image=ImageLayout(width=4, height=4, levels=32))
IMAGE = bytes(np.random.default_rng(0).integers(0, 256, 48).astype(np.uint8))
ASKED = [("What is this?", "cube"), ("How many red things are there, all in all?", "3"), ("Is it?", "no")]
LISTED = b"ab1234, cd5678,"


def model(rotary: bool = True, position: str | None = "fixed", block_type: str = "transformer") -> MultiscaleByteModel:
    torch.manual_seed(0)
    heads = {"attn_head_dims": 16, "attn_num_heads": 2, "attn_use_rot_embs": rotary}
    mamba = {"d_state": 8, "d_conv": 4, "expand": 2, "headdim": 16}
    first = {"block_type": block_type, "pos_emb_type": position, **(heads if block_type == "transformer" else mamba)}
    second = {"block_type": "transformer", "pos_emb_type": "fixed", **heads}
    config = {
        "num_tokens": 256,
        "pad_token_id": 128,
        "hidden_dims": [48, 32],
        "seq_lens": [64, 8],
        "num_layers": [3, 2],
    }
    return MultiscaleByteModel(ModelConfig.from_params({**config, "block": [first, second]})).double().eval()


def packed(patches: int = 48, scored: int = 8, extra_image: int = 0) -> tuple[PackedRows, np.ndarray]:
    """A row of one image; `extra_image` void patches behind it, as where rows of files of several lengths are aligned."""
    row = image_first_row(LAYOUT, IMAGE, LISTED, ASKED, patches, scored)
    image = len(LAYOUT.image_segment(IMAGE)) // 8
    ids = np.insert(row.ids.astype(np.int64), [image] * extra_image, 128, axis=0)[None]
    branch = np.insert(row.branch.astype(np.int64), [image] * extra_image, VOID)[None]
    rows = PackedRows(
        torch.from_numpy(ids),
        torch.from_numpy(branch),
        torch.from_numpy(row.scored[None].astype(np.int64) + extra_image),
        torch.from_numpy(row.weights[None]),
    )
    return rows, row.question


@torch.no_grad()
@pytest.mark.parametrize("rotary", [True, False])
@pytest.mark.parametrize("position", ["fixed", None])
@pytest.mark.parametrize("extra", [0, 3])
def test_answers_are_those_of_separate_sequences(rotary: bool, position: str | None, extra: int) -> None:
    network = model(rotary, position)
    rows, question = packed(extra_image=extra)
    logits = packed_logits(network, rows)[0]
    slots = np.flatnonzero(question >= 0)
    assert sorted(question[slots]) == [0, 1, 2]
    for slot in slots:
        alone = network(torch.tensor([LAYOUT.prompt(IMAGE, ASKED[question[slot]][0])]))[0, -1]
        torch.testing.assert_close(logits[slot, 0], alone, rtol=0, atol=1e-10)


@torch.no_grad()
def test_loss_is_that_of_separate_sequences() -> None:
    network = model()
    rows, _ = packed()
    total, count = 0.0, 0
    for question, answer in ASKED:
        ids = LAYOUT.sequence(IMAGE, question, answer)
        at = len(LAYOUT.prompt(IMAGE, question))
        total -= network.aligned_logits(torch.tensor([ids]))[0, at].log_softmax(-1)[ids[at]].item()
        count += 1
    image, listed = LAYOUT.image_segment(IMAGE), LAYOUT.text_segment(LISTED)
    log_probs = network.aligned_logits(torch.tensor([image + listed]))[0].log_softmax(-1)
    for at in range(
        len(image) + 1, len(image) + len(LISTED) + 2
    ):  # everything behind the start id, the end id included
        total -= LIST_WEIGHT * log_probs[at, (image + listed)[at]].item()
        count += 1
    assert packed_loss(network, rows).item() == pytest.approx(total / count, abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("order", ["image_question_answer", "question_image_question_answer"])
def test_loss_on_every_segment(order: str) -> None:
    """Every byte behind a start id, and every end id, counts once for each row that it is in."""
    network, layout = model(), LAYOUT.model_copy(update={"order": order})
    total, count = 0.0, 0

    def add(ids: list[int], first: int, num_bytes: int) -> None:
        nonlocal total, count
        log_probs = network.aligned_logits(torch.tensor([ids]))[0].log_softmax(-1)
        for at in range(first + 1, first + num_bytes + 2):
            total -= log_probs[at, ids[at]].item()
            count += 1

    if order == "image_question_answer":
        row = image_first_row(layout, IMAGE, None, ASKED, 48, 48, "all")
        add(layout.image_segment(IMAGE), 0, len(IMAGE))
        asked = ASKED
    else:
        row = question_first_row(layout, IMAGE, ASKED[1], 0, 48, 48, "all")
        said, seen = layout.question_segment(ASKED[1][0]), layout.image_segment(IMAGE)
        add(said + seen, 0, len(ASKED[1][0]))
        add(said + seen, len(said), len(IMAGE))
        asked = ASKED[1:2]
    for question, answer in asked:
        ids, before = layout.sequence(IMAGE, question, answer), len(layout.context(IMAGE, question))
        add(ids, before - len(layout.question_segment(question)), len(question))
        add(ids, before, 1)
    rows = PackedRows(
        *(torch.from_numpy(a[None].astype(np.int64)) for a in (row.ids, row.branch, row.scored, row.weights))
    )
    assert packed_loss(network, rows).item() == pytest.approx(total / count, abs=1e-6)
    assert sorted(row.question[row.question >= 0]) == list(range(len(asked)))


def test_some_questions_are_learned_themselves() -> None:
    def row(told: int, scored: int) -> Row:
        return image_first_row(LAYOUT, IMAGE, None, ASKED, 48, scored, told=told)

    size = [len(LAYOUT.question_segment(question)) // LAYOUT.align for question, _ in ASKED]
    for told in range(len(ASKED) + 1):
        one = row(told, 48)
        assert (one.weights.any(1)).sum() == len(ASKED) + sum(size[:told])
        bytes_of_questions = sum(len(question) + 1 for question, _ in ASKED[:told])
        assert (one.weights == round(10 * QUESTION_WEIGHT)).sum() == bytes_of_questions
        assert (one.weights == 10).sum() == len(ASKED)
    # Answers come first where there is little room.
    little = row(len(ASKED), len(ASKED) + size[0])
    assert (little.question >= 0).sum() == len(ASKED)
    assert (little.weights == round(10 * QUESTION_WEIGHT)).sum() == len(ASKED[0][0]) + 1


def test_longest_sequences() -> None:
    branch = np.array([[0, 0, 1, 1, 1, 2, VOID], [0, 0, 0, 1, 2, 2, 3]])
    assert longest_position(branch) == 5
    assert longest_position(np.array([[0, 0, VOID]])) == 2


def test_gradients_reach_the_image_through_every_branch() -> None:
    network = model().train()
    packed_loss(network, packed()[0]).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert network.token_embs_rev[1].embedding.weight.grad[list(IMAGE)].abs().sum() > 0


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_computes_the_same() -> None:
    branch = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, VOID], [0, 0, VOID, 1, 2, 2, 3, VOID, VOID]])
    q, k, v = (torch.randn(2, 2, 9, 16, generator=torch.Generator().manual_seed(i)) for i in range(3))
    dense = replace(pack(branch[:, 1:], in_blocks=False), mask=dense_mask(branch))
    blocks = replace(dense, mask=block_mask(branch, compiled=False))
    torch.testing.assert_close(blocks.attend(q, k, v), dense.attend(q, k, v))


@torch.no_grad()
def test_compiled_layers_are_compiled_once() -> None:
    """A new packing every step must not be a new program."""
    network = model()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for layer in network.stage_models[0].layers:
        layer.compile(backend="eager", dynamic=False)
    first, _ = packed()
    other = replace(first, branch=torch.where(first.branch == 2, VOID, first.branch))
    plain = packed_logits(model(), other)
    for rows in (first, other, first):
        logits = packed_logits(network, rows)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(packed_logits(network, other), plain)
    torch._dynamo.reset()
    assert logits.shape[-1] == 256


def test_positions_begin_anew_behind_the_shared_part() -> None:
    packing = pack(torch.tensor([[0, 0, VOID, 1, 1, 2, VOID]]), in_blocks=False)
    assert packing.position.tolist() == [[0, 1, 2, 0, 3, 4, 3, 0]]
    assert packing.begins.tolist() == [[False, False, False, False, True, False, True, False]]


@torch.no_grad()
def test_published_order_is_a_row_without_branches() -> None:
    layout, network = LAYOUT.model_copy(update={"order": "question_image_question_answer"}), model()
    row = question_first_row(layout, IMAGE, ASKED[1], 7, 30)
    rows = PackedRows(
        *(torch.from_numpy(a[None].astype(np.int64)) for a in (row.ids, row.branch, row.scored, row.weights))
    )
    alone = network(torch.tensor([layout.prompt(IMAGE, ASKED[1][0])]))[0, -1]
    torch.testing.assert_close(packed_logits(network, rows)[0, 0, 0], alone, rtol=0, atol=1e-10)
    assert row.question.tolist() == [7]


def test_what_does_not_fit_is_left_out() -> None:
    row = image_first_row(LAYOUT, IMAGE, None, ASKED, 7 + 7, 8)
    assert row.question.tolist()[:2] == [0, 2]  # the second needs more patches than are left
    assert (row.question[2:] == -1).all()
    assert row.weights[2:].sum() == 0
    assert image_first_row(LAYOUT, IMAGE, None, ASKED, 48, 2).question.tolist() == [0, 1]
    with pytest.raises(ValueError, match="does not fit"):
        image_first_row(LAYOUT, IMAGE, None, ASKED, 5, 2)


def test_models_that_cannot_be_packed_are_refused() -> None:
    check_packable(model())
    with pytest.raises(ValueError, match="packed rows need"):
        check_packable(model(block_type="mamba2", position=None))
