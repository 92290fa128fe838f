#include "mnemosyne/tasks/image_data.h"

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <vector>

namespace mnemosyne::tasks {
namespace {

// A part at a time: sixty thousand images as floats would be a few hundred megabytes.
constexpr int64_t kPart = 4096;

template <typename Visit>
void for_parts(const at::Tensor& images, const Visit& visit) {
  for (int64_t start = 0; start < images.size(0); start += kPart) {
    visit(images.narrow(0, start, std::min(kPart, images.size(0) - start)));
  }
}

}  // namespace

at::Tensor ImageData::normalize(const at::Tensor& images) const {
  return images.to(at::kFloat).sub_(mean).mul_(scale);
}

void measure(ImageData& data) {
  at::Tensor sum, squares;
  for_parts(data.train.images, [&](const at::Tensor& part) {
    const at::Tensor pixels = part.to(at::kDouble);
    const at::Tensor part_sum = pixels.sum({0, 2, 3}),
                     part_squares = pixels.square().sum({0, 2, 3});
    sum = sum.defined() ? sum.add(part_sum) : part_sum;
    squares = squares.defined() ? squares.add(part_squares) : part_squares;
  });
  const auto& images = data.train.images;
  const auto count = static_cast<double>(images.numel() / images.size(1));
  const at::Tensor mean = sum.div(count);
  const at::Tensor deviation = squares.div(count).sub(mean.square()).clamp_min(0).sqrt();
  data.mean = mean.to(at::kFloat).view({-1, 1, 1});
  // Constant images stay finite.
  data.scale = deviation.clamp_min(1e-3).reciprocal().to(at::kFloat).view({-1, 1, 1});
}

ImageSet average_pool(const ImageSet& set, int64_t factor) {
  std::vector<at::Tensor> parts;
  for_parts(set.images, [&](const at::Tensor& part) {
    parts.push_back(at::avg_pool2d(part.to(at::kFloat), {factor, factor}).round_().to(at::kByte));
  });
  return {at::cat(parts), set.labels};
}

}  // namespace mnemosyne::tasks
