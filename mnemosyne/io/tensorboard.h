#pragma once

#include <cstdint>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mnemosyne::io {

/// A TensorBoard event file with scalar summaries: TFRecord frames around `Event` messages
/// (tensorflow/core/util/event.proto), encoded by hand.
///
///     io::EventFile events("runs/demo/events.out.tfevents.demo");
///     events.write(/*step=*/1, {{"loss", 2.3}});
class EventFile {
 public:
  /// Starts a new file; with `last_step`, keeps the events of an existing one up to that step and
  /// appends. InputError when the file cannot be written.
  explicit EventFile(const std::string& path, std::optional<int64_t> last_step = {});

  void write(int64_t step, const std::vector<std::pair<std::string, double>>& values);
  void flush();

 private:
  std::ofstream stream_;
};

}  // namespace mnemosyne::io
