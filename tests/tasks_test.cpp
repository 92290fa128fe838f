#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>
#include <filesystem>
#include <future>
#include <set>
#include <string>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/tasks/data/digits.h"
#include "mnemosyne/tasks/data/epochs.h"
#include "mnemosyne/tasks/data/image_batches.h"
#include "mnemosyne/tasks/families.h"
#include "mnemosyne/tasks/language_task.h"
#include "mnemosyne/tasks/quadratic.h"
#include "mnemosyne/tasks/registry.h"
#include "mnemosyne/tasks/stacked/reparametrized.h"
#include "mnemosyne/tasks/stacked/transformer_lm.h"
#include "mnemosyne/tasks/task.h"
#include "tests/testing.h"

namespace mnemosyne::tasks {
namespace {

using mnemosyne::testing::close;
using mnemosyne::testing::identical;

std::string data_dir() {
  const char* folder = std::getenv("MNEMOSYNE_DATA");
  return folder == nullptr ? "" : folder;
}

/// Every test task by its name, and two draws of every family as "family:seed".
std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const TaskInfo& info : task_list()) names.push_back(info.name);
  for (const auto& list : {meta_training_families(), validation_families()}) {
    for (const auto& family : list) {
      for (const char* seed : {":1", ":2"}) names.push_back(family->name() + seed);
    }
  }
  return names;
}

std::shared_ptr<const Task> open_task(const std::string& name) {
  const size_t colon = name.find(':');
  if (colon == std::string::npos) return make_task(name, data_dir());
  return make_family(name.substr(0, colon))->sample(std::stoull(name.substr(colon + 1)));
}

bool data_missing(const std::string& name) {
  for (const TaskInfo& info : task_list()) {
    if (info.name == name && (!info.data.empty() || !info.own_data.empty())) {
      return info.data.empty() || !std::filesystem::is_directory(data_dir() + "/" + info.data);
    }
  }
  return false;
}

std::vector<at::Tensor> gradients(const Task& task, std::vector<at::Tensor>& params,
                                  const Batch& batch, at::Tensor& losses) {
  for (at::Tensor& param : params) param.requires_grad_(true);
  losses = task.loss(params, batch);
  return torch::autograd::grad({losses.sum()}, params);
}

double validation_loss(const Task& task, const std::vector<at::Tensor>& params) {
  const at::NoGradGuard no_grad;
  double total = 0.0;
  const std::vector<Batch> batches = task.validation_batches();
  for (const Batch& batch : batches) total += task.loss(params, batch).item<double>();
  return total / static_cast<double>(batches.size());
}

/// Takes the stacked parameters of one network through steps of Adam.
void train(const Task& task, std::vector<at::Tensor>& params, int64_t steps, double lr) {
  std::vector<at::Tensor> means, squares;
  for (const at::Tensor& param : params) {
    means.push_back(at::zeros_like(param));
    squares.push_back(at::zeros_like(param));
  }
  const auto stream = task.train_stream(2);
  for (int64_t step = 0; step < steps; ++step) {
    at::Tensor loss;
    const std::vector<at::Tensor> grads = gradients(task, params, stream->at(step), loss);
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < params.size(); ++i) {
      means[i].lerp_(grads[i], 0.1);
      squares[i].lerp_(grads[i].square(), 0.05);
      params[i].sub_(means[i] / (squares[i].sqrt() + 1e-8), lr);
    }
  }
}

class EveryTask : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (data_missing(GetParam())) GTEST_SKIP() << "needs MNEMOSYNE_DATA with its data";
    task_ = open_task(GetParam());
  }

  std::shared_ptr<const Task> task_;
};

INSTANTIATE_TEST_SUITE_P(Tasks, EveryTask, ::testing::ValuesIn(task_names()), [](const auto& info) {
  std::string name = info.param;
  for (char& c : name) c = c == ':' ? '_' : c;
  return name;
});

