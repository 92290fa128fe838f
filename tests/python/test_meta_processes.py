"""Meta-training shared by several processes gives what one process gives."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed
from command_line import environment, program
from safetensors.torch import load_file

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch was built without torch.distributed"
)

SMALL = {
    "--families": "quadratic",
    "--validation-families": "quadratic",
    "--validation-tasks": 3,
    "--validate-every": 2,
    "--min-steps": 4,
    "--horizons": 6,
    "--num-tasks": 3,
    "--num-pairs": 2,
    "--truncated-tasks": 3,
    "--window": 2,
    "--num-workers": 1,
    "--seed": 5,
    "--process-timeout": 5,
}
MIXTURE = "evolution=1,truncated=0.5,pes=0.5"
WEIGHTS = "mnemosyne.safetensors"
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def command(out, *more, **options):
    given = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    pairs = [text for pair in {**SMALL, **given}.items() for text in pair]
    return [program(), "meta-train", "--out", out, *pairs, *more]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(ranks, *commands):
    """As torchrun starts them; one rank as the shell does. One command for all or one for each."""
    port = free_port()
    processes = []
    for rank in range(ranks):
        own = {"RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables = {name: str(value) for name, value in own.items()} if ranks > 1 else {}
        processes.append(
            subprocess.Popen(
                list(map(str, commands[rank % len(commands)])),
                env=environment() | variables,
                **PIPES,
            )
        )
    return processes


def end(processes, seconds=60):
    """Status, standard output and standard error of each."""
    try:
        outputs = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, outputs, strict=True)]


def train(ranks, out, *more, **options):
    results = end(start(ranks, command(out, *more, **options)))
    for status, stdout, stderr in results:
        assert status == 0, stderr
        assert stderr == ""
        assert (stdout == "") == (stdout is not results[0][1])
    return out


def assert_equal_runs(one, other):
    assert (one / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()
    metrics = [(folder / "metrics.jsonl").read_text() for folder in (one, other)]
    assert metrics[0] == metrics[1]
    a, b = (load_file(folder / "checkpoint.safetensors") for folder in (one, other))
    assert list(a) == list(b)
    for name in a.keys() - {"elapsed_seconds"}:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize(
    ("estimators", "ranks"),
    [("evolution=1", 2), ("truncated=1", 2), (MIXTURE, 2), (MIXTURE, 4)],
)
def test_ranks_change_nothing(tmp_path, estimators, ranks):
    options = {"estimators": estimators, "num_outer_steps": 4}
    alone = train(1, tmp_path / "alone", **options)
    assert_equal_runs(train(ranks, tmp_path / "shared", **options), alone)


def test_a_run_continues_on_another_number_of_ranks(tmp_path):
    options = {"estimators": MIXTURE, "checkpoint_every": 1}
    whole = train(1, tmp_path / "whole", num_outer_steps=4, **options)
    half = train(2, tmp_path / "half", num_outer_steps=2, **options)
    for ranks in (1, 4):
        out = shutil.copytree(half, tmp_path / f"rest_{ranks}")
        assert_equal_runs(train(ranks, out, "--resume", num_outer_steps=4, **options), whole)


def wait_for_steps(out, count):
    file, start_time = out / "metrics.jsonl", time.monotonic()
    while not file.exists() or file.read_text().count("meta_loss") < count:
        assert time.monotonic() < start_time + 60
        time.sleep(0.02)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_rank_ends_the_others(tmp_path, lost):
    endless = {"num_outer_steps": 10**6, "validate_every": 0, "process_timeout": 1}
    out = tmp_path / "run"
    processes = start(3, command(out, checkpoint_every=1, **endless))
    wait_for_steps(out, 2)
    processes[lost].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    results = end(processes, seconds=30)
    assert time.monotonic() - killed < 20
    for rank, (status, stdout, stderr) in enumerate(results):
        if rank == lost:
            continue
        assert (status, stdout) == (1, "")
        speaker = f"rank {rank}: " if rank > 0 else ""
        assert stderr.startswith(f"mnemosyne: {speaker}[processes] expected "), stderr
        # Whoever notices first may be gone before the third looks.
        assert f"rank {lost}" in stderr or "the end of rank" in stderr, stderr
        assert len(stderr.splitlines()) == 1, stderr
    done = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    train(2, out, "--resume", **(endless | {"num_outer_steps": done + 2}))


def test_an_interrupt_of_one_rank_stops_all(tmp_path):
    out = tmp_path / "run"
    processes = start(2, command(out, num_outer_steps=10**6, validate_every=0))
    wait_for_steps(out, 2)
    processes[1].send_signal(signal.SIGINT)
    for status, _, stderr in end(processes):
        assert status == 1
        assert "interrupted after outer step" in stderr and "--resume" in stderr
    assert (out / "checkpoint.safetensors").exists()


GOOD = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (GOOD | {"RANK": "2"}, ["rank 2: ", "a rank from 0 to 1, got 2"]),
        (GOOD | {"RANK": "-1"}, ["a rank from 0 to 1, got -1"]),
        (GOOD | {"RANK": "first"}, ["RANK", '"first"']),
        (GOOD | {"WORLD_SIZE": "0"}, ["a size of at least 1, got 0"]),
        (GOOD | {"MASTER_PORT": "70000"}, ["a port from 1 to 65535, got 70000"]),
        *(
            ({key: GOOD[key] for key in GOOD if key != name}, [f"the variable {name}", "none"])
            for name in GOOD
        ),
        (GOOD | {"RANK": "1"}, ["rank 1: ", "no answer from", "127.0.0.1:1"]),
    ],
)
def test_a_bad_launch_is_one_line(tmp_path, variables, words):
    arguments = list(map(str, command(tmp_path / "run", process_timeout=0.1)))
    result = subprocess.run(
        arguments, env=environment() | variables, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in ["mnemosyne: ", "[processes] expected ", *words]:
        assert word in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.socket() as one:
        one.bind(("", 0))
        one.listen()
        launch = GOOD | {"MASTER_PORT": str(one.getsockname()[1])}
        result = subprocess.run(
            list(map(str, command(tmp_path / "run", process_timeout=0.1))),
            env=environment() | launch,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "a free port" in result.stderr


def test_ranks_of_other_configurations_are_refused(tmp_path):
    commands = [command(tmp_path / "run", num_outer_steps=3, sigma=sigma) for sigma in (0.1, 0.2)]
    for status, _, stderr in end(start(2, *commands)):
        assert status == 2
        assert "[processes] expected the same configuration on all ranks" in stderr


def test_what_only_rank_0_refuses_ends_all(tmp_path):
    out = train(1, tmp_path / "run", num_outer_steps=1)
    first, second = end(start(2, command(out, "--resume", num_outer_steps=2, sigma=0.1)))
    assert first[0] == 2 and "sigma" in first[2]
    assert second[0] == 1 and "the end of rank 0" in second[2]


def test_torchrun_starts_it(tmp_path):
    torchrun = Path(sys.executable).parent / "torchrun"
    if not torchrun.exists():
        pytest.skip("no torchrun beside this Python")
    alone = train(1, tmp_path / "alone", num_outer_steps=2)
    launcher = [torchrun, "--nproc-per-node", 2, "--master-port", free_port(), "--no-python"]
    result = subprocess.run(
        [str(word) for word in [*launcher, *command(tmp_path / "run", num_outer_steps=2)]],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert_equal_runs(tmp_path / "run", alone)
