"""Constants of a model: every stage's state after its start token, what that start hands down, and the first logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from multiscale.export.graph_builder import Precision, State
from multiscale.export.stage_graph import build_stage_graph
from multiscale.export.weight_store import FILE_NAME, WeightStore
from multiscale.model.config import ModelConfig


def open_session(path: Path) -> ort.InferenceSession:
    """Session as the server opens it: one thread, all optimisations."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def compute_constants(
    config: ModelConfig, weights: dict[str, np.ndarray], precision: Precision, folder: Path
) -> dict[str, np.ndarray]:
    """Runs each stage on its start token. `folder` is scratch space."""
    constants: dict[str, np.ndarray] = {}
    context_of_parent = None
    for stage in range(config.num_stages):
        constants[f"start_tokens.{stage}"] = weights[f"start_tokens.{stage}"]  # only to read the model back
        store = WeightStore()
        graph = build_stage_graph(config, weights, stage, "start", store, precision)
        path = folder / f"start{stage}.onnx"
        path.write_bytes(graph.model.SerializeToString())
        (folder / FILE_NAME).write_bytes(store.content())
        session = open_session(path)
        nothing = np.zeros((1, 1, config.hidden_dims[stage]), np.float32)
        outputs = _run_start(session, graph.builder.states, nothing)
        for state in graph.builder.states:
            value = outputs[state.present][0]
            name = f"stage{stage}.after_start.{state.layer}.{state.kind}"
            constants[name] = value[:, :1] if state.reset == "none" else value  # caches: position 0 only
        if stage < config.num_stages - 1:
            constants[f"stage{stage}.start_context"] = outputs["context"].reshape(-1)
        # The very first logits are the one place where starts see their parent's context: see MultiscaleByteModel.first_logits.
        first = outputs
        if context_of_parent is not None:
            first = _run_start(
                session, graph.builder.states, context_of_parent[None, None, : config.hidden_dims[stage]]
            )
        if stage < config.num_stages - 1:
            context_of_parent = first["context"].reshape(-1)
        else:
            constants["initial_logits"] = first["logits"].reshape(-1)
            # The loss predicts byte 0 from the local start token alone: see MultiscaleByteModel.aligned_logits.
            constants["scoring_logits"] = outputs["logits"].reshape(-1)
    return constants


def _run_start(session: ort.InferenceSession, states: list[State], context: np.ndarray) -> dict[str, np.ndarray]:
    feeds = {"position": np.array([-1], np.int32), "added_context": context}
    feeds |= {state.past: np.zeros((1, *state.shape), np.float32) for state in states}
    names = [output.name for output in session.get_outputs()]
    wanted = {i.name for i in session.get_inputs()}  # an input that no node reads is not asked for
    return dict(zip(names, session.run(names, {k: v for k, v in feeds.items() if k in wanted}), strict=True))
