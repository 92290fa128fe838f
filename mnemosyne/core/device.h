#pragma once

#include <c10/core/Device.h>

#include <string>

namespace mnemosyne {

/// The device called "cpu", "cuda" or "cuda:1", where "cuda" is the first one. InputError, one
/// line, for any other name and for a device that is not there.
at::Device parse_device(const std::string& name);

/// Waits for what was asked of a device; of the CPU there is nothing to wait for.
void synchronize(at::Device device);

}  // namespace mnemosyne
