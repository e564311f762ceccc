"""The generator of CLEVR-format data: scenes, programs, balance, rendering."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import make_clevr
from multiscale.vqa.clevr import camera
from multiscale.vqa.clevr.bulk import lanczos, training_pixels, visible_scenes
from multiscale.vqa.clevr.families import FAMILIES
from multiscale.vqa.clevr.files import ask_scenes, write_split
from multiscale.vqa.clevr.programs import Node, SceneIndex, answer_word, execute, is_degenerate, program_from_json
from multiscale.vqa.clevr.questions import SIMPLE_FAMILIES, AnswerBalance, write_questions
from multiscale.vqa.clevr.render import all_visible, render
from multiscale.vqa.clevr.scenes import (
    DIRECTIONS,
    Scenes,
    random_scenes,
    relation_matrix,
    scene_to_json,
    scenes_from_json,
)
from multiscale.vqa.clevr.side_by_side import write_sheet
from multiscale.vqa.clevr.vocabulary import ATTRIBUTES, RELATIONS
from multiscale.vqa.data.generated import generated_block
from multiscale.vqa.data.plan import ShardPlan
from multiscale.vqa.data.production import generate_shards
from multiscale.vqa.data.rows import QUESTION_WEIGHT
from multiscale.vqa.data.shards import read_block, read_shard
from multiscale.vqa.layout import ImageLayout, VqaLayout
from multiscale.vqa.preprocess import preprocess_image, preprocess_pixels

NUM_SCENES = 60


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    counts = np.random.default_rng(0).integers(3, 11, NUM_SCENES)
    return random_scenes([(7, i) for i in range(NUM_SCENES)], counts)


@pytest.fixture(scope="module")
def questions(scenes: Scenes) -> list:
    return list(write_questions(scenes, 10, (1,)))


def index_of(scenes: Scenes, row: int) -> SceneIndex:
    count = scenes.count[row]
    return SceneIndex(scenes.attributes[row, :count], scenes.centers[row, :count])


# ---- scenes -----------------------------------------------------------------------------------------------------


def test_scenes_keep_the_rules_of_placement(scenes: Scenes) -> None:
    for row in range(len(scenes)):
        count = scenes.count[row]
        position, radius = scenes.position[row, :count], scenes.radius[row, :count]
        assert (np.abs(position) <= 3).all()
        for i in range(count):
            for j in range(i):
                offset = position[i] - position[j]
                assert np.hypot(*offset) - radius[i] - radius[j] >= 0.25
                for name in ("right", "behind"):
                    assert abs(offset @ DIRECTIONS[name][:2]) >= 0.4


def test_a_scene_depends_on_its_seed_alone() -> None:
    together = random_scenes([(3, 0), (3, 1)], np.array([5, 6]))
    alone = random_scenes([(3, 1)], np.array([6]))
    np.testing.assert_array_equal(together.position[1], alone.position[0])
    np.testing.assert_array_equal(together.attributes[1], alone.attributes[0])


def test_relations_are_those_of_the_definition(scenes: Scenes) -> None:
    entry = scene_to_json(scenes, 0, "val", 0, "x.png")
    points = [np.array(o["3d_coords"]) for o in entry["objects"]]
    for name in RELATIONS:
        vector = np.array(entry["directions"][name])
        wanted = [[j for j, q in enumerate(points) if (q - p) @ vector > 0.2] for p in points]
        assert entry["relationships"][name] == wanted
    left, right = (relation_matrix(np.array(points), name) for name in ("left", "right"))
    np.testing.assert_array_equal(left, right.T)


def test_annotations_are_read_back_with_their_camera(scenes: Scenes) -> None:
    entries = [scene_to_json(scenes, row, "val", row, f"{row}.png") for row in range(8)]
    for entry in entries:
        for item in entry["objects"]:  # files round to whole pixels
            item["pixel_coords"] = [*map(round, item["pixel_coords"][:2]), item["pixel_coords"][2]]
    again = scenes_from_json(entries)
    np.testing.assert_array_equal(again.attributes, scenes.attributes[:8])
    np.testing.assert_allclose(again.position, scenes.position[:8])
    assert np.abs(again.camera - scenes.camera[:8]).max() < 0.05


def test_published_camera_matrix_is_near_ours() -> None:
    """The matrix fitted to real pixel coordinates, to within what the camera's jitter leaves open."""
    matrix = np.array(
        [[15.9684, 46.7098, -20.2546, 240.558], [6.9888, -5.9844, -53.527, 160.243], [-0.0583, 0.051, -0.0807, 1]]
    )
    points = np.random.default_rng(0).uniform([-3, -3, 0.35], [3, 3, 0.7], (200, 3))
    seen = np.c_[points, np.ones(200)] @ matrix.T
    error = camera.project(camera.POSITION, points)[:, :2] - seen[:, :2] / seen[:, 2:]
    assert np.sqrt((error**2).mean()) < 3


