"""The trainer, through its command and its parts."""

from __future__ import annotations

import csv
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from programs import run_script

import bench_training
import evaluate
import make_clevr
import train as train_command
import train_baselines
from multiscale.arguments import require_device
from multiscale.data.corpus import MAX_OPEN_FILES, Corpus, DeviceCorpus, find_files, split_files
from multiscale.data.windows import WindowSchedule
from multiscale.model.checkpoint import load_checkpoint
from multiscale.model.config import ModelConfig
from multiscale.model.network import MultiscaleByteModel
from multiscale.train.config import RunConfig, TrainConfig
from multiscale.train.optimizer import RATE_RATIO, Muon, build_optimizer, learning_rate_at, orthogonal
from multiscale.train.processes import ProcessGroup
from multiscale.train.run_folder import RunFolder
from multiscale.train.trainer import Trainer, scale_positions

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mblm.train.core.config import ResumeConfig, SummaryStats
    from mblm.train.mblm import TrainEntryConfig, TrainOutputConfig
    from mblm.utils.io import load_yml

ROOT = Path(__file__).parents[2]
WINDOW, BATCH = 48, 4


def write_books(parent: Path) -> Path:
    folder = parent / "books"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(6):
        words = rng.choice([b"the ", b"cat ", b"sat ", b"on ", b"mat. "], 400 + 50 * k)
        (folder / ("more" if k % 2 else ".") / f"book{k}.txt").write_bytes(b"".join(words.tolist()))
    (folder / "notes.md").write_text("not a book")
    (folder / "short.md").write_text("short")
    return folder


@pytest.fixture
def books(tmp_path: Path) -> Path:
    return write_books(tmp_path)


def write_config(tmp_path: Path, books: Path, **train: object) -> Path:
    config = {
        "params": {
            "num_tokens": 256,
            "pad_token_id": 0,
            "input_seq_len": WINDOW,
            "hidden_dims": [32, 32],
            "seq_lens": [12, 4],
            "num_layers": [1, 1],
            "train_checkpoint_chunks": None,
            "block": [
                {"d_state": 8, "d_conv": 4, "expand": 2, "headdim": 16},
                {"attn_head_dims": 16, "attn_num_heads": 2, "attn_use_rot_embs": True, "ff_dropout": 0.1},
            ],
        },
        "io": {
            "name_model": "tiny",
            "dataset_dir": str(books),
            "dataset_args": {"validation": ["book5*"], "exclude": ["*.md"]},
            "validate_amount": 2,
        },
        "train": {
            "target_elements": 6 * BATCH * WINDOW,
            "batch_size": BATCH,
            "learning_rate": 0.01,
            "gradient_clipping": 1.0,
            "ema_decay": 0.9,
            **train,
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def train(config: Path, run_dir: Path, *arguments: str, processes: int = 1, afresh: bool = False) -> str:
    given = ("--config", config, "--run-dir", run_dir, *arguments)
    result = run_script("train.py", *given, processes=processes, afresh=afresh)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "tiny.pth", weights_only=True)["MODEL"]


def test_a_run_leaves_everything_behind_and_learns(tmp_path: Path, books: Path) -> None:
    config = write_config(tmp_path, books, target_elements=60 * BATCH * WINDOW)
    output = train(config, tmp_path / "run")
    assert "training on 5 files" in output
    assert "validating on 1 files" in output
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "metrics.csv", "curves.png", "train.log", "tiny.pth", "state.pt", "tensorboard"} <= names
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    losses = [float(row["train_bits_per_byte"]) for row in rows if row["train_bits_per_byte"]]
    assert losses[0] > 7
    assert losses[-1] < 4.5
    validation = [float(row["validation_bits_per_byte"]) for row in rows if row["validation_bits_per_byte"]]
    assert validation[-1] < validation[0]
    resolved = RunConfig.from_yaml(tmp_path / "run" / "config.yaml")
    load_checkpoint(tmp_path / "run" / "tiny.pth", resolved.model)


