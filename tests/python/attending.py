"""The default rule with attention over space and time, or with alignment, that says something."""

import torch

from mnemosyne import _C
from mnemosyne.optim import RuleOptimizer

OPTIONS = '{"attention": true, "step_bound": 0.5, "attention_chunk_size": 8}'


ALIGNED = '{"alignment": true, "step_bound": 0.5}'


def aligned(params, options=ALIGNED, **group_options):
    rule = _C.make_rule("mnemosyne", options)
    generator = torch.Generator().manual_seed(5)
    controller = rule.weights()["controller"]
    weights = {"controller": 0.3 * torch.randn(controller.shape, generator=generator)}
    return RuleOptimizer(params, rule.with_weights(weights), **group_options)


def attending(params, options=OPTIONS, **group_options):
    rule = _C.make_rule("mnemosyne", options)
    generator = torch.Generator().manual_seed(3)
    weights = {
        name: 0.3 * torch.randn(weight.shape, generator=generator) if "head" in name else weight
        for name, weight in rule.weights().items()
    }
    return RuleOptimizer(params, rule.with_weights(weights), **group_options)
