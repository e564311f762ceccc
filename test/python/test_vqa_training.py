"""From shards to an exported bundle: data sets, trainer, baselines, evaluation; tiny and on the CPU."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from programs import run_script

from multiscale.export.bundle_writer import read_manifest
from multiscale.model.checkpoint import initialize, load_checkpoint, read_state_dict, save_checkpoint, save_parts
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel
from multiscale.train.config import RunConfig
from multiscale.train.processes import join_processes
from multiscale.train.trainer import Trainer
from multiscale.vqa.answering import answer_block
from multiscale.vqa.answers_file import read_answers, write_answers
from multiscale.vqa.ask_bundle import TorchAsker
from multiscale.vqa.baselines import TypeMode, Vocabulary, lstm_answers, read_blocks, train_lstm
from multiscale.vqa.clevr.families import KINDS
from multiscale.vqa.clevr.scenes import random_scenes
from multiscale.vqa.data.blocks import Block, kind_of, read_clevr
from multiscale.vqa.data.generated import object_list
from multiscale.vqa.data.plan import ShardPlan
from multiscale.vqa.data.production import repack_shards
from multiscale.vqa.data.shards import read_block, read_shard, shard_path, write_shard
from multiscale.vqa.layout import ANSWER_IDS, SPECIAL_IDS, ImageLayout, SpecialIds, VqaLayout
from multiscale.vqa.preprocess import encode_pixels
from multiscale.vqa.report import write_report
from multiscale.vqa.scores import Share, shares, table
from multiscale.vqa.source import VqaSource

IMAGES, SHARDS, HELD_OUT = 6, 4, 0


def block(seed: int, size: tuple[int, int] = (4, 6)) -> Block:
    """Images of one colour; a question that needs the image, and one that does not."""
    rng = np.random.default_rng(seed)
    bright = rng.integers(0, 2, IMAGES)
    pixels = np.broadcast_to((60 + 140 * bright)[:, None, None, None], (IMAGES, 3, *size)).astype(np.uint8)
    questions = ["Is the room bright?", "How many suns are there?"] * IMAGES
    answers = [answer for b in bright for answer in ("yes" if b else "no", "1")]
    return Block(pixels, np.repeat(np.arange(IMAGES), 2), questions, answers, np.tile([0, 1], IMAGES))


def layout(**fields: object) -> VqaLayout:
    return VqaLayout(align=8, image=ImageLayout(width=6, height=4, levels=8), **fields)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    plan = ShardPlan(layout(), SHARDS, 1, patches=32, scored=4, per_image=2, images=IMAGES, lists=False)
    plan.write(folder)
    for index in range(SHARDS):
        write_shard(folder, plan, index, block(index))
    return folder


def config_file(folder: Path, shards: Path, **train: object) -> Path:
    heads = {"attn_head_dims": 16, "attn_num_heads": 2, "attn_use_rot_embs": True, "pos_emb_type": "fixed"}
    content = {
        "params": {
            "num_tokens": 256,
            "pad_token_id": 128,
            "hidden_dims": [32, 32],
            "seq_lens": [40, 8],
            "num_layers": [1, 1],
            "block": [heads, heads],
        },
        "io": {
            "name_model": "tiny",
            "dataset_dir": str(shards),
            "dataset_id": "vqa",
            "dataset_args": {"validation_shards": 1, "wait_seconds": 0},
            "validate_amount": 2,
        },
        "train": {
            "target_elements": 480,
            "target_elements_strategy": "batch",
            "batch_size": 8,
            "learning_rate": 0.01,
            **train,
        },
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


# ---- data sets ----------------------------------------------------------------------------------------------------


def test_shards_hold_the_sequences_of_the_layout(shards: Path) -> None:
    plan, shard, original = ShardPlan.read(shards), read_shard(shards, 2), block(2)
    assert plan.layout == layout()
    for row in range(IMAGES):
        content = encode_pixels(original.pixels[row], plan.layout.image)
        image = plan.layout.image_segment(content)
        assert shard["ids"][row].flatten()[: len(image)].tolist() == image
        for slot, question in enumerate(shard["question"][row]):
            if question < 0:
                assert shard["weights"][row, slot].sum() == 0
                continue
            assert original.image[question] == row
            patch = shard["scored"][row, slot]
            branch = shard["branch"][row] == shard["branch"][row, patch]
            wanted = plan.layout.sequence(content, original.questions[question], original.answers[question])
            assert shard["ids"][row][branch].flatten().tolist() == wanted[len(image) :]
            assert shard["weights"][row, slot].tolist() == [10, *[0] * 7]
    assert sorted(shard["question"][shard["question"] >= 0]) == list(range(2 * IMAGES))


@pytest.mark.parametrize("scheme", list(SPECIAL_IDS))
@pytest.mark.parametrize("mode", ["pixels", "jpeg"])
def test_published_order_modes_and_schemes(tmp_path: Path, scheme: str, mode: str) -> None:
    image = ImageLayout(mode=mode, width=6, height=4, restart_blocks=1 if mode == "jpeg" else 0)
    form = VqaLayout(
        order="question_image_question_answer", align=4, image=image, special_ids=SpecialIds(**SPECIAL_IDS[scheme])
    )
    plan = ShardPlan(form, 1, 0, patches=320, scored=1, images=IMAGES, lists=False)
    write_shard(tmp_path, plan, 0, block(0))
    shard, original = read_shard(tmp_path, 0), block(0)
    assert len(shard["ids"]) == 2 * IMAGES
    for row in range(len(shard["ids"])):
        question = shard["question"][row, 0]
        content = encode_pixels(original.pixels[original.image[question]], image)
        wanted = form.sequence(content, original.questions[question], original.answers[question])
        assert shard["ids"][row].flatten()[: len(wanted)].tolist() == wanted
        assert (shard["branch"][row] == -1).sum() == 320 - len(wanted) // 4
        assert content[:2] == b"\xff\xd8" or mode == "pixels"


def test_object_list_names_everything_from_left_to_right() -> None:
    scenes = random_scenes([(1,)], np.array([7]))
    text = object_list(scenes, 0, ImageLayout())
    assert len(text) == 7 * 8 - 1
    words = {identity: word for word, identity in ANSWER_IDS.items()}
    columns = [text[i] - 32 for i in range(0, len(text), 8)]
    assert columns == sorted(columns)
    sizes = [words[text[i + 2]] for i in range(0, len(text), 8)]
    assert sorted(sizes) == sorted(("large", "small")[k] for k in scenes.attributes[0, :7, 0])


def test_every_example_comes_once_an_epoch_and_by_its_number_alone(shards: Path, tmp_path: Path) -> None:
    config = RunConfig.from_yaml(config_file(tmp_path, shards))
    model, group = MultiscaleByteModel(config.model), join_processes("cpu")
    source, again = (VqaSource(config.io, 3, group, model) for _ in range(2))
    size = (SHARDS - 1) * IMAGES
    places = [source._place(i) for i in range(3 * size)]
    assert [again._place(i) for i in reversed(range(3 * size))] == places[::-1]
    epochs = [places[k * size : (k + 1) * size] for k in range(3)]
    assert all(len(set(epoch)) == size for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert {shard for shard, _ in places} == {1, 2, 3}  # the first is held out


def test_the_first_epoch_can_use_rows_several_times_before_later_shards(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiscale.vqa.source.SHARDS_AT_ONCE", 2)
    config = RunConfig.from_yaml(config_file(tmp_path, shards))
    config.io.dataset_args.first_epoch_passes = 3
    source = VqaSource(config.io, 3, join_processes("cpu"), MultiscaleByteModel(config.model))
    size = (SHARDS - 1) * IMAGES
    begin = 0
    for group in ({1, 2}, {3}):
        rows = len(group) * IMAGES
        turns = [[source._place(begin + turn * rows + i) for i in range(rows)] for turn in range(3)]
        assert all({shard for shard, _ in turn} == group and len(set(turn)) == rows for turn in turns)
        assert turns[0] != turns[1] != turns[2]
        begin += 3 * rows
    for _ in range(2):  # from then on every row once
        assert len({source._place(begin + i) for i in range(size)}) == size
        begin += size


def test_no_more_shards_are_waited_for_than_are_needed(shards: Path, tmp_path: Path) -> None:
    """Training may begin, and validate, while the last shards are still being made."""
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("info.json", "shard-000000.npz", "shard-000001.npz"):
        (begun / name).write_bytes((shards / name).read_bytes())
    config = RunConfig.from_yaml(config_file(tmp_path, begun))
    model = MultiscaleByteModel(config.model)
    source = VqaSource(config.io, 0, join_processes("cpu"), model)
    assert source.validate(model, 8, None)["validation_bits_per_byte"] > 0
    seen = [source._place(k)[0] for k in range(IMAGES)]
    assert set(seen) <= {1, 2, 3}


def test_shards_of_fewer_questions_than_the_first_are_used_as_they_are(shards: Path, tmp_path: Path) -> None:
    """Where every question is a row: some scenes have fewer good questions than others."""
    form = layout(order="question_image_question_answer")
    plan = replace(ShardPlan.read(shards), layout=form, patches=64, scored=1, lists=False, told=0)
    plan.write(tmp_path / "uneven")
    for index in range(SHARDS):
        write_shard(tmp_path / "uneven", plan, index, block(index) if index == 0 else block(index).part(0, IMAGES - 1))
    config = RunConfig.from_yaml(config_file(tmp_path, tmp_path / "uneven"))
    source = VqaSource(config.io, 0, join_processes("cpu"), MultiscaleByteModel(config.model))
    first, other = (len(read_shard(tmp_path / "uneven", index)["ids"]) for index in (0, 1))
    assert other < first
    rows = source._batch([(1, row) for row in range(first)]).ids.numpy()
    np.testing.assert_array_equal(rows[:other], read_shard(tmp_path / "uneven", 1)["ids"])
    np.testing.assert_array_equal(rows[other:], rows[: first - other])


def test_shards_are_repacked_into_any_layout(shards: Path, tmp_path: Path) -> None:
    image = ImageLayout(mode="jpeg", width=6, height=4, quality=50)
    form = VqaLayout(order="question_image_question_answer", align=8, image=image)
    plan = replace(ShardPlan.read(shards), layout=form, patches=160, scored=160, loss="all")
    repack_shards(shards, tmp_path / "new", plan, workers=1)
    assert ShardPlan.read(tmp_path / "new/info.json") == plan
    for index in range(SHARDS):
        old, new = read_block(shards, index), read_block(tmp_path / "new", index)
        np.testing.assert_array_equal(old.pixels, new.pixels)
        assert (old.questions, old.answers, old.listed) == (new.questions, new.answers, new.listed)
    row, content = read_shard(tmp_path / "new", 1), encode_pixels(block(1).pixels[0], image)
    assert content in row["ids"][0].astype(np.uint8).tobytes()
    wide = plan.layout.model_copy(update={"image": ImageLayout(mode="jpeg")})
    with pytest.raises(ValueError, match="cropped or sized otherwise"):
        repack_shards(shards, tmp_path / "wide", replace(plan, layout=wide), workers=1)
    with pytest.raises(ValueError, match="holds other shards"):
        repack_shards(shards, tmp_path / "new", replace(plan, seed=2), workers=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": layout().model_copy(update={"align": 2})}, "align: 2"),
        ({"loss": "some"}, "loss: 'some' is none of answer, all"),
        ({"loss": "all"}, "scored: 4 is less than the 32 patches"),
        ({"patches": 0}, "patches: 0 is not in 1"),
    ],
)
def test_plans_that_make_no_sense_are_refused(shards: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ShardPlan.read(shards), **changes)


def test_infos_that_are_none_are_refused(tmp_path: Path) -> None:
    for content in ("{}", "nothing", '{"layout": {"align": 0}}'):
        (tmp_path / "info.json").write_text(content)
        with pytest.raises(ValueError, match=r"describes no shards|vqa\.align"):
            ShardPlan.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"io.dataset_args.validation_shards": 4}, "validation_shards: must be from 1 to 3"),
        ({"params.seq_lens": [40, 4]}, "params.seq_lens: patches of 4 bytes, the shards' are 8"),
        ({"params.pad_token_id": 0}, "params.pad_token_id: 0, the shards' is 128"),
        ({"params.seq_lens": [10, 8]}, "params.seq_lens: 10 patches, shard 0 has sequences of 15"),
        ({"io.dataset_dir": "nowhere"}, "nowhere holds no shards"),
    ],
)
def test_runs_that_do_not_fit_their_shards_are_refused(
    shards: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    done = run_script("train.py", "--config", config_file(tmp_path, shards), "--run-dir", tmp_path / "run", *overrides)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_shard_that_never_comes_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did not appear within 0 s"):
        read_shard(tmp_path, 3, wait_seconds=0)
    assert shard_path(tmp_path, 3).name == "shard-000003.npz"


def test_blocks_are_thinned_out() -> None:
    many = block(3)
    few = many.thinned(1)
    assert len(few) == IMAGES
    assert few.questions == many.questions[::2]
    assert few.answers == many.answers[::2]
    assert few.image.tolist() == list(range(IMAGES))
    assert few.kind.tolist() == [0] * IMAGES
    assert many.thinned(2).questions == many.questions


@pytest.mark.parametrize("order", ["image_question_answer", "question_image_question_answer"])
def test_questions_asked_together_are_answered_as_alone(order: str, tmp_path: Path, shards: Path) -> None:
    config = RunConfig.from_yaml(config_file(tmp_path, shards))
    torch.manual_seed(0)
    model, form, asked = MultiscaleByteModel(config.model).eval(), layout(order=order), block(5)
    _, together = answer_block(model, form, asked)
    for k, question in enumerate(asked.questions):
        prompt = form.prompt(encode_pixels(asked.pixels[asked.image[k]], form.image), question)
        logits = model(torch.tensor([prompt]))[0, -1, list(form.answers.values())]
        np.testing.assert_allclose(together[k], logits.softmax(0).detach().numpy(), atol=1e-6)


def test_kinds_of_questions() -> None:
    functions = ("exist", "count", "less_than", "equal_integer", "equal_size", "query_color")
    expected = ("exist", "count", "compare_integer", "compare_integer", "compare_attribute", "query_attribute")
    assert tuple(map(kind_of, functions)) == expected


# ---- training, export, evaluation ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = config_file(folder, shards)
    done = run_script("train.py", "--config", config, "--run-dir", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder


def test_training_learns_to_look(run: Path, shards: Path) -> None:
    with (run / "out/metrics.csv").open() as file:
        accuracies = [float(row["validation_accuracy"]) for row in csv.DictReader(file) if row["validation_accuracy"]]
    assert len(accuracies) == 2
    assert accuracies[-1] == 1.0  # the brightness can only be known from the image
    model = MultiscaleByteModel(RunConfig.from_yaml(run / "tiny.yaml").model).eval()
    model.load_state_dict(read_state_dict(run / "out/tiny.pth"))
    held_out = block(HELD_OUT)
    answers, probabilities = answer_block(model, layout(), held_out)
    assert answers == held_out.answers
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    alone, _ = answer_block(model, layout(order="question_image_question_answer"), held_out)
    assert len(alone) == len(answers)  # a model without packing is asked question by question


def test_a_run_is_broken_off_and_leaves_small_weights(shards: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path, shards, target_elements=96, ema_decay=0.9)
    arguments = ("--config", config, "--run-dir", tmp_path / "run", f"io.weights_dir={tmp_path / 'weights'}")
    done = run_script("train.py", *arguments, "--stop-after", "0.0001")
    assert done.returncode == 0, done.stderr
    assert torch.load(tmp_path / "run/state.pt", weights_only=True)["step"] == 1
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["step-00000001"]
    done = run_script("train.py", *arguments, "--resume", "--init-from", tmp_path / "any.pth")
    assert (done.returncode, "resumed has weights already" in done.stderr) == (2, True)
    done = run_script("train.py", *arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["step-00000012"]
    assert run_script("train.py", "--config", config, "--run-dir", tmp_path / "unbroken").returncode == 0
    unbroken = read_state_dict(tmp_path / "unbroken/tiny.pth")
    torch.testing.assert_close(read_state_dict(tmp_path / "run/tiny.pth"), unbroken, rtol=0, atol=0)
    whole, parts = read_state_dict(tmp_path / "run/tiny.pth"), read_state_dict(tmp_path / "weights/step-00000012")
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor.half() if tensor.dim() > 1 else tensor, rtol=0, atol=0)
    assert load_checkpoint(tmp_path / "weights/step-00000012", RunConfig.from_yaml(config).model)


def test_parts_are_small_and_all_needed(tmp_path: Path) -> None:
    state = {f"t{k}": torch.full((100,), float(k)) for k in range(7)}
    save_parts(tmp_path, state, 900)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"part-{k}-of-4.pth" for k in (1, 2, 3, 4)]
    assert all(file.stat().st_size < 900 + 2500 for file in files)
    torch.testing.assert_close(read_state_dict(tmp_path), state)
    files[2].unlink()
    with pytest.raises(ValueError, match="not a checkpoint"):
        read_state_dict(tmp_path)


def test_the_learning_rate_falls_by_time(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig.from_yaml(
        config_file(tmp_path, shards, target_elements=10**6, max_seconds=100, warmup_steps_perc=0.0),
        ["io.log_train_loss_amount=1000000"],
    )
    clock = iter(range(0, 10**6, 5))  # every look at the clock takes five seconds
    monkeypatch.setattr("multiscale.train.trainer.time.monotonic", lambda: float(next(clock)))
    Trainer(config, tmp_path / "run", join_processes("cpu")).run()
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = [(float(r["seconds"]), float(r["learning_rate"])) for r in csv.DictReader(file) if r["learning_rate"]]
    assert 3 <= len(rows) < 20
    rates = [rate for _, rate in rows]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.3 * rates[0]
    assert rows[-1][0] <= 115


def test_export_and_evaluation(run: Path, shards: Path, tmp_path: Path) -> None:
    wide, bundle = layout(), tmp_path / "bundle"
    done = run_script(
        *("export.py", "--checkpoint", run / "out/tiny.pth", "--config", run / "tiny.yaml"),
        *("--out", bundle, "--precision", "int8", "--vqa", shards),
    )
    assert done.returncode == 0, done.stderr + done.stdout
    manifest = read_manifest(bundle)
    assert VqaLayout.from_manifest(manifest["vqa"]) == wide
    assert manifest["validation"]["prompts"] == "images and questions"
    held_out = block(HELD_OUT)
    content = encode_pixels(held_out.pixels[0], wide.image)
    best = TorchAsker(bundle).log_probs(content, held_out.questions[:2]).argmax(1)
    assert [list(wide.answers)[i] for i in best] == held_out.answers[:2]

    data = clevr_folder(tmp_path / "clevr")
    answers = {
        "question-type mode": TypeMode(read_blocks(shards)).answers(read_clevr(data, "val", None, layout().image))
    }
    write_answers(tmp_path / "baselines.json", read_clevr(data, "val"), answers)
    done = run_script(
        *("evaluate.py", "vqa", "--bundle", bundle, "--data", data),
        *("--baselines", tmp_path / "baselines.json", "--out", tmp_path / "report"),
    )
    assert done.returncode == 0, done.stderr
    assert "| question-type mode |" in done.stdout
    results = json.loads((tmp_path / "report/results.json").read_text())
    assert results["results"]["bundle"]["all"]["accuracy"] == 1.0
    assert (tmp_path / "report/accuracy.png").stat().st_size > 5000
    assert "Is the room bright?" in (tmp_path / "report/examples.html").read_text()
    done = run_script(
        *("evaluate.py", "vqa", "--bundle", bundle, "--graphs", "--data", data, "--out", tmp_path / "graphs"),
    )
    assert done.returncode == 0, done.stderr
    by_graphs = json.loads((tmp_path / "graphs/results.json").read_text())
    assert by_graphs["answers"] == results["answers"]
    done = run_script(
        *("evaluate.py", "vqa", "--checkpoint", run / "out/tiny.pth", "--config", run / "tiny.yaml"),
        *("--layout", shards / "info.json", "--data", data, "--limit-images", 1),
    )
    assert done.returncode == 0, done.stderr
    assert "| questions | 1 | 0 |" in done.stdout


def test_answers_to_other_questions_are_refused(tmp_path: Path) -> None:
    write_answers(tmp_path / "a.json", block(0), {"m": block(0).answers})
    first = block(0).part(0, 2)
    assert read_answers(tmp_path / "a.json", first) == {"m": first.answers}
    other = block(0)
    other.questions[1] = "Is it raining?"
    with pytest.raises(ValueError, match="another data set"):
        read_answers(tmp_path / "a.json", other)
    (tmp_path / "b.json").write_text('{"m": ["yes"]}')
    with pytest.raises(ValueError, match="holds no answers"):
        read_answers(tmp_path / "b.json", other)


def clevr_folder(folder: Path) -> Path:
    """Two images in CLEVR's own layout, as the original files say it."""
    from PIL import Image

    (folder / "images/val").mkdir(parents=True)
    (folder / "questions").mkdir()
    questions = []
    for index, (level, answer) in enumerate(((60, "no"), (200, "yes"))):
        name = f"CLEVR_val_{index:06d}.png"
        Image.new("RGBA", (48, 32), (level, level, level, 255)).save(folder / "images/val" / name)
        program = [
            {"inputs": [], "function": "scene", "value_inputs": []},
            {"inputs": [0], "function": "exist", "value_inputs": []},
        ]
        questions.append(
            {"image_filename": name, "question": "Is the room bright?", "answer": answer, "program": program}
        )
    (folder / "questions/CLEVR_val_questions.json").write_text(json.dumps({"info": {}, "questions": questions}))
    return folder


