#include "progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace mnemosyne::cli {
namespace {

std::string duration(double seconds) {
  const auto whole = static_cast<int64_t>(seconds);
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
}

}  // namespace

Progress::Progress(std::string unit)
    : unit_(std::move(unit)),
      terminal_(::isatty(STDERR_FILENO) != 0),
      shown_(Clock::now()),
      start_(Clock::now()) {}

void Progress::update(const std::string& text, int64_t done, int64_t total) {
  if (first_ < 0 || total != total_ || done < done_) {
    first_ = done;
    start_ = Clock::now();
  }
  text_ = text;
  done_ = done;
  total_ = total;
  pending_ = true;
  const auto now = Clock::now();
  if (now - shown_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(15)))
    return;
  show();
  shown_ = now;
}

void Progress::finish() {
  if (pending_ && terminal_) {
    show();
    std::fputc('\n', stderr);
  }
  pending_ = false;
}

std::string Progress::rate_and_time_left() const {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done_ - first_) / seconds : 0;
  if (rate <= 0) return "";
  return fmt::format("{:.{}f} {}/s, {} left", rate, rate < 10 ? 1 : 0, unit_,
                     duration(static_cast<double>(total_ - done_) / rate));
}

void Progress::show() {
  const double share =
      total_ > 0 ? std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_)) : 1.0;
  const std::string tail =
      fmt::format("{:3.0f}%  {}  {}", 100 * share, rate_and_time_left(), text_);
  if (!terminal_) {
    fmt::print(stderr, "{}\n", tail);
    return;
  }
  constexpr int kWidth = 24;
  const int filled = static_cast<int>(share * kWidth);
  fmt::print(stderr, "\r\033[K[{}{}] {:.90}", std::string(static_cast<size_t>(filled), '#'),
             std::string(static_cast<size_t>(kWidth - filled), '.'), tail);
  std::fflush(stderr);
}

}  // namespace mnemosyne::cli
