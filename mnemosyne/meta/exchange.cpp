#include "mnemosyne/meta/exchange.h"

#include <ATen/ops/tensor.h>

#include <cstring>
#include <string>
#include <utility>

#include "mnemosyne/io/safetensors.h"
#include "mnemosyne/meta/checkpoint.h"

namespace mnemosyne::meta {
namespace {

constexpr const char* kSource = "another rank";

// One string of several: each behind its length.
std::string joined(const std::vector<std::string>& parts) {
  std::string result;
  for (const std::string& part : parts) {
    const uint64_t size = part.size();
    result.append(reinterpret_cast<const char*>(&size), sizeof size);
    result += part;
  }
  return result;
}

std::vector<std::string> split(const std::string& bytes) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin < bytes.size();) {
    uint64_t size = 0;
    std::memcpy(&size, bytes.data() + begin, sizeof size);
    parts.push_back(bytes.substr(begin + sizeof size, size));
    begin += sizeof size + size;
  }
  return parts;
}

// This rank's own items as one string.
template <typename Item, typename Format>
std::string own_bytes(const ProcessGroup& processes, const std::vector<Item>& items,
                      const Format& format) {
  std::vector<std::string> parts;
  for (const int64_t i : processes.own_items(static_cast<int64_t>(items.size()))) {
    parts.push_back(format(items[static_cast<size_t>(i)]));
  }
  return joined(parts);
}

// Calls take(item, bytes) for the items of the other ranks, in the order of ranks.
template <typename Take>
void for_others(const ProcessGroup& processes, const std::vector<std::string>& of_ranks,
                const Take& take) {
  for (size_t rank = 0; rank < of_ranks.size(); ++rank) {
    if (static_cast<int64_t>(rank) == processes.rank()) continue;
    const std::vector<std::string> parts = split(of_ranks[rank]);
    for (size_t i = 0; i < parts.size(); ++i) take(rank + i * of_ranks.size(), parts[i]);
  }
}

std::string format_contribution(const MetaGradient& part) {
  NamedTensors tensors;
  std::map<std::string, std::string> names;
  std::vector<int64_t> steps;
  std::vector<double> losses{part.meta_loss};
  for (const RunReport& run : part.runs) {
    names[std::to_string(steps.size())] = run.task;
    steps.push_back(run.num_steps);
    losses.push_back(run.meta_loss);
  }
  const std::vector<int64_t> counts{part.used, part.skipped, part.inner_steps};
  tensors.emplace_back("counts", at::tensor(counts, at::kLong));
  tensors.emplace_back("steps", at::tensor(steps, at::kLong));
  tensors.emplace_back("losses", at::tensor(losses, at::kDouble));
  if (part.gradient.defined()) tensors.emplace_back("gradient", part.gradient);
  return io::format_safetensors(tensors, names);
}

MetaGradient parse_contribution(const std::string& bytes) {
  const io::TensorFile file = io::parse_safetensors(bytes, kSource);
  const at::Tensor counts = find(file.tensors, "counts"), losses = find(file.tensors, "losses"),
                   steps = find(file.tensors, "steps");
  MetaGradient result{.meta_loss = losses[0].item<double>(),
                      .used = counts[0].item<int64_t>(),
                      .skipped = counts[1].item<int64_t>(),
                      .inner_steps = counts[2].item<int64_t>()};
  if (contains(file.tensors, "gradient")) result.gradient = find(file.tensors, "gradient");
  for (int64_t i = 0; i < steps.numel(); ++i) {
    result.runs.push_back({file.metadata.at(std::to_string(i)), steps[i].item<int64_t>(),
                           losses[i + 1].item<double>()});
  }
  return result;
}

std::string format_numbers(const std::vector<double>& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(double)};
}

std::vector<double> parse_numbers(const std::string& bytes) {
  std::vector<double> numbers(bytes.size() / sizeof(double));
  std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(double));
  return numbers;
}

}  // namespace

std::vector<MetaGradient> all_contributions(ProcessGroup& processes,
                                            std::vector<MetaGradient> contributions) {
  if (processes.size() == 1) return contributions;
  const std::string own = own_bytes(processes, contributions, format_contribution);
  for_others(processes, processes.all_gather(own), [&](size_t item, const std::string& bytes) {
    contributions.at(item) = parse_contribution(bytes);
  });
  return contributions;
}

std::vector<std::vector<double>> all_numbers(ProcessGroup& processes,
                                             std::vector<std::vector<double>> items) {
  if (processes.size() == 1) return items;
  const std::string own = own_bytes(processes, items, format_numbers);
  for_others(processes, processes.all_gather(own),
             [&](size_t item, const std::string& bytes) { items.at(item) = parse_numbers(bytes); });
  return items;
}

NamedTensors gather_tensors(ProcessGroup& processes, const std::vector<NamedTensors>& items) {
  std::vector<NamedTensors> all = items;
  if (processes.size() > 1) {
    const std::string own = own_bytes(
        processes, items, [](const NamedTensors& item) { return io::format_safetensors(item); });
    for_others(processes, processes.gather(own), [&](size_t item, const std::string& bytes) {
      all.at(item) = io::parse_safetensors(bytes, kSource).tensors;
    });
  }
  NamedTensors result;
  if (!processes.is_root()) return result;
  for (const NamedTensors& item : all) append(result, "", item);
  return result;
}

NamedTensors broadcast_tensors(ProcessGroup& processes, const NamedTensors& of_root) {
  if (processes.size() == 1) return of_root;
  const std::string bytes =
      processes.broadcast(processes.is_root() ? io::format_safetensors(of_root) : "");
  return processes.is_root() ? of_root : io::parse_safetensors(bytes, kSource).tensors;
}

}  // namespace mnemosyne::meta
