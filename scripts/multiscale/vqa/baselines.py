"""What a model has to beat: the most common answer, a question-only LSTM, and CNN+LSTM, trained on the same shards."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiscale.vqa.data.blocks import Block
from multiscale.vqa.data.plan import ShardPlan
from multiscale.vqa.data.shards import read_block
from multiscale.vqa.layout import ANSWER_IDS

_WORDS = list(ANSWER_IDS)


def read_blocks(folder: Path, limit: int | None = None) -> Block:
    """The images and questions of the first `limit` shards, in one block."""
    count = ShardPlan.read(folder).count
    blocks = [read_block(folder, index) for index in range(min(count, limit or count))]
    first = np.cumsum([0, *map(len, blocks)])
    return Block(
        np.concatenate([block.pixels for block in blocks]),
        np.concatenate([block.image + start for block, start in zip(blocks, first, strict=False)]),
        [question for block in blocks for question in block.questions],
        [answer for block in blocks for answer in block.answers],
        np.concatenate([block.kind for block in blocks]),
    )


class TypeMode:
    """The most common training answer to questions of the same kind."""

    def __init__(self, block: Block):
        counts: dict[int, Counter[str]] = {}
        for kind, answer in zip(block.kind.tolist(), block.answers, strict=True):
            counts.setdefault(kind, Counter())[answer] += 1
        self._mode = {kind: counter.most_common(1)[0][0] for kind, counter in counts.items()}

    def answers(self, block: Block) -> list[str]:
        return [self._mode.get(kind, "no") for kind in block.kind.tolist()]


class Vocabulary:
    """Words of the training questions; 0 is padding, 1 any other word."""

    def __init__(self, questions: list[str]):
        words = sorted({word for question in questions for word in _split(question)})
        self._index = {word: k for k, word in enumerate(words, 2)}

    def __len__(self) -> int:
        return len(self._index) + 2

    def encode(self, questions: list[str]) -> Tensor:
        """(M, words of the longest question)."""
        found = [[self._index.get(word, 1) for word in _split(question)] for question in questions]
        lengths = np.array([len(words) for words in found])
        rows = np.zeros((len(questions), lengths.max()), np.int64)
        rows[np.arange(rows.shape[1]) < lengths[:, None]] = [word for words in found for word in words]
        return torch.from_numpy(rows)


def _split(question: str) -> list[str]:
    return re.findall(r"[a-z0-9]+|[;,?]", question.lower())


class LstmAnswerer(nn.Module):
    """Two LSTM layers over words; with images, four convolutions beside them; two dense layers on both."""

    def __init__(self, words: int, image_size: tuple[int, int] | None):
        super().__init__()
        self.words = nn.Embedding(words, 300, padding_idx=0)
        self.lstm = nn.LSTM(300, 512, 2, batch_first=True)
        self.cnn = _convolutions(*image_size) if image_size else None
        joined = 1024 if image_size else 512
        self.head = nn.Sequential(nn.Linear(joined, 1024), nn.ReLU(), nn.Dropout(0.3), nn.Linear(1024, len(_WORDS)))

    def forward(self, questions: Tensor, pixels: Tensor) -> Tensor:
        """questions (B, words), pixels uint8 (B, 3, h, w) → logits (B, 28)."""
        last = (questions > 0).sum(1).clamp(min=1) - 1
        said = self.lstm(self.words(questions))[0][torch.arange(len(questions), device=questions.device), last]
        return self.head(said if self.cnn is None else torch.cat((said, self.cnn(pixels.float() / 255 - 0.5)), 1))


def _convolutions(height: int, width: int) -> nn.Sequential:
    channels, layers = (3, 32, 64, 128, 128), []
    for k in range(4):
        stride = 2 if k < 3 else 1
        layers += [nn.Conv2d(channels[k], channels[k + 1], 3, stride, 1), nn.BatchNorm2d(channels[k + 1]), nn.ReLU()]
        if stride == 2:
            height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, 512), nn.ReLU())


def train_lstm(
    block: Block,
    questions: Tensor,
    with_image: bool,
    device: str,
    steps: int,
    batch: int = 512,
    rate: float = 5e-4,
    seed: int = 0,
) -> LstmAnswerer:
    """`questions`: the block's, encoded. The learning rate rises over the first twentieth of the steps and falls to zero."""
    torch.manual_seed(seed)
    questions = questions.to(device)
    answers = torch.tensor([_WORDS.index(a) for a in block.answers], device=device)
    pixels, image = torch.from_numpy(block.pixels).to(device), torch.from_numpy(block.image).long().to(device)
    height, width = block.pixels.shape[2:]
    model = LstmAnswerer(int(questions.max()) + 1, (height, width) if with_image else None).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-2)
    for step in range(steps):
        done = step / steps
        optimizer.param_groups[0]["lr"] = rate * min(1, 20 * (step + 1) / steps) * (1 - done)
        chosen = torch.randint(len(questions), (batch,), device=device)
        loss = F.cross_entropy(model(questions[chosen], pixels[image[chosen]]), answers[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.inference_mode()
def lstm_answers(model: LstmAnswerer, vocabulary: Vocabulary, block: Block, batch: int = 500) -> list[str]:
    device = next(model.parameters()).device
    questions, answers = vocabulary.encode(block.questions), []
    for first in range(0, len(questions), batch):
        part = slice(first, first + batch)
        pixels = torch.from_numpy(block.pixels[block.image[part]])
        answers += [_WORDS[i] for i in model(questions[part].to(device), pixels.to(device)).argmax(1).tolist()]
    return answers
