#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/position/placed_tokens.h"
#include "mnemosyne/nn/softmax_attention.h"
#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;

constexpr int64_t kWidth = 8, kLength = 6;
constexpr double kNone = std::numeric_limits<double>::infinity();

/// What padding may hold: nothing that has an order.
constexpr double kAnything[] = {1.0, -7.0, 1e9, std::numeric_limits<double>::quiet_NaN()};

at::Tensor tokens(int64_t batch, int64_t length) {
  at::manual_seed(1);
  return at::randn({batch, length, kWidth}, at::kDouble);
}

std::vector<std::shared_ptr<Attention>> damped_forms() {
  std::vector<std::shared_ptr<Attention>> forms;
  // Short sequences go by the matrix of weights where that is less work, long ones by features.
  for (const char* map : {"relu", "favor+", "elu+1"}) {
    for (const int64_t features : {4, 256}) {
      forms.push_back(std::make_shared<LinearAttentionImpl>(
          LinearAttentionOptions{.embed_dim = kWidth,
                                 .num_heads = 2,
                                 .feature_map = map,
                                 .num_features = features,
                                 .causal = true,
                                 .position = DampedPositionOptions{}}));
    }
  }
  forms.push_back(std::make_shared<SoftmaxAttentionImpl>(SoftmaxAttentionOptions{
      .embed_dim = kWidth, .num_heads = 2, .causal = true, .position = DampedPositionOptions{}}));
  for (const auto& form : forms) {
    form->to(at::kDouble);
    testing::randomise(*form, 3, 0.2);
  }
  return forms;
}

/// Three examples of 3, 6 and 4 tokens, padded to six on the left or on the right; `where` as
/// transformers makes position_ids, with `hidden` in place of padding.
struct Padded {
  at::Tensor mask, where;
  std::vector<int64_t> counts{3, 6, 4};

  int64_t first(size_t row, bool left) const { return left ? kLength - counts[row] : 0; }
};

Padded padded(bool left, double hidden) {
  Padded result;
  std::vector<at::Tensor> rows;
  for (const int64_t count : result.counts) {
    const at::Tensor index = at::arange(kLength);
    rows.push_back(left ? index >= kLength - count : index < count);
  }
  result.mask = at::stack(rows);
  result.where = (result.mask.to(at::kLong).cumsum(1) - 1).to(at::kDouble);
  result.where = at::where(result.mask, result.where, hidden).unsqueeze(-1);
  return result;
}

TEST(PaddedPosition, PaddingOfDampedPositionsDoesNotCount) {
  for (const auto& attention : damped_forms()) {
    for (const bool left : {true, false}) {
      for (const double hidden : kAnything) {
        const Padded p = padded(left, hidden);
        const at::Tensor x = tokens(3, kLength);
        const at::Tensor y =
            attention->forward(x, {.positions = p.where, .key_padding_mask = p.mask});
        for (size_t row = 0; row < 3; ++row) {
          const int64_t first = p.first(row, left), count = p.counts[row];
          const at::Tensor alone = attention->forward(
              x.narrow(0, static_cast<int64_t>(row), 1).narrow(1, first, count), {});
          EXPECT_TRUE(close(y.narrow(0, static_cast<int64_t>(row), 1).narrow(1, first, count),
                            alone, {1e-9, 1e-10}))
              << left << " " << hidden << " " << row;
        }
      }
    }
  }
}

TEST(PaddedPosition, NorDoesItInSegmentsAndSteps) {
  for (const auto& attention : damped_forms()) {
    const auto* linear = dynamic_cast<const LinearAttentionImpl*>(attention.get());
    if (linear == nullptr) continue;
    for (const bool left : {true, false}) {
      for (const double hidden : kAnything) {
        const Padded p = padded(left, hidden);
        const at::Tensor x = tokens(3, kLength);
        for (const int64_t segment : {1, 2, 4, 6}) {
          LinearAttentionMemory memory;
          std::vector<at::Tensor> parts;
          for (int64_t from = 0; from < kLength; from += segment) {
            const int64_t count = std::min(segment, kLength - from);
            parts.push_back(
                linear->forward_segment(x.narrow(1, from, count), memory,
                                        {.positions = p.where.narrow(1, from, count),
                                         .key_padding_mask = p.mask.narrow(1, from, count)}));
          }
          const at::Tensor y = at::cat(parts, 1);
          for (size_t row = 0; row < 3; ++row) {
            const int64_t first = p.first(row, left), count = p.counts[row];
            const at::Tensor mine = x.narrow(0, static_cast<int64_t>(row), 1);
            EXPECT_TRUE(close(y.narrow(0, static_cast<int64_t>(row), 1).narrow(1, first, count),
                              attention->forward(mine.narrow(1, first, count), {}), {1e-9, 1e-10}))
                << left << " " << hidden << " " << segment << " " << row;
          }
          EXPECT_TRUE(close(memory.last.squeeze(1), at::tensor({2.0, 5.0, 3.0}), {0, 0}));
        }
      }
    }
  }
}

