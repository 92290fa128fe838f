#pragma once

/// The version of the library: CMake and the Python package read these three lines.
#define MNEMOSYNE_VERSION_MAJOR 0
#define MNEMOSYNE_VERSION_MINOR 1
#define MNEMOSYNE_VERSION_PATCH 0
