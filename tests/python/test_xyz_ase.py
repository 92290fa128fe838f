"""Extended XYZ in our reader and in ASE's: the same frames, or a refusal of one line.

Where ASE refuses, ours does, too. What ASE reads as something that is no molecule or no number is
refused as well; those cases are listed.
"""

import gzip
import re

from xyz_readers import ours, theirs, write

ATOMS = "C 0 0 0 1 2 3\nO 0 0 1.25 4 5 6\nH .5 -1e-1 +2. 7 8 9\n"
COLUMNS = "Properties=species:S:1:pos:R:3:forces:R:3"


def frame(comment: str, atoms: str = ATOMS) -> str:
    return f"{atoms.count(chr(10))}\n{comment}\n{atoms}"


# All of them have the energy -5.5, as ASE says.
WITH_ENERGY = [
    f"{COLUMNS} energy=-5.5",
    "energy=-5.5",
    "energy = -5.5",
    "Properties = species:S:1:pos:R:3 energy = -5.5",
    "energy =-5.5 final",
    "energy= -5.5 flag",
    "\tenergy=-5.5\t",
    "energy='-5.5'",
    'energy="-5.5"',
    "energy={-5.5}",
    "energy=[-5.5]",
    "energy=' -5.5 '",
    "energy=-5.5,",
    "energy=-55e-1",
    "energy=-0.55E+1",
    '"energy"=-5.5',
    "'energy' = {-5.5}",
    "en\\ergy=-5.5",
    'energy="-5".5',
    'energy="" -5.5',
    f'{COLUMNS} energy=-5.5 note="it has energy=5 inside"',
    f'note="it has energy=5 inside" {COLUMNS} energy=-5.5',
    f'note="said \\" energy=5 \\" once" {COLUMNS} energy=-5.5',
    f'{COLUMNS} energy=-5.5 note="said \\" energy=5 \\" once"',
    f"{COLUMNS} energy=-5.5 name='a energy=5 b'",
    f"name='a energy=5 b' {COLUMNS} energy=-5.5",
    "name={a energy=5 b} energy=-5.5",
    "name=[a energy=5 b] energy=-5.5",
    "name='a \" energy=5 \" b' energy=-5.5",
    "name={a ' energy=5} energy=-5.5",
    "note=said\\ energy=5 energy=-5.5",
    "note=a\\=energy energy=-5.5",
    "note=energy=5 energy=-5.5",
    "'a energy=5 b' energy=-5.5",
    "energy=-5.5 don't energy=5",
    'energy=-5.5 "never closed energy=5',
    "ENERGY=5 Energy=6 free_energy=7 energy_2=8 energies=9 energy=-5.5",
    "the energy is low energy=-5.5",
    "energy=-5.5 energy=-5.5",
    "grid=[[1,2],[3,4]] energy=-5.5",
    'info="_JSON {\\"energy\\": 5}" energy=-5.5',
    "energy=-5.5 \\",
    "name=\u00e9\u00df\u6c34 energy=-5.5",
    "a\u00a0energy=-5.5\u2003b",
    "name=a\\\u00a0energy energy=-5.5",
    'Lattice="9 0 0 1 8 0 0 2 7" energy=-5.5 pbc="T T F"',
    "Lattice={9,0,0, 1,8,0, 0,2,7} pbc=F energy=-5.5",
    'Lattice = "9 0 0 1 8 0 0 2 7" stress="1 2 3 4 5 6 7 8 9" energy=-5.5',
    "Properties='species:S:1:pos:R:3' energy=-5.5",
    "Properties=species:S:1:pos:R:3: energy=-5.5",
    "Properties=species:S:1:pos:R:03 energy=-5.5",
    "Properties=symbols:S:1:positions:R:3:force:R:3 energy=-5.5",
    "Properties=species:S:1:pos:R:3:other:R:2 energy=-5.5",
]


def test_every_spelling_of_an_energy_is_read_as_ase_reads_it(tmp_path):
    paths = write(tmp_path, [frame(comment) for comment in WITH_ENERGY])
    for comment, path, found in zip(WITH_ENERGY, paths, ours(paths), strict=True):
        assert found == theirs(path), comment
        assert found["frames"][0]["energy"] == -5.5, comment


# No energy, for ASE neither.
WITHOUT_ENERGY = [
    "",
    "   ",
    "m",
    "charge = 0",
    "structure of lowest energy",
    "C6H6, 3 K (measured); don't ask",
    "Energy=5",
    "note='energy=5'",
    "note energy\\=5",
    'note="" energy=5',
    "'energy=5",
    "energy\\ =5",
    "name=said:\\\\ {energy=5}",
]


