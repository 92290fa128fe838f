"""`python -m mnemosyne --cmake-dir` prints where find_package(mnemosyne) finds the C++ library.

Every other argument goes to the command line program that comes with the package.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).parent


def cmake_dir() -> Path:
    """The folder of mnemosyne-config.cmake: in a wheel, or in the build folder that links here."""
    for folder in (PACKAGE / "lib" / "cmake" / "mnemosyne", PACKAGE.parents[1] / "cmake"):
        if (folder / "mnemosyne-config.cmake").exists():
            return folder
    raise SystemExit(f"error: no CMake package beside {PACKAGE}")


def program() -> Path:
    """The command line program: in a wheel, or in the build folder."""
    for file in (PACKAGE / "bin" / "mnemosyne", PACKAGE.parents[1] / "cli" / "mnemosyne"):
        if file.exists():
            return file
    raise SystemExit(f"error: the command line program was not built beside {PACKAGE}")


def library_path(before: str) -> str:
    """A search path of libraries with this Python's torch at its end.

    The program looks for torch beside its package; a virtual environment on top of another one, or
    of the system's packages, has it elsewhere.
    """
    torch = find_spec("torch")
    folders = [before] if before else []
    if torch is not None and torch.origin is not None:
        folders.append(str(Path(torch.origin).parent / "lib"))
    return os.pathsep.join(folders)


def main() -> None:
    if sys.argv[1:] == ["--cmake-dir"]:
        print(cmake_dir())
        return
    executable = program()
    os.environ.setdefault("MNEMOSYNE_PYTHON", sys.executable)  # for what the program draws
    variable = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"
    os.environ[variable] = library_path(os.environ.get(variable, ""))
    os.execv(executable, [str(executable), *sys.argv[1:]])


if __name__ == "__main__":
    main()
