#include "mnemosyne/core/random.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>

#include <cmath>
#include <mutex>
#include <numbers>
#include <numeric>
#include <utility>

namespace mnemosyne {
namespace {

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ULL;  // The stride of SplitMix64.

}  // namespace

uint64_t mix_seeds(uint64_t seed, uint64_t index) {
  Random first(seed);
  Random second(first.bits() ^ (index + 1) * kGolden);
  return second.bits();
}

uint64_t derive_seed(uint64_t seed, std::initializer_list<uint64_t> path) {
  for (const uint64_t part : path) seed = mix_seeds(seed, part);
  return seed;
}

uint64_t part_seed(uint64_t seed, uint64_t index) { return Random(seed + index * kGolden).bits(); }

uint64_t seed_or_draw(const std::optional<uint64_t>& seed) {
  if (seed.has_value()) return *seed;
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return at::check_generator<at::CPUGeneratorImpl>(generator)->random64();
}

uint64_t Random::bits() {
  uint64_t z = state_ += kGolden;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

double Random::uniform() { return static_cast<double>(bits() >> 11) * 0x1.0p-53; }

double Random::log_uniform(double low, double high) {
  return std::exp(uniform(std::log(low), std::log(high)));
}

// Multiplying instead of taking a remainder: the bias is below count / 2^53.
int64_t Random::below(int64_t count) {
  return static_cast<int64_t>(uniform() * static_cast<double>(count));
}

double Random::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

std::vector<int64_t> permutation(int64_t count, uint64_t seed) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  Random random(seed);
  for (int64_t i = count - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  return order;
}

at::Generator tensor_generator(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

at::Tensor seeded_normal(at::IntArrayRef sizes, double deviation, uint64_t seed) {
  return at::randn(sizes, tensor_generator(seed), at::TensorOptions(at::kFloat)) * deviation;
}

}  // namespace mnemosyne
