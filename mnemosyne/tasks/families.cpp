#include "mnemosyne/tasks/families.h"

#include <utility>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/family_draws.h"

namespace mnemosyne::tasks {
namespace {

/// A family is a name and a function that draws a task.
class SampledFamily : public TaskFamily {
 public:
  using Sample = TaskPtr (*)(std::string name, Random& random);

  SampledFamily(std::string name, Sample sample) : name_(std::move(name)), sample_(sample) {}

  std::string name() const override { return name_; }

  TaskPtr sample(uint64_t seed) const override {
    Random random(mix_seeds(seed, 0));
    return sample_(name_ + "/" + std::to_string(seed), random);
  }

 private:
  std::string name_;
  Sample sample_;
};

using Families = std::vector<std::shared_ptr<const TaskFamily>>;

std::shared_ptr<const TaskFamily> family(std::string name, SampledFamily::Sample sample) {
  return std::make_shared<SampledFamily>(std::move(name), sample);
}

}  // namespace

Families meta_training_families() {
  return {family("quadratic", sample_quadratic),
          family("mlp", sample_mlp),
          family("conv", sample_conv),
          family("vit", sample_vit),
          family("lm", sample_lm),
          family("autoencoder", sample_autoencoder),
          family("function", sample_function),
          family("residual_mlp", sample_residual_mlp),
          family("resnet", sample_resnet),
          family("signals", sample_signals),
          family("tied_lm", sample_tied_lm),
          family("table", sample_table)};
}

Families validation_families() {
  return {family("rnn_lm", sample_rnn_lm), family("teacher", sample_teacher),
          family("mixer", sample_mixer)};
}

std::shared_ptr<const TaskFamily> make_family(const std::string& name) {
  Choices<std::shared_ptr<const TaskFamily>> families;
  for (const Families& list : {meta_training_families(), validation_families()}) {
    for (const auto& entry : list) families.emplace_back(entry->name(), entry);
  }
  return one_of("family", name, families);
}

}  // namespace mnemosyne::tasks
