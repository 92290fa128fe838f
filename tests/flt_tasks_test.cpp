#include "mnemosyne/tasks/flt_tasks.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/nn/causal_lm.h"
#include "mnemosyne/nn/point_encoder.h"
#include "mnemosyne/tasks/language_task.h"
#include "mnemosyne/tasks/molecule_task.h"
#include "mnemosyne/tasks/registry.h"
#include "mnemosyne/tasks/stacked/module_model.h"
#include "tests/data_files.h"
#include "tests/testing.h"

namespace mnemosyne::tasks {
namespace {

using mnemosyne::testing::refusal;

/// Mean training loss of the first and of the last five of `steps` steps of Adam.
std::pair<double, double> train(const Task& task, int64_t steps, double lr) {
  std::vector<at::Tensor> params = stack_members(task.init(1), 1), means, squares;
  for (at::Tensor& param : params) {
    param.requires_grad_(true);
    means.push_back(at::zeros_like(param));
    squares.push_back(at::zeros_like(param));
  }
  const auto stream = task.train_stream(2);
  double first = 0.0, last = 0.0;
  for (int64_t step = 0; step < steps; ++step) {
    const at::Tensor loss = task.loss(params, stream->at(step));
    if (step < 5) first += loss.item<double>() / 5;
    if (step >= steps - 5) last += loss.item<double>() / 5;
    const auto grads = torch::autograd::grad({loss.sum()}, params);
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < params.size(); ++i) {
      means[i].lerp_(grads[i], 0.1);
      squares[i].lerp_(grads[i].square(), 0.05);
      params[i].sub_(means[i] / (squares[i].sqrt() + 1e-8), lr);
    }
  }
  return {first, last};
}

bool has(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

TEST(FltTasks, HaveTheAttentionsThatTheirModelsHave) {
  for (const TaskEntry& entry : flt_tasks()) {
    const std::vector<std::string> valid = flt_attentions(entry.info.name);
    for (const char* always : {"linear-none", "linear-absolute", "linear-rope", "linear-flt",
                               "softmax-none", "softmax-rope", "softmax-flt"}) {
      EXPECT_TRUE(has(valid, always)) << entry.info.name << " " << always;
    }
    EXPECT_FALSE(has(valid, "linear-alibi"));
    EXPECT_FALSE(has(valid, "softmax-fft"));
    EXPECT_EQ(entry.info.attention, "linear-flt");
  }
  // Damped positions are causal, and atoms are on no grid.
  EXPECT_TRUE(has(flt_attentions("flt_char_lm"), "linear-damped"));
  EXPECT_FALSE(has(flt_attentions("flt_vit_cifar"), "linear-damped"));
  EXPECT_TRUE(has(flt_attentions("flt_vit_cifar"), "linear-fft"));
  EXPECT_FALSE(has(flt_attentions("flt_qm7"), "linear-fft"));
}

TEST(FltTasks, DifferOnlyInTheirAttention) {
  const auto flt = make_task("flt_vit_digits", ""),
             rope = make_task("flt_vit_digits:softmax-rope", "");
  EXPECT_EQ(rope->name(), "flt_vit_digits:softmax-rope");
  EXPECT_EQ(task_info(rope->name()).default_batch, task_info(flt->name()).default_batch);
  // The same start and the same data: what has one name has one value.
  const auto names = rope->param_names(), more = flt->param_names();
  const auto values = rope->init(3), with_more = flt->init(3);
  EXPECT_GT(more.size(), names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    const auto place = std::find(more.begin(), more.end(), names[i]) - more.begin();
    ASSERT_LT(place, static_cast<int64_t>(more.size())) << names[i];
    EXPECT_TRUE(at::equal(values[i], with_more[place])) << names[i];
  }
  EXPECT_TRUE(at::equal(flt->train_stream(1)->at(2)[0], rope->train_stream(1)->at(2)[0]));
}

TEST(FltTasks, RefuseOtherSuffixesWithTheList) {
  for (const char* bad :
       {"", "softmax", "rope", "linear-flt ", "linear-flt@5", "softmax-fft", "x\ny"}) {
    const std::string message = refusal([&] { task_info(std::string("flt_char_lm:") + bad); });
    EXPECT_MENTIONS(message, "flt_char_lm:KIND-POSITION");
    EXPECT_MENTIONS(message, "softmax-alibi");
  }
}

TEST(FltTasks, LearnWords) {
  // Each word says which comes next, behind noise of every third.
  std::vector<int32_t> words;
  for (int32_t i = 0; i < 3000; ++i) words.push_back(i % 3 == 2 ? i * 7919 % 40 : i / 3 % 10);
  const at::Tensor text = at::tensor(words, at::kInt);
  const auto data = std::make_shared<const TextData>(TextData{text, text.narrow(0, 0, 500), 40});
  nn::AttentionOptions attention{.linear = {.num_features = 8}};
  attention.fourier.num_frequencies = 8;
  const auto model = make_module_model([attention](uint64_t seed) {
    nn::CausalLM lm({.vocabulary = 40,
                     .context = 16,
                     .width = 16,
                     .heads = 2,
                     .layers = 1,
                     .attention = attention,
                     .seed = seed});
    return Network{lm.ptr(),
                   [lm](const at::Tensor& x) mutable { return lm->forward(x).flatten(0, 1); }};
  });
  const auto task = make_language_task("words", model, data, {.context = 16, .batch_size = 8});
  const Batch batch = task->train_stream(1)->at(0);
  EXPECT_EQ(batch[0].scalar_type(), at::kLong);
  const auto [first, last] = train(*task, 80, 1e-2);
  EXPECT_GT(first, 3.0);
  EXPECT_LT(last, 0.7 * first);
}

/// Chains of carbon and oxygen; each pair of neighbours has an energy that depends on its distance.
std::shared_ptr<const MoleculeData> chains() {
  MoleculeData data{.molecules = MoleculeSet({6, 8}), .train = {}, .test = {}};
  at::Tensor draws = at::rand({120, 8}, at::detail::createCPUGenerator(5), at::kDouble);
  for (int64_t m = 0; m < 120; ++m) {
    XyzFrame frame;
    double x = 0.0, energy = 0.0;
    for (int64_t i = 0; i < 3 + m % 5; ++i) {
      frame.elements.push_back(i % 2 == 0 ? 6 : 8);
      frame.positions.push_back({x, 0.0, 0.0});
      const double distance = 1.0 + draws[m][i].item<double>();
      energy -= 1.0 / distance;
      x += distance;
    }
    data.molecules.add(frame, energy, "made");
    (m < 100 ? data.train : data.test).push_back(m);
  }
  measure(data);
  return std::make_shared<const MoleculeData>(std::move(data));
}

TEST(FltTasks, LearnMolecules) {
  const auto model = make_module_model([](uint64_t seed) {
    nn::PointEncoder encoder({.num_types = 2,
                              .width = 16,
                              .heads = 2,
                              .layers = 1,
                              .attention = {.kind = "softmax"},
                              .seed = seed});
    return Network{encoder.ptr(), [encoder](const at::Tensor& atoms) mutable {
                     const at::Tensor types = atoms.select(2, 0);
                     return encoder->forward(types.clamp_min(0).to(at::kLong),
                                             atoms.narrow(2, 1, 3), types.ge(0));
                   }};
  });
  const auto data = chains();
  const auto task = make_molecule_task("chains", model, data, {.batch_size = 25});
  const Batch held_out = task->validation_batches()[0];
  EXPECT_EQ(held_out[0].sizes(), at::IntArrayRef({20, 7, 4}));
  EXPECT_TRUE(mnemosyne::testing::close(held_out[1], targets(*data, data->test)));
  const auto [first, last] = train(*task, 600, 1e-2);
  EXPECT_LT(last, 0.45);  // Zero has about .8, and so has whatever sees no distances.
  EXPECT_LT(last, 0.5 * first);
}

}  // namespace
}  // namespace mnemosyne::tasks
