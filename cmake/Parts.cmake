# The library is compiled in two parts, one a set of precompiled headers: without them, torch's headers take 7 of the
# 9 seconds of a file on tensors and 12 of the 17 of one on modules.
set(tensor_headers
    <ATen/TensorOperators.h>
    <ATen/core/Tensor.h>
    <ATen/core/grad_mode.h>
    <algorithm>
    <cmath>
    <map>
    <memory>
    <optional>
    <string>
    <utility>
    <vector>
)
set(module_headers ${tensor_headers} <torch/csrc/autograd/autograd.h> <torch/nn/module.h>)

# mnemosyne_precompile(<target> <header>...)
function(mnemosyne_precompile target)
  if(MNEMOSYNE_PCH)
    target_precompile_headers(${target} PRIVATE ${ARGN})
  endif()
endfunction()

function(mnemosyne_add_part part)
  set(target mnemosyne_${part})
  add_library(${target} OBJECT)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(
    ${target}
    PRIVATE torch mnemosyne_warnings nlohmann_json::nlohmann_json ZLIB::ZLIB
  )
  target_sources(mnemosyne PRIVATE $<TARGET_OBJECTS:${target}>)
  mnemosyne_precompile(${target} ${ARGN})
endfunction()

mnemosyne_add_part(tensors ${tensor_headers}) # core, ops, io, optim
mnemosyne_add_part(modules ${module_headers}) # nn, tasks, meta
