#include "threads_option.h"

#include <fmt/format.h>

#include "command.h"

namespace mnemosyne::cli {
namespace {

// A system that refuses a thread ends the program from inside of the OpenMP runtime.
constexpr int kMostThreads = 1024;

std::string check(const std::string& text) {
  int value = 0;
  const bool fits = CLI::detail::lexical_cast(text, value) && value >= 1 && value <= kMostThreads;
  if (fits) return {};
  return fmt::format("expected a whole number from 1 to {}, got \"{}\"", kMostThreads, text);
}

}  // namespace

void add_threads_option(CLI::App& command, std::vector<int>& threads) {
  command.add_option("--threads", threads, "Threads; with several numbers, each after the other")
      ->delimiter(',')
      ->check(CLI::Validator(check, ""))
      ->type_name("T,...")
      ->capture_default_str();
}

std::string threads_heading(const std::vector<int>& threads) {
  return fmt::format("of {} thread{}", threads[0], threads[0] == 1 ? "" : "s");
}

}  // namespace mnemosyne::cli
