#include "mnemosyne/optim/update_rule.h"

#include <limits>

#include "mnemosyne/optim/deferred_count.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

TEST(CleanGradients, ReplacesNonFiniteEntriesAndCountsThem) {
  const at::Tensor bad = at::tensor({1.0f, std::numeric_limits<float>::quiet_NaN(), -2.0f,
                                     std::numeric_limits<float>::infinity()});
  const at::Tensor good = at::tensor({3.0f, 4.0f});
  std::vector<at::Tensor> grads{bad, good};
  DeferredCount nonfinite;
  clean_gradients(grads, nonfinite);
  EXPECT_EQ(nonfinite.total(), 2);
  EXPECT_TRUE(at::equal(grads[0], at::tensor({1.0f, 0.0f, -2.0f, 0.0f})));
  EXPECT_TRUE(grads[1].is_same(good));
  EXPECT_TRUE(bad.isnan().any().item<bool>()) << "the caller's gradient must not be written to";
}

TEST(CleanGradients, ClipsWhatWouldOverflowWhenSquared) {
  std::vector<at::Tensor> grads{at::tensor({-3e38f, 1.0f})};
  DeferredCount nonfinite;
  clean_gradients(grads, nonfinite);
  EXPECT_EQ(nonfinite.total(), 0);
  EXPECT_TRUE(at::isfinite(grads[0].square()).all().item<bool>());
}

}  // namespace
}  // namespace mnemosyne::optim
