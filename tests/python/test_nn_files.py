"""mnemosyne.nn.load and save: the same outputs to the last bit, else one line."""

import json

import pytest
import torch
from command_line import run, run_json
from safetensors.torch import load_file, save_file

from mnemosyne import _C, nn

# Tasks without a data folder, by their attention.
TASKS = ["flt_vit_digits", "flt_vit_digits:softmax-t5", "flt_vit_digits:linear-fft"]


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4))


def reference(model):
    """What C++ computes with the tensors of a model, by its own layers."""
    core = _C.make_module(model._kind, *model._arguments)

    def fill(core, module):
        for name, tensor in [*core.parameters(), *core.buffers()]:
            with torch.no_grad():
                tensor.copy_(getattr(module, name))
        for name, child in core.children():
            fill(child, getattr(module, name))

    fill(core, model)
    return core


@pytest.mark.parametrize("task", TASKS)
def test_what_was_trained_is_loaded(task, tmp_path):
    trained = run_json(
        *("train", "--task", task, "--optimizer", "adamw", "--steps", 20, "--seed", 3),
        *("--out", tmp_path),
    )
    model = nn.load(tmp_path)
    assert isinstance(model, nn.ViT) and model.training
    assert all(p.requires_grad for p in model.parameters())
    state = load_file(tmp_path / "weights.safetensors")
    assert model.state_dict().keys() == state.keys()
    for other in (model, nn.load(str(tmp_path / "weights.safetensors"))):
        for name, tensor in other.state_dict().items():
            assert torch.equal(tensor, state[name])
    # Of another seed, and strictly: a file holds everything.
    by_hand = nn.ViT(attention=model.attention, **{**model.options, "seed": 9})
    by_hand.load_state_dict(state)
    images = normal(5, 1, 8, 8)
    assert torch.equal(by_hand(images), model(images))
    expected = _C.reference_forward(reference(model), [images], [None] * 6)
    assert torch.equal(model(images), expected)
    assert trained["steps"] == 20


def test_a_loaded_network_scores_what_training_said(tmp_path):
    """The held-out digits, split and scaled as the task does."""
    from sklearn.datasets import load_digits

    arguments = ("--task", "flt_vit_digits", "--optimizer", "adamw", "--steps", 60)
    trained = run_json("train", *arguments, "--out", tmp_path)
    model = nn.load(tmp_path).eval()
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(digits.target)
    scaled = (images - images.mean()) / images.std()
    with torch.no_grad():
        accuracy = (model(scaled).argmax(-1) == labels).float().mean().item()
    assert abs(accuracy - trained["validation_accuracy"]) < 0.1


def trained(module):
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator).to(p.dtype))
    return module


SAVED = {
    "language": lambda: nn.CausalLM(vocabulary=11, context=16, width=16, heads=2),
    "language, narrow": lambda: nn.CausalLM(
        vocabulary=11, context=16, width=16, heads=2, dtype=torch.bfloat16
    ),
    "points": lambda: nn.PointEncoder(width=16, heads=2, pooling="mean"),
    "attention": lambda: nn.LinearAttention(16, 2, causal=True, position="damped"),
    "attention, own position": lambda: nn.LinearAttention(
        16, 2, position=nn.FourierPosition(2, phase=True, num_frequencies=8, num_components=4)
    ),
    "block": lambda: nn.PerformerBlock(16, 2, attention={"position": "rope"}),
    "position": lambda: nn.FourierPosition(2, kind="neural", seed=2**64 - 1),
}


def output_of(name, module):
    if name.startswith("language"):
        return module(torch.arange(9).unsqueeze(0))
    if name == "points":
        return module(torch.arange(5).unsqueeze(0), normal(1, 5, 3))
    if name == "position":
        return torch.cat(module.features(torch.arange(5.0).unsqueeze(-1)), -1)
    return module(normal(2, 7, 16))


