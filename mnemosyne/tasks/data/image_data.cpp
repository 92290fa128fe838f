#include "mnemosyne/tasks/data/image_data.h"

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <vector>

#include "mnemosyne/io/crc32c.h"
#include "mnemosyne/tasks/data/bytes.h"

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

ImageData hold_out_tenths(const ImageSet& set, const std::string& name) {
  constexpr int64_t kEvery = 10;
  std::vector<int64_t> train, test;
  std::vector<int64_t> seen(static_cast<size_t>(set.labels.max().item<int64_t>()) + 1);
  const auto* labels = set.labels.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < set.size(); ++i) {
    (++seen[labels[i]] % kEvery == 0 ? test : train).push_back(i);
  }
  if (test.empty()) {
    refuse_data(name, "images that are held out, or a class of 10 of which one can be", "neither");
  }
  const auto select = [&](const std::vector<int64_t>& rows) {
    const at::Tensor index = at::tensor(rows, at::kLong);
    return ImageSet{set.images.index_select(0, index), set.labels.index_select(0, index)};
  };
  return {.train = select(train), .test = select(test)};
}

std::string image_fingerprint(const ImageData& data) {
  uint32_t crc = 0;
  const auto add = [&](const at::Tensor& tensor) {
    for (const int64_t size : tensor.sizes()) crc = io::crc32c(std::to_string(size) + " ", crc);
    const at::Tensor values = tensor.contiguous();
    crc = io::crc32c({static_cast<const char*>(values.const_data_ptr()), values.nbytes()}, crc);
  };
  for (const ImageSet* set : {&data.train, &data.test}) {
    add(set->images);
    add(set->labels);
  }
  for (const std::string& name : data.class_names) crc = io::crc32c(name + '\n', crc);
  return std::to_string(crc);
}

ImageSet average_pool(const ImageSet& set, int64_t factor) {
  std::vector<at::Tensor> parts;
  for_parts(set.images, [&](const at::Tensor& part) {
    parts.push_back(at::avg_pool2d(part.to(at::kFloat), {factor, factor}).round_().to(at::kByte));
  });
  return {at::cat(parts), set.labels};
}

}  // namespace mnemosyne::tasks
