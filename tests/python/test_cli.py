"""The command line as a user meets it: results, exit statuses, and one line for every bad input."""

import json
import signal
import time

import pytest
import torch
from command_line import refused, run, run_json, start
from safetensors.torch import load_file, save_file

MLP = "mlp_digits_interpolate"  # the smallest task, and needs no data folder


def train(out, *more):
    return run_json("train", "--task", MLP, "--optimizer", "adamw", "--out", out, *more)


def test_help_shows_defaults():
    for command in ["tasks", "train", "compare", "evaluate", "meta-train", "info"]:
        result = run(command, "--help")
        assert result.returncode == 0
        assert "--config" in result.stdout
    assert "--checkpoint-seconds T=30" in run("train", "--help").stdout
    assert run("bench", "optimizer", "--help").returncode == 0
    assert run("--version").stdout.strip()


def test_bench_attention_measures_every_row():
    rows = run_json(
        *("bench", "attention", "--lengths", "64,128", "--features", 16),
        *("--repetitions", 1, "--heads", 2, "--depth", 8),
    )
    names = ["softmax", "softmax, learned bias", "linear, 16 features"]
    assert [(row["attention"], row["length"]) for row in rows] == [
        (name, length) for length in [64, 128] for name in names
    ]
    for row in rows:
        # Not which is longer: one repetition counts what the machine does at that moment.
        assert row["forward_seconds"] > 0 and row["training_seconds"] > 0
    assert rows[0]["forward_over_softmax"] == 1 and rows[0]["forward_share"] is None
    # Softmax attention needs the bias [H,L,L] and its gradient, linear attention nothing that long.
    assert rows[5]["training_bytes"] < rows[4]["training_bytes"]


def test_bench_attention_shows_every_number_of_threads():
    rows = run_json(
        *("bench", "attention", "--lengths", "64,128", "--features", 16, "--threads", "2,1"),
        *("--repetitions", 1, "--heads", 2, "--depth", 8),
    )
    assert [(row["length"], row["threads"]) for row in rows] == [
        (length, threads) for length in [64, 128] for _ in range(3) for threads in [2, 1]
    ]
    for first, other in zip(rows[::2], rows[1::2], strict=True):
        assert first["attention"] == other["attention"]
        for part in ["forward", "training"]:
            assert first[f"{part}_of_first_threads"] == 1
            quotient = other[f"{part}_seconds"] / first[f"{part}_seconds"]
            assert other[f"{part}_of_first_threads"] == pytest.approx(quotient)


@pytest.mark.slow
def test_bench_optimizer_shows_every_number_of_threads():
    rows = run_json(
        *("bench", "optimizer", "--optimizers", "sgd,orthogonal", "--repetitions", 1),
        *("--threads", "1,2"),
    )
    steps = [row for row in rows if "optimizer" in row]
    assert [(row["optimizer"], row["threads"]) for row in steps] == [
        (name, threads) for name in ["sgd", "orthogonal"] for threads in [1, 2]
    ]
    for first, other in zip(steps[::2], steps[1::2], strict=True):
        assert first["of_first_threads"] == 1
        quotient = other["milliseconds"] / first["milliseconds"]
        assert other["of_first_threads"] == pytest.approx(quotient)
    kernels = [row for row in rows if "optimizer" not in row]
    assert [row["threads"] for row in kernels] == 3 * [1] + 3 * [2]


@pytest.mark.slow
def test_bench_optimizer_counts_what_a_gpu_would_run():
    rows = run_json(
        *("bench", "optimizer", "--optimizers", "orthogonal,mnemosyne", "--repetitions", 1),
        *("--path", "tensor"),
    )
    for row in rows[:2]:
        assert row["host_reads"] == 0
        assert 50 < row["operations"] <= 300


def test_tasks_are_listed():
    names = [task["name"] for task in run_json("tasks")]
    assert MLP in names and "vit_digits" in names


def test_a_suffix_chooses_the_attention(tmp_path):
    listed = {task["name"]: task for task in run_json("tasks")}
    assert listed["flt_vit_digits"]["attention"] == "linear-flt" and listed[MLP]["attention"] == ""
    assert "flt_char_lm:softmax-rope" in run("tasks").stdout
    rope = "flt_vit_digits:softmax-rope"
    trained = run_json("train", "--task", rope, "--optimizer", "adamw", "--steps", 3)
    assert trained["task"] == rope
    arguments = ["compare", "--task", f"{rope}@5,flt_vit_digits@5", "--optimizers", "adamw@1e-3"]
    result = run_json(*arguments, "--seeds", 1, "--out", tmp_path)
    assert len(result["rows"]) == 2
    for cell in [f"{rope}@5", "flt_vit_digits@5"]:
        curve = tmp_path / "curves" / cell / "adamw@1e-3" / "seed0.safetensors"
        assert load_file(curve)["loss"].shape == (5,)