TEST_P(EveryTask, StackedIsOneByOne) {
  constexpr int64_t kMembers = 3;
  std::vector<std::vector<at::Tensor>> each;
  for (int64_t p = 0; p < kMembers; ++p) each.push_back(task_->init(10 + p));
  std::vector<at::Tensor> stacked;
  for (size_t i = 0; i < each[0].size(); ++i) {
    stacked.push_back(at::stack({each[0][i], each[1][i], each[2][i]}));
  }
  const Batch batch = task_->train_stream(4)->at(3);
  at::Tensor losses;
  const std::vector<at::Tensor> grads = gradients(*task_, stacked, batch, losses);
  ASSERT_EQ(losses.sizes(), at::IntArrayRef({kMembers}));
  const at::Tensor accuracy = task_->accuracy(stacked, batch);
  for (int64_t p = 0; p < kMembers; ++p) {
    std::vector<at::Tensor> alone = stack_members(each[p], 1);
    at::Tensor loss;
    const std::vector<at::Tensor> expected = gradients(*task_, alone, batch, loss);
    EXPECT_TRUE(close(losses.narrow(0, p, 1), loss));
    for (size_t i = 0; i < grads.size(); ++i) {
      const double size = expected[i].abs().max().item<double>();
      EXPECT_TRUE(close(grads[i][p], expected[i][0], {.rtol = 1e-3, .atol = 1e-5 * size + 1e-7}))
          << task_->param_names()[i];
    }
    if (accuracy.defined()) {
      EXPECT_TRUE(close(accuracy.narrow(0, p, 1), task_->accuracy(alone, batch)));
    }
  }
}

TEST_P(EveryTask, DeclaresItsParametersAndStartsReproducibly) {
  const std::vector<at::Tensor> params = task_->init(5), again = task_->init(5);
  const std::vector<std::string> names = task_->param_names();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), params.size());
  bool other = false;
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_GE(params[i].dim(), 1);
    EXPECT_EQ(params[i].scalar_type(), at::kFloat);
    EXPECT_TRUE(identical(params[i], again[i]));
    other |= !at::equal(params[i], task_->init(6)[i]);
  }
  EXPECT_TRUE(other);
}

TEST_P(EveryTask, StreamsAreAFunctionOfSeedAndStep) {
  const auto first = task_->train_stream(7), second = task_->train_stream(7);
  std::vector<Batch> forward;
  for (int64_t step = 0; step < 4; ++step) forward.push_back(first->at(step));
  for (const int64_t step : {3, 0, 2}) {
    const Batch batch = second->at(step);
    for (size_t i = 0; i < batch.size(); ++i) EXPECT_TRUE(identical(batch[i], forward[step][i]));
  }
  EXPECT_FALSE(at::equal(forward[0][0], task_->train_stream(8)->at(0)[0]) &&
               forward[0][0].abs().max().item<float>() > 0);
  ASSERT_FALSE(task_->validation_batches().empty());
}

TEST_P(EveryTask, LearnsInAFewSteps) {
  std::vector<at::Tensor> params = stack_members(task_->init(1), 1);
  const double before = validation_loss(*task_, params);
  train(*task_, params, 60, 3e-3);
  // The test tasks all learn something real; a draw of a family may be deep sigmoids, which only
  // find the classes' frequencies in so short a time.
  const bool drawn = GetParam().find(':') != std::string::npos;
  EXPECT_LT(validation_loss(*task_, params), drawn ? before : 0.9 * before);
}

TEST(Task, IsSafeToShareBetweenThreads) {
  const auto task = open_task("vit:1");
  const auto run = [&] {
    std::vector<at::Tensor> params = stack_members(task->init(1), 1);
    train(*task, params, 10, 1e-3);
    return params;
  };
  const std::vector<at::Tensor> expected = run();
  auto other = std::async(std::launch::async, run);
  const std::vector<at::Tensor> here = run(), there = other.get();
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(identical(here[i], expected[i]));
    EXPECT_TRUE(identical(there[i], expected[i]));
  }
}

