#include "mnemosyne/ops/recycled.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace mnemosyne::ops {
namespace {

// Of a size that nothing else in this program asks for.
const at::Tensor& like() {
  static const at::Tensor tensor = at::empty({7, 1013});
  return tensor;
}

TEST(Recycled, ComesBackWhenTheLastReferenceGoes) {
  at::Tensor first = recycled_like(like());
  const void* const memory = first.const_data_ptr();
  EXPECT_NE(recycled_like(like()).const_data_ptr(), memory);
  at::Tensor row = first[3];
  first.reset();
  EXPECT_NE(recycled_like(like()).const_data_ptr(), memory) << "a view still looks at it";
  row.reset();
  // Another tensor of the size went back before it; the last one is the first to be used again.
  EXPECT_EQ(recycled_like(like()).const_data_ptr(), memory);
}

TEST(Recycled, HasTheSizesAndTypeThatWereAskedFor) {
  recycled_like(like()).fill_(3.0);
  const at::Tensor integers = recycled_like(at::empty({1013, 7}, at::kInt));
  EXPECT_EQ(integers.sizes(), at::IntArrayRef({1013, 7}));
  EXPECT_EQ(integers.scalar_type(), at::kInt);
  EXPECT_TRUE(integers.is_contiguous());
  EXPECT_TRUE(recycled_like(like().t()).is_contiguous());
  EXPECT_EQ(recycled_like(at::empty({0, 4})).numel(), 0);
}

TEST(Recycled, LiveTensorsDoNotShareMemory) {
  std::vector<at::Tensor> tensors;
  for (int i = 0; i < 5; ++i) tensors.push_back(recycled_like(like()).fill_(i));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE((tensors[i] == i).all().item<bool>());
}

}  // namespace
}  // namespace mnemosyne::ops