# ---- programs and questions ---------------------------------------------------------------------------------------


def oracle(entry: dict, program: list[dict]) -> object:
    """The program's value from the annotation, with lists of objects: slow, and nothing shared with the executor."""
    objects, values = entry["objects"], []
    for node in program:
        name, args, word = node["function"], [values[i] for i in node["inputs"]], (node["value_inputs"] or [None])[0]
        if name == "scene":
            value: object = list(range(len(objects)))
        elif name.startswith("filter_"):
            value = [k for k in args[0] if objects[k][name[7:]] == word]
        elif name == "unique":
            assert len(args[0]) == 1
            value = args[0][0]
        elif name == "relate":
            value = entry["relationships"][word][args[0]]
        elif name.startswith("same_"):
            mine = objects[args[0]][name[5:]]
            value = [k for k, o in enumerate(objects) if o[name[5:]] == mine and k != args[0]]
        elif name == "union":
            value = sorted({*args[0], *args[1]})
        elif name == "intersect":
            value = [k for k in args[0] if k in args[1]]
        elif name == "count":
            value = len(args[0])
        elif name == "exist":
            value = bool(args[0])
        elif name.startswith("query_"):
            value = objects[args[0]][name[6:]]
        elif name.startswith("equal_"):
            value = args[0] == args[1]
        else:
            value = args[0] < args[1] if name == "less_than" else args[0] > args[1]
        values.append(value)
    return values[-1]


def test_programs_equal_a_brute_force_oracle(scenes: Scenes, questions: list) -> None:
    from multiscale.vqa.clevr.programs import program_to_json

    entries = [scene_to_json(scenes, row, "val", row, "x.png") for row in range(len(scenes))]
    functions: Counter[str] = Counter()
    for q in questions:
        program = program_to_json(q.program)
        functions.update(node["function"] for node in program)
        assert answer_word(oracle(entries[q.image], program)) == q.answer
        assert answer_word(execute(index_of(scenes, q.image), program_from_json(program))) == q.answer
    assert len(functions) == 26


def test_every_family_speaks_and_the_mix_is_the_published_one(questions: list) -> None:
    assert len(FAMILIES) == 90
    assert Counter(f.name for f in FAMILIES) == {
        **dict.fromkeys(("zero_hop", "one_hop", "two_hop", "three_hop"), 6),
        **{"single_and": 5, "single_or": 8, "same_relate": 28, "comparison": 16, "compare_integer": 9},
    }
    assert {q.family for q in questions} == set(range(90))
    kinds = Counter(FAMILIES[q.family].kind for q in questions)
    published = {"query_attribute": 36, "count": 23.6, "compare_attribute": 17.9, "exist": 13.5, "compare_integer": 9}
    for kind, percent in published.items():
        assert 100 * kinds[kind] / len(questions) == pytest.approx(percent, abs=3)


def test_questions_are_bytes_of_the_published_length(questions: list) -> None:
    lengths = [len(q.text.encode()) for q in questions]
    assert min(lengths) >= 18
    assert max(lengths) <= 205
    assert all(q.text[0].isupper() and q.text.endswith("?") and "  " not in q.text for q in questions)


def test_a_queried_attribute_is_never_named(scenes: Scenes, questions: list) -> None:
    for q in questions:
        last = q.program[-1]
        if not last.function.startswith("query_"):
            continue
        attribute, node = last.function[6:], q.program[last.inputs[0]]
        while node.function.startswith(("filter_", "unique")):
            assert node.function != f"filter_{attribute}"
            node = q.program[node.inputs[0]]
        assert node.function != f"same_{attribute}"


