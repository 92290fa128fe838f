#pragma once

#include <gtest/gtest.h>

#include "mnemosyne/kernels/isa.h"

/// Tests of kernels by every instruction set of the machine.
namespace mnemosyne::testing {

/// Kernels of one instruction set, while it lives.
class UsedIsa {
 public:
  explicit UsedIsa(kernels::Isa isa) { kernels::set_active_isa(isa); }
  ~UsedIsa() { kernels::set_active_isa(before_); }
  UsedIsa(const UsedIsa&) = delete;
  UsedIsa& operator=(const UsedIsa&) = delete;

 private:
  kernels::Isa before_ = kernels::active_isa();
};

/// A suite that is run by each: `class X : public testing::EveryIsa {};` and
/// INSTANTIATE_TEST_SUITE_P(Isas, X, ::testing::ValuesIn(kernels::available_isas()));
class EveryIsa : public ::testing::TestWithParam<kernels::Isa> {
 private:
  UsedIsa isa_{GetParam()};
};

}  // namespace mnemosyne::testing
