#include "mnemosyne/tasks/quadratic.h"

#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <utility>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/stacked/param_list.h"

namespace mnemosyne::tasks {
namespace {

/// `count` values from 1 down to 1 / sqrt(ratio), evenly in their logarithms.
at::Tensor spectrum(int64_t count, double ratio) {
  return at::linspace(0.0, -0.5 * std::log(ratio), count, at::kFloat).exp_();
}

at::Tensor normal(at::IntArrayRef sizes, const at::Generator& generator) {
  return at::randn(sizes, generator, at::kFloat);
}

at::Tensor rotation(int64_t size, const at::Generator& generator) {
  return std::get<0>(at::linalg_qr(normal({size, size}, generator)));
}

/// Batches {[m,n], [m]}: how far the optimum is moved.
class NoiseStream : public BatchStream {
 public:
  NoiseStream(const QuadraticOptions& options, uint64_t seed) : options_(options), seed_(seed) {}

  Batch at(int64_t step) override {
    const at::Generator generator = tensor_generator(mix_seeds(seed_, step));
    return {normal({options_.rows, options_.columns}, generator).mul_(options_.noise),
            normal({options_.rows}, generator).mul_(options_.noise)};
  }

 private:
  QuadraticOptions options_;
  uint64_t seed_;
};

class Quadratic : public Task {
 public:
  Quadratic(std::string name, const QuadraticOptions& options)
      : name_(std::move(name)), options_(options) {
    const auto [rows, columns] = std::pair(options.rows, options.columns);
    const at::Generator generator = tensor_generator(options.seed);
    // Both sides share the condition number.
    left_ = rotation(rows, generator).mul(spectrum(rows, std::sqrt(options.condition)));
    left_ = left_.t().contiguous();
    right_ = rotation(columns, generator).mul(spectrum(columns, std::sqrt(options.condition)));
    scales_ = spectrum(rows, options.condition);
    matrix_ = normal({rows, columns}, generator);
    vector_ = normal({rows}, generator);
    params_.add("matrix", {rows, columns}, {Init::Kind::kNormal, 1.0});
    params_.add("vector", {rows}, {Init::Kind::kNormal, 1.0});
  }

  std::string name() const override { return name_; }

  std::vector<at::Tensor> init(uint64_t seed) const override { return params_.init(seed); }

  std::vector<std::string> param_names() const override { return params_.names(); }

  std::unique_ptr<BatchStream> train_stream(uint64_t seed) const override {
    return std::make_unique<NoiseStream>(options_, seed);
  }

  std::vector<Batch> validation_batches() const override {
    return {{at::zeros_like(matrix_), at::zeros_like(vector_)}};
  }

  at::Tensor loss(at::TensorList params, const Batch& batch) const override {
    const auto here = [&](const at::Tensor& own) { return own.to(params[0].device()); };
    const at::Tensor matrix = params[0].sub(here(matrix_).add(batch[0]));
    const at::Tensor vector = params[1].sub(here(vector_).add(batch[1]));
    const at::Tensor from_matrix =
        at::matmul(at::matmul(here(left_), matrix), here(right_)).square();
    return from_matrix.mean({1, 2}).add(vector.mul(here(scales_)).square().mean(1)).mul(0.5);
  }

 private:
  std::string name_;
  QuadraticOptions options_;
  at::Tensor left_;    // R [m,m]
  at::Tensor right_;   // S [n,n]
  at::Tensor scales_;  // s [m]
  at::Tensor matrix_;  // W* [m,n]
  at::Tensor vector_;  // v* [m]
  ParamList params_;
};

}  // namespace

std::shared_ptr<const Task> make_quadratic(std::string name, const QuadraticOptions& options) {
  if (options.rows < 2 || options.columns < 2 || !(options.condition >= 1.0) ||
      !(options.noise >= 0.0)) {
    throw InputError(
        "[quadratic] expected two rows and columns or more, a condition of 1 or more and a "
        "noise of 0 or more, got " +
        std::to_string(options.rows) + " x " + std::to_string(options.columns) + ", " +
        std::to_string(options.condition) + " and " + std::to_string(options.noise));
  }
  return std::make_shared<Quadratic>(std::move(name), options);
}

}  // namespace mnemosyne::tasks
