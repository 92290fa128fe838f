#include <gtest/gtest.h>
#include <torch/utils.h>

namespace mnemosyne {
namespace {

// Modules without a seed draw theirs from torch's generator: every test starts it anew, so that it
// sees the same numbers alone, in any order and in the whole suite.
class Seeded : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo&) override { torch::manual_seed(0); }
};

// The list of listeners owns it.
[[maybe_unused]] const bool appended = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new Seeded);
  return true;
}();

}  // namespace
}  // namespace mnemosyne
