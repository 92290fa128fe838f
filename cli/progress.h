#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace mnemosyne::cli {

/// How far long work is, on standard error: one line that is drawn over on a terminal, with a bar,
/// the rate and the time left; elsewhere a plain line now and then.
class Progress {
 public:
  explicit Progress(std::string unit);

  /// Reports `done` of `total` units. Cheap when nothing is due to be shown.
  void update(const std::string& text, int64_t done, int64_t total);

  /// Shows the last state and ends the line.
  void finish();

  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

 private:
  using Clock = std::chrono::steady_clock;

  void show();
  std::string rate_and_time_left() const;

  std::string unit_;
  bool terminal_;
  Clock::time_point shown_;
  Clock::time_point start_;
  int64_t first_ = -1;  // what was done when this stage was first seen
  std::string text_;
  int64_t done_ = 0;
  int64_t total_ = 0;
  bool pending_ = false;
};

}  // namespace mnemosyne::cli
