"""The model for visual questions that comes with the repository: it is what its card says, and it sees."""

from __future__ import annotations

from pathlib import Path

from multiscale.export.read_bundle import load_model
from multiscale.vqa.answering import answer_block
from multiscale.vqa.ask_bundle import read_layout
from multiscale.vqa.clevr.bulk import training_pixels, visible_scenes
from multiscale.vqa.data.generated import generated_block

BUNDLE = Path(__file__).parents[2] / "models/clevr"
SEED, IMAGES, QUESTIONS = 1_000_003, 4, 10


def test_it_is_small_and_reads_the_image_first() -> None:
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) < 40e6
    layout = read_layout(BUNDLE)
    assert (layout.order, layout.image.width, layout.image.height) == ("image_question_answer", 62, 41)
    assert len(layout.answers) == 28


def test_it_answers_most_questions_about_scenes_that_it_has_not_seen() -> None:
    layout = read_layout(BUNDLE)
    scenes, image = visible_scenes(SEED, 0, IMAGES), layout.image
    pixels = training_pixels(scenes, image.width, image.height, image.crop, "cpu", SEED).numpy()
    block = generated_block(scenes, pixels, image, QUESTIONS, (SEED,))
    answers, _ = answer_block(load_model(BUNDLE), layout, block)
    right = sum(given == wanted for given, wanted in zip(answers, block.answers, strict=True))
    assert right >= 0.7 * len(block.answers)  # chance and language alone give under half