def test_no_question_survives_the_loss_of_a_relation(scenes: Scenes, questions: list) -> None:
    assert not any(is_degenerate(index_of(scenes, q.image), q.program) for q in questions)
    attributes = np.zeros((2, 4), np.int64)
    attributes[1, 3] = 1
    scene = SceneIndex(attributes, np.array([[0, 0, 0.7], [0.7, 0.7, 0.7]]))
    chain = [Node("scene"), Node("filter_shape", (0,), "cube"), Node("unique", (1,)), Node("relate", (2,), "right")]
    idle = [*chain, Node("filter_shape", (3,), "sphere"), Node("exist", (4,))]
    working = [*chain, Node("filter_size", (3,), "large"), Node("count", (4,))]
    assert is_degenerate(scene, idle)  # there is but one sphere anyway
    assert not is_degenerate(scene, working)


def test_answers_are_balanced_within_a_family() -> None:
    balance = AnswerBalance(("yes", "no", "maybe"))
    given = Counter()
    rng = np.random.default_rng(0)
    for _ in range(3000):
        answer = "yes" if rng.random() < 0.8 else str(rng.choice(["no", "maybe"]))
        if balance.accepts(answer):
            balance.add(answer)
            given[answer] += 1
    common = given.most_common()
    assert common[0][1] <= 1.1 * common[1][1] + 1
    assert common[0][1] <= 5 * max(common[1][1], 5) + 1


def test_questions_depend_on_the_seed_alone(scenes: Scenes, questions: list) -> None:
    again = list(write_questions(scenes, 10, (1,)))
    assert [(q.image, q.text, q.answer) for q in again] == [(q.image, q.text, q.answer) for q in questions]
    other = list(write_questions(scenes[:5], 10, (2,)))
    assert [q.text for q in other] != [q.text for q in questions[:50]]


def test_simple_questions_come_on_top_and_name_no_relation() -> None:
    scenes, image = visible_scenes(5, 0, 4), ImageLayout()
    pixels = np.zeros((4, 3, image.height, image.width), np.uint8)
    usual, more = (generated_block(scenes, pixels, image, 5, (1,), simple) for simple in (0, 12))
    for row in range(4):
        first, both = usual.asked(row)[1], more.asked(row)[1]
        assert both[: len(first)] == first
        assert len(both) - len(first) >= 9
    simple = list(write_questions(scenes, 12, (1, 1), SIMPLE_FAMILIES))
    assert max(len([q for q in simple if q.image == row]) for row in range(4)) > len(SIMPLE_FAMILIES)
    functions = {node.function for q in simple for node in q.program}
    assert functions <= {"scene", "unique", "count", "exist"} | {
        f"{verb}_{attribute}" for verb in ("filter", "query") for attribute in ATTRIBUTES
    }


def test_layout_and_teaching_are_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = "--mode jpeg --width 96 --height 64 --quality 10 --restart-blocks 1 --block-bytes 8 --per-image 14 --told 3 --lists"
    command = f"make_clevr.py shards --shards 1 --images-per-shard 2 --workers 1 {options}"
    monkeypatch.setattr("sys.argv", [*command.split(), "--out", str(tmp_path / "jpeg")])
    assert make_clevr.main() == 0
    plan, shard = ShardPlan.read(tmp_path / "jpeg"), read_shard(tmp_path / "jpeg", 0)
    image = plan.layout.image
    assert (image.width, image.height, image.quality, image.restart_blocks, image.block_bytes) == (96, 64, 10, 1, 8)
    assert shard["pixels"].shape == (2, 3, 64, 96)
    assert ((shard["weights"] == round(10 * QUESTION_WEIGHT)).any(2).sum(1) >= 3 * 2).all()
    command = f"make_clevr.py repack --shards {tmp_path}/jpeg --width 96 --height 64 --order published --per-image 4"
    monkeypatch.setattr("sys.argv", [*command.split(), "--patches", "4000", "--out", str(tmp_path / "few")])
    assert make_clevr.main() == 0
    assert len(read_shard(tmp_path / "few", 0)["ids"]) == 2 * 4
    assert read_block(tmp_path / "few", 0).questions[:4] == read_block(tmp_path / "jpeg", 0).questions[:4]


