"""What attention and alignment cost in a step of the optimizer, and what they remember.

    python benchmarks/attention_step.py [optimizers, as JSON options of the rule "mnemosyne" ...]

Over the shapes of ViT-Ti on one thread; optimizers step in turn, the minimum of their times counts,
which are those of the processor, so that other work on the machine counts little.
"""

import sys
import time

import torch
from gpu_step import MODELS

from mnemosyne import _C
from mnemosyne.optim import RuleOptimizer

REPETITIONS = 25
RULES = [
    '{"learned": false}',
    "{}",
    '{"alignment": true}',
    '{"second_moment": "bfloat16"}',
    '{"alignment": true, "second_moment": "bfloat16"}',
    '{"attention": true}',
    '{"attention": true, "alignment": true}',
    '{"attention": true, "attention_memory": false}',
    '{"attention": true, "attention_chunks": false}',
    '{"attention": true, "attention_position": "none"}',
    '{"attention": true, "attention_chunk_size": 1024}',
    '{"attention": true, "attention_chunk_size": 256}',
]


def make(options):
    torch.manual_seed(0)
    params = [torch.nn.Parameter(0.02 * torch.randn(shape)) for shape in MODELS["ViT-Ti"]]
    for p in params:
        p.grad = torch.randn_like(p)
    return RuleOptimizer(params, _C.make_rule("mnemosyne", options))


def bytes_per_parameter(optimizer):
    group = optimizer.param_groups[0]
    tensors = list(group.get("shared_state", []))
    for p in group["params"]:
        tensors += [t for t in optimizer.state[p].values() if torch.is_tensor(t)]
    total = sum(t.numel() * t.element_size() for t in tensors)
    return total / sum(p.numel() for p in group["params"])


def main():
    torch.set_num_threads(1)
    rules = sys.argv[1:] or RULES
    optimizers = [make(options) for options in rules]
    best = [float("inf")] * len(rules)
    for _ in range(REPETITIONS):
        for k, optimizer in enumerate(optimizers):
            begin = time.process_time()
            optimizer.step()
            best[k] = min(best[k], time.process_time() - begin)
    print(
        "| rule `mnemosyne` | ms a step | over the first | bytes a parameter |\n|---|---|---|---|"
    )
    for options, seconds, optimizer in zip(rules, best, optimizers, strict=True):
        size = bytes_per_parameter(optimizer)
        print(f"| {options} | {1e3 * seconds:.1f} | {seconds / best[0]:.2f} | {size:.2f} |")


if __name__ == "__main__":
    main()
