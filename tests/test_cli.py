"""The commands as a user types them."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from cobra import __version__
from cobra.cli import main
from cobra.config.argument_types import path
from cobra.config.check_arguments import check_arguments
from cobra.config.check_bounds import check_bounds
from cobra.config.one_line import in_one_line
from cobra.config.text_file import read_text
from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import rms_norm
from cobra.train.cli import CobraCLI
from cobra.train.cli import main as lightning_main
from tests.convert import published_keys
from tests.convert.fakes import random

ROOT = Path(__file__).parents[1]

ON_CPU = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.devices", "1"]
# the smallest instance of each part, as a user would override it on the command line
_LM = "--model.model.init_args.lm.init_args"
TINY_28B = [
    *(f"{_LM}.d_model", "32", f"{_LM}.n_layers", "2", f"{_LM}.vocab_size", "512"),
    *("--model.weights", "{}"),
    *("--data.tokenizer", "cobra:data/shapes/tokenizer", "--data.num_workers", "0"),
    *ON_CPU,
]


def run(*args: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


_SUBCOMMANDS = CobraCLI.subcommands()


def fit_or_answer(monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    """Run a command line of LightningCLI in this process."""
    monkeypatch.setattr(sys, "argv", ["cobra", *args])
    # the other parsers are made of the same arguments and would take half of the time
    monkeypatch.setattr(CobraCLI, "subcommands", staticmethod(lambda: {args[0]: _SUBCOMMANDS[args[0]]}))
    lightning_main()


def instantiate(monkeypatch: pytest.MonkeyPatch, *args: str) -> CobraCLI:
    """What a command line builds, without running it."""
    made: list[CobraCLI] = []
    monkeypatch.setattr(CobraCLI, "_run_subcommand", lambda self, subcommand: made.append(self))
    fit_or_answer(monkeypatch, *args)
    return made[0]


def test_help_is_there_without_loading_torch() -> None:
    code = "import sys; sys.argv[1:] = ['--help']\nfrom cobra.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    result = run("-c", code + "assert 'torch' not in sys.modules and 'lightning' not in sys.modules")
    assert result.returncode == 0, result.stderr
    for verb in ("fit", "validate", "test", "predict", "generate", "data", "kernels", "demo", "reproduce"):
        assert verb in result.stdout


def test_help_of_every_word_says_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, line in (
        ("data check", "Find records that a run could not use"),
        ("bench decode", "Tokens a second against the context."),
        ("eval score", "Score files of predictions again, without the model."),
        ("eval run", "Answer benchmarks with a model and score the answers."),
    ):
        monkeypatch.setattr(sys, "argv", ["cobra", *words.split(), "--help"])
        with pytest.raises(SystemExit, match=r"^0$"):
            main()
        assert f"\n\n{line}" in capsys.readouterr().out


def test_the_version_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["cobra", "--version"])
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    assert capsys.readouterr().out == f"cobra {__version__}\n"


def test_training_without_a_yaml_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cobra", "fit"])
    with pytest.raises(SystemExit, match=r"^2$"):
        main()
    assert "name the yaml of a run, e.g. -c configs/cobra_tiny.yaml" in capsys.readouterr().err


def test_the_smoke_preset_fits_the_tiny_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configs = ["-c", str(ROOT / "configs/cobra_tiny.yaml"), "-c", str(ROOT / "configs/presets/smoke.yaml")]
    cli = instantiate(monkeypatch, "fit", *configs, "--trainer.default_root_dir", str(tmp_path))
    assert sum(stage.steps or 0 for stage in cli.model.stages) < 200


def test_cobra_2_8b_trains_at_tiny_dimensions_on_a_folder_of_pictures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path))
    shapes = ["data", "shapes", "--out", str(tmp_path / "data"), "--size", "4"]
    monkeypatch.setattr(sys, "argv", ["cobra", *shapes])
    main()
    data = "--data.train.instruct.init_args"
    source = [f"{data}.json", str(tmp_path / "data/train.json"), f"{data}.image_root", str(tmp_path / "data")]
    encoder = (
        "{class_path: cobra.models.vision.timm_encoder.TimmEncoder, init_args: {name: test_vit.r160_in1k, "
    )
    encoder += "image_size: 64, pretrained: false}}"
    encoders = ["--model.model.init_args.vision.init_args.encoders", f"[{encoder}, {encoder}]"]
    stage = (
        "{name: instruct, train: [projector, lm], data: {instruct: 1.0}, steps: 3, batch_size: 2, lr: 1.0e-4}"
    )
    fit_or_answer(
        monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_2.8b.yaml"), *TINY_28B, *encoders, *source,
        "--stages", f"[{stage}]", "--trainer.default_root_dir", str(tmp_path / "run"),
        "--trainer.enable_progress_bar", "false",
    )  # fmt: skip
    assert (tmp_path / "run/model/model.safetensors").is_file()


def test_last_without_a_checkpoint_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"last\.ckpt; leave --ckpt_path out"):
        fit_or_answer(
            monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_tiny.yaml"),
            "--trainer.default_root_dir", str(tmp_path), "--ckpt_path", "last",
        )  # fmt: skip


@pytest.mark.parametrize(
    "override",
    [
        ["--model.model", "os.system"],
        ["--model.model.init_args.projector", "subprocess.Popen"],
        ["--data.train.cells", "{class_path: builtins.exec, init_args: {source: 'raise SystemExit(99)'}}"],
        [
            "--data.train.cells",
            "{class_path: cobra.data.shapes.export.export_llava, init_args: {out: written}}",
        ],
        ["--model.model", "cobra.cli.main"],
    ],
)
def test_a_foreign_class_on_the_command_line_is_refused(
    override: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        instantiate(monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_tiny.yaml"), *override)
    assert stopped.value.code != 0
    message = capsys.readouterr().err + str(stopped.value.code)
    assert "not allowed" in message or "Expected 'cobra.cli.main'" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stagez: []", "does not accept option 'stagez'"),
        ("model: {model: {init_args: {lm: {init_args: {d_modell: 3}}}}}", "'d_modell' is not accepted"),
        (
            "stages: [{name: a, train: [lm], data: {a: 1}, batch_size: 1, lr: 1, stepz: 1}]",
            "'stepz' is not acc",
        ),
        ("trainer: {devices: [", "parsing"),
    ],
)
def test_a_mistake_in_a_yaml_is_one_line_before_anything_is_made(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(CobraCLI, "instantiate_classes", lambda self: pytest.fail("something was made"))
    with pytest.raises(SystemExit) as stopped:
        instantiate(
            monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_tiny.yaml"), "-c", str(tmp_path / "mine.yaml")
        )
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert "mine.yaml" in lines[0]


def damaged(path: Path, kind: str) -> None:
    """A file that is no checkpoint of a run, and why."""
    torch.save({"state_dict": {"model.a": torch.ones(999)}}, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-300])
    elif kind == "weights":
        torch.save({"a": torch.ones(1)}, path)
    elif kind == "damaged":
        path.write_bytes(path.read_bytes().replace(b"\x80\x3f", b"\x80\x3e", 1))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif kind == "code":
        torch.save({"state_dict": {"a": Path(path)}}, path)
    elif kind == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "a.ckpt is incomplete"),
        ("weights", "a.ckpt is no checkpoint of a training run: name its checkpoints/last.ckpt"),
        (
            "no state",
            r"a.ckpt holds weights alone, .*or start anew .*`model.weights` {vision: .*a.ckpt, proj",
        ),
        ("damaged", "a.ckpt is damaged: a/data/0 in it does not have its check sum"),
        ("pickle", "a.ckpt is a bare pickle"),
        (
            "code",
            "a.ckpt does not hold plain tensors, and nothing else in it is run .*GLOBAL",
        ),
        ("folder", "a.ckpt is no checkpoint: name its file"),
    ],
)
def test_a_bad_checkpoint_is_refused_before_anything_is_made(
    kind: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    damaged(tmp_path / "a.ckpt", kind)
    monkeypatch.setattr(CobraCLI, "instantiate_classes", lambda self: self.before_instantiate_classes())
    with pytest.raises(SystemExit, match=f"cobra fit: .*{message}") as stopped:
        instantiate(
            monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_tiny.yaml"),
            "--ckpt_path", str(tmp_path / "a.ckpt"), "--trainer.default_root_dir", str(tmp_path / "run"),
        )  # fmt: skip
    assert "\n" not in str(stopped.value.code)


def test_a_folder_that_another_run_writes_to_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(CobraCLI, "instantiate_classes", lambda self: self.before_instantiate_classes())
    options = ["-c", str(ROOT / "configs/cobra_tiny.yaml"), "--trainer.default_root_dir", str(tmp_path)]
    code = "import sys; from pathlib import Path; from cobra.weights.saving import claim\n"
    code += "lock = claim(Path(sys.argv[1]) / '.lock'); print('held', flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            with pytest.raises(SystemExit, match=rf"cobra fit: .* another run \(process {other.pid} on "):
                instantiate(monkeypatch, "fit", *options)
            # they write nothing, or are started by a run that holds it
            instantiate(monkeypatch, "fit", *options, "--trainer.fast_dev_run", "true")
            monkeypatch.setenv("NODE_RANK", "1")
            instantiate(monkeypatch, "fit", *options)
            monkeypatch.delenv("NODE_RANK")
        finally:
            other.kill()
    cli = instantiate(monkeypatch, "fit", *options)
    assert cli.folder.lock is not None
    cli.folder.lock.close()


def test_a_terminated_run_ends_with_the_status_of_a_terminated_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def terminated(cli: CobraCLI) -> None:
        raise SIGTERMException

    monkeypatch.setattr(CobraCLI, "instantiate_classes", terminated)
    # the yaml's own may hold the demo
    folder = ["--trainer.default_root_dir", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        instantiate(monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_tiny.yaml"), *folder)
    assert stopped.value.code == 143


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        SystemExit, match=r"cobra fit: .*file/run cannot be written to .*: set trainer\.default"
    ):
        instantiate(
            monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_tiny.yaml"),
            "--trainer.default_root_dir", str(tmp_path / "file/run"),
        )  # fmt: skip


def test_a_librarys_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(CobraCLI, "instantiate_classes", lambda self: int("a bug, and no bad input"))
    folder = ["--trainer.default_root_dir", str(tmp_path)]
    with pytest.raises(ValueError, match="a bug"):
        instantiate(monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_tiny.yaml"), *folder)


_OFFLINE = (
    "{class_path: cobra.models.vision.timm_encoder.TimmEncoder, "
    "init_args: {name: test_vit.r160_in1k, image_size: 64}}"
)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--model.weights", "{lm: nowhere}"], r"cobra fit: nowhere is no file, no folder and no hub name"),
        (["--model.weights", "{lm: ssm}"], r"does not fit the lm of this model: missing .* unexpected "),
        (["--model.weights", "{llm: ssm}"], r"unknown parts \['llm'\]"),
        (["--model.muon", "[llm]"], r"muon steps unknown parts \['llm'\]: "),
        (["--model.model.init_args.vision", _OFFLINE], r"cobra fit: the weights of 'test_vit.*`weights` to"),
    ],
)
def test_a_model_that_cannot_start_ends_in_one_line(
    override: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ssm").mkdir()
    tied = {"lm_head.weight": "backbone.embedding.weight"}
    torch.save(random(published_keys.mamba("", 64, 32, 1), tied), tmp_path / "ssm/pytorch_model.bin")
    (tmp_path / "ssm/config.json").write_text('{"d_model": 32, "n_layer": 1, "vocab_size": 64}')
    small = [f"--data.train.{name}.init_args.size=4" for name in ("cells", "captions", "places", "questions")]
    stage = "{name: a, train: [lm], data: {captions: 1.0}, steps: 1, batch_size: 2, lr: 1.0e-3}"
    small += ["--data.val.val.init_args.size=4", "--trainer.default_root_dir", str(tmp_path / "run")]
    config = ["-c", str(ROOT / "configs/cobra_tiny.yaml"), "--stages", f"[{stage}]"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as stopped:
        fit_or_answer(monkeypatch, "fit", *config, *small, *override)
    assert "\n" not in str(stopped.value.code)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_answers_need_weights(verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for checkpoint in ([], ["--ckpt_path", "last"], ["--ckpt_path", str(tmp_path / "no.ckpt")]):
        with pytest.raises(SystemExit, match="--ckpt_path"):
            instantiate(
                monkeypatch, verb, "-c", str(ROOT / "configs/cobra_tiny.yaml"), *checkpoint,
                "--trainer.default_root_dir", str(tmp_path),
            )  # fmt: skip


def test_generate_names_a_missing_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["cobra", "generate", "--ckpt", str(tmp_path), "--prompt", "hello"])
    with pytest.raises(SystemExit, match=f"^cobra generate: {tmp_path}"):
        main()


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line in which a command line ends."""
    monkeypatch.setattr(sys, "argv", ["cobra", *args])
    with pytest.raises(SystemExit) as stopped:
        main()
    code = stopped.value.code
    text = capsys.readouterr().err.strip() if isinstance(code, int) else str(code)
    assert len(text.splitlines()) == 1
    assert text.startswith(f"cobra {args[0]}")
    return text