def test_resuming_continues_bit_for_bit(tmp_path: Path, books: Path) -> None:
    config = write_config(tmp_path, books, checkpoint_every_seconds=1e-9)
    train(config, tmp_path / "whole")
    # Killed after its third step: the state on disk is what resuming starts from.
    script = (
        "import sys; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rsplit('/', 1)[0])\n"
        "from multiscale.train import trainer\n"
        "step = trainer.Trainer._train_step\n"
        "def dying(self, rate):\n"
        "    if self.step == 3: import os; os._exit(9)\n"
        "    return step(self, rate)\n"
        "trainer.Trainer._train_step = dying\n"
        "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", script, str(ROOT / "scripts/train.py"), "--config", str(config)]
    killed = subprocess.run([*command, "--run-dir", str(tmp_path / "cut")], capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    train(config, tmp_path / "cut", "--resume")
    expected, actual = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path, books: Path) -> None:
    config = write_config(tmp_path, books, ema_decay=0.5)
    no_dropout = "params.block=[{d_state: 8, d_conv: 4, expand: 2, headdim: 16}, {block_type: gru}]"
    train(config, tmp_path / "one", no_dropout)
    train(config, tmp_path / "two", no_dropout, f"train.batch_size={BATCH // 2}", processes=2, afresh=True)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4, msg=name)


def test_gradient_accumulation_equals_a_larger_batch(tmp_path: Path, books: Path) -> None:
    config = write_config(tmp_path, books)
    no_dropout = "params.block={block_type: gru}"
    train(config, tmp_path / "one", no_dropout)
    train(config, tmp_path / "two", no_dropout, f"train.batch_size={BATCH // 2}", "train.gradient_accumulate_every=2")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4, msg=name)


def command(monkeypatch: pytest.MonkeyPatch, config: Path, run_dir: Path, *arguments: str) -> int:
    """The command, in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", str(config), "--run-dir", str(run_dir), *arguments])
    return train_command.main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.colour=red"], "train.colour"),
        (["train.batch_size=0"], "train.batch_size"),
        (["params.num_layers=[1]"], "num_layers has 1 entries"),
        (["io.dataset_dir=/nowhere"], "/nowhere is neither a file nor a folder"),
        (
            ["io.dataset_id=pg19"],
            "io.dataset_id: Value error, 'pg19' is not text or vqa; io.dataset_id=text trains on any",
        ),
        (["params.input_seq_len=1000000"], "fewer than one window"),
        (["params.num_tokens=100"], "params.num_tokens"),
        (["params.input_seq_len=96", "params.block={block_type: gru, pos_emb_type: fixed}"], "params.input_seq_len"),
        (["io.dataset_args={validation: [short.md]}"], "validation bytes are fewer than one window"),
        (["nonsense"], "expected section.key=value"),
        (["io.description=[a"], "override 'io.description=[a': the value is not YAML"),
        (["--resume"], "state.pt does not exist"),
        (["--stop-after", "nan"], "--stop-after: nan is not above 0"),
        (["--plan", "--processes", "0"], "--processes: 0 is not at least 1"),
    ],
)
def test_mistakes_get_one_clear_line(
    tmp_path: Path, books: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert command(monkeypatch, write_config(tmp_path, books), tmp_path / "run", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("train.py: ")
    assert message in error
    assert "--resume" not in arguments or not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("io: {a: [", "not YAML"),
        ("io:\n\tname: a", "not YAML"),
        ("- io", "expected the sections params, io and train"),
        ("io: [a]", "io: expected a section of keys"),
        ("params: foo", "params: expected a section of keys"),
        ("1: {}\na: {}", "unknown section 1, a"),
    ],
)
def test_a_yaml_that_is_none_is_named(
    content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    assert command(monkeypatch, tmp_path / "bad.yaml", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "bad.yaml: " in error
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Configuration and folder of a run that has ended."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(folder, write_books(folder))
    train(config, folder / "run", afresh=True)
    return config, folder / "run"


def test_a_finished_run_is_not_overwritten(finished_run: tuple[Path, Path]) -> None:
    config, run = finished_run
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = run_script("train.py", "--config", config, "--run-dir", run)
    assert result.returncode == 2
    assert "holds a run already" in result.stderr
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(
    "change", ["train.seed=9", "train.batch_size=2", "params.hidden_dims=[48,32]", "train.matrix_learning_rate=0.1"]
)
def test_resuming_refuses_another_run_and_leaves_its_config(
    finished_run: tuple[Path, Path], change: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    _, run = finished_run
    before = (run / "config.yaml").read_text()
    assert command(monkeypatch, *finished_run, "--resume", change) == 2
    assert "--resume: " + change.partition("=")[0].partition(".hidden")[0] in capsys.readouterr().err
    assert (run / "config.yaml").read_text() == before


@pytest.mark.parametrize("size", [0, 1000, None])
def test_a_state_that_is_none_is_named(
    size: int | None, finished_run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    config, run = finished_run
    if size is None:
        torch.save([1], tmp_path / "state.pt")
    else:
        (tmp_path / "state.pt").write_bytes((run / "state.pt").read_bytes()[:size])
    assert command(monkeypatch, config, tmp_path, "--resume") == 2
    assert f"{tmp_path / 'state.pt'}: not a state to resume from" in capsys.readouterr().err


def test_a_run_goes_on_in_another_precision_from_the_cpus_memory(
    finished_run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU would have to hold what is read beside what is there."""
    config, run = finished_run
    (tmp_path / "state.pt").write_bytes((run / "state.pt").read_bytes())
    places, load = [], torch.load

    def watched(path: Path, **options: object) -> object:
        places.append(options["map_location"])
        return load(path, **options)

    monkeypatch.setattr(torch, "load", watched)
    given = RunConfig.from_yaml(config, ["train.precision=fp16"])
    trainer = Trainer(given, tmp_path, ProcessGroup(0, 1, torch.device("cpu")))
    trainer.resume()
    assert places == ["cpu"]
    assert trainer.step == 6


