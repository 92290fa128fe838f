"""The picture of a comparison."""

import matplotlib
import numpy as np
import pytest
from pictures import check_readable, count_color, has_text, render
from safetensors.numpy import save_file

from mnemosyne import _figure, plot

DEMO = "mnemosyne,mnemosyne:num_steps,orthogonal,adamw@1e-3,adamw+,lstm,lstm-rnnprop".split(",")


def write_runs(folder, cell, label, curves):
    target = folder / "curves" / cell / label
    target.mkdir(parents=True)
    for seed, curve in enumerate(curves):
        losses = np.asarray(curve, dtype=np.float32)
        save_file({"loss": losses}, target / f"seed{seed}.safetensors")


def test_smoothing_is_a_trailing_mean():
    losses = np.arange(100, dtype=np.float32)[None]
    smoothed = plot.smooth(losses)
    assert smoothed[0, 0] == 0
    assert smoothed[0, 9] == pytest.approx(losses[0, :10].mean())
    assert smoothed[0, 99] == pytest.approx(losses[0, 75:].mean())


def test_picture_has_a_panel_per_cell(tmp_path):
    falling = 1 / np.arange(1, 101)
    for cell in ["a@100", "b@100", "c@100", "d@100"]:
        write_runs(tmp_path, cell, "adamw", [falling, 2 * falling])
        write_runs(tmp_path, cell, "mnemosyne:num_steps", [falling**2])
    cells = plot.load_cells(tmp_path)
    assert list(cells) == ["a@100", "b@100", "c@100", "d@100"]
    assert cells["a@100"][0].losses.shape == (2, 100)
    picture = plot.plot(tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000


def test_diverged_and_negative_curves_are_drawn(tmp_path):
    diverged = np.concatenate([np.ones(10), np.full(20, np.inf)])
    write_runs(tmp_path, "a@30", "bad", [diverged, diverged])
    write_runs(tmp_path, "a@30", "worse", [np.full(30, np.inf)])
    write_runs(tmp_path, "a@30", "negative", [np.linspace(1, -1, 30)])
    assert plot.plot(tmp_path, tmp_path / "other.png").exists()


def test_what_is_no_comparison_is_one_line(tmp_path, capsys):
    assert plot.main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    write_runs(tmp_path, "a@3", "bad", [[1, 2, 3]])
    file = tmp_path / "curves" / "a@3" / "bad" / "seed0.safetensors"
    file.write_bytes(b"nonsense")
    assert plot.main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert str(file) in message and len(message.splitlines()) == 1


def write_demo(folder, cells, labels, start=2.3, end=0.1):
    for cell in cells:
        steps = np.arange(int(cell.split("@")[1]))
        for place, label in enumerate(labels):
            falling = np.exp(-steps / len(steps) * (6 + place))
            curve = end + (start - end) * falling
            write_runs(folder, cell, label, [curve, 0.98 * curve])


LONG = "a_long_way_to_the_weights_of_runs_meta_2026_" + "w" * 80 + ".safetensors:num_steps:cosine"


@pytest.mark.parametrize(
    "cells, labels",
    [
        (["flt_vit_digits@500"], DEMO),
        (["a@20"], ["mnemosyne"]),
        (["a@20", "b@20"], [LONG, "adamw+"]),
        (["char_lm@30", "conv@10", "d@20", "e@20"], [*DEMO, LONG, *(f"o{i}" for i in range(30))]),
        (["flt_char_lm:softmax-rope_with_a_name_that_is_longer_than_its_panel_is_wide@20"], DEMO),
    ],
    ids=["demo", "one", "long", "many", "title"],
)
def test_all_names_are_whole_in_the_file(tmp_path, monkeypatch, cells, labels):
    write_demo(tmp_path, cells, labels)
    file = tmp_path / "curves.png"
    texts, pixels = render(monkeypatch, lambda: plot.plot(tmp_path), file)
    check_readable(texts, pixels)
    for label in labels:
        assert has_text(texts, label), label
    for cell in cells:
        assert has_text(texts, cell.replace("@", ", ") + " steps")
    colors = plot.styles(labels)
    assert len({str(sorted(style.items(), key=str)) for style in colors.values()}) == len(labels)


def test_our_curve_is_on_top_and_in_one_color(tmp_path, monkeypatch):
    same = [np.geomspace(2.0, 0.1, 200)]
    for label in ("adamw+", "mnemosyne", "zz"):
        write_runs(tmp_path, "a@200", label, same)
    file = tmp_path / "curves.png"
    _, pixels = render(monkeypatch, lambda: plot.plot(tmp_path), file)
    legend = 60  # pixels of a line there, at most
    assert count_color(pixels, plot.OUR_COLOR) > 300
    for other in ("adamw+", "zz"):
        assert count_color(pixels, plot.styles(["adamw+", "zz"])[other]["color"]) < 2 * legend
    for labels in (DEMO, ["mnemosyne"], ["a", "b", "mnemosyne:num_steps"]):
        styles = plot.styles(labels)
        ours = {style["color"] for label, style in styles.items() if plot.is_ours(label)}
        others = {style["color"] for label, style in styles.items() if not plot.is_ours(label)}
        assert ours == {plot.OUR_COLOR} and not ours & others
        assert list(styles)[0].startswith("mnemosyne"), "first in the legend"
    assert plot.styles(DEMO)["adamw+"]["color"] == plot.styles(["adamw"])["adamw"]["color"]


@pytest.mark.parametrize(
    "start, end, expected",
    [
        (4.2, 1.9, ["2", "3", "4"]),
        (2.3, 0.2, ["0.2", "0.5", "1", "2"]),
        (1.0, 0.985, ["0.99", "1"]),
    ],
)
def test_ticks_of_losses_are_plain_numbers(tmp_path, monkeypatch, start, end, expected):
    write_demo(tmp_path, ["a@500"], ["adamw"], start, end)
    file = tmp_path / "curves.png"
    texts, pixels = render(monkeypatch, lambda: plot.plot(tmp_path), file)
    check_readable(texts, pixels)
    for tick in expected:
        assert has_text(texts, tick), (tick, texts)


@pytest.mark.parametrize("end", [0.0, 1e-30])
def test_curves_to_zero_and_to_infinity_leave_the_others_readable(tmp_path, monkeypatch, end):
    write_runs(tmp_path, "a@100", "adamw", [np.geomspace(2.0, 0.1, 100)])
    write_runs(
        tmp_path, "a@100", "muon", [np.append(np.geomspace(2.0, 1e-3, 50), np.full(50, end))]
    )
    write_runs(tmp_path, "a@100", "sgd", [np.geomspace(2.0, 1e35, 100)])
    file = tmp_path / "curves.png"
    texts, pixels = render(monkeypatch, lambda: plot.plot(tmp_path), file)
    check_readable(texts, pixels)
    figure = plot.draw(plot.load_cells(tmp_path))
    low, high = figure.axes[0].get_ylim()
    assert figure.axes[0].get_yscale() == "log" and 1e-7 < low < 1e-3 and 2 < high < 50
    assert sum(has_text(texts, tick) for tick in ("0.001", "0.01", "0.1", "1", "10")) >= 3


def test_numbers_of_ticks():
    assert [_figure.number(x) for x in (0.05, 1.0, 20.0, 1000.0, 0.0)] == "0.05 1 20 1000 0".split()
    assert _figure.number(1e-4) == "$10^{-4}$" and _figure.number(2e5) == r"$2\cdot10^{5}$"


def test_the_users_own_pictures_are_left_alone(tmp_path):
    backend = matplotlib.get_backend()
    write_demo(tmp_path, ["a@20"], ["adamw"])
    plot.plot(tmp_path)
    from matplotlib import pyplot

    assert matplotlib.get_backend() == backend and not pyplot.get_fignums()


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path, capsys):
    write_demo(tmp_path, ["a@20"], ["adamw"])
    assert plot.main([str(tmp_path), "--picture", str(tmp_path / "no" / "folder.png")]) == 2
    assert "[out] expected a picture that can be written" in capsys.readouterr().err
