"""Random extended XYZ files in our reader and in ASE's, legal ones and ones with errors."""

import random

import pytest
from xyz_readers import ours, theirs, write

SYMBOLS = ["H", "C", "N", "O", "Cl", "Na", "Fe", "Og"]
NAMES = ["a", "id", "note", "energy_of_formation", "Energy", "x1", "config_type", "pos", "forces"]
TEXTS = ["x", "energy=5", "it has energy=7 inside", "a=b=c", "don't", 'say "no"', "{", "[1,2]"]
TEXTS += ["back\\slash", " ", "1 2 3", "T", "\u00e9\u6c34", "Properties=species:S:1", "tab\there"]
CLOSING = {"'": "'", '"': '"', "{": "}", "[": "]"}


def number(rng: random.Random) -> str:
    value = rng.choice([rng.uniform(-9, 9), rng.uniform(-1e6, 1e6), rng.randint(-99, 99), 0.0])
    form = rng.choice(["{!r}", "{:.8f}", "{:+.3e}", "{:.6E}", "{:g}"])
    return form.format(value)


def escaped(rng: random.Random, text: str, special: str) -> str:
    """With a backslash before what needs one, and before some that do not."""
    return "".join("\\" + c if c in special or rng.random() < 0.05 else c for c in text)


def quoted(rng: random.Random, text: str) -> str:
    """One of the spellings that ASE takes for this text."""
    opening = rng.choice(list(CLOSING))
    inside = opening + escaped(rng, text, "\\" + CLOSING[opening]) + CLOSING[opening]
    if text == "" or rng.random() < 0.6:
        return inside
    return escaped(rng, text, "\\'\"{[= \t")


def entry(rng: random.Random, key: str, value: str | None) -> str:
    key = quoted(rng, key) if rng.random() < 0.2 else key
    if value is None:
        return key
    equals = rng.choice(["=", "=", "=", " = ", "= ", " =", "\t=  "])
    return key + equals + quoted(rng, value)


def columns(rng: random.Random) -> list[tuple[str, str, int]]:
    chosen = [rng.choice([("species", "S", 1), ("Z", "I", 1), ("symbols", "S", 1)])]
    chosen.append(rng.choice([("pos", "R", 3), ("positions", "R", 3)]))
    chosen += rng.sample(
        [
            ("forces", "R", 3),
            ("q", "R", 1),
            ("id", "I", 1),
            ("fixed", "L", 1),
            ("label", "S", 2),
            ("velo", "R", 3),
        ],
        rng.randint(0, 4),
    )
    rng.shuffle(chosen)
    return chosen


def field(rng: random.Random, name: str, kind: str) -> str:
    if name in ("species", "symbols"):
        symbol = rng.choice(SYMBOLS)
        return rng.choice([symbol, symbol, symbol.lower(), symbol.upper()])
    if name == "Z":
        return str(rng.randint(1, 118))
    if kind == "R":
        return number(rng)
    return {"I": str(rng.randint(-9, 9)), "L": rng.choice("TF"), "S": rng.choice("ab")}[kind]


def comment(rng: random.Random, layout: list[tuple[str, str, int]] | None) -> str:
    entries = []
    for _ in range(rng.randint(0, 4)):
        value = rng.choice([None, number(rng), rng.choice(TEXTS), rng.choice(TEXTS)])
        if value is not None or rng.random() < 0.5:
            entries.append(entry(rng, rng.choice(NAMES), value))
    if rng.random() < 0.8:
        entries.append(entry(rng, "energy", number(rng)))
    if rng.random() < 0.3:
        lattice = rng.choice([" ", ",", ", "]).join(number(rng) for _ in range(9))
        entries.append(entry(rng, "Lattice", lattice))
    if rng.random() < 0.3:
        entries.append(entry(rng, "pbc", rng.choice(["T T F", "1 0 1", "F"])))
    if layout:
        properties = ":".join(f"{name}:{kind}:{width}" for name, kind, width in layout)
        entries.append(entry(rng, "Properties", properties))
    rng.shuffle(entries)
    return rng.choice(["", " "]) + rng.choice([" ", "  ", "\t"]).join(entries)


def lines(rng: random.Random) -> list[str]:
    """Of one legal frame."""
    layout = columns(rng) if rng.random() < 0.8 else None
    rows = []
    for _ in range(rng.randint(1, 4)):
        row = [
            field(rng, name, kind)
            for name, kind, width in layout or [("species", "S", 1), ("pos", "R", 3)]
            for _ in range(width)
        ]
        rows.append(rng.choice([" ", "\t", "   "]).join(row) + rng.choice(["", " ", " more"]))
    return [str(len(rows)), comment(rng, layout), *rows]


def text(rng: random.Random) -> str:
    end = rng.choice(["\n", "\n", "\r\n", "\r"])
    return "".join(line + end for _ in range(rng.randint(1, 3)) for line in lines(rng))


def damaged(rng: random.Random) -> str:
    """A frame whose comment or atoms have some characters more, fewer or others."""
    content = lines(rng)
    for _ in range(rng.randint(1, 4)):
        i = rng.randrange(1, len(content))
        place = rng.randint(0, len(content[i]))
        inserted = rng.choice(["", rng.choice("'\"{}[]\\= ,:\t+-.0159eEdDTCHSRI_"), " energy="])
        content[i] = content[i][:place] + inserted + content[i][place + rng.randint(0, 2) :]
    return "".join(line + "\n" for line in content)


@pytest.mark.parametrize("seed", range(4))
def test_random_legal_files_are_read_as_ase_reads_them(tmp_path, seed):
    rng = random.Random(seed)
    contents = [text(rng) for _ in range(500)]
    paths = write(tmp_path, contents)
    energies = 0
    for content, path, found in zip(contents, paths, ours(paths), strict=True):
        assert found == theirs(path), content
        energies += sum("energy" in frame for frame in found["frames"])
    assert energies > 500, "the generator makes something else"


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_as_ase_reads_them_or_refused(tmp_path, seed):
    rng = random.Random(100 + seed)
    contents = [damaged(rng) for _ in range(1000)]
    paths = write(tmp_path, contents)
    read = refused = 0
    for content, path, found in zip(contents, paths, ours(paths), strict=True):
        if "error" in found:
            assert "\n" not in found["error"] and "line " in found["error"], content
            refused += 1
        else:
            assert found == theirs(path), content
            read += 1
    assert read > 100 and refused > 100, "the generator makes something else"
