# Cross compiles for 64-bit Arm (the preset arm64) with Debian's g++-aarch64-linux-gnu and zlib1g-dev:arm64, to objects:
# linking needs the torch of that machine.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
