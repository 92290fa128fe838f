#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/tasks/stacked/model.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// What every task with a network has in common: its name, and the parameters of its model. Data
/// and losses are for the derived class.
class ModelTask : public Task {
 public:
  ModelTask(std::string name, std::shared_ptr<const Model> model)
      : name_(std::move(name)), model_(std::move(model)) {}

  std::string name() const override { return name_; }

  std::vector<at::Tensor> init(uint64_t seed) const override { return model_->init(seed); }

  std::vector<std::string> param_names() const override { return model_->param_names(); }

  NamedTensors buffers() const override { return model_->buffers(); }

  std::map<std::string, std::string> metadata() const override { return model_->metadata(); }

  bool is_batched() const override { return model_->is_batched(); }

 protected:
  const Model& model() const { return *model_; }

 private:
  std::string name_;
  std::shared_ptr<const Model> model_;
};

}  // namespace mnemosyne::tasks
