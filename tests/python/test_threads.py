"""Kernels run on torch's own threads: counted by the system, in processes of their own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TASKS = Path("/proc/self/task")
pytestmark = pytest.mark.skipif(not TASKS.exists(), reason="counts threads in /proc/self/task")

# Tensors are below the size from which torch's own operations use threads.
PREPARE = """
import sys
from pathlib import Path
import torch
import mnemosyne.nn.functional, mnemosyne.optim
torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)

def count():
    return len(list(Path("/proc/self/task").iterdir()))
"""
ATTENTION = """
q, k, v = (torch.rand(1, 8, 128, 16) for _ in range(3))
def run():
    return mnemosyne.nn.functional.linear_attention(q, k, v, feature_map="elu+1", causal=True)
"""
OPTIMIZER = """
params = [torch.nn.Parameter(torch.rand(150, 100)) for _ in range(8)]
for p in params:
    p.grad = torch.rand_like(p)
optimizer = mnemosyne.optim.Mnemosyne(params, num_steps=10)
def run():
    optimizer.step()
"""
COUNT = """
before = count()
run()
print(count() - before)
"""
RUNTIMES = """
run()
print("\\n".join({line.split()[-1] for line in open("/proc/self/maps") if "/" in line}))
"""


def output_of(code: str, threads: int) -> str:
    result = subprocess.run(
        [sys.executable, "-c", PREPARE + code, str(threads)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("code", [ATTENTION, OPTIMIZER], ids=["attention", "optimizer"])
@pytest.mark.parametrize("threads", [1, 2])
def test_as_many_threads_take_part_as_are_set(code, threads):
    assert int(output_of(code + COUNT, threads)) == threads - 1


def test_no_second_openmp_runtime_is_loaded():
    files = output_of(ATTENTION + RUNTIMES, 2).splitlines()
    runtimes = [path for path in files if re.search(r"lib(gomp|omp|iomp5)\b", Path(path).name)]
    assert len(runtimes) <= 1, runtimes