TEST(Epochs, ShowEveryExampleOncePerEpoch) {
  for (const auto& [examples, batch] : {std::pair<int64_t, int64_t>{10, 4}, {7, 7}, {3, 8}}) {
    Epochs epochs(examples, batch, 1);
    std::vector<int64_t> seen;
    for (int64_t step = 0; step < examples; ++step) {
      for (const int64_t index : epochs.at(step)) seen.push_back(index);
    }
    for (int64_t epoch = 0; epoch < batch; ++epoch) {
      const auto start = seen.begin() + epoch * examples;
      EXPECT_EQ(std::set<int64_t>(start, start + examples).size(), examples);
    }
    EXPECT_FALSE(examples > 3 &&
                 std::equal(seen.begin(), seen.begin() + examples, seen.begin() + examples));
  }
}

TEST(ImageBatches, FollowTheirOptions) {
  const auto data = digits();
  const ImageBatchOptions options{
      .batch_size = 100, .train_size = 100, .label_map = {1, 2, 3, 4, 5, 6, 7, 8, 9, 0}};
  const Batch batch = image_stream(data, options, 3)->at(0);
  // One epoch is one batch: the same hundred images in another order.
  const Batch next = image_stream(data, options, 3)->at(1);
  EXPECT_TRUE(close(batch[0].sum(), next[0].sum(), {.rtol = 1e-4, .atol = 1e-2}));
  const at::Tensor labels = (data->train.labels.narrow(0, 0, 100) + 1) % 10;
  EXPECT_TRUE(at::equal(std::get<0>(batch[1].sort()), std::get<0>(labels.sort())));
  const Batch held_out = image_validation(*data, options)[0];
  EXPECT_TRUE(at::equal(held_out[1], (data->test.labels + 1) % 10));
}

TEST(ImageBatches, AddTheNoiseThatIsAskedFor) {
  const auto data = digits();
  const Batch clean = image_stream(data, {.batch_size = 1000}, 3)->at(0);
  const Batch noisy =
      image_stream(data, {.batch_size = 1000, .input_noise = 0.5, .label_noise = 0.4}, 3)->at(0);
  EXPECT_NEAR((noisy[0] - clean[0]).std().item<double>(), 0.5, 0.01);
  // A tenth of the random labels is right by chance: .4 * .9 of them are wrong.
  EXPECT_NEAR(noisy[1].ne(clean[1]).to(at::kDouble).mean().item<double>(), 0.36, 0.06);
  EXPECT_TRUE(identical(image_validation(*data, {.input_noise = 0.5})[0][0],
                        image_validation(*data, {})[0][0]));
}

TEST(LanguageTask, PredictsTheNextCharacterOfDisjointWindows) {
  const auto text = std::make_shared<const TextData>(TextData{
      at::arange(1001, at::kLong).remainder(251).to(at::kByte), at::zeros({100}, at::kByte), 251});
  const auto model = make_transformer_lm({.vocabulary = 251, .context = 10});
  const auto task = make_language_task("counting", model, text, {.context = 10, .batch_size = 99});
  const Batch batch = task->train_stream(1)->at(0);
  EXPECT_EQ(batch[0].sizes(), at::IntArrayRef({99, 10}));
  EXPECT_TRUE(at::equal((batch[0].flatten() + 1).remainder(251), batch[1]));
  // The 99 windows are one epoch: no two start at the same place, all at one offset.
  const at::Tensor last = at::zeros({100}, at::kByte);
  const auto places = std::make_shared<const TextData>(
      TextData{at::arange(251, at::kLong).to(at::kByte), last, 251});
  const auto small = make_language_task("places", model, places, {.context = 10, .batch_size = 24});
  const at::Tensor starts = std::get<0>(small->train_stream(5)->at(0)[0].select(1, 0).sort());
  EXPECT_TRUE(at::equal(starts.diff(), at::full({23}, 10, at::kLong)));
  EXPECT_THROW(make_language_task("short", model, places, {.context = 130}), InputError);
}

