// What torch's Python optimizers compute in float64: data/make_optimizer_golden.py.

#include "data/optimizer_golden.h"
#include "mnemosyne/optim/rules.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

using mnemosyne::testing::close;

template <size_t N>
at::Tensor recorded(const double (&values)[N]) {
  return at::tensor(at::ArrayRef<double>(values, N), at::kDouble);
}

std::vector<at::Tensor> start() {
  const std::vector<std::vector<int64_t>> shapes{{3, 4}, {5}, {3, 2, 2}, {}};
  std::vector<at::Tensor> params;
  for (size_t k = 0; k < shapes.size(); ++k) {
    const int64_t numel = k == 1 ? 5 : k == 3 ? 1 : 12;
    params.push_back(
        (at::arange(numel, at::kDouble) + 1.0 + static_cast<double>(k)).sin().reshape(shapes[k]));
  }
  return params;
}

at::Tensor gradient(const at::Tensor& param, int step, size_t k) {
  const at::Tensor index = at::arange(param.numel(), at::kDouble);
  return (0.7 * index + 1.3 * step + static_cast<double>(k)).cos().reshape(param.sizes()) +
         0.5 * param;
}

struct Trained {
  at::Tensor params;      // all in one vector
  at::Tensor evaluation;  // likewise
};

Trained train(const UpdateRule& rule, const StepOptions& options) {
  std::vector<at::Tensor> params = start();
  State state = init_state(rule, params);
  for (int step = 0; step < 20; ++step) {
    std::vector<at::Tensor> grads;
    for (size_t k = 0; k < params.size(); ++k) grads.push_back(gradient(params[k], step, k));
    rule.step_(grads, state, params, options);
  }
  const auto flat = [](const std::vector<at::Tensor>& tensors) {
    std::vector<at::Tensor> parts;
    for (const at::Tensor& tensor : tensors) parts.push_back(tensor.reshape({-1}));
    return at::cat(parts);
  };
  return {flat(params), flat(rule.evaluation_params(state, params))};
}

constexpr mnemosyne::testing::Tolerance kTight{.rtol = 1e-9, .atol = 1e-11};

TEST(Golden, SgdIsTorchs) {
  EXPECT_TRUE(close(train(*make_rule("sgd", R"({"momentum": 0})"), {.lr = 0.05}).params,
                    recorded(golden::kSgd), kTight));
  EXPECT_TRUE(
      close(train(*make_rule("sgd"), {.lr = 0.05}).params, recorded(golden::kSgdMomentum), kTight));
  EXPECT_TRUE(close(train(*make_rule("sgd", R"({"nesterov": true})"), {.lr = 0.05}).params,
                    recorded(golden::kSgdNesterov), kTight));
}

TEST(Golden, AdamAndAdamWAreTorchs) {
  const auto adam = make_rule("adam", R"({"beta1": 0.8, "beta2": 0.95})");
  EXPECT_TRUE(close(train(*adam, {.lr = 0.02}).params, recorded(golden::kAdam), kTight));
  const auto by_option = make_rule("adamw", R"({"weight_decay": 0.1})");
  EXPECT_TRUE(close(train(*by_option, {.lr = 0.02}).params, recorded(golden::kAdamW), kTight));
  const StepOptions by_step{.lr = 0.02, .weight_decay = 0.1};
  EXPECT_TRUE(close(train(*make_rule("adamw"), by_step).params, recorded(golden::kAdamW), kTight));
  EXPECT_TRUE(close(train(*make_rule("adam"), by_step).params, recorded(golden::kAdamW), kTight));
}

TEST(Golden, AdafactorIsTorchs) {
  const StepOptions options{.lr = 0.05, .weight_decay = 0.1};
  EXPECT_TRUE(
      close(train(*make_rule("adafactor"), options).params, recorded(golden::kAdafactor), kTight));
}

TEST(Golden, MuonIsTorchs) {
  const StepOptions options{.lr = 0.02, .weight_decay = 0.1};
  EXPECT_TRUE(close(train(*make_rule("muon"), options).params, recorded(golden::kMuon), kTight));
}

TEST(Golden, ScheduleFreeIsItsReference) {
  const Trained trained = train(*make_rule("schedule-free", R"({"warmup_steps": 5})"),
                                {.lr = 0.02, .weight_decay = 0.1});
  EXPECT_TRUE(close(trained.params, recorded(golden::kScheduleFreeTraining), kTight));
  EXPECT_TRUE(close(trained.evaluation, recorded(golden::kScheduleFreeAverage), kTight));
}

// Three steps of five coordinates with weights by formula, against torch.nn.LSTMCell.
at::Tensor lstm_updates(const std::string& name) {
  std::shared_ptr<UpdateRule> rule = make_rule(name);
  NamedTensors weights = rule->weights();
  int64_t count = 0;
  for (auto& [unused, tensor] : weights) {
    const at::Tensor index = at::arange(count, count + tensor.numel(), at::kDouble);
    tensor = (0.3 * (0.37 * index + 1.0).sin()).reshape(tensor.sizes());
    count += tensor.numel();
  }
  rule = rule->with_weights(weights);
  const std::vector<at::Tensor> params{at::zeros({5}, at::kDouble)};
  State state = init_state(*rule, params);
  std::vector<at::Tensor> updates;
  for (int step = 0; step < 3; ++step) {
    const at::Tensor index = at::arange(5, at::kDouble);
    const at::Tensor grad = (1.7 * index + step).cos() * at::pow(10.0, -2.0 * index);
    UpdateResult result = rule->update({grad}, state, params, {});
    updates.push_back(result.updates[0]);
    state = result.state;
  }
  return at::cat(updates);
}

TEST(Golden, LstmIsTorchsCell) {
  EXPECT_TRUE(close(lstm_updates("lstm"), recorded(golden::kLstm), kTight));
  EXPECT_TRUE(close(lstm_updates("lstm-rnnprop"), recorded(golden::kLstmRnnProp), kTight));
}

}  // namespace
}  // namespace mnemosyne::optim
