"""The command line: help, one line for every mistake, and what stays on disk when a command fails."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import json
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from twofold import cli, registry, runs, settings
from twofold.errors import BadSetting
from twofold.steps import blocks

Command = Callable[..., tuple[int, str, str]]
VERBS = sorted(cli.verbs())
TRAIN = ("pretrain", "--data", "digits", "--widths", "8,8", "--batch", "32", "--probe-every", "0")


def refused(answer: tuple[int, str, str], *says: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr, and in it what the user must know."""
    code, out, err = answer
    assert code == 2 and out == "", err
    assert err.startswith("twofold: ") and err.count("\n") == 1, err
    assert "Traceback" not in err and "Error" not in err
    for words in says:
        assert words in err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def broken(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a model, to be damaged."""
    return shutil.copytree(tiny_run, tmp_path / "broken")


@pytest.mark.parametrize("verb", VERBS)
def test_help_explains_every_setting(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as ended:
        cli.run([verb, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for field in dataclasses.fields(registry.find(cli.verbs()[verb], verb).Config):
        flag = field.name.upper() if field.metadata["positional"] else "--" + field.name.replace("_", "-")
        assert f" {flag} " in told or f" {flag}, " in told
        assert field.metadata["help"] in told and len(field.metadata["help"].split()) > 2
    for flag in ("--config", "--json", "--quiet"):
        assert flag in told


def test_the_overview_names_every_verb(command: Command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    for verb in VERBS:
        assert f"  {verb} " in out
    assert command()[0] == 2
    assert command("--version")[1].strip()


HUGE = "9" * 400
EXTRACT = ("extract", "--data", "digits", "--model", "pixels:8", "--out", "OUT")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["extrac"], ["No verb 'extrac'", "Did you mean 'extract'"]),
        (["extract", "--blokcs", "1"], ["flag of twofold extract", "Did you mean '--blocks'"]),
        (["extract", "--blokcs=1"], ["'--blokcs'", "Did you mean '--blocks'"]),
        (["extract", "--data", "digits"], ["extract needs --model and --out", "--help"]),
        (["blocks"], ["MODEL", "--help"]),
        (["extract", "--data"], ["expected one argument"]),
        (["extract", "stray", "--data", "digits"], ["stray"]),
        ([*EXTRACT, "--data", "digts"], ["No data set 'digts'", "Did you mean 'digits'"]),
        ([*EXTRACT, "--data", "digits:here"], ["takes no folder"]),
        ([*EXTRACT, "--model", "diffuser:x"], ["No model 'diffuser'", "Did you mean 'diffusers'"]),
        ([*EXTRACT, "--model", "piksels"], ["Did you mean 'pixels'"]),
        ([*EXTRACT, "--model", "pixels:big"], ["pixels:8"]),
        ([*EXTRACT, "--model", "pixels:²"], ["1 to 8192 pixels"]),
        ([*EXTRACT, "--model", f"pixels:{HUGE}"], ["1 to 8192 pixels"]),
        ([*EXTRACT, "--model", "pixels?untrained"], ["no weights"]),
        ([*EXTRACT, "--model", "RUN?untained"], ["Did you mean 'untrained'"]),
        ([*EXTRACT, "--model", "run:nowhere"], ["nowhere is not a folder"]),
        ([*EXTRACT, "--model", "some/where"], ["some/where is not a folder"]),
        ([*EXTRACT, "--model", "diffusers:."], ["has no model_index.json"]),
        ([*EXTRACT, "--precision", "fp8"], ["'fp8'", "fp16"]),
        ([*EXTRACT, "--device", "gpu"], ["'gpu'", "cuda"]),
        ([*EXTRACT, "--device", "meta"], ["No device 'meta'", "cpu, cuda, cuda:N, mps"]),
        (["sample", "--model", "RUN", "--out", "OUT", "--device", "meta"], ["No device 'meta'", "cpu, cuda"]),
        ([*TRAIN, "--out", "OUT", "--device", "meta"], ["No device 'meta'", "cpu, cuda"]),
        ([*TRAIN, "--out", "OUT", "--device", "cpu:7"], ["No device 'cpu:7'"]),
        (["demo", "--out", "OUT", "--device", "cuda:-1", "--quiet"], ["No device 'cuda:-1'"]),
        ([*EXTRACT, "--dtype", "float6"], ["Did you mean 'float16'"]),
        ([*EXTRACT, "--batch", "0"], ["--batch must be at least 1"]),
        ([*EXTRACT, "--batch", "many"], ["must be a whole number", "'many'"]),
        ([*EXTRACT, "--batch", HUGE * 20], ["must be a whole number", "999..."]),
        ([*EXTRACT, "--blocks", HUGE * 20], ["No block in pixels:8"]),
        ([*TRAIN, "--out", "OUT", "--steps", "100000000000"], ["--steps must be at most 100000, not 100000000000."]),
        ([*EXTRACT, "--split", "trian"], ["Did you mean 'train'"]),
        ([*EXTRACT, "--t", "20"], ["clean images"]),
        ([*EXTRACT, "--sigma", "0.1"], ["clean images"]),
        ([*EXTRACT, "--pool", "9"], ["pool 9"]),
        ([*EXTRACT, "--blocks", "1", "--pool", "9"], ["Pool 9 is larger than block 1's map of 8x8"]),
        ([*EXTRACT, "--blocks", "2"], ["no block 2"]),
        ([*EXTRACT, "--model", "RUN", "--t", "1000"], ["t = 1000", "0 to 999"]),
        ([*EXTRACT, "--model", "RUN", "--t", "-1"], ["t = -1", "0 to 999"]),
        ([*EXTRACT, "--model", "RUN", "--t", "0.5"], ["t = 0.5", "0 to 999"]),
        ([*EXTRACT, "--model", "RUN", "--t", "nan"], ["t = nan", "0 to 999"]),
        ([*EXTRACT, "--model", "RUN", "--t", "20", "--sigma", "0.1"], ["Both --t and --sigma"]),
        ([*EXTRACT, "--model", "RUN", "--sigma", "0"], ["above 0"]),
        ([*EXTRACT, "--model", "RUN", "--pool", "9"], ["pool 9"]),
        ([*EXTRACT, "--config", "nowhere.toml"], ["--config nowhere.toml"]),
        (["sample", "--model", "RUN", "--out", "OUT", "--sampler", "ddmi"], ["Did you mean", "'ddim'"]),
        (["sample", "--model", "RUN", "--out", "OUT", "--steps", "1001"], ["at most 1000"]),
        (["sample", "--model", "pixels:8", "--out", "OUT"], ["cannot generate"]),
        ([*TRAIN, "--out", "OUT", "--resume"], ["--resume", "no run to continue"]),
        ([*TRAIN, "--out", "OUT", "--widths", "8,8,8,8,8"], ["halved 4 times"]),
        ([*TRAIN, "--out", "OUT", "--lr", "nan"], ["--lr"]),
        (["select", "--model", "RUN", "--data", "digits", "--out", "OUT", "--head", "rigde"], ["Did you mean 'ridge'"]),
        (["report", "nowhere", "--out", "OUT"], ["nowhere"]),
    ],
    ids=lambda value: " ".join(value[-3:]) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: list[str], says: list[str], tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    named = {"OUT": str(tmp_path / "out")}
    refused(command(*(named.get(a, a).replace("RUN", str(tiny_run)) for a in arguments)), *says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_whole_numbers_have_an_end(verb: str) -> None:
    config = registry.find(cli.verbs()[verb], verb).Config
    missing = [f for f in dataclasses.fields(config) if f.default is dataclasses.MISSING]
    needed = {f.name: (f.metadata["choices"] or ("x",))[0] for f in missing}
    kinds = typing.get_type_hints(config)
    for name in (n for n, kind in kinds.items() if re.search(r"\bint\b", str(kind))):
        with pytest.raises(BadSetting, match=r"must be at most \d+, not 9+\.\.\.") as refusal:
            settings.build(config, {**needed, name: HUGE}, verb)
        assert len(str(refusal.value)) < 120


@pytest.mark.parametrize(
    "arguments",
    [
        [*TRAIN, "--out", "OUT", "--widths", "0"],
        [*TRAIN, "--out", "OUT", "--seed", str(2**64)],
        [*EXTRACT, "--model", "RUN", "--blocks", "²"],
    ],
    ids=lambda value: " ".join(value[-2:]),
)
def test_a_value_that_no_library_takes_is_one_line(
    arguments: list[str], tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    named = {"OUT": str(tmp_path / "out")}
    refused(command(*(named.get(a, a).replace("RUN", str(tiny_run)) for a in arguments), "--quiet"))


def test_two_trainings_of_one_process_may_differ_in_precision(tmp_path: Path, command: Command) -> None:
    for precision in ("fp32", "bf16"):
        arguments = (*TRAIN, "--images", 64, "--precision", precision, "--device", "cpu", "--quiet")
        code, _, err = command(*arguments, "--out", tmp_path / precision)
        assert code == 0, err


def test_a_device_that_is_not_here_is_one_line(command: Command) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    refused(command(*EXTRACT, "--device", "cuda"), "no CUDA GPU", "give cpu")
    refused(command(*EXTRACT, "--device", "cuda:3"), "no CUDA GPU")


def test_a_gpu_that_is_not_here_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refused(command(*EXTRACT, "--device", "cuda:2"), "no such GPU", "cuda:0 to cuda:1")


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("model_index.json", "{", "names no _class_name"),
        ("model_index.json", "[]", "names no _class_name"),
        ("model_index.json", '{"_class_name": "DDPMPipelin"}', "Did you mean 'DDPMPipeline'"),
        ("model_index.json", None, "not a finished run"),
    ],
)
def test_a_damaged_pipeline_is_one_line(
    broken: Path, file: str, text: str | None, says: str, tmp_path: Path, command: Command
) -> None:
    (broken / file).unlink()
    if text is not None:
        (broken / file).write_text(text)
    refused(command("blocks", broken), says)
    refused(command("sample", "--model", broken, "--out", tmp_path / "out"), says)


def edited(path: Path, **changed: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def rewritten(unet: Path, change: Callable[[dict[str, Any]], object]) -> None:
    (file,) = unet.glob("*.safetensors")
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated weights": lambda unet: os.truncate(unet / "diffusion_pytorch_model.safetensors", 5000),
    "empty weights": lambda unet: os.truncate(unet / "diffusion_pytorch_model.safetensors", 0),
    "no weights": lambda unet: (unet / "diffusion_pytorch_model.safetensors").unlink(),
    "damaged settings": lambda unet: (unet / "config.json").write_text("{"),
    "no settings": lambda unet: (unet / "config.json").unlink(),
    "damaged schedule": lambda unet: (unet.parent / "scheduler" / "scheduler_config.json").write_text("{"),
    "a weight is missing": lambda unet: rewritten(
        unet, lambda weights: weights.pop("mid_block.resnets.0.conv1.weight")
    ),
    "no size": lambda unet: edited(unet / "config.json", sample_size=None),
    "strange channels": lambda unet: edited(unet / "config.json", in_channels=2),
    "strange prediction": lambda unet: edited(
        unet.parent / "scheduler" / "scheduler_config.json", prediction_type="foo"
    ),
    "no schedule": lambda unet: shutil.rmtree(unet.parent / "scheduler"),
    "pickled weights": lambda unet: (unet / "diffusion_pytorch_model.safetensors").rename(
        unet / "diffusion_pytorch_model.bin"
    ),
}
SCRIPT = (
    "import sys; from twofold import cli\n"
    "for m in sys.argv[1:]:\n"
    "    print('#', cli.run(['sample', '--model', m, '--out', m + '-out', '--num', '1']), file=sys.stderr)"
)


@pytest.fixture(scope="module")
def told(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """Exit code and lines of stderr for each damage, from a new process: what libraries log is seen as well."""
    folder = tmp_path_factory.mktemp("damaged")
    for name, damage in DAMAGES.items():
        damage(shutil.copytree(tiny_run, folder / name) / "unet")
    models = [str(folder / name) for name in DAMAGES]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *models], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    answers = done.stderr.split("# ")
    lines = [answers[0], *(answer.partition("\n")[2] for answer in answers[1:])]
    codes = [answer.partition("\n")[0] for answer in answers[1:]]
    return {name: (code, *text.splitlines()) for name, code, text in zip(DAMAGES, codes, lines, strict=False)}


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_weights_end_with_2_and_say_where(told: dict[str, tuple[str, ...]], name: str) -> None:
    code, *lines = told[name]
    assert code == "2" and lines[-1].startswith("twofold: ") and name in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(DAMAGES))
def test_damaged_weights_are_one_line_whatever_libraries_log(told: dict[str, tuple[str, ...]], name: str) -> None:
    assert len(told[name]) == 2


def test_settings_come_from_a_file_and_flags_go_before_them(tmp_path: Path, command: Command) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        f'model = "pixels:8"\ndata = "digits"\nout = "{tmp_path}/out"\nsplit = ["val", "test"]\npool = [1]\n'
    )
    code, out, _ = command("extract", "--config", file, "--split", "val", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == {"val": 269} and json.loads(out)["cells"] == ["b1_p1"]
    file.write_text('blokcs = "1"\n')
    refused(command(*EXTRACT, "--config", file), "setting of extract", "Did you mean 'blocks'")
    file.write_text("batch 8")
    refused(command(*EXTRACT, "--config", file), "is not TOML")
    file.write_text(f"batch = {HUGE * 20}")
    refused(command(*EXTRACT, "--config", file), "is not TOML")


def test_a_file_may_say_how_the_result_is_told_and_flags_go_before_it(tmp_path: Path, command: Command) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('model = "pixels:8"\njson = true\nquiet = true\n')
    code, out, err = command("blocks", "--config", file)
    assert (code, err) == (0, "") and json.loads(out)["model"] == "pixels:8"
    assert command("blocks", "--config", file, "--no-json")[1].startswith("b ")
    assert command("blocks", "pixels:8", "--no-quiet", "--no-json")[0] == 0
    file.write_text('model = "pixels:8"\njson = "yes"\n')
    refused(command("blocks", "--config", file), "settings.toml: json must be true or false, not 'yes'")


def test_an_empty_name_of_a_settings_file_is_one_line(command: Command) -> None:
    refused(command("blocks", "pixels:8", "--config", ""), "--config '' names no file")


def test_a_positional_setting_may_come_from_a_file(tmp_path: Path, command: Command) -> None:
    (tmp_path / "settings.toml").write_text('model = "pixels:8"\n')
    assert command("blocks", "--config", tmp_path / "settings.toml")[0] == 0


def test_a_run_of_other_settings_is_refused(tiny_run: Path, command: Command) -> None:
    before = contents(tiny_run)
    again = ("pretrain", "--data", "digits", "--out", tiny_run, "--images", 512, "--widths", "16,16")
    often = ("--probe-every", 256, "--log-every", 128)
    refused(command(*again, *often, "--lr", 0.1), "lr is 0.002 there, 0.1 here", "another --out")
    refused(command("sample", "--model", tiny_run, "--out", tiny_run), "holds a run of `pretrain`, not of `sample`")
    # What does not change the result does not make it another run.
    assert command(*again, *often, "--save-every", 100, "--device", "cpu", "--quiet")[0] == 0
    assert contents(tiny_run) == before


def test_files_of_others_are_left_alone(tmp_path: Path, command: Command) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    refused(command(*TRAIN, "--out", tmp_path / "mine"), "files that no run wrote", "new folder")
    refused(command(*TRAIN, "--out", tmp_path / "file"), "is a file")
    refused(command(*TRAIN, "--out", tmp_path / "file" / "below"), "Not a directory")
    assert contents(tmp_path) == {"mine/thesis.tex": b"x", "file": b"x"}


def test_a_damaged_run_is_one_line(tmp_path: Path, command: Command) -> None:
    (tmp_path / "config.toml").write_text("verb = ")
    refused(command(*TRAIN, "--out", tmp_path), "config.toml is damaged")


def test_a_run_killed_while_it_wrote_its_settings_can_be_started_again(tmp_path: Path, command: Command) -> None:
    for name in (".lock", "log.txt", ".unfinished-x8k2_0.toml"):
        (tmp_path / name).touch()
    assert command(*TRAIN, "--out", tmp_path, "--images", 32, "--quiet")[0] == 0


def test_a_folder_that_another_process_writes_is_refused(tmp_path: Path, command: Command) -> None:
    out = tmp_path / "busy"
    out.mkdir()
    with (out / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused(command(*TRAIN, "--out", out, "--images", 32), "Another process is writing")
    assert command(*TRAIN, "--out", out, "--images", 32, "--quiet")[0] == 0


@pytest.mark.parametrize("verb", ["blocks", "extract", "pretrain"])
def test_json_is_one_line_on_stdout(verb: str, tmp_path: Path, command: Command) -> None:
    arguments = {
        "blocks": ("blocks", "pixels:8"),
        "extract": (*EXTRACT[:-1], tmp_path / "out"),
        "pretrain": (*TRAIN, "--images", 64, "--out", tmp_path / "out"),
    }[verb]
    code, out, err = command(*arguments, "--json", "--quiet")
    assert (code, err) == (0, "") and out.count("\n") == 1 and isinstance(json.loads(out), dict)


def test_quiet_silences_the_log_alone(tmp_path: Path, command: Command) -> None:
    arguments = (*TRAIN, "--images", 128, "--log-every", 32, "--save-every", 64, "--out")
    loud, quiet = command(*arguments, tmp_path / "loud"), command(*arguments, tmp_path / "quiet", "--quiet")
    assert loud[0] == quiet[0] == 0 and quiet[2] == ""
    assert loud[1].count("\n") == quiet[1].count("\n") == 1
    # Mistakes are told all the same.
    refused(command(*EXTRACT, "--model", "piksels", "--quiet"))


def test_a_quiet_run_still_writes_its_log(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    arguments = ("probe", "--model", "pixels:8", "--data", "digits", "--block", 1, "--head", "ridge", "--out")
    assert command(*arguments, tmp_path / "quiet", "--quiet")[0::2] == (0, "")
    assert "pixels:8, ridge: " in (tmp_path / "quiet" / "log.txt").read_text()


@pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG, logging.ERROR])
def test_a_python_caller_hears_what_it_asked_for_and_the_run_logs_all(
    level: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, root, heard = logging.getLogger("twofold"), logging.getLogger(), io.StringIO()
    for name, value in (("handlers", []), ("filters", []), ("level", level), ("propagate", True)):
        monkeypatch.setattr(log, name, value)
    monkeypatch.setattr(root, "handlers", [logging.StreamHandler(heard)])
    monkeypatch.setattr(root, "level", logging.WARNING)
    log._cache.clear()
    with runs.opened(tmp_path / "run", "blocks", blocks.Config("pixels:8")):
        log.info("told")
        log.warning("warned")
        log.debug("asides")
    log.info("afterwards")
    expected = {
        logging.NOTSET: "warned\n",
        logging.DEBUG: "told\nwarned\nasides\nafterwards\n",
        logging.ERROR: "",
    }[level]
    assert heard.getvalue() == expected
    logged = (tmp_path / "run" / "log.txt").read_text()
    assert " told\n" in logged and " warned\n" in logged and logged.count("told") == 1
    assert ("asides" in logged) == (level == logging.DEBUG) and "afterwards" not in logged
    log._cache.clear()


@contextmanager
def files_no_larger_than(limit: int) -> Iterator[None]:
    """A real limit of the system: writing further fails as on a full disk (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def stopped(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was interrupted after its first checkpoint."""
    from twofold.steps._trainer import Trainer

    save = Trainer.save

    def interrupt(self: Trainer, path: Path) -> None:
        save(self, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", interrupt)
        code, _, err = command(*TRAIN, "--out", tmp_path / "run", *SHORT)
    assert code == 130 and err.count("\n") == 1 and "same command again" in err
    return tmp_path / "run"


SHORT = ("--images", 192, "--log-every", 64, "--save-every", 64, "--quiet")


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint(stopped: Path, command: Command) -> None:
    kept = (stopped / "checkpoint.pt").read_bytes()
    with files_no_larger_than(len(kept) // 2):
        answer = command(*TRAIN, "--out", stopped, *SHORT)
    assert (stopped / "checkpoint.pt").read_bytes() == kept
    assert not list(stopped.glob(".checkpoint*"))
    refused(answer, "File too large", "Free some space", "goes on where it stopped")


def test_a_full_disk_loses_no_checkpoint(stopped: Path, command: Command) -> None:
    kept = (stopped / "checkpoint.pt").read_bytes()
    with files_no_larger_than(len(kept) // 2):
        assert command(*TRAIN, "--out", stopped, *SHORT)[0] != 0
    assert (stopped / "checkpoint.pt").read_bytes() == kept
    assert not list(stopped.glob(".checkpoint*"))
    assert command(*TRAIN, "--out", stopped, *SHORT)[0] == 0


def test_a_disk_that_is_full_when_the_pipeline_is_written(tmp_path: Path, command: Command) -> None:
    run = tmp_path / "run"
    assert command(*TRAIN, "--out", run, *SHORT)[0] == 0
    whole = contents(run / "unet")
    # As it is when training was stopped between its last checkpoint and its pipeline.
    for name in ("finished.json", "model_index.json"):
        (run / name).unlink()
    weights = len(whole["diffusion_pytorch_model.safetensors"])
    with files_no_larger_than(weights // 2):
        refused(command(*TRAIN, "--out", run, *SHORT), "File too large", "Free some space", "goes on where it stopped")
    assert not (run / "model_index.json").exists() and not (run / ".pipeline").exists()
    assert command(*TRAIN, "--out", run, *SHORT)[0] == 0
    assert contents(run / "unet") == whole


def test_a_disk_that_is_full_when_a_model_is_converted(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    with files_no_larger_than(50_000):
        refused(command("convert", tiny_run, tmp_path / "out"), "File too large", "Free some space")
    assert not list(tmp_path.iterdir())
    assert command("convert", tiny_run, tmp_path / "out")[0] == 0


def test_a_disk_that_is_full_at_the_last_moment(
    stopped: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from twofold import files

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept = (stopped / "checkpoint.pt").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        refused(command(*TRAIN, "--out", stopped, *SHORT), "No space left on device", "Free some space")
    assert (stopped / "checkpoint.pt").read_bytes() == kept


def test_a_store_on_a_full_disk_goes_on_where_it_stopped(tmp_path: Path, command: Command) -> None:
    arguments = ("extract", "--data", "digits", "--model", "pixels:8", "--pool", "8", "--quiet", "--json", "--out")
    with files_no_larger_than(120_000):  # a chunk of train takes 196,608 bytes, val takes 103,296
        refused(command(*arguments, tmp_path / "out"), "File too large", "Free some space")
    code, out, _ = command(*arguments, tmp_path / "out")
    assert code == 0 and json.loads(out)["passes"] == 1797
    assert command(*arguments, tmp_path / "whole")[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path, command: Command) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o555)
    try:
        refused(command(*TRAIN, "--out", tmp_path / "out"), "Permission denied", "permissions")
    finally:
        tmp_path.chmod(0o755)


def test_a_fault_of_ours_shows_where_and_ends_with_1(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_config: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(blocks, "run", fail)
    code, out, err = command("blocks", "pixels:8")
    assert (code, out) == (1, "") and "Traceback" in err and "fault of twofold" in err


@pytest.mark.parametrize("model", ["adm:no/file.pt", "timm:resnet18@no/file.pt", "torchvision:resnet18@no/file.pt"])
def test_a_file_of_weights_that_is_not_there_is_missed_before_slow_imports(model: str) -> None:
    asks = f"import sys; from twofold import cli; print(cli.run(['blocks', {model!r}]), 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["2", "False"]
    assert "no/file.pt does not exist. Give a" in told.stderr and told.stderr.count("\n") == 1
