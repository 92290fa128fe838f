"""Pictures of learned masks."""

import json
import math

import numpy as np
import pytest
import torch
from command_line import refused, run, run_json
from pictures import check_readable, has_text, render
from safetensors import safe_open
from safetensors.torch import save_file

from mnemosyne import nn, plot_mask


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.FourierPosition(3, initial_amplitude=0.9, num_frequencies=32, phase=True)
        self.plane = nn.FourierPosition(
            2, 2, coupling="multiplicative", initial_amplitude=0.9, max_width=4, extent=14
        )
        self.space = nn.FourierPosition(2, 3, rotation_invariant=True, initial_amplitude=0.5)
        self.attention = nn.LinearAttention(8, 2, causal=True, position="damped")


def save(model, file, metadata=True):
    save_file(model.state_dict(), file, nn.position_metadata(model) if metadata else None)
    return file


def by_name(file):
    return {picture.name: picture for picture in plot_mask.load_pictures(file)}


def test_every_position_is_found_and_evaluated(tmp_path):
    model = Model()
    pictures = by_name(save(model, tmp_path / "model.safetensors"))
    assert list(pictures) == ["attention.position", "line", "plane", "space"]
    line, plane, damped = (pictures[n] for n in ("line", "plane", "attention.position"))
    assert line.values.shape == (3, 201) and line.offsets[0] == -128 and line.offsets[-1] == 128
    assert line.waves.shape == line.weights.shape == (3, 32)
    assert plane.is_map and plane.values.shape == (2, 81, 81) and plane.waves.shape == (2, 32, 2)
    assert damped.offsets[0] == 0 and damped.values.shape == (2, 201)
    assert pictures["space"].offsets[0] == 0 and not pictures["space"].is_map
    offset = torch.tensor([plane.offsets[10], plane.offsets[50]])
    f = model.plane.mask(offset).detach().numpy()
    np.testing.assert_allclose(plane.values[:, 10, 50], f, rtol=1e-5)
    h = model.attention.position.factor(torch.tensor(damped.offsets)[:, None]).detach()
    np.testing.assert_allclose(damped.values, h.numpy(), rtol=1e-5)


def test_options_are_guessed_where_there_is_no_metadata(tmp_path):
    model = Model()
    file = save(model, tmp_path / "model.safetensors", metadata=False)
    for name, picture in by_name(file).items():
        if name == "attention.position":
            continue
        module = model.get_submodule(name)
        offsets = torch.zeros(len(picture.offsets), module.options["position_dim"])
        offsets[:, 0] = torch.tensor(picture.offsets)
        values = picture.values if not picture.is_map else picture.values[:, :, 40]
        np.testing.assert_allclose(values, module.mask(offsets).detach(), rtol=1e-4, atol=1e-6)
    kernel = nn.FourierPosition(2, kind="shift_invariant", kernel="laplace", initial_amplitude=1.0)
    save_file(kernel.state_dict(), file)
    with pytest.raises(plot_mask.PlotError, match='expected metadata "position." with its options'):
        plot_mask.load_pictures(file)
    metadata = nn.position_metadata(torch.nn.ModuleDict({"a": kernel}))
    save_file({f"a.{k}": v for k, v in kernel.state_dict().items()}, file, metadata)
    (picture,) = plot_mask.load_pictures(file)
    np.testing.assert_allclose(picture.values[:, 100], [1.0, 1.0], rtol=1e-5)  # sum A at offset 0


def test_a_learned_bump_is_where_it_was_put(tmp_path):
    position = nn.FourierPosition(1, num_components=1, num_frequencies=8, max_width=10.0)
    with torch.no_grad():
        position.spectrum.amplitude.fill_(0.7)
        position.spectrum.centre.fill_(0.0)
        position.spectrum.log_sigma.fill_(math.log(1 / (2 * math.pi * 5.0)))
    file = save(torch.nn.ModuleDict({"p": position}), tmp_path / "one.safetensors")
    (picture,) = plot_mask.load_pictures(file)
    expected = 0.7 * np.exp(-0.5 * (picture.offsets / 5.0) ** 2)
    np.testing.assert_allclose(picture.values[0], expected, rtol=1e-4, atol=1e-6)