def test_a_full_disk_ends_the_run_and_leaves_what_was_saved(
    finished_run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    resource = pytest.importorskip("resource")
    config, run = finished_run
    state = (run / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(state)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(state) // 2, limits[1]))
    try:
        code = command(monkeypatch, config, tmp_path, "--resume", f"train.target_elements={8 * BATCH * WINDOW}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    assert f"train.py: {tmp_path}: " in capsys.readouterr().err
    assert (tmp_path / "state.pt").read_bytes() == state
    assert not list(tmp_path.glob("*.tmp"))


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    nowhere = str(tmp_path / "nowhere")
    lines = {
        evaluate: ["text", "--bundle", nowhere, "--data", nowhere],
        make_clevr: ["files", "--images", "1", "--out", nowhere],
        train_baselines: ["--shards", nowhere, "--data", nowhere, "--out", nowhere],
        bench_training: [],
        train_command: ["--config", str(write_config(tmp_path, write_books(tmp_path)))],
    }
    for program, arguments in lines.items():
        monkeypatch.setattr(sys, "argv", [program.__name__, *arguments, "--device", "cuda"])
        assert program.main() == 2
        assert "--device: cuda" in capsys.readouterr().err
    with pytest.raises(ValueError, match="'tpu9' is no device"):
        require_device("tpu9")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="there are 2 CUDA devices"):
        require_device("cuda:2")
    require_device("cuda:1")


def test_the_best_checkpoints_stay(tmp_path: Path, books: Path) -> None:
    """Two that round to the same figure are two files; later ones than the resumed step go; no validation, no best."""
    config = RunConfig.from_yaml(write_config(tmp_path, books))
    folder = RunFolder(tmp_path / "run", config)
    for step, bits_per_byte in ((1, 1.23451), (2, 1.23449), (3, 1.5), (4, None)):
        folder.save_model({"step": torch.tensor(step)}, step, bits_per_byte)
    assert [path.name for path in folder.path.glob("tiny-*.pth")] == ["tiny-00000002-1.2345.pth"]
    assert torch.load(folder.path / "tiny.pth", weights_only=True)["MODEL"]["step"] == 4
    RunFolder(tmp_path / "run", config).resume_at(1)
    assert not list(folder.path.glob("tiny-*.pth"))


def test_resuming_leaves_files_that_are_not_its_own(tmp_path: Path, books: Path) -> None:
    config = RunConfig.from_yaml(write_config(tmp_path, books))
    folder = RunFolder(tmp_path / "run", config)
    own = folder.path / "tiny-00000009-1.5000.pth"
    copies = ("tiny-backup-00009999-1.2345.pth", "tiny-my-copy.pth", "tiny-00009999-1.23.pth", "x-00009999-1.2345.pth")
    for path in (own, *(folder.path / name for name in copies)):
        path.touch()
    folder.resume_at(9)
    folder.save_model({}, 12, 1.25)
    assert sorted(path.name for path in folder.path.glob("*-*.pth")) == sorted((*copies, "tiny-00000012-1.2500.pth"))


def test_rows_of_the_log_are_appended_and_outlive_a_crash(tmp_path: Path, books: Path) -> None:
    config = RunConfig.from_yaml(write_config(tmp_path, books))
    folder, table = RunFolder(tmp_path / "run", config), tmp_path / "run" / "metrics.csv"
    table.write_text("of a run that was given up")
    folder.begin()
    steps = {1: 3.0, 2: 2.5, 3: 2.0}
    before = table.read_bytes()
    for step, bits_per_byte in steps.items():
        # Whoever has the file open sees it grow, never shrink: nothing that is there is written again.
        with table.open("rb") as seen:
            folder.record(step=step, train_bits_per_byte=bits_per_byte)
            content = seen.read()
        assert content.startswith(before)
        assert len(content) > len(before)
        before = content
    with table.open("a") as file:
        file.write("4,19")  # cut by a crash
    again = RunFolder(tmp_path / "run", config)
    again.resume_at(2)
    assert table.read_bytes().startswith(before)  # until the run begins
    again.begin()
    again.record(step=3, train_bits_per_byte=1.5)
    rows = [(row["step"], row["train_bits_per_byte"]) for row in csv.DictReader(table.open())]
    assert rows == [("1", "3"), ("2", "2.5"), ("3", "1.5")]


def test_curves_are_drawn_again_for_new_rows_alone(tmp_path: Path, books: Path) -> None:
    folder = RunFolder(tmp_path / "run", RunConfig.from_yaml(write_config(tmp_path, books)))
    folder.begin()
    for step in (1, 2):
        folder.record(step=step, bytes=step * BATCH * WINDOW, train_bits_per_byte=8.0 - step, learning_rate=0.01)
        folder.plot()
        curves = folder.path / "curves.png"
        assert curves.read_bytes().startswith(b"\x89PNG")
        curves.unlink()
        folder.plot()
        assert not curves.exists()


def test_weights_that_are_not_finite_replace_nothing(tmp_path: Path, books: Path) -> None:
    """Neither where validation would have noticed nor where only the state is saved; what is left can be gone on with."""
    path, run = write_config(tmp_path, books), tmp_path / "run"
    steps = f"train.target_elements={12 * BATCH * WINDOW}"

    def trainer(*overrides: str) -> Trainer:
        return Trainer(RunConfig.from_yaml(path, [steps, *overrides]), run, ProcessGroup(0, 1, torch.device("cpu")))

    trainer("io.validate_amount=12").run(stop_after=1e-9)
    files = ("state.pt", "tiny.pth", *(file.name for file in run.glob("tiny-*.pth")))
    before = {name: (run / name).read_bytes() for name in files}
    assert len(before) == 3
    diverging = trainer("train.learning_rate=1.0e+18", "io.log_train_loss_amount=1", "io.validate_amount=4")
    broken = trainer("io.log_train_loss_amount=1", "io.validate_amount=1", "train.checkpoint_every_seconds=1.0e-9")
    for other in (diverging, broken):
        other.resume()
        if other is broken:
            next(other.model.parameters()).data[0] = torch.nan
        with pytest.raises(FloatingPointError, match="lower train"):
            other.run()
        assert {name: (run / name).read_bytes() for name in files} == before
        assert len(list(run.glob("tiny-*.pth"))) == 1
    sane = trainer()
    sane.resume()
    assert sane.run() < 8


def test_corpus_of_more_files_than_may_be_open(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    paths = [tmp_path / f"{k:04d}" for k in range(400)]
    for k, path in enumerate(paths):
        path.write_bytes(bytes([k % 256]) * 3)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES + 80, limits[1]))
    try:
        content = Corpus(paths).read(0, 1200)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert content.tobytes() == b"".join(path.read_bytes() for path in paths)


def test_the_references_yaml_loads(tmp_path: Path) -> None:
    """The sections and keys of the reference package's sample configurations."""
    reference = """
params:
  input_seq_len: 8192
  num_tokens: 256
  pad_token_id: 0
  hidden_dims: [1024, 1024]
  seq_lens: [1024, 8]
  num_layers: [4, 4]
  train_checkpoint_chunks: null
  block:
    - d_state: 128
      d_conv: 4
      expand: 2
      headdim: 64
      pos_emb_type: null
    - attn_head_dims: 64
      attn_num_heads: 16
      attn_use_rot_embs: true
      use_flash_attn: true
      pos_emb_type: fixed
train:
  target_elements: 1000000
  target_elements_strategy: sequence
  warmup_steps_perc: 0.1
  batch_size: 2
  shuffle_train: false
  learning_rate: 0.001
  gradient_clipping: 1
  gradient_accumulate_every: 4
  max_eval_steps: 10
io:
  name_model: mblm
  output_dir: out
  num_models_to_save: 3
  validate_amount: 20
  log_train_loss_amount: 100
  dataset_dir: data
  dataset_id: text
  description: a sample
resume: null
"""
    path = tmp_path / "reference.yaml"
    path.write_text(reference)
    config = RunConfig.from_yaml(path)
    assert [block.block_type for block in config.model.blocks] == ["mamba2", "transformer"]
    assert config.steps(1) == -(-1_000_000 // (2 * 4 * 8192))
    assert ModelConfig.from_yaml(path) == config.model


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "scripts/configs").glob("*.yaml")))
def test_configs_interchange_with_the_reference(name: str, tmp_path: Path) -> None:
    """It reads ours, shipped or written by a run; we read what it writes when a run ends."""
    ours = ROOT / "scripts/configs" / name
    theirs = load_yml(ours, TrainEntryConfig)
    config = RunConfig.from_yaml(ours)
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    assert load_yml(tmp_path / "run.yaml", TrainEntryConfig).params.hidden_dims == theirs.params.hidden_dims
    summary = {"training_start": "a", "training_end": "b", "num_workers": 1, "cuda_devices": [], "parameter_count": 1}
    ended = TrainOutputConfig(
        **{section: getattr(theirs, section) for section in ("params", "train")},
        io=theirs.io.model_copy(update={"dataset_id": "pg19", "dataset_args": None}),
        resume=ResumeConfig(checkpoint_file="m.pth", next_epoch_index=0, next_batch_index=3),
        summary=SummaryStats(**summary, error=None),
    )
    (tmp_path / "ended.yaml").write_text(yaml.safe_dump(ended.model_dump()))
    with pytest.raises(ValueError, match=r"io\.dataset_id=text"):
        RunConfig.from_yaml(tmp_path / "ended.yaml")
    again = RunConfig.from_yaml(tmp_path / "ended.yaml", ["io.dataset_id=text"])
    # Whether a Mamba is the first or the second, the reference decides by what it can import.
    assert (again.model.hidden_dims, again.input_seq_len) == (config.model.hidden_dims, config.input_seq_len)
    assert again.train.learning_rate == config.train.learning_rate