TEST(Quadratic, HasItsMinimumAtZero) {
  const auto task = make_quadratic("bowl", {.rows = 3, .columns = 4, .condition = 4, .noise = 0});
  std::vector<at::Tensor> params = stack_members(task->init(1), 1);
  const Batch batch = task->train_stream(1)->at(0);
  at::Tensor loss;
  for (int step = 0; step < 400; ++step) {
    const std::vector<at::Tensor> grads = gradients(*task, params, batch, loss);
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < params.size(); ++i) params[i].sub_(grads[i], 3.0);
  }
  EXPECT_LT(loss.item<double>(), 1e-6);
  EXPECT_THROW(make_quadratic("flat", {.condition = 0.5}), InputError);
}

TEST(Reparametrized, IsTheSameProblemInOtherUnits) {
  const auto inner = make_family("mlp")->sample(3);
  const auto task = make_reparametrized(inner, {.sigma = 1.5, .loss_scale = 100, .seed = 4});
  const Batch batch = inner->train_stream(1)->at(0);
  std::vector<at::Tensor> params = stack_members(inner->init(9), 1);
  std::vector<at::Tensor> scaled = stack_members(task->init(9), 1);
  at::Tensor loss, scaled_loss;
  const std::vector<at::Tensor> grads = gradients(*inner, params, batch, loss);
  const std::vector<at::Tensor> scaled_grads = gradients(*task, scaled, batch, scaled_loss);
  EXPECT_TRUE(close(scaled_loss, loss * 100));
  bool differs = false;
  for (size_t i = 0; i < grads.size(); ++i) {
    // p = s q, so dL/dq = s dL/dp, and q dL/dq = p dL/dp without knowing s.
    EXPECT_TRUE(close(scaled_grads[i] * scaled[i], grads[i] * params[i] * 100,
                      {.rtol = 1e-3, .atol = 1e-5}));
    differs |= !close(scaled[i], params[i], {.rtol = 0.1});
  }
  EXPECT_TRUE(differs);
  EXPECT_TRUE(close(task->accuracy(scaled, batch), inner->accuracy(params, batch)));
  EXPECT_THROW(make_reparametrized(inner, {.loss_scale = 0}), InputError);
}

TEST(Families, AreReproducibleAndApartFromOneAnother) {
  std::set<std::string> names;
  for (const auto& list : {meta_training_families(), validation_families()}) {
    for (const auto& family : list) {
      EXPECT_TRUE(names.insert(family->name()).second) << family->name();
      std::set<std::vector<int64_t>> shapes;
      for (uint64_t seed = 0; seed < 8; ++seed) {
        const auto params = family->sample(seed)->init(1), again = family->sample(seed)->init(1);
        ASSERT_EQ(params.size(), again.size());
        std::vector<int64_t> shape;
        for (const at::Tensor& param : params) {
          shape.insert(shape.end(), param.sizes().begin(), param.sizes().end());
        }
        shapes.insert(shape);
      }
      EXPECT_GE(shapes.size(), 3u) << family->name();
    }
  }
  for (const TaskInfo& info : task_list()) EXPECT_EQ(names.count(info.name), 0u);
  EXPECT_THROW(make_family("nothing"), InputError);
}

TEST(Registry, CountsParametersAndNamesWhatIsMissing) {
  for (const TaskInfo& info : task_list()) {
    EXPECT_FALSE(info.description.empty());
    if (data_missing(info.name)) continue;
    int64_t count = 0;
    for (const at::Tensor& param : make_task(info.name, data_dir())->init(1))
      count += param.numel();
    EXPECT_EQ(count, info.num_params) << info.name;
  }
  const auto message = [](const std::string& name, const std::string& folder) -> std::string {
    try {
      make_task(name, folder);
    } catch (const InputError& error) {
      return error.what();
    }
    return {};
  };
  EXPECT_NE(message("nothing", "").find("vit_digits"), std::string::npos);
  EXPECT_NE(message("vit_digits:softmax-rope", "").find("without a suffix"), std::string::npos);
  EXPECT_NE(message("conv_cifar", "").find("--data"), std::string::npos);
  EXPECT_NE(message("conv_cifar", "/nowhere").find("/nowhere/cifar10"), std::string::npos);
}

}  // namespace
}  // namespace mnemosyne::tasks
