#include "mnemosyne/tasks/data/cifar.h"

#include "mnemosyne/tasks/data/bytes.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kChannels = 3, kSide = 32, kClasses = 10;
constexpr int64_t kPixels = kChannels * kSide * kSide, kRecord = 1 + kPixels;

}  // namespace

ImageSet parse_cifar(std::string_view bytes, const std::string& name) {
  if (bytes.empty() || bytes.size() % kRecord != 0) {
    refuse_data(name, "a positive multiple of " + std::to_string(kRecord) + " bytes",
                std::to_string(bytes.size()));
  }
  const at::Tensor records = byte_tensor(bytes).view({-1, kRecord});
  return {records.narrow(1, 1, kPixels).reshape({-1, kChannels, kSide, kSide}),
          checked_labels(records.select(1, 0), name, kClasses)};
}

}  // namespace mnemosyne::tasks
