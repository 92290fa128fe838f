"""What documents, comments and docstrings name is there: files, headings, commands and options.

The texts of the repository have to stand alone, so a section of a document that is not in it is no
source.
"""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from command_line import run

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "benchmarks",
    "cli",
    "cmake",
    "configs",
    "docs",
    "mnemosyne",
    "python",
    "scripts",
    "tests",
)
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})
SUFFIXES = {".cmake", ".cpp", ".cu", ".cuh", ".h", ".in", ".md", ".py", ".pyi", ".toml", ".txt"}


@cache
def texts() -> dict[str, str]:
    """Every text of the repository but this file, which holds bad examples, by its path."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        found += (ROOT / folder).rglob("*")
    scripts = [ROOT / "scripts" / "demo", ROOT / "scripts" / "test", ROOT / ".ci" / "run"]
    found = {path for path in found if path.suffix in SUFFIXES and path != Path(__file__)}
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in [*found, *scripts]}


def numbered_lines() -> list[tuple[str, str]]:
    """("file:line", text) of everything but includes, which the compiler checks."""
    return [
        (f"{name}:{number}", line)
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if not line.lstrip().startswith("#include")
    ]


def named_paths(line: str) -> list[str]:
    """Paths in a line that begin with a folder of the repository or of the library."""
    layers = [path.name for path in (ROOT / "mnemosyne").iterdir() if path.is_dir()]
    folders = "|".join([*FOLDERS, *layers, "weights"])
    return re.findall(rf"(?<![\w/.:$}}-])((?:{folders})/[\w./{{}},*+-]*\w}}?)", line)


def exists(path: str, beside: str) -> bool:
    """Whether a path, perhaps with * or {a,b}, leads somewhere from a usual starting point."""
    if re.search(r"/X[._]", path):  # docs/adding.md: the name of a new thing
        path = path.rsplit("/", 1)[0]
    choice = re.search(r"\{(.+?)\}", path)
    if choice and "," not in choice[1]:  # a name that is put in
        return exists(path[: choice.start()] + "*", beside)
    for part in choice[1].split(",") if choice else [""]:
        pattern = path.replace(choice[0], part) if choice else path
        starts = (ROOT, ROOT / "mnemosyne", ROOT / "python", (ROOT / beside).parent)
        if not any(any(start.glob(pattern)) for start in starts):
            return False
    return True


def anchor(heading: str) -> str:
    """The fragment by which a link finds a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def commands() -> list[tuple[str, list[str]]]:
    """(where, words) of every line in documents and configurations that calls the program."""
    found = []
    for name, text in texts().items():
        if not name.endswith((".md", ".toml")):
            continue
        text = re.sub(r"\\\n\s*", "", text)
        for line in re.findall(r"^(?:#? {4,})(mnemosyne .+)$", text, re.MULTILINE):
            found.append((f"{name}: {line}", shlex.split(line, comments=True)))
        for line in re.findall(r"`(mnemosyne [a-z-]+ [^`]*)`", text):
            found.append((f"{name}: {line}", shlex.split(line)))
    return found


def test_paths_are_found_where_they_are_named():
    assert named_paths("`optim/rules.cpp` and scripts/no-such.py") == [
        "optim/rules.cpp",
        "scripts/no-such.py",
    ]
    assert exists("optim/rules.cpp", "docs/adding.md")
    assert exists("mnemosyne/ops/X.{h,cpp}", "docs/adding.md")
    assert not exists("mnemosyne/ops/memory_step.{h,no}", "docs/adding.md")
    assert exists("configs/{name}", "docs/adding.md")
    assert not exists("tests/data/make_golden.py", "docs/adding.md")


def test_every_path_that_a_text_names_exists():
    wrong = [
        f"{where} names {path}"
        for where, line in numbered_lines()
        for path in named_paths(line)
        if not exists(path, where)
    ]
    assert not wrong


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(path):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"\w+://", target):
            continue
        file, _, fragment = target.partition("#")
        there = path.parent / file if file else path
        if not there.exists():
            wrong.append(target)
        elif fragment:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            if fragment not in map(anchor, headings):
                wrong.append(target)
    assert not wrong


def test_no_text_cites_a_document_that_is_not_here():
    documents = {path.name for path in DOCUMENTS} | {"table.md"}  # that `compare` writes
    citation = re.compile(r"\bspec (section )?\d|\b(section|issue) #?\d", re.I)
    wrong = []
    for name, text in texts().items():
        text = re.sub(r"\s*\n\s*(//+|#+)?\s*", " ", text)  # a citation may go over two lines
        for match in citation.finditer(text):
            before = text[max(0, match.start() - 60) : match.end()]
            if not re.search("arXiv|RFC", before):  # what anybody can read
                wrong.append(f"{name}: {before}")
        found = set(re.findall(r"\b[\w-]+\.md\b", text))
        wrong += [f"{name}: {document}" for document in sorted(found - documents)]
    assert not wrong


def test_commands_and_options_are_those_of_the_program():
    @cache
    def options(command: str) -> set[str]:
        result = run(*command.split(), "--help")
        assert result.returncode == 0, f"{command}: {result.stderr}"
        return set(re.findall(r"--[a-z][a-z-]*", result.stdout))

    calls = commands()
    assert len(calls) > 10
    wrong = []
    for where, words in calls:
        nested = words[1] in ("bench", "plot") and len(words) > 2 and words[2].isalpha()
        known = options(" ".join(words[1 : 3 if nested else 2]))
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        wrong += [f"{where}: {option}" for option in sorted(used - known)]
    assert not wrong


def test_tasks_in_commands_are_those_of_the_program():
    listed = run("tasks").stdout.split()
    wrong = [
        f"{where}: {task}"
        for where, words in commands()
        for option, value in zip(words, words[1:], strict=False)
        if option == "--task"
        for task in value.split(",")
        if re.split("[@:]", task)[0] not in [*listed, "validation", "test", "..."]
    ]
    assert not wrong
