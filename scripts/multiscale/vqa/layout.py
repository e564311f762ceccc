"""The byte layout of a visual question: what a model is trained on, and what a server feeds it.

A sequence is a row of segments. With `order`

    image_question_answer              image · question · answer
    question_image_question_answer     question · image · question · answer   (the published order)

Every segment is a start id, its bytes and an end id, padded on the right to whole patches:

    text    [som_text]  bytes of the question, UTF-8      [eom] [pad]…
    image   [som_image] bytes of the image                [eom] [pad]…
    answer  [som_text]  one byte that stands for a class  [eom] [pad]…

`align` is what segments are padded to a multiple of (in bytes; 1 pads nothing, as published). With `align` equal to the
model's patch, the image ends at a patch border, where its state can be kept and shared, and the global stage has seen the
whole question before the patch of the answer begins.

The prompt that a server feeds is everything up to and including the answer's [som_text]; the answer is the most likely of
the `answers` ids at the next byte. Nothing behind the answer is ever needed.

The image's bytes are, by `image.mode`:

    pixels  `preprocess_image`: crop, Lanczos to width x height, RGB, planar (channel, row, column): 3 * height * width
            bytes. With `levels` = k, each value v becomes the mid-point of its bin: ((2 * (v * k // 256) + 1) * 128) // k.
    jpeg    the file that Pillow writes for the same pixels (baseline, `quality`, 4:2:0, standard Huffman tables, a restart
            marker after every `restart_blocks` blocks if that is not 0). A server whose encoder writes other bytes has to
            refuse such a bundle. With `block_bytes` the same coefficients are written so that every block of 8 x 8 begins at
            a multiple of so many bytes (see `aligned_jpeg`).

Special ids are either inside the byte range (128-131, unused by ASCII: the published scheme) or above it (256-259). An id in
the byte range is special only at the positions where the template puts it; pixels of 8 or 32 levels never take its value.

The manifest's `vqa` object is exactly `VqaLayout.to_manifest()`:

    {"order": "image_question_answer", "align": 8, "max_question_bytes": 205,
     "image": {"mode": "pixels", "width": 62, "height": 41, "crop": 0.1, "levels": 32},
     "special_ids": {"pad": 128, "eom": 129, "som_text": 130, "som_image": 131},
     "answers": {"0": 48, "1": 49, …, "10": 65, "blue": 66, …, "yes": 82}}

In `image`, `levels` may be null; with mode jpeg it is left out and `quality`, `restart_blocks`, `block_bytes` are there instead.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

SPECIAL_IDS = {
    "in_range": {"pad": 128, "eom": 129, "som_text": 130, "som_image": 131},
    "above": {"pad": 256, "eom": 257, "som_text": 258, "som_image": 259},
}
MAX_QUESTION_BYTES = 205
MIN_BLOCK_BYTES = 3

_WORDS = "10 blue brown cube cyan cylinder gray green large metal no purple red rubber small sphere yellow yes"
ANSWER_IDS: dict[str, int] = {str(digit): ord("0") + digit for digit in range(10)} | {
    word: ord("A") + index for index, word in enumerate(_WORDS.split())
}
"""The 28 answers of CLEVR and the byte that stands for each."""


class SpecialIds(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    pad: int
    eom: int
    som_text: int
    som_image: int


class ImageLayout(BaseModel):
    """How an image becomes bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["pixels", "jpeg"] = "pixels"
    width: int = Field(62, ge=1, le=4096)
    height: int = Field(41, ge=1, le=4096)
    crop: float = Field(0.1, ge=0, lt=0.5)
    """Share of the width and height that is cut off on each side."""
    levels: int | None = Field(None, ge=2, le=256)
    quality: int = Field(75, ge=1, le=95)
    restart_blocks: int = Field(0, ge=0, le=65_535)
    block_bytes: int = Field(0, ge=0, le=64)
    """0: libjpeg's file as it is; else a block's place in a file whose blocks can be read one by one (`aligned_jpeg`)."""

    @field_validator("block_bytes")
    @classmethod
    def _can_hold_a_block(cls, value: int, info: ValidationInfo) -> int:
        if value and value < MIN_BLOCK_BYTES:
            raise ValueError(f"must be 0 or at least {MIN_BLOCK_BYTES}, a marker and a byte")
        if value and info.data.get("restart_blocks") != 1:
            raise ValueError("needs restart_blocks 1: a marker behind every block")
        return value

    @property
    def num_pixel_bytes(self) -> int:
        return 3 * self.width * self.height

    def to_manifest(self) -> dict[str, Any]:
        return self.model_dump(
            exclude={"quality", "restart_blocks", "block_bytes"} if self.mode == "pixels" else {"levels"}
        )


class VqaLayout(BaseModel):
    """One template; builds sequences as lists of ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: Literal["image_question_answer", "question_image_question_answer"] = "image_question_answer"
    align: int = Field(1, ge=1)
    max_question_bytes: int = Field(MAX_QUESTION_BYTES, ge=1)
    image: ImageLayout = ImageLayout()
    special_ids: SpecialIds = SpecialIds(**SPECIAL_IDS["in_range"])
    answers: dict[str, int] = ANSWER_IDS

    @classmethod
    def from_manifest(cls, entry: Any) -> VqaLayout:
        """Raises ValueError naming every wrong field."""
        try:
            return cls.model_validate(entry)
        except ValidationError as error:
            problems = [f"{'.'.join(['vqa', *map(str, e['loc'])])}: {e['msg']}" for e in error.errors()]
            raise ValueError("; ".join(problems)) from None

    def to_manifest(self) -> dict[str, Any]:
        return {**self.model_dump(exclude={"image"}), "image": self.image.to_manifest()}

    def padded(self, ids: list[int]) -> list[int]:
        return ids + [self.special_ids.pad] * (-len(ids) % self.align)

    def text_segment(self, text: bytes) -> list[int]:
        return self.padded([self.special_ids.som_text, *text, self.special_ids.eom])

    def image_segment(self, content: bytes) -> list[int]:
        return self.padded([self.special_ids.som_image, *content, self.special_ids.eom])

    def question_segment(self, question: str) -> list[int]:
        """Raises ValueError for an empty question or one of more than `max_question_bytes` bytes."""
        content = question.encode()
        if not 1 <= len(content) <= self.max_question_bytes:
            raise ValueError(f"question: {len(content)} bytes, it must have 1 to {self.max_question_bytes}")
        return self.text_segment(content)

    def answer_segment(self, answer: str) -> list[int]:
        """Raises ValueError for an answer that is no class of the model."""
        if answer not in self.answers:
            raise ValueError(f"answer: {answer!r} is none of {', '.join(self.answers)}")
        return self.text_segment(bytes([self.answers[answer]]))

    def context(self, image: bytes, question: str) -> list[int]:
        """Everything before the answer's segment. `image`: its bytes in this layout's mode."""
        asked, seen = self.question_segment(question), self.image_segment(image)
        return [*seen, *asked] if self.order == "image_question_answer" else [*asked, *seen, *asked]

    def prompt(self, image: bytes, question: str) -> list[int]:
        """What is fed before the answer is read off: the context and the start id of the answer."""
        return [*self.context(image, question), self.special_ids.som_text]

    def sequence(self, image: bytes, question: str, answer: str) -> list[int]:
        """A whole training sequence."""
        return [*self.context(image, question), *self.answer_segment(answer)]
