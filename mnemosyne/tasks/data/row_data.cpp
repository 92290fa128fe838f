#include "mnemosyne/tasks/data/row_data.h"

#include <ATen/ops/tensor.h>

#include <utility>

#include "mnemosyne/tasks/data/epochs.h"

namespace mnemosyne::tasks {
namespace {

class RowStream : public BatchStream {
 public:
  RowStream(RowSet rows, int64_t batch_size, uint64_t seed)
      : rows_(std::move(rows)), epochs_(rows_.size(), batch_size, seed) {}

  Batch at(int64_t step) override {
    const at::Tensor chosen = at::tensor(epochs_.at(step), at::kLong);
    return {rows_.inputs.index_select(0, chosen), rows_.targets.index_select(0, chosen)};
  }

 private:
  RowSet rows_;
  Epochs epochs_;
};

}  // namespace

std::unique_ptr<BatchStream> row_stream(RowSet rows, int64_t batch_size, uint64_t seed) {
  return std::make_unique<RowStream>(std::move(rows), batch_size, seed);
}

}  // namespace mnemosyne::tasks
