#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

at::Tensor Task::accuracy(at::TensorList, const Batch&) const { return {}; }

std::vector<at::Tensor> on_device(std::vector<at::Tensor> tensors, at::Device device) {
  for (at::Tensor& tensor : tensors) tensor = tensor.to(device);
  return tensors;
}

std::vector<at::Tensor> stack_members(at::TensorList params, int64_t members) {
  std::vector<at::Tensor> stacked;
  for (const at::Tensor& param : params) {
    std::vector<int64_t> sizes = param.sizes().vec();
    sizes.insert(sizes.begin(), members);
    stacked.push_back(param.unsqueeze(0).expand(sizes).clone(at::MemoryFormat::Contiguous));
  }
  return stacked;
}

std::vector<at::Tensor> member_views(at::TensorList stacked, int64_t member) {
  std::vector<at::Tensor> views;
  for (const at::Tensor& tensor : stacked) views.push_back(tensor.select(0, member));
  return views;
}

}  // namespace mnemosyne::tasks
