#include <cmath>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/rules.h"
#include "rule_testing.h"
#include "testing.h"

/// Rules that are here to be compared with, against their papers' equations.
namespace mnemosyne::optim {
namespace {

using testing::close;
using testing::wave;
using testing::waves;

constexpr int kSteps = 7;
const std::vector<std::vector<int64_t>> kShapes{{6, 4}, {3, 2, 4}, {5}};

std::vector<at::Tensor> gradients(int step) {
  return waves(kShapes, 1.0 + 1.7 * step, at::kDouble);
}

/// Muon's directions of the matrices among gradients so far, at root mean square about .2.
class MuonDirections {
 public:
  explicit MuonDirections(const std::vector<at::Tensor>& params)
      : params_(params), state_(init_state(*muon_, params)) {}

  std::vector<at::Tensor> next(const std::vector<at::Tensor>& grads) {
    UpdateResult result = muon_->update(grads, state_, params_, {.lr = 1.0});
    state_ = std::move(result.state);
    return result.updates;
  }

 private:
  std::shared_ptr<UpdateRule> muon_ = make_rule("muon");
  std::vector<at::Tensor> params_;
  State state_;
};

TEST(NorMuon, GivesRowsLikeSizesAndKeepsTheNorm) {
  const auto rule = make_rule("normuon");
  std::vector<at::Tensor> params = waves(kShapes, 0.2, at::kDouble);
  State state = init_state(*rule, params);
  EXPECT_EQ(state[0][2].sizes(), at::IntArrayRef({6}));
  EXPECT_EQ(state[2][2].sizes(), at::IntArrayRef({5}));
  MuonDirections muon(params);
  std::vector<at::Tensor> squares{at::zeros({6}, at::kDouble), at::zeros({3}, at::kDouble)};
  for (int step = 0; step < kSteps; ++step) {
    const UpdateResult result = rule->update(gradients(step), state, params, {.lr = 0.5});
    const std::vector<at::Tensor> directions = muon.next(gradients(step));
    for (size_t i = 0; i < squares.size(); ++i) {
      const at::Tensor all = directions[i].reshape({directions[i].size(0), -1});
      const auto rows = static_cast<double>(all.size(0)),
                 columns = static_cast<double>(all.size(1));
      const at::Tensor orthogonal = all / (0.2 * std::sqrt(std::max(rows, columns)));
      squares[i] = 0.95 * squares[i] + 0.05 * orthogonal.square().mean(1);
      const at::Tensor like = orthogonal / squares[i].sqrt().unsqueeze(1);
      const at::Tensor expected =
          0.5 * std::sqrt(std::max(1.0, rows / columns)) * orthogonal.norm() / like.norm() * like;
      EXPECT_TRUE(
          close(result.updates[i].reshape(all.sizes()), expected, {.rtol = 1e-6, .atol = 1e-8}))
          << step << ", " << i;
    }
    state = result.state;
  }
}

TEST(NorMuon, LeavesTheRestToAdamAtItsOwnRate) {
  const auto rule = make_rule("normuon");
  const auto adam = make_rule("adam", R"({"beta2": 0.95})");
  const std::vector<at::Tensor> params{wave({5}, 0.2)}, grads{wave({5}, 3.0)};
  const auto own = rule->update(grads, init_state(*rule, params), params, {.lr = 1.0});
  const auto expected = adam->update(grads, init_state(*adam, params), params, {.lr = 0.015});
  EXPECT_TRUE(close(own.updates[0], expected.updates[0]));
  EXPECT_THROW(make_rule("normuon", R"({"row_decay": 1.0})"), InputError);
  EXPECT_THROW(make_rule("normuon", R"({"momentum": -1})"), InputError);
}

/// The paper's three sequences, each kept by itself.
struct Sequences {
  at::Tensor y, z, x;
};

TEST(Amuse, FollowsThePapersSequences) {
  const auto rule = make_rule("amuse", R"({"warmup_steps": 3})");
  const double lr = 0.05, decay = 0.1, beta1 = 0.6, rho = 0.8;
  std::vector<at::Tensor> params = waves(kShapes, 0.2, at::kDouble);
  State state = init_state(*rule, params);
  MuonDirections muon(params);
  std::vector<Sequences> own;
  for (const at::Tensor& p : params) own.push_back({p.clone(), p.clone(), p.clone()});
  at::Tensor squares = at::zeros({5}, at::kDouble);
  double sum = 0, warmup_share = 0;
  for (int t = 1; t <= kSteps; ++t) {
    const std::vector<at::Tensor> grads = gradients(t);
    std::vector<at::Tensor> directions = muon.next(grads);
    squares = 0.999 * squares + 0.001 * grads[2].square();
    directions[2] = grads[2] / ((squares / (1 - std::pow(0.999, t))).sqrt() + 1e-10);
    const double rate = lr * std::min(1.0, t / 3.0);
    sum += rate * rate;
    const double share = rate * rate / sum;
    if (t == 3) warmup_share = share;
    const double odds = t > 3 ? share * (1 - warmup_share) / (warmup_share * (1 - share)) : 1.0;
    const double beta = 1 - (1 - beta1) * std::pow(odds, rho);
    rule->step_(grads, state, params, {.lr = lr, .weight_decay = decay});
    const std::vector<at::Tensor> averages = rule->evaluation_params(state, params);
    for (size_t i = 0; i < own.size(); ++i) {
      Sequences& s = own[i];
      s.z = (1 - rate * decay) * s.z - rate * directions[i];
      s.x = (1 - share) * s.x + share * s.z;
      s.y = (1 - beta) * s.z + beta * s.x;
      EXPECT_TRUE(close(params[i], s.y, {.rtol = 1e-8, .atol = 1e-10})) << t << ", " << i;
      EXPECT_TRUE(close(averages[i], s.x, {.rtol = 1e-8, .atol = 1e-10})) << t << ", " << i;
    }
    if (t > 3) {
      EXPECT_GT(beta, beta1) << "gradients come nearer to the average";
    }
  }
}

TEST(Amuse, AtALearningRateOfZeroNothingMoves) {
  const auto rule = make_rule("amuse", R"({"warmup_steps": 1})");
  std::vector<at::Tensor> params = waves(kShapes, 0.2);
  const std::vector<at::Tensor> before = testing::clones(params);
  State state = init_state(*rule, params);
  for (int step = 0; step < 3; ++step) {
    rule->step_(waves(kShapes, 1.0 + step), state, params, {.lr = 0.0});
  }
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_TRUE(close(params[i], before[i], {.rtol = 1e-6, .atol = 1e-7})) << i;
  }
  for (const char* bad : {R"({"beta1": 0})", R"({"warmup_steps": 0})", R"({"rho": -1})"}) {
    EXPECT_THROW(make_rule("amuse", bad), InputError) << bad;
  }
}

}  // namespace
}  // namespace mnemosyne::optim