def test_windows_see_every_byte_about_once_an_epoch() -> None:
    schedule = WindowSchedule(10_000, 100, seed=5)
    count = schedule.windows_per_epoch
    first, second = schedule.starts(0, count), schedule.starts(count, count)
    assert len(set(first.tolist())) == count == 99
    assert set(np.diff(np.sort(first)).tolist()) == {100}  # they tile the corpus
    assert not np.array_equal(np.sort(first), np.sort(second)) or not np.array_equal(first, second)
    assert np.array_equal(WindowSchedule(10_000, 100, seed=5).starts(37, 9), first[37:46])
    assert not np.array_equal(WindowSchedule(10_000, 100, seed=6).starts(0, count), first)


def test_corpus_reads_across_files(books: Path) -> None:
    files = [path for path in find_files(books) if path.suffix == ".txt"]
    whole = b"".join(path.read_bytes() for path in files)
    corpus, border = Corpus(files), files[0].stat().st_size
    assert len(corpus) == len(whole)
    for start, length in ((0, 5), (border - 3, 7), (border, 4), (0, len(whole)), (len(whole) - 1, 1)):
        assert corpus.read(start, length).tobytes() == whole[start : start + length]
    with pytest.raises(IndexError):
        corpus.read(len(whole) - 1, 2)
    starts = np.array([0, border - 3])
    device = DeviceCorpus(corpus, torch.device("cpu"))
    assert torch.equal(corpus.gather(starts, 9), device.gather(starts, 9))