TEST(PaddedPosition, ASharedLineIsEachExamplesOwn) {
  // In order for each example by itself, not for all of them at once.
  const at::Tensor where = at::tensor({0.0, 1.0, 0.0, 1.0, 2.0}, at::kDouble).unsqueeze(-1);
  const at::Tensor mask = at::tensor({1, 1, 0, 0, 0, 0, 0, 1, 1, 1}).view({2, 5}).to(at::kBool);
  for (const auto& attention : damped_forms()) {
    const at::Tensor x = tokens(2, 5);
    const at::Tensor y = attention->forward(x, {.positions = where, .key_padding_mask = mask});
    EXPECT_TRUE(close(y.narrow(0, 0, 1).narrow(1, 0, 2),
                      attention->forward(x.narrow(0, 0, 1).narrow(1, 0, 2), {}), {1e-9, 1e-10}));
    EXPECT_TRUE(close(y.narrow(0, 1, 1).narrow(1, 2, 3),
                      attention->forward(x.narrow(0, 1, 1).narrow(1, 2, 3), {}), {1e-9, 1e-10}));
  }
}

TEST(PaddedPosition, WhatCountsHasToBeInOrder) {
  const Padded p = padded(true, 1.0);
  at::Tensor wrong = p.where.clone();
  wrong[1][5] = 3.5;  // after 4
  const at::Tensor has = at::ones({kLength}, at::kBool);
  for (const auto& attention : damped_forms()) {
    const at::Tensor x = tokens(3, kLength);
    const auto refused = [&](const AttentionInputs& inputs) {
      try {
        attention->forward(x, inputs);
      } catch (const c10::Error& error) {
        return std::string(error.what_without_backtrace()).find("a step back of 0.5") !=
               std::string::npos;
      }
      return false;
    };
    EXPECT_TRUE(refused({.positions = wrong, .key_padding_mask = p.mask}));
    EXPECT_TRUE(refused({.positions = wrong[1]}));
    EXPECT_TRUE(refused({.positions = wrong[1], .has_position = has}));
    EXPECT_THROW(
        attention->forward(x, {.positions = p.where, .key_padding_mask = p.mask.narrow(1, 0, 3)}),
        c10::Error);
  }
}

TEST(PaddedPosition, OrderedLinesCarryPositionsOn) {
  const auto ordered = [](const std::vector<double>& places, const std::vector<int>& counts,
                          const at::Tensor& last) {
    return ordered_line({.positions = at::tensor(places, at::kDouble).view({1, -1, 1}),
                         .mask = at::tensor(counts).to(at::kBool).view({1, -1})},
                        last);
  };
  const auto expect = [](const OrderedLine& line, const std::vector<double>& places, double last) {
    EXPECT_TRUE(close(line.positions.squeeze(0), at::tensor(places, at::kDouble), {0, 0}));
    EXPECT_EQ(line.last.item<double>(), last);
  };
  expect(ordered({1, 1, 0, 1, 2}, {0, 0, 1, 1, 1}, {}), {0, 0, 0, 1, 2}, 2);
  expect(ordered({0, 1, 2, 0, 0}, {1, 1, 1, 0, 0}, {}), {0, 1, 2, 2, 2}, 2);
  expect(ordered({9, 9}, {0, 0}, {}), {0, 0}, -kNone);
  const at::Tensor none = at::full({1, 1}, -kNone, at::kDouble);
  expect(ordered({9, -3}, {0, 1}, none), {-3, -3}, -3);
  const at::Tensor four = at::full({1, 1}, 4.0, at::kDouble);
  expect(ordered({9, 9}, {0, 0}, four), {4, 4}, 4);
  expect(ordered({0, 6, 0}, {0, 1, 0}, four), {4, 6, 6}, 6);
}

}  // namespace
}  // namespace mnemosyne::nn
