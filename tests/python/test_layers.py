"""The structure of the code (docs/design.md): which layer may include which, and what else holds.

The rules are checked on the text: a wrong #include fails here before it becomes a habit.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "mnemosyne"

# Every layer with those that it may include, beside itself.
ARROWS = {
    "core": set(),
    "kernels": {"core"},
    "ops": {"core", "kernels"},
    "nn": {"core", "ops"},
    "io": {"core"},
    "optim": {"core", "ops", "nn", "io"},
    "tasks": {"core", "ops", "nn", "io"},
    "meta": {"core", "ops", "nn", "io", "optim", "tasks"},
}
SOURCE_SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}


def sources(*folders: Path) -> list[Path]:
    return sorted(
        path for folder in folders for path in folder.rglob("*") if path.suffix in SOURCE_SUFFIXES
    )


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_folder_of_the_library_is_a_known_layer():
    found = {path.name for path in LIBRARY.iterdir() if path.is_dir()}
    assert found == set(ARROWS)


@pytest.mark.parametrize("layer", ARROWS)
def test_a_layer_includes_only_what_lies_below_it(layer):
    allowed = ARROWS[layer] | {layer}
    wrong = [
        f"{name(path)} includes {include}"
        for path in sources(LIBRARY / layer)
        for include in includes(path)
        if include.startswith("mnemosyne/") and include.count("/") > 1
        if include.split("/")[1] not in allowed
    ]
    assert not wrong


def test_only_ops_and_kernels_know_the_kernels():
    # Tests and benchmarks may, to compare instruction sets; a program or a binding may not.
    wrong = [
        f"{name(path)} includes {include}"
        for path in sources(ROOT / "cli", ROOT / "python")
        for include in includes(path)
        if include.startswith("mnemosyne/kernels/")
    ]
    assert not wrong


def test_kernels_include_no_torch_but_its_vectors():
    wrong = [
        f"{name(path)} includes {include}"
        for path in sources(LIBRARY / "kernels")
        for include in includes(path)
        if re.match(r"(ATen|c10|torch)/", include)
        and not include.startswith(("ATen/cpu/vec/", "ATen/native/cpu/"))
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        # nlohmann/json makes a file slow to compile, so no header has it; options go through it.
        (r"nlohmann/", r"mnemosyne/(core|io|nn|optim|tasks|meta)/[\w/]+\.cpp|cli/\w+\.cpp|tests/"),
        (r"CLI/", r"cli/"),
        (r"pybind11/|torch/csrc/utils/pybind", r"python/src/"),
        (r"cuda|cublas", r"mnemosyne/kernels/cuda/"),
        # These two cost 12 and 20 seconds a file.
        (r"torch/torch\.h", r"examples/|tests/install/"),
        (r"torch/extension\.h", r"(?!)"),
        (r"gtest/", r"tests/"),
    ],
)
def test_a_dependency_stays_where_it_belongs(header, allowed):
    folders = [ROOT / folder for folder in ("mnemosyne", "cli", "python", "tests", "benchmarks")]
    wrong = [
        f"{name(path)} includes {include}"
        for path in sources(*folders)
        for include in includes(path)
        if re.match(header, include) and not re.match(allowed, name(path))
    ]
    assert not wrong


def test_headers_that_are_installed_include_none_that_is_not():
    wrong = [
        f"{name(path)} includes {include}"
        for path in sources(LIBRARY)
        if path.suffix == ".h"
        and path.relative_to(LIBRARY).parts[0] != "kernels"
        and path.name != "problem.h"
        for include in includes(path)
        if include.startswith("mnemosyne/kernels/") or include.endswith("/problem.h")
    ]
    assert not wrong


def test_loops_run_on_the_threads_of_torch():
    # at::parallel_for is a serial loop in what is compiled without OpenMP: ops/parallel.h.
    pattern = re.compile(r"\bat::parallel_(for|reduce)\b|#\s*pragma\s+omp\b")
    wrong = [
        f"{name(path)}:{number}: {line.strip()}"
        for path in sources(LIBRARY, ROOT / "cli", ROOT / "python")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line.split("//")[0])
    ]
    assert not wrong


def test_every_source_is_in_the_list_that_compiles_it():
    def listed(path: Path) -> bool:
        lists = next(f for p in path.parents if (f := p / "CMakeLists.txt").exists())
        entry = path.relative_to(lists.parent).with_suffix("").as_posix()
        if "kernels" in path.parts:  # whose list has names alone, for every instruction set
            entry = path.stem
        return re.search(rf"(?<![\w/]){entry}\b", lists.read_text()) is not None

    files = sources(*(ROOT / folder for folder in ("mnemosyne", "cli", "python", "tests")))
    assert [name(p) for p in files if p.suffix in {".cpp", ".cu"} and not listed(p)] == []


def test_the_library_does_not_print_or_exit():
    pattern = re.compile(r"\bstd::(cout|cerr|clog|exit|abort)\b|\bf?printf\(|\b(exit|abort)\(")
    wrong = [
        f"{name(path)}:{number}: {line.strip()}"
        for path in sources(LIBRARY)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line.split("//")[0])
    ]
    assert not wrong


def test_the_library_reads_one_environment_variable():
    found = {
        variable
        for path in sources(LIBRARY)
        for variable in re.findall(r'getenv\(\s*"?(\w+)', path.read_text())
    }
    assert found <= {"MNEMOSYNE_ISA"}


def test_no_file_is_longer_than_400_lines():
    folders = [ROOT / folder for folder in ("mnemosyne", "cli", "python", "tests", "benchmarks")]
    files = sources(*folders) + sorted((ROOT / "python").rglob("*.py"))
    files += sorted((ROOT / "tests").rglob("*.py"))
    lengths = {name(path): len(path.read_text().splitlines()) for path in files}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_everything_is_ascii():
    folders = [ROOT / folder for folder in ("mnemosyne", "cli", "python", "tests", "benchmarks")]
    files = sources(*folders) + sorted((ROOT / "python").rglob("*.py"))
    assert [name(path) for path in files if not path.read_text().isascii()] == []
