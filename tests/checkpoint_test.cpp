#include "mnemosyne/meta/checkpoint.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "mnemosyne/core/device.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/meta/loss_gradients.h"
#include "tests/data_files.h"
#include "tests/testing.h"

namespace mnemosyne::meta {
namespace {

using mnemosyne::testing::identical;
using mnemosyne::testing::refusal;
using mnemosyne::testing::temporary_path;

TEST(Checkpoint, KeepsTensorsAndWhatWasRun) {
  const std::string path = temporary_path("checkpoint.safetensors");
  const NamedTensors tensors{{"a", at::arange(6).view({2, 3}).t()}, {"b", at::rand({})}};
  save_checkpoint(path, tensors, {{"seed", "3"}});
  const io::TensorFile file = load_checkpoint(path, {{"seed", "3"}, {"data", ""}});
  for (const auto& [name, tensor] : tensors)
    EXPECT_TRUE(identical(find(file.tensors, name), tensor));
  EXPECT_EQ(refusal([&] { load_checkpoint(path, {{"seed", "4"}}); }),
            "[checkpoint] " + path + ": expected seed 4, got \"3\"");
  EXPECT_EQ(refusal([&] { load_checkpoint(path, {{"data", "mine"}}); }),
            "[checkpoint] " + path + ": expected data mine, got \"\"");
  std::filesystem::remove(path);
}

TEST(Checkpoint, ADamagedNumberIsRefusedInOneLine) {
  const std::string path = temporary_path("damaged.safetensors");
  save_checkpoint(path, {{"a", at::ones({16})}}, {});
  std::string bytes = io::read_file(path);
  bytes[bytes.size() - 9] = static_cast<char>(bytes[bytes.size() - 9] ^ 1);
  io::write_file(path, {bytes});
  EXPECT_EQ(refusal([&] { load_checkpoint(path); }),
            "[checkpoint] " + path + ": expected numbers with its checksum, got others");
  std::filesystem::remove(path);
}

TEST(Checkpoint, FilesOfEarlierVersionsHaveNoChecksum) {
  const std::string path = temporary_path("old.safetensors");
  io::write_safetensors(path, {{"a", at::ones({3})}}, {{"seed", "1"}});
  EXPECT_TRUE(identical(find(load_checkpoint(path).tensors, "a"), at::ones({3})));
  std::filesystem::remove(path);
}

TEST(Checkpoint, ListsAndStatesComeBackOnlyAsTheyWere) {
  optim::State state{{at::ones({}, at::kLong), at::rand({3})}, {at::ones({}, at::kLong)}};
  state.shared.push_back(at::rand({2, 2}));
  NamedTensors tensors;
  append(tensors, "x.", state);
  const optim::State back = find_alike(tensors, "x.", state);
  EXPECT_TRUE(identical(back[0][1], state[0][1]));
  EXPECT_TRUE(identical(back.shared[0], state.shared[0]));
  EXPECT_FALSE(back[0][1].is_alias_of(tensors[1].second)) << "a copy";
  optim::State other = state;
  other[0][1] = at::rand({4});
  EXPECT_MENTIONS(refusal([&] { find_alike(tensors, "x.", other); }), "x.0.1");
  other = state;
  other.shared.push_back(at::rand({1}));
  EXPECT_MENTIONS(refusal([&] { find_alike(tensors, "x.", other); }), "x.shared.1");
}

TEST(LossGradients, MarksTheMembersWhoseGradientsAreNotFinite) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    LossGradients step{.losses = at::arange(4).to(dtype),
                       .grads = {at::full({4, 3, 2}, 3e38).to(dtype), at::zeros({4, 0}, dtype),
                                 at::ones({4}, dtype)}};
    step.grads[0][1][2][1] = std::numeric_limits<double>::infinity();
    step.grads[2][3] = std::numeric_limits<double>::quiet_NaN();
    const at::Tensor losses = checked_losses(step);
    EXPECT_EQ(losses[0].item<double>(), 0.0) << "large gradients are finite";
    EXPECT_TRUE(std::isnan(losses[1].item<double>()));
    EXPECT_EQ(losses[2].item<double>(), 2.0);
    EXPECT_TRUE(std::isnan(losses[3].item<double>()));
  }
}

TEST(Device, IsReadByName) {
  EXPECT_EQ(parse_device("cpu"), at::Device(at::kCPU));
  for (const std::string name :
       {"", "gpu", "meta", "cuda:", "cuda:x", "cuda:-1", "cuda:0x", "CPU"}) {
    EXPECT_EQ(refusal([&] { parse_device(name); }),
              "[device] expected cpu, cuda or cuda:N, got \"" + name + "\"");
  }
  EXPECT_MENTIONS(refusal([] { parse_device("cuda:99"); }), "got \"cuda:99\"");
  if (!at::hasCUDA()) {
    EXPECT_EQ(refusal([] { parse_device("cuda"); }),
              "[device] expected cpu where there is no CUDA device, got \"cuda\"");
  }
}

}  // namespace
}  // namespace mnemosyne::meta
