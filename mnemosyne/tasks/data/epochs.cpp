#include "mnemosyne/tasks/data/epochs.h"

#include "mnemosyne/core/random.h"

namespace mnemosyne::tasks {

std::vector<int64_t> Epochs::at(int64_t step) {
  std::vector<int64_t> result;
  result.reserve(batch_);
  for (int64_t position = step * batch_; position < (step + 1) * batch_; ++position) {
    result.push_back(order(position / examples_)[position % examples_]);
  }
  return result;
}

const std::vector<int64_t>& Epochs::order(int64_t epoch) {
  if (epoch != epoch_) {
    order_ = permutation(examples_, mix_seeds(seed_, epoch));
    epoch_ = epoch;
  }
  return order_;
}

}  // namespace mnemosyne::tasks
