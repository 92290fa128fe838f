"""Runs the command line for the tests: $MNEMOSYNE_CLI, else the program beside this Python."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def program() -> str:
    beside = Path(sys.executable).parent / "mnemosyne"
    found = os.environ.get("MNEMOSYNE_CLI") or (beside if beside.exists() else None)
    found = found or shutil.which("mnemosyne")
    if not found:
        raise RuntimeError("the program mnemosyne is not built: run scripts/test")
    return str(found)


def environment() -> dict[str, str]:
    """One thread, because sums over more of them round differently; no data folder."""
    kept = {key: value for key, value in os.environ.items() if key != "MNEMOSYNE_DATA"}
    return kept | {"OMP_NUM_THREADS": "1"}


def start(*arguments) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([program(), *map(str, arguments)], env=environment(), **pipes)


def run(*arguments) -> subprocess.CompletedProcess:
    process = start(*arguments)
    try:
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run_json(*arguments):
    """The last line of standard output of a run that has to succeed."""
    result = run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def refused(*arguments) -> str:
    """The one line with which bad usage or input ends."""
    result = run(*arguments)
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("mnemosyne: "), result.stderr
    return lines[0]