ASK = ["generate", "--ckpt", "nowhere", "--prompt", "hello"]
EVAL = ["eval", "nowhere", "--benchmarks", "shapes"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*ASK, "--max-new-tokens", "0"], "0 must be 1 to"),
        ([*ASK, "--max-length", "-1"], "-1 must be 1 to"),
        ([*ASK, "--max-length", "1000000000000"], "1000000000000 must be 1 to"),
        ([*ASK, "--top-k", "-1"], "-1 must be 0 to"),
        ([*ASK, "--seed", "-3"], "-3 must be 0 to 4294967295"),
        ([*ASK, "--image", ""], "a path is empty"),
        ([*ASK, "--temperature", "nan"], "temperature nan must be finite"),
        ([*ASK, "--repetition-penalty", "0"], "repetition_penalty 0.0 must be finite and above 0"),
        ([*ASK, "--device", "nope"], "--device nope: not on this machine"),
        ([*ASK, "--group-size", "64"], "--group-size 64 is of --quant int4, not of none: leave it out"),
        ([*EVAL, "--quant", "int8", "--group-size", "32"], "--group-size 32 is of --quant int4, not of int8"),
        ([*EVAL, "--check-invariance", "--out", "x"], "--out: not with --check-invariance"),
        (
            [*EVAL, "--check-invariance", "--batch-size", "1", "--devices", "2"],
            "--batch-size, --devices: not with --check-invariance",
        ),
        (["data", "shapes", "--out", "x", "--size", "0"], "0 must be 1 to"),
        (["data", "shapes", "--out", "x", "--seed", "-3"], "-3 must be 0 to"),
        (
            ["data", "shapes", "--out", "/dev/null/x", "--size", "1"],
            "data: /dev/null/x/train.json: Not a directory",
        ),
        (["data", "shapes", "--out", __file__, "--size", "1"], f"{__file__} is a file: name a folder"),
        (["demo", "-c", "x.yaml", "--out", "x", "--seeds", "-1"], "-1 must be 0 to"),
        (["demo", "-c", "x.yaml", "--out", "/dev/null/x"], "cobra demo: x.yaml: No such file or directory"),
        (["bench", "kernels", "--out", "x", "--repeats", "0"], "0 must be 1 to"),
        (["bench", "kernels", "--out", "x", "--threads", "100000"], "100000 must be 1 to"),
        (["models", "--configs", "/dev/null"], "/dev/null has no yamls"),
        (["models", "--training", "--memory", "-3"], "-3 must be finite and above 0"),
        (["models", "--training", "--memory", "nan"], "nan must be finite and above 0"),
        (["models", "--training", "--markdown"], "leave one of them out"),
        (["models", "--notes", "nowhere.yaml"], "--notes nowhere.yaml: there is no such file"),
        (
            ["kernels", "--dtype", "int32"],
            "'int32' is none that operators compute in: take one of fp32, bf16",
        ),
        (["data", "tokenizer", "x.txt", "--out", "x", "--held-out", "2"], "2 must be a share"),
        (["data", "check", "x.json", "--image-root", "x", "--plot", "x"], "--plot: only where a run is"),
        (["data", "check", "-c", "x.yaml", "--image-root", "x"], "--image-root: only where files are"),
        (["data", "check", "-c", "nix.yaml"], "cobra data: nix.yaml: No such file or directory"),
        (["merge", str(ROOT), "x"], f"{ROOT} is no folder of an adapter"),
        (["convert", str(ROOT), __file__], f"{__file__} is a file: name a folder"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line(
    args: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(monkeypatch, capsys, *args)


_PARTS = "--model.model.init_args"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--data.num_workers", "-1"], "num_workers -1 must be 0 to"),
        (["--data.num_workers", "100000"], "num_workers 100000 must be 0 to"),
        (["--data.eval_batch_size", "0"], "eval_batch_size 0 must be 1 to"),
        (["--data.seed", "-3"], "seed -3 must be 0 to"),
        (["--seed_everything", "-3"], "seed_everything -3 must be 0 to"),
        (["--checkpoint_every", "0"], "checkpoint_every 0 must be 1 to"),
        (["--model.betas", "[2, 3]"], "betas 2.0 must be 0 to"),
        (["--data.train.cells.init_args.size", "0"], "size 0 must be 1 to"),
        ([f"{_PARTS}.lm.init_args.n_layers", "0"], "n_layers 0 must be 1 to 1000"),
        ([f"{_PARTS}.lm.init_args.A_range", "[4, -1]"], "A_range -1.0 must be"),
        ([f"{_PARTS}.vision.init_args.depth", "-1"], "depth -1 must be 1 to"),
        (["--trainer.val_check_interval", "0"], "val_check_interval 0 must be"),
        (["--trainer.devices", "0"], r"devices='0'.* is not a valid input"),
        (["--trainer.devices", "x"], r"devices 'x' must be a number, several of them as in 0,1, or auto"),
        (["--trainer.strategy", "shraded"], r"strategy 'shraded': name one of auto, .*sharded"),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_a_run(
    override: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=f"^cobra fit: .*{message}") as stopped:
        instantiate(
            monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_tiny.yaml"),
            "--trainer.default_root_dir", str(tmp_path), *override,
        )  # fmt: skip
    assert "\n" not in str(stopped.value.code)


def test_names_of_arguments_are_bounded_in_classes_of_this_project_only() -> None:
    arguments = {"factor": 0.5, "warmup": 100, "size": -1}
    check_bounds({"callbacks": [{"class_path": "mine.Callback", "init_args": arguments}]})
    check_arguments(
        type("Part", (), {"__module__": "mine", "__init__": lambda self, factor: None}), {"factor": 0}
    )
    with pytest.raises(ValueError, match=r"warmup 100 must be 0 to 1|factor 0\.5 must be 1 to"):
        check_bounds({"callbacks": [{"class_path": "cobra.Callback", "init_args": arguments}]})


def test_a_yaml_in_another_encoding_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("stages: []".encode("utf-16"))
    with pytest.raises(SystemExit, match=r"^cobra fit: .*a\.yaml is no UTF-8 at byte 0: save it as UTF-8$"):
        instantiate(monkeypatch, "fit", f"--config={tmp_path / 'a.yaml'}")


def test_a_backend_that_cannot_run_a_call_is_told_in_one_line() -> None:
    told = pytest.raises(SystemExit, match=r"^cobra x: no backend runs rms_norm on cpu.*unset COBRA_BACKEND")
    with told, in_one_line("cobra x"), use_backend("mamba_ssm"):
        rms_norm(torch.ones(1, 2), torch.ones(2))


def test_one_rule_says_which_errors_take_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs() -> None:
        int("a bug, and no bad input")

    def ours() -> None:
        read_text(Path(__file__).with_name("no such file"))

    def full() -> None:
        raise MemoryError

    for raised in (ours, full):
        with pytest.raises(SystemExit, match=r"^cobra x: "), in_one_line("cobra x"):
            raised()
    with pytest.raises(ValueError, match="a bug"), in_one_line("cobra x"):
        theirs()
    monkeypatch.setenv("COBRA_DEBUG", "1")
    with pytest.raises(FileNotFoundError), in_one_line("cobra x"):
        ours()


def test_what_is_published_lies_beside_the_configs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[Path] = []
    monkeypatch.setattr(
        "cobra.bench.systems.show.print_systems", lambda *arguments: given.append(arguments[1])
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cobra", "models", "--configs", f"{ROOT}/configs"])
    main()
    assert given == [ROOT / "docs/models.yaml"]


def test_home_is_understood_where_a_shell_has_left_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert path("~/runs") == Path("/somewhere/runs")
    assert path("~nobody-of-that-name/runs") == Path("~nobody-of-that-name/runs")
