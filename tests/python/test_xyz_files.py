"""Files of molecules as other programs pack them, through the command line."""

import io
import tarfile

import pytest
from command_line import refused, run_json

ATOMS = "C 0 0 0\nO 0 0 {}\nH 0 1 0\n"
APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60)


def molecule(i: int) -> bytes:
    return f"3\nm\n{ATOMS.format(1 + i / 100)}".encode()


def table(folder) -> None:
    folder.mkdir(parents=True)
    lines = [f"{i:04d}.xyz {-5 - i % 3}.5\n" for i in range(12)]
    (folder / "hof_qm7.txt").write_text("".join(lines))


def qm7(tmp_path, members, **options):
    """A data folder with these members of an archive."""
    table(tmp_path / "qm7_xyz")
    with tarfile.open(tmp_path / "qm7_xyz" / "qm7.tar", "w", **options) as archive:
        for name, content, *kind in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.type = kind[0] if kind else tarfile.REGTYPE
            archive.addfile(entry, io.BytesIO(content))
    return tmp_path


def loss(task: str, data) -> float:
    arguments = ["--task", task, "--optimizer", "sgd", "--steps", 1, "--data", data]
    return run_json("train", *arguments, "--out", data / "run")["validation_loss"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> float:
    folder = tmp_path_factory.mktemp("plain")
    table(folder / "qm7_xyz")
    for i in range(12):
        (folder / "qm7_xyz" / f"{i:04d}.xyz").write_bytes(molecule(i))
    return loss("flt_qm7", folder)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", "qm7/", "e" * 60 + "/" + "f" * 60 + "/"])
def test_archives_of_every_format_are_read(tmp_path, expected, format, folder):
    members = [(f"{folder}{i:04d}.xyz", molecule(i)) for i in range(12)]
    assert loss("flt_qm7", qm7(tmp_path, members, format=format)) == expected


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_longer_than_a_header_are_read(tmp_path, expected, format):
    far = "d" * 300 + "/"
    members = [(far, b"", tarfile.DIRTYPE)]
    for i in range(12):
        members += [(f"{far}{i}/", b"", tarfile.DIRTYPE), (f"{far}{i}/{i:04d}.xyz", molecule(i))]
    assert loss("flt_qm7", qm7(tmp_path, members, format=format)) == expected
    (tmp_path / "short").mkdir()
    members = [(far, b"", tarfile.DIRTYPE)] + [(f"{i:04d}.xyz", molecule(i)) for i in range(12)]
    assert loss("flt_qm7", qm7(tmp_path / "short", members, format=format)) == expected


def test_global_headers_are_read(tmp_path, expected):
    members = [(f"{i:04d}.xyz", molecule(i)) for i in range(12)]
    headers = {"comment": "0123456789abcdef", "mtime": "1.5"}
    folder = qm7(tmp_path, members, format=tarfile.PAX_FORMAT, pax_headers=headers)
    assert loss("flt_qm7", folder) == expected


def test_what_a_mac_puts_beside_files_is_passed_over(tmp_path, expected):
    members = []
    for i in range(12):
        members += [(f"qm7/._{i:04d}.xyz", APPLE_DOUBLE), (f"qm7/{i:04d}.xyz", molecule(i))]
    assert loss("flt_qm7", qm7(tmp_path, members, format=tarfile.PAX_FORMAT)) == expected


def test_a_name_that_comes_twice_is_refused(tmp_path):
    members = [(f"{i:04d}.xyz", molecule(i)) for i in range(12)]
    far = "d" * 120
    folder = qm7(tmp_path, [*members, (f"{far}/0003.xyz", molecule(3))])
    message = refused("train", "--task", "flt_qm7", "--data", folder, "--steps", 1)
    assert "expected every molecule once" in message and 'ddd/0003.xyz"' in message


def motion(tmp_path, comment: str) -> object:
    folder = tmp_path / "rmd17_aspirin"
    folder.mkdir(parents=True)
    for part in ("train.xyz", "test.xyz"):
        frames = []
        for i in range(12):
            text = comment.replace("@", f"{-5 - i % 3}.5")
            frames.append(f"3\n{text}\n{ATOMS.format(1 + i / 100)}")
        (folder / part).write_text("".join(frames))
    return tmp_path


def test_an_energy_is_the_same_in_every_comment(tmp_path):
    columns = "Properties=species:S:1:pos:R:3"
    comments = [
        f"{columns} energy=@",
        "Properties = species:S:1:pos:R:3 energy = @",
        "energy=@",
        f'note="said \\" energy=5 \\" once" {columns} energy=@',
        f'{columns} energy=@ note="said \\" energy=5 \\" once"',
        f"{columns} energy=@ name='a energy=5 b'",
    ]
    losses = [loss("flt_rmd17", motion(tmp_path / str(i), c)) for i, c in enumerate(comments)]
    assert losses == losses[:1] * len(comments)


def test_an_energy_inside_quotes_is_none(tmp_path):
    folder = motion(tmp_path, 'note="energy=@"')
    message = refused("train", "--task", "flt_rmd17", "--data", folder, "--steps", 1)
    assert "an energy in the comment line, got none in line 5 of" in message