def test_held_out_files_are_the_same_whatever_else_is_there() -> None:
    paths = [Path(f"/x/book{k}.txt") for k in range(400)]
    _, held_out = split_files(paths, [], [], 20)
    assert 8 <= len(held_out) <= 40
    train_files, fewer = split_files(paths[:200], [], ["book7.txt"], 20)
    assert set(fewer) - {Path("/x/book7.txt")} == set(held_out) & set(paths[:200]) - {Path("/x/book7.txt")}
    assert not set(train_files) & set(fewer)


def test_tables_of_positions_begin_as_large_as_asked() -> None:
    torch.manual_seed(0)
    model = MultiscaleByteModel(ModelConfig.from_yaml(Path(__file__).parents[2] / "scripts/configs/clevr.yaml"))
    before = model.token_embs_rev[0].embedding.weight.clone()
    scale_positions(model, 0.02)
    assert model.pos_embs[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    torch.testing.assert_close(model.token_embs_rev[0].embedding.weight, before)


def test_learning_rate_warms_up_and_ends_at_the_floor() -> None:
    config = TrainConfig(target_elements=1, batch_size=1, learning_rate=2.0, warmup_steps_perc=0.1)
    assert learning_rate_at(0.05, config) == pytest.approx(1.0)
    assert learning_rate_at(0.1, config) == pytest.approx(2.0)
    assert learning_rate_at(0.55, config) == pytest.approx(1.1)
    assert learning_rate_at(1.0, config) == pytest.approx(0.2)


def test_matrices_become_nearly_orthogonal() -> None:
    torch.manual_seed(0)
    for shape in ((3, 24, 40), (3, 40, 24)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.min() > 0.6
        assert values.max() < 1.25


def test_muon_trains_the_matrices_of_stages_and_adam_the_rest() -> None:
    model = MultiscaleByteModel(ModelConfig.from_yaml(ROOT / "scripts/configs/clevr.yaml"))
    rates = {"learning_rate": 1e-3, "matrix_learning_rate": 3e-3}
    optimizer = build_optimizer(model, TrainConfig(target_elements=1, batch_size=1, **rates))
    matrices, *others = optimizer.param_groups
    assert matrices[RATE_RATIO] == pytest.approx(3.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(matrices["params"]) == 5 * sum(model.config.num_layers)
    assert all(names[id(p)].startswith("stage_models.") and p.dim() == 2 for p in matrices["params"])
    assert not any(p.dim() == 2 and "stage_models" in names[id(p)] for group in others for p in group["params"])


def test_muons_updates_are_as_large_as_adams_and_weights_decay() -> None:
    weight = torch.nn.Parameter(torch.zeros(48, 24))
    weight.grad = torch.randn(48, 24)
    Muon([weight], lr=0.1).step()
    assert weight.square().mean().sqrt().item() == pytest.approx(0.02, rel=0.25)
    weight = torch.nn.Parameter(torch.ones(8, 8))
    weight.grad = torch.zeros(8, 8)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((8, 8), 0.95))


def test_a_run_with_muon_resumes_bit_for_bit(tmp_path: Path, books: Path) -> None:
    config = write_config(tmp_path, books, matrix_learning_rate=0.02)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", "--stop-after", "0.01")
    train(config, tmp_path / "parts", "--resume")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
