"""`python -m mnemosyne --cmake-dir` prints where find_package(mnemosyne) finds the C++ library.

Every other argument goes to the command line program that comes with the package.
"""

import os
import sys
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


def main() -> None:
    if sys.argv[1:] == ["--cmake-dir"]:
        print(cmake_dir())
        return
    executable = program()
    os.environ.setdefault("MNEMOSYNE_PYTHON", sys.executable)  # for what the program draws
    os.execv(executable, [str(executable), *sys.argv[1:]])


if __name__ == "__main__":
    main()