def test_train_evaluate_info(tmp_path):
    trained = train(tmp_path, "--steps", 60)
    assert trained["steps"] == 60 and trained["loss"] < 2.0
    weights = tmp_path / "weights.safetensors"
    evaluated = run_json("evaluate", "--task", MLP, "--weights", weights)
    assert evaluated["validation_loss"] == pytest.approx(trained["validation_loss"], rel=1e-5)
    assert evaluated["validation_accuracy"] == pytest.approx(trained["validation_accuracy"])
    info = run_json("info", weights)
    assert info["numbers"] == sum(tensor.numel() for tensor in load_file(weights).values())
    assert info["metadata.task"] == MLP


def test_interrupted_training_resumes_to_the_same_weights(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    steps = ("--steps", 1500, "--validate-every", 0)
    train(whole, *steps)
    arguments = ["train", "--task", MLP, "--optimizer", "adamw", "--out", parts]
    process = start(*arguments, *steps)
    while not (parts / "metrics.jsonl").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=60)[1]
    if process.returncode == 0:
        pytest.skip("the run ended before the signal came")
    assert process.returncode == 1 and "--resume continues" in message
    resumed = train(parts, *steps, "--resume")
    assert 0 < resumed["first_step"] < 1500
    for name in ["metrics.jsonl", "weights.safetensors"]:
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_resume_with_more_steps_lengthens_a_run(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, "--steps", 50, "--validate-every", 10)
    train(parts, "--steps", 20, "--validate-every", 10)
    again = train(parts, "--resume", "--validate-every", 10)
    assert (again["first_step"], again["steps"]) == (20, 20), "the length is the run's own"
    longer = train(parts, "--resume", "--steps", 50, "--validate-every", 10)
    assert (longer["first_step"], longer["steps"]) == (20, 50)
    for name in ["metrics.jsonl", "weights.safetensors"]:
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    command = ("train", "--task", MLP, "--optimizer", "adamw", "--out", parts, "--resume")
    assert "[steps] expected 50 or more" in refused(*command, "--steps", 49)


def test_compare_tunes_and_writes_everything(tmp_path):
    arguments = ["compare", "--task", f"{MLP}@40", "--optimizers", "adamw,orthogonal,sgd@1e-2"]
    arguments += ["--tune", "--seeds", 2, "--tune-seeds", 1, "--out", tmp_path, "--threads", 2]
    result = run_json(*arguments)
    rows = {row["optimizer"]: row for row in result["rows"]}
    assert rows["adamw"]["tuned"] and not rows["orthogonal"]["tuned"]
    assert rows["sgd@1e-2"]["lr"] == pytest.approx(1e-2)
    assert len(rows["orthogonal"]["ratios_over_adamw"]) == 2
    assert rows["adamw"]["mean_curve_ratio_over_adamw"] == 1.0
    tuning = json.loads((tmp_path / "tuning.json").read_text())
    assert len(tuning) >= 14 and sum(entry["chosen"] for entry in tuning) == 1
    best = min(tuning, key=lambda entry: entry["training_loss"])
    assert best["chosen"]
    rates = sorted({entry["lr"] for entry in tuning})
    assert rates[0] < best["lr"] < rates[-1], "the best must not lie at the edge"
    assert "| adamw" in (tmp_path / "table.md").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == result["rows"]
    curve = load_file(tmp_path / "curves" / f"{MLP}@40" / "orthogonal" / "seed1.safetensors")
    assert curve["loss"].shape == (40,)

    again = run_json(*arguments)
    for row, before in zip(again["rows"], result["rows"], strict=True):
        assert row["training_loss"] == before["training_loss"], "finished pieces are read back"
        assert row["step_over_fused_adamw"] > 0


