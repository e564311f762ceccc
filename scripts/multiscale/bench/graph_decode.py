"""Cached PyTorch decode with its sampler, recorded as one CUDA graph for each step of the top stage."""

from __future__ import annotations

import torch
from torch import Tensor

from multiscale.bench.cached_decode import CachedDecoder


def sample_top_p(logits: Tensor, top_p: float) -> Tensor:
    """(B, V) logits → (B,) ids at temperature 1: the fewest ids whose probabilities reach `top_p`, at least one."""
    probabilities, ids = torch.softmax(logits.float(), -1).sort(-1, descending=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= top_p, 0)
    # The smallest of exponential numbers with these rates: as `multinomial`, which no graph can record.
    chosen = (probabilities / torch.empty_like(probabilities).exponential_()).argmax(-1, keepdim=True)
    return ids.gather(-1, chosen)[:, 0]


class GraphDecoder:
    """Generates whole steps of the top stage (S bytes): each is one launch of a graph.

    `top_p` 0 is greedy. The first step, from an empty context, is generated eagerly before the graph is recorded.
    """

    def __init__(self, decoder: CachedDecoder, first: Tensor, top_p: float):
        self.decoder, self.top_p = decoder, top_p
        self.next = first.clone()
        self.step_ids = torch.zeros_like(decoder.ids)
        """(B, S): what the last step chose."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._generate_step()
        torch.cuda.current_stream().wait_stream(stream)
        self.first_ids = self.step_ids.clone()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._generate_step()

    def _generate_step(self) -> None:
        for i in range(self.step_ids.shape[1]):
            logits = self.decoder.feed(self.next)
            ids = sample_top_p(logits, self.top_p) if self.top_p > 0 else logits.argmax(-1)
            self.step_ids[:, i] = ids
            self.next.copy_(ids)

    def step(self) -> Tensor:
        """(B, S) ids; valid until the next step."""
        self.graph.replay()
        return self.step_ids
