"""Adapters in place of layers: of our own, and LoRA by PEFT."""

import pytest
import torch
from nn_examples import LOOSE, MODULES, text


class Adapter(torch.nn.Module):
    """Keeps `weight`, as LoRA layers do, and adds a branch."""

    def __init__(self, base):
        super().__init__()
        self.weight = base.weight
        self.bias = base.bias
        self.down = torch.nn.Linear(base.in_features, 3, bias=False)
        self.up = torch.nn.Linear(3, base.out_features, bias=False)

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight, self.bias) + self.up(self.down(x))


LAYERS = {
    "language, damped": [
        "block1.attention.query",
        "block1.attention.output",
        "block0.up",
        "head",
    ],
    "image, flt": ["patches", "block0.attention.value", "block1.down", "head"],
    "points, absolute mean": ["position_embedding", "block0.attention.key"],
    "language, softmax t5": ["block0.attention.query", "block0.attention.value"],
    "attention": ["query", "key", "value", "output"],
}
EACH_LAYER = [(name, layer) for name, layers in LAYERS.items() for layer in layers]


def parent_and_leaf(module, path):
    path, _, leaf = path.rpartition(".")
    return module.get_submodule(path), leaf


@pytest.mark.parametrize(("name", "layer"), EACH_LAYER)
def test_an_adapter_is_its_sum_of_weights(name, layer):
    make, inputs = MODULES[name]
    module, merged = make(), make()
    parent, leaf = parent_and_leaf(module, layer)
    adapter = Adapter(getattr(parent, leaf))
    setattr(parent, leaf, adapter)
    with torch.no_grad():
        merged.get_submodule(layer).weight += adapter.up.weight @ adapter.down.weight
    torch.testing.assert_close(module(*inputs()), merged(*inputs()), rtol=1e-4, atol=1e-5)
    module(*inputs()).square().sum().backward()
    merged(*inputs()).square().sum().backward()
    grad = merged.get_submodule(layer).weight.grad
    torch.testing.assert_close(adapter.up.weight.grad, grad @ adapter.down.weight.T, **LOOSE)
    torch.testing.assert_close(adapter.down.weight.grad, adapter.up.weight.T @ grad, **LOOSE)


def test_an_adapter_is_stepped_through_token_by_token():
    module, tokens = MODULES["language, damped"][0](), text()
    layer = module.block0.attention
    layer.value = Adapter(layer.value)
    whole, state, rows = module(tokens), None, []
    for t in range(tokens.size(1)):
        row, state = module.forward_segment(tokens[:, t : t + 1], state)
        rows.append(row)
    torch.testing.assert_close(torch.cat(rows, 1), whole, **LOOSE)


def peft():
    return pytest.importorskip(
        "peft", reason="PEFT is not installed: it brings transformers, 170 MB (pip install peft)"
    )


@pytest.mark.parametrize(
    ("name", "targets", "whole"),
    [
        ("language, damped", ["query", "value"], ["position"]),
        ("language, damped", "all-linear", ["head"]),
        ("language, softmax t5", ["query", "key", "value", "output", "up", "down"], None),
        ("image, flt", ["query", "value", "patches"], ["head"]),
        ("points, flt", ["query", "up"], ["position"]),
        ("attention", ["query", "output"], None),
    ],
)
def test_lora_by_peft(name, targets, whole, tmp_path):
    lora = peft()
    make, inputs = MODULES[name]
    base = make()
    before = base(*inputs()).detach()
    frozen = {k: p.clone() for k, p in base.named_parameters()}
    config = lora.LoraConfig(r=4, target_modules=targets, modules_to_save=whole)
    model = lora.get_peft_model(base, config)
    torch.testing.assert_close(model(*inputs()), before)  # LoRA starts at zero
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.05)
    target, losses = torch.zeros_like(before), []
    for _ in range(5):
        loss = torch.nn.functional.mse_loss(model(*inputs()), target)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in trained)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    after = model(*inputs()).detach()
    with model.disable_adapter():
        torch.testing.assert_close(model(*inputs()), before)
    model.save_pretrained(tmp_path)
    again = lora.PeftModel.from_pretrained(make(), tmp_path)
    assert torch.equal(again(*inputs()), after)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(*inputs()), after, **LOOSE)
    assert merged.state_dict().keys() == make().state_dict().keys()
    changed = {k for k, p in merged.named_parameters() if not torch.equal(p, frozen[k])}
    wanted = [*(targets if isinstance(targets, list) else ["query", "up"]), *(whole or [])]
    assert changed and all(any(part in key for key in changed) for part in wanted)