@pytest.mark.parametrize("name", SAVED)
def test_what_was_saved_is_loaded(name, tmp_path):
    module = trained(SAVED[name]())
    nn.save(module, tmp_path / "m.safetensors")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    loaded = nn.load(tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(module) and loaded.options == module.options
    assert torch.equal(output_of(name, loaded), output_of(name, module))
    for one, other in zip(loaded.parameters(), module.parameters(), strict=True):
        assert one.dtype == other.dtype and one.requires_grad
    output_of(name, loaded).float().sum().backward()


def file_of(tmp_path, tensors=None, metadata=None, model=None):
    file = tmp_path / "m.safetensors"
    model = model or nn.ViT(width=8, heads=2)
    nn.save(model, file)
    said = {"module": json.dumps({"type": "ViT", "arguments": list(model._arguments)})}
    save_file(tensors or load_file(file), file, said if metadata is None else metadata)
    return file


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path / "no such file", "no such file"),
        (lambda path: path, "weights.safetensors"),
        (lambda path: file_of(path, metadata={}), "weights of a module.*got those of something"),
        (lambda path: file_of(path, metadata={"task": "mlp"}), "got those of the task mlp"),
        (lambda path: file_of(path, metadata={"module": "ViT"}), "expected options of a module"),
        (lambda path: file_of(path, metadata={"module": "[]"}), "expected options of a module"),
        (
            lambda path: file_of(path, metadata={"module": '{"type": "ViT", "arguments": []}'}),
            "expected options of a module",
        ),
        (
            lambda path: file_of(
                path, metadata={"module": '{"type": "ViT", "arguments": [{"depth": 1}, {}]}'}
            ),
            "expected one of image_size.*got .depth",
        ),
        (
            lambda path: file_of(path, metadata={"module": '{"type": "os", "arguments": []}'}),
            "expected one of CausalLM.*got .os",
        ),
        (
            lambda path: file_of(path, tensors={"head.weight": torch.ones(10, 8)}),
            "expected block0.attention.key.weight .8, 8., got no block0",
        ),
        (
            lambda path: file_of(
                path, tensors={**nn.ViT(width=8, heads=2).state_dict(), "more": torch.ones(2)}
            ),
            r"expected no more, got more \[2\]",
        ),
        (
            lambda path: file_of(
                path,
                tensors={**nn.ViT(width=8, heads=2).state_dict(), "head.bias": torch.ones(3)},
            ),
            r"expected head.bias \[10\], got head.bias \[3\]",
        ),
    ],
)
def test_what_cannot_be_loaded_is_one_line(spoil, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        nn.load(spoil(tmp_path))
    assert "\n" not in str(error.value)


def test_damaged_files_are_one_line(tmp_path):
    file = file_of(tmp_path)
    content = file.read_bytes()
    for damaged in (content[:-5], content[:100], b"", b"PK" + content):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="m.safetensors") as error:
            nn.load(file)
        assert "\n" not in str(error.value)


def test_weights_of_other_tasks_are_refused(tmp_path):
    arguments = ("--task", "mlp_digits_interpolate", "--optimizer", "adamw", "--steps", 2)
    assert run("train", *arguments, "--out", tmp_path).returncode == 0
    with pytest.raises(ValueError, match="got those of the task mlp_digits_interpolate"):
        nn.load(tmp_path)


def test_what_cannot_be_saved_is_one_line(tmp_path):
    file = tmp_path / "m.safetensors"
    with pytest.raises(TypeError, match=r"^\[save\] expected a module of mnemosyne.nn, got Linear"):
        nn.save(torch.nn.Linear(2, 2), file)
    module = nn.LinearAttention(16, 2)
    torch.nn.utils.parametrizations.weight_norm(module.query)
    with pytest.raises(ValueError, match=r"^\[save\] .*expected no query.*got query") as error:
        nn.save(module, file)
    assert "\n" not in str(error.value) and not file.exists()
