"""Steps on a device read nothing back to the host.

No GPU is needed to see it: tensors of the device "meta" have no numbers, take the ways of every
device but the CPU, and refuse to be read. A dispatch mode watches beside it.
"""

import copy

import pytest
import torch
from attending import aligned, attending
from torch.utils._python_dispatch import TorchDispatchMode

import mnemosyne
from mnemosyne import _C

SHAPES = [(8, 6), (6, 8), (5,), (), (4, 3, 2), (8, 6), (1, 7), (0, 3)]


class NothingIsRead(TorchDispatchMode):
    """Fails on what waits for a device, and counts operations."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            assert args[0].device.type == "cpu", "read back to the host"
        self.count += func.namespace != "profiler"  # torch's mark of an optimizer's step
        return func(*args, **(kwargs or {}))


def parameters(dtype=torch.float32):
    params = [torch.empty(shape, device="meta", dtype=dtype) for shape in SHAPES]
    for p in params:
        p.requires_grad_()
        p.grad = torch.empty_like(p)
    return params


def optimizer_of(name, params, **options):
    rule = _C.make_rule(name)
    trained = _C.default_rule(name) if rule.weights() else rule
    return mnemosyne.optim.RuleOptimizer(params, trained, **options)


@pytest.mark.parametrize("name", _C.rule_names())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_no_rule_reads_anything_in_a_step(name, dtype):
    params = parameters(dtype)
    optimizer = optimizer_of(name, params, weight_decay=0.1, num_steps=100)
    with NothingIsRead() as watch:
        optimizer.step()
        optimizer.step()
    assert watch.count > 0
    assert all(int(optimizer.state[p]["step"]) == 2 for p in params)
    resumed = optimizer_of(name, params, weight_decay=0.1, num_steps=100)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with NothingIsRead():
        resumed.step()


@pytest.mark.parametrize("name", _C.rule_names())
def test_no_rule_reads_an_option_that_is_a_tensor_on_the_device(name):
    params = parameters()
    optimizer = optimizer_of(
        name,
        params,
        lr=torch.empty((), device="meta"),
        weight_decay=torch.empty((), device="meta"),
    )
    with NothingIsRead():
        optimizer.step()
        optimizer.step()


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_base_rule_and_that_without_orthogonalisation_read_nothing(orthogonal):
    params = parameters()
    optimizer = mnemosyne.optim.Mnemosyne(params, learned=False, orthogonal=orthogonal)
    with NothingIsRead():
        optimizer.step()
        optimizer.step()


def compact(params, **options):
    return aligned(params, '{"alignment": true, "second_moment": "bfloat16"}', **options)


@pytest.mark.parametrize("make", [attending, aligned, compact])
def test_attention_and_alignment_read_nothing(make):
    params = parameters()
    optimizer = make(params, num_steps=100)
    with NothingIsRead():
        optimizer.step()
        optimizer.step()
    resumed = make(params, num_steps=100)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with NothingIsRead():
        resumed.step()


def vit_tiny():
    """The parameters of ViT-Ti, by their shapes."""
    block = [(192,), (192,), (576, 192), (576,), (192, 192), (192,), (192,), (192,)]
    block += [(768, 192), (768,), (192, 768), (192,)]
    outer = [(1, 1, 192), (1, 197, 192), (192, 3, 16, 16), (192,), (192,), (192,)]
    return outer + 12 * block + [(1000, 192), (1000,)]


def count_of_a_step_over_vit_tiny(make):
    params = [torch.empty(shape, device="meta", requires_grad=True) for shape in vit_tiny()]
    assert len(params) == 152
    for p in params:
        p.grad = torch.empty_like(p)
    optimizer = make(params)
    optimizer.step()
    with NothingIsRead() as watch:
        optimizer.step()
    return watch.count


def test_a_step_over_vit_tiny_takes_at_most_300_operations():
    assert count_of_a_step_over_vit_tiny(mnemosyne.optim.Mnemosyne) <= 300


def test_with_alignment_a_step_over_vit_tiny_takes_at_most_350_operations():
    assert count_of_a_step_over_vit_tiny(aligned) <= 350
    assert count_of_a_step_over_vit_tiny(compact) <= 380


def test_with_attention_a_step_over_vit_tiny_takes_at_most_625_operations():
    # The goal is 400 (docs/results/README.md); the guard takes 14.
    count = count_of_a_step_over_vit_tiny(lambda params: attending(params, '{"attention": true}'))
    assert count <= 625
