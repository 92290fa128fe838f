# Where each dependency comes from. Torch is the wheel of the Python that is found first (or
# -DPython_EXECUTABLE=...).

find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)

if(NOT Torch_DIR)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "import torch; print(torch.utils.cmake_prefix_path)"
    OUTPUT_VARIABLE torch_prefix
    OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET
  )
  if(NOT torch_prefix)
    message(FATAL_ERROR "torch not found in ${Python_EXECUTABLE}: pip install torch, or run scripts/test")
  endif()
  set(Torch_DIR ${torch_prefix}/Torch)
endif()
find_package(Torch 2.11 REQUIRED)
find_package(ZLIB REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
