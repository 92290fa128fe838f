#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/io/tensorboard.h"

namespace mnemosyne::io {

using Metrics = std::vector<std::pair<std::string, double>>;

/// Where a run's numbers go: `metrics.jsonl`, one JSON object a line with "step" first, and a
/// TensorBoard event file, both in one folder.
///
///     io::MetricSink sink = io::MetricSink::open("runs/demo");
///     sink.write(1, {{"loss", 2.3}, {"learning_rate", 1e-3}});
class MetricSink {
 public:
  /// Writes nowhere.
  MetricSink() = default;

  /// Makes the folder and starts new files; with `last_step`, the step of the checkpoint that a run
  /// continues from, drops what an interrupted run wrote after that step and appends.
  /// InputError when the folder cannot be written to.
  static MetricSink open(const std::string& folder, std::optional<int64_t> last_step = {});

  /// Steps must not decrease. In metrics.jsonl NaN and infinities are null.
  void write(int64_t step, const Metrics& values);

  /// What was written is in the files after this; call it before a checkpoint is written. Throws
  /// std::runtime_error when the disk does not take it.
  void flush();

 private:
  struct Files {
    Files(const std::string& folder, std::optional<int64_t> last_step);
    std::string lines_path;
    std::ofstream lines;
    EventFile events;
  };
  std::unique_ptr<Files> files_;
};

}  // namespace mnemosyne::io
