#include "mnemosyne/core/device.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <charconv>

#include "mnemosyne/core/error.h"

namespace mnemosyne {
namespace {

/// The number behind "cuda:", 0 behind "cuda" alone; below 0 for another name.
int cuda_index(const std::string& name) {
  const std::string first = "cuda";
  if (name == first) return 0;
  if (!name.starts_with(first + ":")) return -1;
  int index = -1;
  const char* end = name.data() + name.size();
  const auto [stopped, error] = std::from_chars(name.data() + first.size() + 1, end, index);
  return error == std::errc() && stopped == end ? index : -1;
}

}  // namespace

at::Device parse_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  const int index = cuda_index(name);
  if (index < 0) {
    throw InputError("[device] expected cpu, cuda or cuda:N, got \"" + name + "\"");
  }
  const int count = at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
  if (count == 0) {
    throw InputError("[device] expected cpu where there is no CUDA device, got \"" + name + "\"");
  }
  if (index >= count) {
    throw InputError("[device] expected cuda:0 to cuda:" + std::to_string(count - 1) + ", got \"" +
                     name + "\"");
  }
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
}

void synchronize(at::Device device) {
  if (device.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

}  // namespace mnemosyne