def test_comments_that_are_plain_text_are_passed_over_as_by_ase(tmp_path):
    paths = write(tmp_path, [frame(comment) for comment in WITHOUT_ENERGY])
    for comment, path, found in zip(WITHOUT_ENERGY, paths, ours(paths), strict=True):
        assert found == theirs(path), comment
        assert "energy" not in found["frames"][0], comment


OTHER_FILES = {
    "symbols in any case": "3\n\nCL 0 0 0\nna 0 0 1\nbR 0 0 2\n",
    "Z in place of symbols": "2\nProperties=Z:I:1:pos:R:3\n6 0 0 0\n17 0 0 1\n",
    "Z beside symbols": "1\nProperties=species:S:1:pos:R:3:Z:I:1\nCA 0 0 0 6\n",
    "columns in another order": (
        "2\nProperties=id:I:1:forces:R:3:ok:L:1:pos:R:3:tag:S:1:species:S:1\n"
        "7 1 2 3 T 4 5 6 word O\n-8 1 2 3 F 4 5 7 word h\n"
    ),
    "a column of any number": "1\nProperties=species:S:1:pos:R:3:q:R:1\nO 0 0 0 -inf\n",
    "whole numbers as positions": "1\nProperties=species:S:1:pos:I:3\nO 0 007 -2\n",
    "more columns than named": "1\nfree text\nO 0 0 0 and more\n",
    "blanks of all kinds": "1\n\n \tO\v0 \f 0\x1c\u20030  \n",
    "lines of Windows": "1\r\nenergy=2\r\nO 0 0 0\r\n1\r\nenergy=3\r\nO 0 0 1\r\n",
    "lines of old Macs": "1\renergy=2\rO 0 0 0\r1\renergy=3\rO 0 0 1\r",
    "lines of both": "1\r\nenergy=2\nO 0 0 0\r1\n\rO 0 0 1",
    "empty lines behind": "1\n\nO 0 0 0\n\n  \n\n",
    "signs": "+1\n\nO +1 -1 +1e+0\n",
    "digits": "1\n\nO 1. .5 0.1000000000000000055511151231257827\n",
    "frames of several sizes": frame("energy=1") + frame("Properties=Z:I:1:pos:R:3", "6 0 0 1\n"),
}


def test_every_layout_is_read_as_ase_reads_it(tmp_path):
    paths = write(tmp_path, OTHER_FILES.values())
    for name, path, found in zip(OTHER_FILES, paths, ours(paths), strict=True):
        assert "frames" in found, (name, found)
        assert found == theirs(path), name


REFUSED_BY_BOTH = [
    frame("= 5"),
    frame("=== molecule ==="),
    frame("Properties of nothing"),
    frame("Properties="),
    frame("Properties=5"),
    frame("Properties=pos:R:3"),
    frame("Properties=species:S:1:pos:R:x"),
    frame("Properties=species:S:1:pos:Q:3"),
    frame("Properties=species:S:1:pos:r:3"),
    frame("Properties=species:S:1:pos:R:3:a:R:0"),
    frame("Properties=species:S:1:pos:R:3:pos:R:3"),
    frame("Properties=species:S:1:pos:R:3:a:R:2:a1:R:1"),
    frame("Properties=species::S:1:pos:R:3"),
    frame("Properties=species:R:1:pos:R:3"),
    frame("Properties=species:S:1:pos:R:3:forces:R:3:more:R:1"),
    frame("Properties=pos:R:3:species:S:1"),
    frame("Lattice='1 2 3'"),
    frame("Lattice"),
    frame("Lattice='1 0 0 0 1 0 0 0 x'"),
    frame("stress='1 2 3 4 5 6'"),
    frame("virial=5"),
    frame("pbc='T T'"),
    frame("pbc='1 1 1 1'"),
    frame("pbc=''"),
    "1\n\nO 1D3 0 0\n",
    "1\n\nO 1,0 0 0\n",
    "1\n\nO +-1 0 0\n",
    "1\n\nO 0x10 0 0\n",
    "1\n\nO nan(1) 0 0\n",
    "1\n\nD 0 0 0\n",
    "1\n\nXx 0 0 0\n",
    "1\n\n6 0 0 0\n",
    "1\nProperties=species:S:1:pos:R:3:id:I:1\nO 0 0 0 1.0\n",
    "1\nProperties=species:S:1:pos:R:3:id:I:1\nO 0 0 0 3000000000\n",
    "1\nProperties=species:S:1:pos:R:3:q:R:1\nO 0 0 0 T\n",
    "1\nProperties=species:S:1:pos:I:3\nO 0 0 0.5\n",
    "1\nProperties=Z:I:1:pos:R:3\nO 0 0 0\n",
    "2\n\nO 0 0 0\n",
    "2\n\nO 0 0 0\n\n",
    "2\n\nO 0 0 0\nO 0 0\n",
    "1\n\nO 0 0 0\ntext\n",
    "1\n\nO 0 0 0\n0x1\n\nO 0 0 0\n",
    "3.0\n" + frame("")[2:],
    b"1\n\xe9t\xe9\nO 0 0 0\n",
    b"\xef\xbb\xbf1\n\nO 0 0 0\n",
    b"1\n\nO 0 0 0\n\x1a",
]


