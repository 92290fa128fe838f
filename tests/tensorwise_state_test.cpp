#include <algorithm>
#include <functional>
#include <limits>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/deferred_count.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"
#include "tensorwise_testing.h"

/// What a tensor-wise rule keeps: state, weights, and what it refuses of both.
namespace mnemosyne::optim {
namespace {

using testing::clones;
using testing::close;
using testing::gradients;
using testing::identical;
using testing::kTensorShapes;
using testing::small_tensorwise;
using testing::waves;
using testing::with_random_head;

using Tensors = std::vector<at::Tensor>;

TEST(TensorwiseState, StateIsThatOfTheBaseAndAFewNumbersForEveryMetaToken) {
  const TensorwiseRule rule;
  const auto bytes = [&](at::IntArrayRef shape) {
    const at::Tensor param = at::empty(shape, at::TensorOptions(at::kFloat).device(at::kMeta));
    int64_t sum = 0;
    for (const StateEntry& entry : rule.state_layout(param)) {
      if (entry.name == "step") continue;
      sum += 4 * c10::multiply_integers(entry.shape);
    }
    return static_cast<double>(sum) / static_cast<double>(param.numel());
  };
  EXPECT_LE(bytes({768, 3072}), 8.97);
  EXPECT_EQ(bytes({512}), 8.0 + 123 * 4.0 / 512);
  EXPECT_EQ(bytes({513}), 8.0 + 2 * 123 * 4.0 / 513);
  const TensorwiseRule forgetful(small_tensorwise({.memory = false}));
  EXPECT_EQ(forgetful.state_layout(at::zeros({40, 6})).back().shape[0], 0);
  EXPECT_EQ(rule.state_layout(at::zeros({0, 6})).back().shape[0], 0);
  EXPECT_TRUE(rule.shared_layout().empty());
}

TEST(TensorwiseState, AMemoryThatIsNotFiniteBeginsAnew) {
  const auto rule = with_random_head(small_tensorwise());
  const Tensors params = waves(kTensorShapes, 0.3);
  State state = init_state(*rule, params);
  for (int64_t step = 0; step < 3; ++step) {
    state = rule->update(gradients(kTensorShapes, step), state, params, {}).state;
  }
  State spoiled = clone_state(state), empty = clone_state(state);
  spoiled[2].back().fill_(std::numeric_limits<float>::quiet_NaN());
  empty[2].back().zero_();
  const UpdateResult a = rule->update(gradients(kTensorShapes, 5), spoiled, params, {});
  const UpdateResult b = rule->update(gradients(kTensorShapes, 5), empty, params, {});
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_TRUE(identical(a.updates[i], b.updates[i])) << i;
  }
  EXPECT_TRUE(identical(a.state[2].back(), b.state[2].back()));
}

TEST(TensorwiseState, WithoutFiniteWeightsATensorTakesAdamsDirection) {
  const TensorwiseRule fresh(small_tensorwise());
  NamedTensors weights = fresh.weights();
  for (auto& [name, weight] : weights) {
    weight = at::full_like(weight, std::numeric_limits<double>::quiet_NaN());
  }
  const auto rule = fresh.with_weights(weights);
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    Tensors params = waves({{6, 5}, {7}}, 0.3, dtype);
    const Tensors before = clones(params), grads = gradients({{6, 5}, {7}}, 0, dtype);
    State state = init_state(*rule, params);
    DeferredCount count;
    rule->step_(grads, state, params, {.fallbacks = &count});
    EXPECT_EQ(count.total(), 2);
    for (size_t i = 0; i < params.size(); ++i) {
      const double unit = i == 0 ? ops::kDirectionRms : 1.0;
      const at::Tensor adam = grads[i] / (grads[i].abs() + 1e-8);
      EXPECT_TRUE(close(params[i], before[i] - base_step_size({}, {}, 1) * unit * adam));
      EXPECT_TRUE(at::isfinite(state[i].back()).all().item<bool>());
    }
  }
}

TEST(TensorwiseState, AWeightsFileGivesItBackWithNamesOfWhatItSees) {
  const auto rule = with_random_head(small_tensorwise({.position = "flt"}));
  const std::string path = testing::temporary_path("tensorwise.safetensors");
  save_rule(path, *rule);
  const auto loaded = load_rule(path);
  EXPECT_EQ(weights_hash(*loaded), weights_hash(*rule));
  const Tensors params = waves(kTensorShapes, 0.3), grads = gradients(kTensorShapes, 0);
  const State state = init_state(*rule, params);
  const auto expected = rule->update(grads, state, params, {});
  const auto own = loaded->update(grads, state, params, {});
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_TRUE(identical(own.updates[i], expected.updates[i])) << i;
  }
  const WeightAxes axes = rule->weight_axes();
  EXPECT_EQ(axes.size(), 2u);
  for (const auto& [name, lists] : axes) {
    EXPECT_EQ(static_cast<int64_t>(lists[1].size()), find(rule->weights(), name).size(1)) << name;
  }
}

void expect_refused(const std::function<void()>& call, const std::string& expected) {
  try {
    call();
    ADD_FAILURE() << "expected an InputError: " << expected;
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()).find("[mnemosyne-tensor] expected " + expected), 0u)
        << error.what();
  }
}

TEST(TensorwiseState, RefusesWhatItCannotUseByName) {
  const auto with = [](const std::string& option) {
    return [option] { make_rule("mnemosyne-tensor", "{" + option + "}"); };
  };
  expect_refused(with(R"("direction_bound": 2.5)"), "direction_bound in [0, 2], got 2.5");
  expect_refused(with(R"("magnitude_bound": -1)"), "magnitude_bound in [0, 3], got -1");
  expect_refused(with(R"("width": 9)"), "width up to 1024, a multiple of heads, got 9");
  expect_refused(with(R"("heads": 0)"), "heads from 1 to 64, got 0");
  expect_refused(with(R"("hidden": 100000)"), "hidden from 1 to 1024, got");
  expect_refused(with(R"("chunk_lengths": [])"), "chunk_lengths of 1 to 8 levels, got 0");
  expect_refused(with(R"("chunk_lengths": [16, 0])"), "chunk_lengths from 1 to 65536, got 0");
  expect_refused(with(R"("discounts": [0.5, 1.0])"), "discounts in (0, 1), got 1");
  expect_refused(with(R"("position": "rope")"), "position to be one of");
  expect_refused(with(R"("seed": -1)"), "seed of at least 0, got -1");
  const auto rule = make_rule("mnemosyne-tensor");
  NamedTensors weights = rule->weights();
  weights[0].second = at::zeros({4});
  EXPECT_THROW(rule->with_weights(weights), InputError);
  const Tensors params = waves({{40, 30}}, 0.1);
  State state = init_state(*rule, params);
  state[0].back() = at::zeros({7});
  expect_refused([&] { rule->step_(params, state, params, {}); },
                 "memory of float32 [369] for parameter 0, got float32 [7]");
}

}  // namespace
}  // namespace mnemosyne::optim