def test_config_file_sets_options_and_flags_override_it(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(f'task = "{MLP}"\noptimizer = "sgd"\nsteps = 7\n')
    assert run_json("train", "--config", config)["steps"] == 7
    assert run_json("train", "--config", config, "--steps", 5)["steps"] == 5
    config.write_text(
        f'[train]\ntask = "{MLP}"\noptimizer = "sgd"\nsteps = 6\n[compare]\nseeds = 3\n'
    )
    assert run_json("train", "--config", config)["steps"] == 6


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["commands", "none"]),
        (["nope"], ["nope", "compare"]),
        (["train"], ["--task"]),
        (["train", "--task", "nope"], ["nope", "vit_digits"]),
        (["train", "--task", "flt_vit_digits:soft-rope"], ["soft-rope", "softmax-rope"]),
        (["train", "--task", "flt_qm7:linear-fft"], ["linear-fft", "linear-flt"]),
        (["compare", "--task", f"{MLP}:softmax-rope@5"], [f"{MLP}:softmax-rope", "suffix"]),
        (["train", "--task", MLP, "--optimizer", "nope"], ["nope", "adamw"]),
        (["train", "--task", MLP, "--steps", "0"], ["--steps", "1 or more", "0"]),
        (["train", "--task", MLP, "--steps", "many"], ["--steps", "whole number", "many"]),
        (["train", "--task", MLP, "--steps", "99999999999999999999"], ["--steps", "whole number"]),
        (["train", "--task", MLP, "--lr", "-1"], ["--lr", "positive", "-1"]),
        (["train", "--task", MLP, "--lr", "nan"], ["--lr", "positive", "nan"]),
        (
            ["train", "--task", MLP, "--schedule", "warm", "--optimizer", "sgd"],
            ["schedule", "warm"],
        ),
        (["train", "--task", MLP, "--optimizer", "sgd", "--out", "/dev/null/x"], ["/dev/null/x"]),
        (["train", "--task", "conv_cifar", "--optimizer", "sgd"], ["conv_cifar"]),
        (["train", "--task", "conv_cifar", "--data", "/nowhere"], ["/nowhere"]),
        (["train", "--task", MLP, "--colour", "red"], ["--colour"]),
        (["train", "--config", "/nowhere.toml"], ["/nowhere.toml"]),
        (["train", "--config", "/tmp"], ["/tmp"]),
        (["compare", "--task", f"{MLP}@x"], [f"{MLP}@x"]),
        (["compare", "--task", MLP, "--optimizers", "adamw@fast"], ["adamw@fast"]),
        (["compare", "--task", MLP, "--optimizers", "adamw,adamw"], ["adamw"]),
        (["compare", "--task", MLP, "--optimizers", "adamw", "--reference", "muon"], ["muon"]),
        (["compare", "--task", MLP, "--seeds", "0"], ["--seeds"]),
        (["info", "/nowhere.safetensors"], ["/nowhere.safetensors"]),
        (["info", "/dev/zero"], ["/dev/zero"]),
        (["evaluate", "--task", MLP, "--weights", "/etc/hostname"], ["/etc/hostname"]),
        (["bench"], ["subcommand"]),
        (["bench", "attention", "--lengths", "0"], ["--lengths"]),
        (["bench", "attention", "--threads", "1,0"], ["--threads", "from 1", "0"]),
        (["bench", "optimizer", "--path", "gpu"], ["--path", "fused", "tensor", "gpu"]),
        (["bench", "optimizer", "--threads", "two"], ["--threads", "from 1", "two"]),
        (["bench", "optimizer", "--threads", "100000"], ["--threads", "to 1024", "100000"]),
        (["bench", "attention", "--rank", "-1"], ["--rank"]),
        (["meta-train", "--out", "/nowhere", "--cosine-rate", "maybe"], ["--cosine-rate", "maybe"]),
        (["meta-train", "--out", "/nowhere", "--families", "nope"], ["families"]),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else None,
)
def test_bad_usage_is_one_line_and_status_2(arguments, words):
    message = refused(*arguments)
    for word in words:
        assert word in message, message


def test_config_files_are_checked(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(f'task = "{MLP}"\nsteeps = 7\n')
    assert "steeps" in refused("train", "--config", config)
    config.write_bytes(b"\xff\xfe\x00[[[")
    refused("train", "--config", config)


def test_foreign_weights_are_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3, 3)}, path)
    message = refused("evaluate", "--task", MLP, "--weights", path)
    assert "foreign" in message or "expected a tensor" in message
    assert str(path) in refused("train", "--task", MLP, "--optimizer", path)
    path.write_bytes(path.read_bytes()[:-5])
    assert str(path) in refused("info", path)


def test_a_run_is_not_overwritten(tmp_path):
    train(tmp_path, "--steps", 3)
    message = refused(
        "train", "--task", MLP, "--optimizer", "adamw", "--steps", 3, "--out", tmp_path
    )
    assert "--resume" in message and str(tmp_path) in message


@pytest.mark.parametrize("command", ["train", "compare", "evaluate", "meta-train"])
def test_a_device_is_there_or_refused_in_one_line(command, tmp_path):
    weights = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(3)}, weights)
    arguments = {
        "train": ("--task", MLP, "--steps", 1),
        "compare": ("--task", f"{MLP}@1", "--optimizers", "adamw"),
        "evaluate": ("--task", MLP, "--weights", weights),
        "meta-train": ("--out", tmp_path / "out", "--validate-every", 0),
    }[command]
    for name in ["gpu", "meta", "cuda:x"]:
        message = refused(command, *arguments, "--device", name)
        assert f'[device] expected cpu, cuda or cuda:N, got "{name}"' in message
    if not torch.cuda.is_available():
        message = refused(command, *arguments, "--device", "cuda")
        assert '[device] expected cpu where there is no CUDA device, got "cuda"' in message
    assert "--device" in run(command, "--help").stdout
