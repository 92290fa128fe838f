#include "processes.h"

#include <c10/util/Logging.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>

#include "mnemosyne/core/choices.h"

namespace mnemosyne::cli {
namespace {

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) return {};
  return value;
}

std::string required(const char* name) {
  const std::optional<std::string> value = variable(name);
  if (!value)
    refuse("processes", fmt::format("the variable {}, as torchrun sets it", name), "none");
  return *value;
}

int64_t number(const char* name, const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stopped != end) {
    refuse("processes", fmt::format("a number in the variable {}", name), in_quotes(text));
  }
  return value;
}

int64_t required_number(const char* name) { return number(name, required(name)); }

int64_t number_or(const char* name, int64_t otherwise) {
  const std::optional<std::string> text = variable(name);
  return text ? number(name, *text) : otherwise;
}

// torch tells of a connection that is gone by a page of addresses, from every thread; the one line
// that we say of it would be lost. TORCH_CPP_LOG_LEVEL brings that page back.
void silence_torch() {
  constexpr int kFatal = 3;
  if (!variable("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = kFatal;
}

}  // namespace

Launch read_launch() {
  if (!variable("RANK") && !variable("WORLD_SIZE")) return {};
  Launch launch;
  launch.group.rank = required_number("RANK");
  launch.group.size = required_number("WORLD_SIZE");
  launch.local_rank = number_or("LOCAL_RANK", 0);
  launch.local_size = std::max<int64_t>(1, number_or("LOCAL_WORLD_SIZE", 1));
  if (launch.group.size == 1) return launch;
  silence_torch();
  launch.group.address = required("MASTER_ADDR");
  launch.group.port = required_number("MASTER_PORT");
  // torchrun's own process keeps the store, for all attempts that it makes.
  launch.group.store_is_served = variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  launch.group.prefix =
      fmt::format("/worker/attempt_{}", number_or("TORCHELASTIC_RESTART_COUNT", 0));
  return launch;
}

meta::MetaConfig on_this_machine(meta::MetaConfig config, const Launch& launch) {
  if (launch.group.size == 1) return config;
  if (config.num_workers == 0) {
    const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
    config.num_workers = std::max<int64_t>(1, cores / launch.local_size);
  }
  if (config.device == "cuda") config.device = fmt::format("cuda:{}", launch.local_rank);
  return config;
}

}  // namespace mnemosyne::cli