def test_clevr_folders_are_read_as_they_are(tmp_path: Path) -> None:
    found = read_clevr(clevr_folder(tmp_path / "clevr"), "val")
    assert found.pixels.shape == (2, 3, 41, 62)
    assert (found.answers, found.kind.tolist()) == (["no", "yes"], [0, 0])
    assert len(read_clevr(tmp_path / "clevr", "val", limit=1).questions) == 1
    with pytest.raises(ValueError, match="is no CLEVR folder"):
        read_clevr(tmp_path, "val")


def test_pretrained_weights_are_taken_over(tmp_path: Path) -> None:
    heads = {"attn_head_dims": 16, "attn_num_heads": 2, "attn_use_rot_embs": True, "pos_emb_type": "fixed"}
    fields = {"hidden_dims": [32, 32], "num_layers": [1, 1], "block": [heads, heads]}
    text = MultiscaleByteModel(
        ModelConfig.from_params({**fields, "num_tokens": 256, "pad_token_id": 0, "seq_lens": [16, 8]})
    )
    save_checkpoint(tmp_path / "text.pth", text, 1.0)
    config = {**fields, "num_tokens": 260, "pad_token_id": 256, "seq_lens": [40, 8]}
    model = MultiscaleByteModel(ModelConfig.from_params(config))
    kept = model.pos_embs[0].weight[16:].clone()
    initialize(model, tmp_path / "text.pth")
    torch.testing.assert_close(model.pos_embs[0].weight[:16], text.pos_embs[0].weight)
    torch.testing.assert_close(model.pos_embs[0].weight[16:], kept)
    torch.testing.assert_close(model.to_logits.weight[:256], text.to_logits.weight)
    torch.testing.assert_close(model.stage_models[0].state_dict(), text.stage_models[0].state_dict())
    other = MultiscaleByteModel(ModelConfig.from_params({**config, "hidden_dims": [48, 32]}))
    with pytest.raises(ValueError, match=r"--init-from: .* the config needs"):
        initialize(other, tmp_path / "text.pth")