def test_the_command_writes_the_picture(tmp_path):
    file = save(Model(), tmp_path / "model.safetensors")
    result = run_json("plot", "mask", file)
    picture = tmp_path / "model.safetensors.masks.png"
    assert result["picture"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 30_000
    other = tmp_path / "other.png"
    assert plot_mask.main([str(file), "--out", str(other)]) == 0 and other.exists()


def made_up(heads, name, is_map=False):
    random = np.random.default_rng(heads)
    ends, waves = ((81, 81), (64, 2)) if is_map else ((201,), (64,))
    return plot_mask.Picture(
        name=name,
        kind="FourierPosition",
        offsets=np.linspace(-8, 8, ends[0]),
        values=random.normal(size=(heads, *ends)),
        value_label="mask f",
        waves=random.normal(size=(heads, *waves)),
        weights=1e-3 * random.random((heads, 64)),
        wave_label="cycles per unit of position",
    )


LONG = "encoder.layers.0.blocks.11.self_attention.inner.attention.position"


@pytest.mark.parametrize(
    "pictures",
    [
        [made_up(4, "block0.attention.position"), made_up(32, LONG)],
        [made_up(2, "w" * 200)],
        [made_up(12, "a"), made_up(4, LONG, is_map=True)],
    ],
    ids=["curves", "one", "maps"],
)
def test_all_names_are_whole_in_the_file(tmp_path, monkeypatch, pictures):
    file = tmp_path / "masks.png"
    monkeypatch.setattr(plot_mask, "load_pictures", lambda _: pictures)
    texts, pixels = render(monkeypatch, lambda: plot_mask.plot(tmp_path, file), file)
    check_readable(texts, pixels)
    for picture in pictures:
        for head in range(len(picture.values)):
            title = f"{picture.name}: mask f"
            assert has_text(texts, f"{title}, head {head}" if picture.is_map else f"head {head}")
        assert picture.is_map or has_text(texts, title)
    assert len(set(map(str, plot_mask._head_colors(32)))) == 32


def test_a_trained_network_is_plotted(tmp_path):
    train = ["train", "--task", "flt_vit_digits", "--optimizer", "adamw", "--steps", "2"]
    assert run(*train, "--out", tmp_path).returncode == 0
    assert plot_mask.plot(tmp_path) == tmp_path / "masks.png"
    pictures = plot_mask.load_pictures(tmp_path)
    assert pictures and all(p.is_map and p.name.endswith("attention.position") for p in pictures)
    with safe_open(tmp_path / "weights.safetensors", "pt") as reader:
        text = reader.metadata()[f"position.{pictures[0].name}"]
    options = json.loads(text)
    remade = getattr(nn, options["type"])(**{k: v for k, v in options.items() if k != "type"})
    metadata = nn.position_metadata(torch.nn.ModuleDict({"p": remade}))
    assert json.loads(metadata["position.p"]) == options and options["position_dim"] == 2


def complaint(capsys, *arguments) -> str:
    """The one line with which the picture is refused."""
    assert plot_mask.main([*map(str, arguments)]) == 2
    (text,) = capsys.readouterr().err.splitlines()
    return text


def test_what_cannot_be_plotted_is_one_line(tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    assert str(file) in refused("plot", "mask", file)
    file.write_bytes(b"nonsense")
    assert "expected a safetensors file" in complaint(capsys, file)
    save_file({"weight": torch.ones(2)}, file)
    assert "expected the parameters of a FourierPosition" in complaint(capsys, file)
    model = torch.nn.ModuleDict({"p": nn.DampedPosition(2)})
    state = model.state_dict()
    del state["p.phase"]
    save_file(state, file)
    assert "p: expected its parameter phase" in complaint(capsys, file)
    for text in (
        "nonsense",
        "[]",
        '{"type": "Gate"}',
        '{"type": "DampedPosition", "num_heads": 3}',
    ):
        save_file(model.state_dict(), file, {"position.p": text})
        assert str(file) in complaint(capsys, file)
    huge = '{"type": "DampedPosition", "num_heads": 2, "num_components": 100000000000}'
    save_file(model.state_dict(), file, {"position.p": huge})
    assert "expected sizes from 1 to" in complaint(capsys, file)
    broken = torch.full_like(model["p"].log_weight, float("nan"))
    save_file({**model.state_dict(), "p.log_weight": broken}, file)
    assert "finite" in complaint(capsys, file)
    save(model, file)
    assert "[out]" in complaint(capsys, file, "--out", tmp_path / "no" / "folder.png")
