#include "mnemosyne/ops/clean_gradients.h"

#include <limits>

#include "mnemosyne/ops/operation_count.h"
#include "mnemosyne/ops/without_kernels.h"
#include "mnemosyne/optim/deferred_count.h"
#include "mnemosyne/optim/update_rule.h"
#include "testing.h"

namespace mnemosyne {
namespace {

using testing::identical;

std::vector<at::Tensor> gradients() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  at::manual_seed(1);
  std::vector<at::Tensor> grads = {
      at::randn({3, 5}),
      at::randn({65}),
      at::randn({}),
      at::empty({0, 3}),
      at::randn({4, 2}).t(),
      at::randn({7}, at::kDouble),
      at::randn({2, 3}).to(at::kHalf),
      at::randn({9}).to(at::kBFloat16),
  };
  grads[0][1][1] = std::numeric_limits<double>::quiet_NaN();
  grads[0][2][0] = -kInfinity;
  grads[1][64] = -3e30;
  grads[4][0][3] = kInfinity;
  grads[5][0] = 1e200;
  grads[6][1][1] = kInfinity;
  grads[6][1][2] = -65504;
  return grads;
}

TEST(CleanGradientsOfAList, AreThoseOfTheHostAndNothingIsRead) {
  std::vector<at::Tensor> host = gradients(), device = gradients();
  const std::vector<at::Tensor> given = device;
  optim::DeferredCount of_host;
  optim::clean_gradients(host, of_host);
  const ops::OperationCount count;
  const at::Tensor not_finite = ops::clean_gradients(device);
  EXPECT_EQ(count.host_reads(), 0);
  EXPECT_LE(count.operations(), 7 * 4);  // four dtypes
  EXPECT_EQ(not_finite.scalar_type(), at::kLong);
  EXPECT_EQ(not_finite.item<int64_t>(), 4);
  EXPECT_EQ(of_host.total(), 4);
  for (size_t i = 0; i < host.size(); ++i) {
    EXPECT_TRUE(identical(device[i], host[i])) << i;
    EXPECT_TRUE(at::equal(given[i].isnan(), gradients()[i].isnan())) << i;
  }
}

TEST(CleanGradientsOfAList, AreWhatAStepWithoutKernelsTakes) {
  std::vector<at::Tensor> host = gradients(), device = gradients();
  optim::DeferredCount of_host, of_device;
  optim::clean_gradients(host, of_host);
  {
    const ops::WithoutKernels without_kernels;
    const ops::OperationCount count;
    optim::clean_gradients(device, of_device);
    EXPECT_EQ(count.host_reads(), 0);
  }
  EXPECT_EQ(of_device.total(), of_host.total());
  for (size_t i = 0; i < host.size(); ++i) EXPECT_TRUE(identical(device[i], host[i])) << i;
}

TEST(CleanGradientsOfAList, MayBeNone) {
  std::vector<at::Tensor> none, empty = {at::empty({0})};
  EXPECT_EQ(ops::clean_gradients(none).item<int64_t>(), 0);
  EXPECT_EQ(ops::clean_gradients(empty).item<int64_t>(), 0);
}

TEST(OperationCount, SeesWhatADispatchModeSees) {
  const at::Tensor x = at::ones({3}), y = at::ones({3});
  const auto operations = [](const std::function<void()>& body) {
    const ops::OperationCount count;
    body();
    return count.operations();
  };
  EXPECT_EQ(operations([] {}), 0);
  EXPECT_EQ(operations([&] { x.mul(y); }), 1);
  EXPECT_EQ(operations([&] { x.view({1, 3}); }), 1);
  EXPECT_EQ(operations([&] { x.square(); }), 1);    // pow
  EXPECT_EQ(operations([&] { x.isfinite(); }), 4);  // eq, abs, ne, mul
  // One of a list, whatever its kernel calls.
  EXPECT_EQ(operations([&] { at::_foreach_mul({x, y}, {y, x}); }), 1);
  const ops::OperationCount count;
  x.sum().item<float>();
  EXPECT_EQ(count.operations(), 2);
  EXPECT_EQ(count.host_reads(), 1);
}

}  // namespace
}  // namespace mnemosyne