# ---- baselines and scores -----------------------------------------------------------------------------------------


def test_baselines(shards: Path) -> None:
    training, test = read_blocks(shards), block(9)
    assert len(training.questions) == 2 * IMAGES * SHARDS
    assert training.answers[: 2 * IMAGES] == block(0).answers
    assert set(TypeMode(training).answers(test)[1::2]) == {"1"}
    vocabulary = Vocabulary(training.questions)
    words = vocabulary.encode(training.questions)
    blind, seeing = (train_lstm(training, words, image, "cpu", 60, batch=16, rate=1e-3) for image in (False, True))
    blind_answers, seen = (lstm_answers(model, vocabulary, test) for model in (blind, seeing))
    assert len(set(blind_answers[::2])) == 1  # the question alone does not say how bright the room is
    assert shares(test, seen)["all"].value > shares(test, blind_answers)["all"].value
    assert Vocabulary(["a b"]).encode(["b zebra a", "b"]).tolist() == [[3, 1, 2], [3, 0, 0]]


def test_wilson_intervals() -> None:
    low, high = Share(8, 10).interval()  # the usual textbook example
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert Share(0, 5).interval()[0] == 0
    assert Share(5, 5).interval()[1] == pytest.approx(1)
    assert Share(0, 0).interval() == (0, 1)


def test_shares_and_table() -> None:
    test = block(0)
    by_kind = shares(test, ["1"] * len(test.answers))
    assert by_kind["count"] == Share(IMAGES, IMAGES)
    assert by_kind["exist"] == Share(0, IMAGES)
    assert by_kind["all"].value == 0.5
    lines = table({"one": by_kind}).splitlines()
    assert len(lines[0].split("|")) == len(KINDS) + 4
    assert "100.0 (61.0–100.0)" in lines[2]
    with pytest.raises(ValueError, match="3 answers for 12 questions"):
        shares(test, ["1"] * 3)


def test_page_escapes_what_it_shows(tmp_path: Path) -> None:
    test = block(0)
    test.questions[0] = "<script>?"
    wrong = ["<b>", *test.answers[1:]]
    write_report(tmp_path, test, {"m": shares(test, wrong)}, wrong, np.full((len(wrong), 2), 0.5), 2)
    content = (tmp_path / "examples.html").read_text()
    assert "<script>" not in content
    assert "&lt;b&gt; (50%)" in content
    assert content.count("<img") == 2