@pytest.mark.parametrize("mode", ["pixels", "jpeg"])
def test_rows_have_room_for_simple_questions(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"make_clevr.py shards --shards 1 --images-per-shard 2 --lists --simple 14 --mode {mode} --workers 1"
    monkeypatch.setattr("sys.argv", [*command.split(), "--out", str(tmp_path)])
    assert make_clevr.main() == 0
    shard, images = read_shard(tmp_path, 0), read_block(tmp_path, 0).image
    for row in range(2):
        assert (shard["question"][row] >= 0).sum() == (images == row).sum() >= 22


# ---- images -------------------------------------------------------------------------------------------------------


def one(shape: str, color: str, material: str, size: str = "large") -> Scenes:
    scene = random_scenes([(0,)], np.array([1]))
    words = {"size": size, "color": color, "material": material, "shape": shape}
    scene.attributes[0, 0] = [values.index(words[name]) for name, values in ATTRIBUTES.items()]
    scene.position[0, 0] = 0
    scene.camera[0], scene.lamps[0] = camera.POSITION, 0
    return scene


@pytest.mark.parametrize("shape", ["cube", "sphere", "cylinder"])
def test_an_object_is_where_its_annotation_says(shape: str) -> None:
    scene = one(shape, "red", "rubber")
    image = render(scene, (0, 0, 480, 320), 240, 160)[0].numpy()
    is_red = image[0] > 1.6 * image[1]
    rows, columns = np.nonzero(is_red)
    column, row, _ = camera.project(scene.camera[0], scene.centers[0, :1])[0] / 2
    assert abs(columns.mean() - column) < 3
    assert abs(rows.mean() - row) < 4
    assert is_red.sum() * 4 > 2000


def test_metal_and_rubber_look_different() -> None:
    box = (210.0, 110.0, 270.0, 170.0)
    metal, rubber = (render(one("sphere", "gray", m), box, 30, 30)[0].mean(0) for m in ("metal", "rubber"))
    assert metal.std() > 1.3 * rubber.std()


def test_objects_throw_shadows() -> None:
    scene, box = one("cube", "gray", "rubber"), (0.0, 0.0, 480.0, 320.0)
    empty = one("cube", "gray", "rubber")
    empty.count[0] = 0
    darker = render(empty, box, 120, 80) - render(scene, box, 120, 80) > 0.03
    covered = all_visible(scene)[0]
    assert covered
    assert darker.any(1).sum() > 150  # more than the cube's own cells that are darker than the ground


def test_hidden_objects_are_noticed() -> None:
    scene = random_scenes([(0,)], np.array([2]))
    scene.attributes[0, :2] = [[0, 0, 0, 0], [1, 1, 0, 1]]
    toward = -camera.POSITION[:2] / np.linalg.norm(camera.POSITION[:2])
    scene.position[0, 0], scene.position[0, 1] = 0, 1.3 * toward  # the small one straight behind the large cube
    scene.camera[0] = camera.POSITION
    assert not all_visible(scene)[0]
    scene.position[0, 1] = [2, 2]
    assert all_visible(scene)[0]


def test_bulk_images_are_those_of_files_up_to_noise() -> None:
    scenes = visible_scenes(5, 0, 1)
    bulk = training_pixels(scenes, 62, 41, 0.1, "cpu", 1).numpy().astype(float)
    fine = render(scenes, (0, 0, 480, 320), 960, 640, seed=2)
    files = (torch.nn.functional.avg_pool2d(fine, 2) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.abs(bulk[0] - preprocess_pixels(np.ascontiguousarray(files[0])).astype(float)).mean() < 3


def test_large_images_are_rendered_no_finer_than_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def render(_scenes: Scenes, _box: object, width: int, height: int, *_rest: object) -> torch.Tensor:
        asked.append((width, height))
        return torch.zeros(1, 3, height, width)

    monkeypatch.setattr("multiscale.vqa.clevr.bulk.render", render)
    for width, height in ((62, 41), (192, 128), (480, 320)):
        pixels = training_pixels(random_scenes([(0,)], np.array([3])), width, height, 0.1, "cpu", 0)
        assert pixels.shape == (1, 3, height, width)
    assert asked == [(186, 123), (384, 256), (480, 320)]


def test_lanczos_is_pillows() -> None:
    row = np.random.default_rng(0).random((1, 186)).astype(np.float32)
    wanted = np.asarray(Image.fromarray(row, "F").resize((62, 1), Image.Resampling.LANCZOS))
    np.testing.assert_allclose(row @ lanczos(186, 62).numpy().T, wanted, atol=1e-5)


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _one_sample_per_pixel() -> Iterator[None]:
    """Files in a quarter of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multiscale.vqa.clevr.files._ANTIALIASING", 1)
        yield


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clevr")
    assert write_split(folder, "val", 2, 3, "cpu", 2, 5) == 10
    return folder


def test_a_split_is_written_in_clevrs_layout(split: Path) -> None:
    scenes = json.loads((split / "scenes/CLEVR_val_scenes.json").read_text())["scenes"]
    questions = json.loads((split / "questions/CLEVR_val_questions.json").read_text())["questions"]
    for q in questions:
        assert answer_word(oracle(scenes[q["image_index"]], q["program"])) == q["answer"]
        assert preprocess_image((split / "images/val" / q["image_filename"]).read_bytes()).shape == (3, 41, 62)


def test_a_split_is_reproducible(split: Path, tmp_path: Path) -> None:
    write_split(tmp_path, "val", 2, 3, "cpu", 1, 5)
    for path in sorted(split.rglob("*.*")):
        assert path.read_bytes() == (tmp_path / path.relative_to(split)).read_bytes()


def test_shards_are_reproducible_and_go_on(tmp_path: Path) -> None:
    plan = ShardPlan(VqaLayout(align=8, image=ImageLayout(levels=32)), 2, 1, per_image=12, images=1, lists=True)
    for name in ("a", "b"):
        generate_shards(tmp_path / name, plan, "cpu", 1)
        if name == "b":
            break
        (tmp_path / "b").mkdir()
        (tmp_path / "b/shard-000000.npz").write_bytes((tmp_path / "a/shard-000000.npz").read_bytes())
    for index in range(2):
        one, other = (read_shard(tmp_path / name, index) for name in ("a", "b"))
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key])
        assert (one["question"] >= 0).sum() >= 11


def test_annotated_images_are_asked_about(split: Path, tmp_path: Path) -> None:
    scenes, images = split / "scenes/CLEVR_val_scenes.json", split / "images/val"
    assert ask_scenes(tmp_path / "b", scenes, images, "again", 4, 0) == 8
    questions = json.loads((tmp_path / "b/questions/CLEVR_again_questions.json").read_text())["questions"]
    assert {q["image_filename"] for q in questions} == {"CLEVR_val_000000.png", "CLEVR_val_000001.png"}
    with pytest.raises(ValueError, match="holds none of the images"):
        ask_scenes(tmp_path / "c", scenes, tmp_path, "x", 4, 0)


def test_images_are_compared_with_renderings_of_their_annotations(split: Path, tmp_path: Path) -> None:
    """Of the very same scenes: what is left is the lamps' jitter, which no annotation has."""
    scenes, images = split / "scenes/CLEVR_val_scenes.json", split / "images/val"
    said = write_sheet(tmp_path / "sheet.png", scenes, images, 2)
    assert float(said.split()[2]) < 12
    assert Image.open(tmp_path / "sheet.png").size == (4 * (2 * 62 * 4 + 6) + 6, 41 * 4 + 6 + 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shards", "--shards", "0"], "--shards: 0 is not at least 1"),
        (["shards", "--shards", "1", "--levels", "1"], "vqa.image.levels: Input should be greater than or equal to 2"),
        (["shards", "--shards", "1", "--quality", "90"], "--quality means nothing with --mode pixels"),
        (["shards", "--shards", "1", "--mode", "jpeg", "--levels", "8"], "--levels means nothing with --mode jpeg"),
        (["shards", "--shards", "1", "--block-bytes", "8"], "--block-bytes means nothing with --mode pixels"),
        (["shards", "--shards", "1", "--mode", "jpeg", "--block-bytes", "8"], "needs restart_blocks 1"),
        (["shards", "--shards", "1", "--align", "2"], "align: 2, patches must have 3 bytes or more"),
        (["shards", "--shards", "1", "--order", "published", "--lists"], "--lists: only with --order image-first"),
        (["repack", "--shards", "nowhere"], "nowhere holds no shards"),
        (["pack", "--data", "nowhere"], "nowhere is no CLEVR folder"),
        (["shards", "--shards", "1", "--simple", "-1"], "--simple: -1 is not at least 0"),
        (["files", "--images", "-1"], "--images: -1 is not at least 1"),
    ],
)
def test_wrong_settings_are_named(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("sys.argv", ["make_clevr.py", *arguments, "--out", str(tmp_path / "out")])
    assert make_clevr.main() == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
