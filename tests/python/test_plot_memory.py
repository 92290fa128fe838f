"""The picture of what a compact memory keeps, and the command whose tables it shows."""

import json
import math

import pytest
from command_line import refused, run_json
from pictures import check_readable, has_text, render

from mnemosyne import plot_memory

SMALL = (
    *("bench", "memory", "--spins", 16, "--trials", 4, "--feature-maps", "trig,favor+"),
    *("--patterns", "2,8", "--flips", "0,4", "--features", "32,512"),
)


@pytest.fixture(scope="module")
def rows():
    return run_json(*SMALL, "--parts", "recovery,exact-capacity,forgetting")


def of(rows, experiment):
    return [row for row in rows if row["experiment"] == experiment]


def test_bench_memory_has_a_row_for_every_map_readout_and_number(rows):
    for name, values in {"patterns": [2, 8], "flips": [0, 4], "features": [32, 512]}.items():
        found = [(row["feature_map"], row["readout"], row[name]) for row in of(rows, name)]
        assert found == [
            (feature_map, readout, value)
            for feature_map in ["trig", "favor+"]
            for readout in ["energy", "memory"]
            for value in values
        ]
    for row in of(rows, "features"):
        per_feature = 1 if row["readout"] == "energy" else row["spins"] + 1
        assert row["state_numbers"] == row["features"] * per_feature
        assert 0 <= row["bits"] <= 1 and 0 <= row["predicted_bits"] <= 1
        assert row["whole"] <= row["bits"]


def test_bench_memory_measures_what_is_known(rows):
    capacity = of(rows, "exact_capacity")
    assert all(0.158 < row["slope"] < 0.4 for row in capacity[1:])
    for row in of(rows, "forgetting"):
        assert row["weights"][10] == pytest.approx(row["gamma"] ** 10, rel=1e-12)
        assert row["numbers_after_first"] == row["numbers_after_last"]


def test_bench_memory_is_the_same_for_the_same_seed(rows):
    again = run_json(*SMALL, "--parts", "recovery")
    assert again == [row for row in rows if row["experiment"] in ("patterns", "flips", "features")]
    other = run_json(*SMALL, "--parts", "recovery", "--seed", 1)
    assert [row["bits"] for row in other] != [row["bits"] for row in again]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parts", "nothing"], ["--parts", "recovery", "nothing"]),
        (["--feature-maps", "relu"], ["--feature-maps", "trig", "relu"]),
        (["--readouts", "mean"], ["--readouts", "energy", "mean"]),
        (["--patterns", "0"], ["--patterns", "0"]),
        (["--beta", "0"], ["--beta", "0"]),
        (["--flips", "33", "--parts", "recovery"], ["flips", "32", "33"]),
        (["--features", "7", "--parts", "recovery", "--trials", "1"], ["features", "even", "7"]),
    ],
)
def test_bad_usage_is_one_line(arguments, words):
    message = refused("bench", "memory", *arguments)
    for word in words:
        assert word in message, message


def attention_row(feature_map, features):
    error = 1 / math.sqrt(features)
    values = {"orthogonal": 0.8 * error, "independent": error, "predicted": error}
    return {"experiment": "attention", "feature_map": feature_map, "features": features, **values}


def compact_row(features, capacity):
    kind = {"experiment": "compact_capacity", "feature_map": "trig", "readout": "energy"}
    return {**kind, "features": features, "capacity": capacity}


def age_row(gamma, age):
    kind = {"experiment": "age", "gamma": gamma, "patterns": 64, "age": age}
    return {**kind, "bits": gamma**age, "predicted_bits": gamma**age}


def test_the_picture_can_be_read(rows, tmp_path, monkeypatch):
    more = [attention_row(name, r) for name in ("trig", "hyp+", "favor+") for r in (16, 256, 4096)]
    more += [compact_row(r, c) for r, c in ((128, 0), (512, 5.5), (2048, None))]
    more += [age_row(gamma, age) for gamma in (1.0, 0.9) for age in (0, 8, 32)]
    file = tmp_path / "memory.txt"
    file.write_text("A table\n\n" + json.dumps([*rows, *more]) + "\n")
    picture = tmp_path / "memory.txt.png"
    texts, pixels = render(monkeypatch, lambda: plot_memory.plot(file), picture)
    check_readable(texts, pixels)
    for title in [
        "recovery against the number of patterns",
        "recovery against distance",
        "recovery against features",
        "capacity of the exact energy",
        "capacity of memories of constant size",
        "recovery of 64 patterns by age",
        "error against softmax attention",
        "formula",
        "gamma 0.9",
    ]:
        assert has_text(texts, title), title


def test_the_command_writes_the_picture(rows, tmp_path):
    file = tmp_path / "memory.txt"
    file.write_text(json.dumps(of(rows, "flips")))
    result = run_json("plot", "memory", file)
    assert result == {"file": str(file), "picture": f"{file}.png"}
    assert (tmp_path / "memory.txt.png").read_bytes().startswith(b"\x89PNG")
    other = tmp_path / "other.png"
    assert plot_memory.main([str(file), "--out", str(other)]) == 0 and other.exists()


@pytest.mark.parametrize(
    "text", ["", "no JSON", "{}", "[]", "[1]", '[{"experiment": "flips"}]', '[{"experiment": 1}]']
)
def test_what_cannot_be_plotted_is_one_line(tmp_path, capsys, text):
    file = tmp_path / "memory.txt"
    file.write_text(text)
    assert plot_memory.main([str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line and "expected" in line
    assert plot_memory.main([str(tmp_path / "missing")]) == 2
