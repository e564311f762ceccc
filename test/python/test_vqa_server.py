"""The server answers questions about images as Python does: preprocessing, layout and the full forward of PyTorch."""

from __future__ import annotations

import base64
import functools
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from programs import run_script
from serving import Server, serve

import check_vqa_server
from make_image_fixtures import jpegs, pngs, webps
from make_test_bundles import config, mamba2, random_model, transformer
from multiscale.export.bundle_writer import read_manifest, write_bundle, write_manifest
from multiscale.model.network import MultiscaleByteModel
from multiscale.vqa.layout import SPECIAL_IDS, ImageLayout, SpecialIds, VqaLayout
from multiscale.vqa.preprocess import image_content

Served = tuple[Server, MultiscaleByteModel, VqaLayout, Path]
TOLERANCE = 1e-4
QUESTIONS = [
    "Is it red?",
    "How many large rubber cubes are behind the tiny cyan metal cylinder?",
    "what color",
    "x" * 205,
]
LAYOUTS = {
    "image-first": VqaLayout(align=8, image=ImageLayout(width=24, height=16, levels=8)),
    "published": VqaLayout(
        order="question_image_question_answer",
        image=ImageLayout(width=20, height=10, crop=0.15),
        special_ids=SpecialIds(**SPECIAL_IDS["above"]),
    ),
    "jpeg": VqaLayout(align=8, image=ImageLayout(mode="jpeg", quality=50)),
    "aligned jpeg": VqaLayout(
        align=8, image=ImageLayout(mode="jpeg", width=62, height=41, quality=50, restart_blocks=1, block_bytes=8)
    ),
}


@functools.cache
def some_images() -> list[tuple[str, bytes]]:
    """Every seventh file of every kind."""
    rng = np.random.default_rng(3)
    return list(itertools.islice(itertools.chain(jpegs(rng), pngs(rng), webps(rng)), 0, None, 7))


@pytest.fixture(scope="module", params=LAYOUTS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    layout = LAYOUTS[request.param]
    model = random_model(config([48, 32], [512, 8], [mamba2(), transformer()], vocab=260), seed=4)
    bundle = tmp_path_factory.mktemp("vqa") / "tiny"
    write_bundle(model, bundle, "tiny", "fp32")
    write_manifest(bundle, {**read_manifest(bundle), "vqa": layout.to_manifest()})
    with serve(bundle) as server:
        yield server, model, layout, bundle


def expected_logprobs(model: MultiscaleByteModel, layout: VqaLayout, file: bytes, question: str) -> dict[str, float]:
    ids = layout.prompt(image_content(file, layout.image), question)
    with torch.no_grad():
        distribution = model(torch.tensor([ids]))[0, -1].double().log_softmax(-1)
    return {answer: float(distribution[answer_id]) for answer, answer_id in layout.answers.items()}


def check(answer: dict[str, Any], expected: dict[str, float]) -> None:
    given = {top["answer"]: top["logprob"] for top in answer["top_answers"]}
    assert given.keys() == expected.keys()
    assert max(abs(given[text] - expected[text]) for text in expected) <= TOLERANCE
    assert expected[answer["answer"]] >= max(expected.values()) - TOLERANCE
    total = sum(np.exp(list(expected.values())))
    assert answer["probability"] == pytest.approx(np.exp(expected[answer["answer"]]) / total, abs=TOLERANCE)


def test_answers_are_those_of_pytorch(served: Served) -> None:
    server, model, layout, _ = served
    images = some_images()
    assert len(images) > 60
    given = set()
    for name, file in images:
        form = [("question", (None, question)) for question in QUESTIONS]
        form += [("top_answers", (None, "28")), ("image", (name, file))]
        answer = requests.post(f"{server.url}/v1/vqa", files=form, timeout=60)
        assert answer.status_code == 200, (name, answer.text)
        body = answer.json()
        assert [one["question"] for one in body["answers"]] == QUESTIONS
        for one in body["answers"]:
            check(one, expected_logprobs(model, layout, file, one["question"]))
            given.add(one["answer"])
    assert len(given) > 3  # a test of a model that always says the same would show little


@pytest.mark.parametrize("flags", [[], ["--torch"]])
def test_a_data_set_in_clevr_layout(served: Served, tmp_path: Path, flags: list[str]) -> None:
    """The command that compares a trained model's bundle, on a small one."""
    server, _, layout, bundle = served
    write_clevr(tmp_path, 4)
    given = ("--url", server.url, "--bundle", bundle, "--data", tmp_path, "--tolerance", TOLERANCE, *flags)
    done = run_script("check_vqa_server.py", *given, afresh=layout is LAYOUTS["image-first"] and not flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 questions: 16 equal answers" in done.stdout


def test_a_split_that_is_not_there_is_named(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, _, _, bundle = served
    write_clevr(tmp_path, 1)
    given = ["--url", server.url, "--bundle", str(bundle), "--data", str(tmp_path), "--split", "nothing"]
    monkeypatch.setattr(sys, "argv", ["check_vqa_server.py", *given])
    assert check_vqa_server.main() == 2
    assert "CLEVR_nothing_questions.json" in capsys.readouterr().err


def write_clevr(folder: Path, num_images: int) -> None:
    """Images from all over the list: of several formats."""
    images = some_images()
    (folder / "images" / "val").mkdir(parents=True)
    (folder / "questions").mkdir()
    questions = []
    for name, file in (images[k * len(images) // num_images] for k in range(num_images)):
        (folder / "images" / "val" / name).write_bytes(file)
        questions += [{"image_filename": name, "question": question, "answer": "yes"} for question in QUESTIONS]
    (folder / "questions" / "CLEVR_val_questions.json").write_text(json.dumps({"info": {}, "questions": questions}))


def test_json_is_the_same(served: Served) -> None:
    server, model, layout, _ = served
    _, file = some_images()[0]
    body = {"image": base64.b64encode(file).decode(), "question": QUESTIONS[0], "top_answers": 28}
    answer = requests.post(f"{server.url}/v1/vqa", json=body, timeout=60).json()["answers"][0]
    check(answer, expected_logprobs(model, layout, file, QUESTIONS[0]))
