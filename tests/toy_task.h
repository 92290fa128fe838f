#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/tasks/task.h"

namespace mnemosyne::testing {

/// Noisy linear regression with four weights and a bias: trains in a millisecond.
class LineTask : public tasks::Task {
 public:
  std::string name() const override { return "toy"; }
  std::vector<std::string> param_names() const override { return {"weight", "bias"}; }

  std::vector<at::Tensor> init(uint64_t seed) const override {
    return {normal({4}, seed + 1), at::zeros({1})};
  }

  std::unique_ptr<tasks::BatchStream> train_stream(uint64_t seed) const override {
    class Stream : public tasks::BatchStream {
     public:
      explicit Stream(uint64_t seed) : seed_(seed) {}
      tasks::Batch at(int64_t step) override {
        return batch(seed_ * 1000 + static_cast<uint64_t>(step));
      }

     private:
      uint64_t seed_;
    };
    return std::make_unique<Stream>(seed);
  }

  std::vector<tasks::Batch> validation_batches() const override { return {batch(77), batch(78)}; }

  at::Tensor loss(at::TensorList params, const tasks::Batch& batch) const override {
    const at::Tensor prediction = at::matmul(params[0], batch[0].t()) + params[1];  // [P,B]
    return (prediction - batch[1]).square().mean(1);
  }

 private:
  static at::Tensor normal(at::IntArrayRef sizes, uint64_t seed) {
    return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::kFloat);
  }

  static tasks::Batch batch(uint64_t seed) {
    const at::Tensor inputs = normal({16, 4}, seed);
    const at::Tensor truth = at::tensor({1.0f, -2.0f, 0.5f, 3.0f});
    return {inputs, at::matmul(inputs, truth) + 0.5 + 0.1 * normal({16}, seed + 500'000)};
  }
};

/// The same on data of a user's own.
class OwnDataTask : public LineTask {
 public:
  explicit OwnDataTask(std::string fingerprint) : fingerprint_(std::move(fingerprint)) {}
  std::string data_fingerprint() const override { return fingerprint_; }

 private:
  std::string fingerprint_;
};

}  // namespace mnemosyne::testing
