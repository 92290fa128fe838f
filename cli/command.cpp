#include "command.h"

#include <charconv>
#include <cmath>
#include <csignal>
#include <filesystem>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "mnemosyne/core/error.h"

namespace mnemosyne::cli {
namespace {

volatile std::sig_atomic_t interrupt_seen = 0;

void on_interrupt(int signal) {
  interrupt_seen = 1;
  std::signal(signal, SIG_DFL);
}

template <typename T>
bool parse(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stopped == end;
}

}  // namespace

void add_data_option(CLI::App& app, std::string& data) {
  app.add_option("--data", data,
                 "Folder with the data sets, or your own text file or folder of images; see "
                 "`mnemosyne tasks`")
      ->envname("MNEMOSYNE_DATA")
      ->type_name("PATH");
}

void add_device_option(CLI::App& app, std::string& device) {
  app.add_option("--device", device, "Where networks are trained: cpu, cuda or cuda:N")
      ->type_name("DEVICE")
      ->capture_default_str();
}

void make_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    throw InputError("[out] expected a folder that can be made, got " + folder + ": " +
                     error.message());
  }
}

CLI::Validator whole_number(int64_t at_least) {
  const auto check = [at_least](const std::string& text) -> std::string {
    int64_t value = 0;
    if (parse(text, value) && value >= at_least) return {};
    return "expected a whole number of " + std::to_string(at_least) + " or more, got \"" + text +
           "\"";
  };
  return CLI::Validator(check, "");
}

CLI::Validator real_number(bool zero_allowed) {
  const auto check = [zero_allowed](const std::string& text) -> std::string {
    double value = 0;
    if (parse(text, value) && std::isfinite(value) && (value > 0 || (zero_allowed && value == 0))) {
      return {};
    }
    return std::string("expected a ") + (zero_allowed ? "number of 0 or more" : "positive number") +
           ", got \"" + text + "\"";
  };
  return CLI::Validator(check, "");
}

void keep_freed_memory() {
#ifdef __GLIBC__
  constexpr int kMegabyte = 1 << 20;
  mallopt(M_MMAP_THRESHOLD, 32 * kMegabyte);  // the most that it takes
  mallopt(M_TRIM_THRESHOLD, 1024 * kMegabyte);
  mallopt(M_TOP_PAD, 16 * kMegabyte);
#endif
}

bool interrupted() { return interrupt_seen != 0; }

void watch_interrupts() {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
}

}  // namespace mnemosyne::cli
