# The target `torch`, from Torch_DIR or from the wheel of Python_EXECUTABLE. Used by our own build and, installed
# beside mnemosyne-config.cmake, by those who link to the library.
#
# A CUDA wheel's own CMake files insist on a CUDA toolkit of the same version, even where nothing is
# compiled for a GPU; the three libraries that we link to need none, so for those wheels the target is
# made here.
if(NOT TARGET torch)
  if(NOT Torch_DIR)
    find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
    execute_process(
      COMMAND ${Python_EXECUTABLE} -c "import importlib.util, os, runpy
folder = os.path.dirname(importlib.util.find_spec('torch').origin)  # importing it would take seconds
version = runpy.run_path(os.path.join(folder, 'version.py'))
print(folder, version['__version__'].split('+')[0], version['cuda'], sep=';')"
      OUTPUT_VARIABLE torch_wheel
      OUTPUT_STRIP_TRAILING_WHITESPACE
      ERROR_QUIET
    )
    if(NOT torch_wheel)
      message(FATAL_ERROR
        "torch not found in ${Python_EXECUTABLE}: pip install torch, or give -DPython_EXECUTABLE or -DTorch_DIR"
      )
    endif()
    list(POP_FRONT torch_wheel torch_root Torch_VERSION torch_cuda)
    if(torch_cuda STREQUAL "None")
      set(Torch_DIR ${torch_root}/share/cmake/Torch)
    endif()
  endif()
  if(Torch_DIR)
    # TorchConfig.cmake warns of a static library that wheels never hold.
    set(kineto_LIBRARY kineto)
    find_package(Torch REQUIRED)
    unset(kineto_LIBRARY)
  else()
    set(TORCH_INCLUDE_DIRS ${torch_root}/include ${torch_root}/include/torch/csrc/api/include)
    add_library(torch INTERFACE IMPORTED)
    target_include_directories(torch INTERFACE ${TORCH_INCLUDE_DIRS})
    target_compile_definitions(torch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
    # libtorch.so only pulls in the CUDA library, which no symbol of ours asks for.
    target_link_libraries(
      torch
      INTERFACE
        -Wl,--no-as-needed
        ${torch_root}/lib/libtorch.so
        ${torch_root}/lib/libtorch_cpu.so
        ${torch_root}/lib/libc10.so
    )
  endif()
  # Wheels export parts of libstdc++, in 2.11's libtorch.so without what std::filesystem::remove_all calls: the
  # whole one has to be found first.
  if(LINUX)
    get_target_property(torch_libraries torch INTERFACE_LINK_LIBRARIES)
    set_property(
      TARGET torch PROPERTY INTERFACE_LINK_LIBRARIES -Wl,--no-as-needed stdc++ ${torch_libraries}
    )
  endif()
  if(Torch_VERSION VERSION_LESS 2.11)
    message(FATAL_ERROR "expected torch 2.11 or later, got ${Torch_VERSION}")
  endif()
endif()
