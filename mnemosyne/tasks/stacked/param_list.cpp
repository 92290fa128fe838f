#include "mnemosyne/tasks/stacked/param_list.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <utility>

#include "mnemosyne/core/random.h"

namespace mnemosyne::tasks {
namespace {

Init uniform_within(int64_t fan_in) {
  return {Init::Kind::kUniform, 1.0 / std::sqrt(static_cast<double>(fan_in))};
}

}  // namespace

void ParamList::add(std::string name, std::vector<int64_t> shape, Init init) {
  entries_.push_back({std::move(name), std::move(shape), init});
}

void ParamList::linear(const std::string& name, int64_t in, int64_t out) {
  add(name + ".weight", {out, in}, uniform_within(in));
  add(name + ".bias", {out}, uniform_within(in));
}

void ParamList::conv2d_weight(const std::string& name, int64_t in, int64_t out, int64_t kernel) {
  add(name + ".weight", {out, in, kernel, kernel}, uniform_within(in * kernel * kernel));
}

void ParamList::conv2d(const std::string& name, int64_t in, int64_t out, int64_t kernel) {
  conv2d_weight(name, in, out, kernel);
  add(name + ".bias", {out}, uniform_within(in * kernel * kernel));
}

void ParamList::norm(const std::string& name, int64_t features) {
  add(name + ".weight", {features}, {Init::Kind::kConstant, 1.0});
  add(name + ".bias", {features}, {Init::Kind::kConstant, 0.0});
}

void ParamList::embedding(const std::string& name, int64_t count, int64_t features, double scale) {
  add(name + ".weight", {count, features}, {Init::Kind::kNormal, scale});
}

std::vector<std::string> ParamList::names() const {
  std::vector<std::string> result;
  for (const Entry& entry : entries_) result.push_back(entry.name);
  return result;
}

int64_t ParamList::numel() const {
  int64_t total = 0;
  for (const Entry& entry : entries_) {
    int64_t count = 1;
    for (const int64_t size : entry.shape) count *= size;
    total += count;
  }
  return total;
}

std::vector<at::Tensor> ParamList::init(uint64_t seed) const {
  const at::Generator generator = tensor_generator(mix_seeds(seed, 0));
  std::vector<at::Tensor> params;
  for (const Entry& entry : entries_) {
    at::Tensor value = at::empty(entry.shape, at::kFloat);
    switch (entry.init.kind) {
      case Init::Kind::kConstant:
        value.fill_(entry.init.scale);
        break;
      case Init::Kind::kNormal:
        value.normal_(0.0, entry.init.scale, generator);
        break;
      case Init::Kind::kUniform:
        value.uniform_(-entry.init.scale, entry.init.scale, generator);
        break;
    }
    params.push_back(std::move(value));
  }
  return params;
}

const at::Tensor& ParamCursor::next() {
  TORCH_CHECK(position_ < params_.size(), "[task] expected more than ", params_.size(),
              " parameters");
  return params_[position_++];
}

}  // namespace mnemosyne::tasks