def is_one_line(error: str) -> bool:
    return (
        re.fullmatch(r"\[data\] expected .*, got .* in line \d+ of [^\n]*\.xyz", error) is not None
    )


def test_what_ase_refuses_is_refused(tmp_path):
    paths = write(tmp_path, REFUSED_BY_BOTH)
    for content, path, found in zip(REFUSED_BY_BOTH, paths, ours(paths), strict=True):
        assert "error" in theirs(path), content
        assert "error" in found and is_one_line(found["error"]), (content, found)


# ASE reads these: a text or a list as the energy, an element 0, positions that nobody gave.
NO_MOLECULES = {
    "energy=-1.5D+02": 'for energy, got "-1.5D+02"',
    "energy=1d3": "for energy",
    "energy=high": "for energy",
    "energy=": 'for energy, got ""',
    "energy=5=6": "for energy",
    "energy==5": "for energy",
    "energy=1,5": "for energy",
    "energy='1 5'": "for energy",
    "energy=T": "for energy",
    "energy=nan": "for energy",
    "energy=-Infinity": "for energy",
    "energy=1e400": "for energy",
    "energy=1e10": "at most 1e9 for energy",
    "energy=1_0": "for energy",
    "energy='_JSON 5'": "for energy",
    "energy=5 energy=6": 'energy once, got "5" and "6"',
    "energy=5 minimal energy": 'energy once, got "5" and the key alone',
    "Lattice='1 0 0 0 1 0 0 0 1' Lattice='2 0 0 0 2 0 0 0 2'": "Lattice once",
    f"{COLUMNS} Properties=species:S:1:pos:R:3": "Properties once",
    "Lattice='inf 0 0 0 1 0 0 0 1'": "finite numbers of at most 1e9 for Lattice",
    "Properties=species:S:1": "and pos:R:3",
    "Properties=name:S:1:pos:R:3": "species:S:1 or Z:I:1",
    "Properties=species:S:1:pos:R:3:positions:R:3": "once at most in Properties",
    "Properties=species:S:1:pos:R:3:more": "species:S:1 or Z:I:1",
    "Properties=species:S:1:pos:S:3": "in Properties",
}


def test_what_ase_reads_as_no_number_is_refused(tmp_path):
    paths = write(tmp_path, [frame(comment) for comment in NO_MOLECULES])
    for (comment, words), path, found in zip(NO_MOLECULES.items(), paths, ours(paths), strict=True):
        assert "frames" in theirs(path), comment
        assert words in found.get("error", ""), (comment, found)
        assert is_one_line(found["error"]) and "line 2" in found["error"], comment


NO_ATOMS = [
    "1\n\nX 0 0 0\n",
    "1\n\nO nan 0 0\n",
    "1\n\nO 1_0 0 0\n",
    "1\nProperties=Z:I:1:pos:R:3\n0 0 0 0\n",
    "1\nProperties=Z:I:1:pos:R:3\n119 0 0 0\n",
    "0\nnothing\n",
    "1\nenergy=5\nO 0 0 0\nVEC1 9 0 0\n",
]


def test_what_ase_reads_as_no_atom_is_refused(tmp_path):
    paths = write(tmp_path, NO_ATOMS)
    for content, path, found in zip(NO_ATOMS, paths, ours(paths), strict=True):
        assert "frames" in theirs(path), content
        assert is_one_line(found.get("error", "")), (content, found)


def test_frames_behind_an_empty_line_are_read_where_ase_stops(tmp_path):
    (path,) = write(tmp_path, [frame("energy=1") + "\n" + frame("energy=2")])
    assert len(theirs(path)["frames"]) == 1
    assert [found["energy"] for found in ours([path])[0]["frames"]] == [1, 2]


def test_packed_files_with_padding_are_read_as_ase_reads_them(tmp_path):
    first, second = (gzip.compress(frame(f"energy={i}").encode()) for i in (1, 2))
    contents = [first, first + second, first + bytes(1000), first + bytes(7) + second + bytes(512)]
    paths = [tmp_path / f"{i}.xyz.gz" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    for path, found, count in zip(paths, ours(paths), (1, 2, 1, 2), strict=True):
        assert found == theirs(path)
        assert len(found["frames"]) == count
    damaged = [
        first[:-1],
        first + bytes(5) + b"x",
        first + bytes(5) + second[:-1],
        bytes(9) + first,
    ]
    for i, content in enumerate(damaged):
        paths[0].write_bytes(content)
        assert "error" in theirs(paths[0]), i
        assert "error" in ours(paths[:1])[0], i
