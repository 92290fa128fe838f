#include "mnemosyne/io/metrics.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/io/record.h"

namespace mnemosyne::io {
namespace {

// How many bytes of the file are whole lines of steps up to `last_step`.
size_t bytes_until(const std::string& lines, int64_t last_step) {
  size_t offset = 0;
  for (size_t end = lines.find('\n'); end != std::string::npos; end = lines.find('\n', offset)) {
    const auto json = nlohmann::json::parse(lines.begin() + static_cast<std::ptrdiff_t>(offset),
                                            lines.begin() + static_cast<std::ptrdiff_t>(end),
                                            nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) break;
    if (json["step"].get<int64_t>() > last_step) break;
    offset = end + 1;
  }
  return offset;
}

void make_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    throw InputError("[metrics] expected a folder that can be made, got " + folder + ": " +
                     error.message());
  }
}

}  // namespace

MetricSink::Files::Files(const std::string& folder, std::optional<int64_t> last_step)
    : lines_path(folder + "/metrics.jsonl"),
      events(folder + "/events.out.tfevents.mnemosyne", last_step) {
  const bool append = last_step && std::filesystem::exists(lines_path);
  if (append) {
    std::filesystem::resize_file(lines_path, bytes_until(read_file(lines_path), *last_step));
  }
  lines.open(lines_path, std::ios::binary | (append ? std::ios::app : std::ios::trunc));
  if (!lines) {
    throw InputError("[metrics] expected a path that can be written to, got " + lines_path);
  }
}

MetricSink MetricSink::open(const std::string& folder, std::optional<int64_t> last_step) {
  make_folder(folder);
  MetricSink sink;
  sink.files_ = std::make_unique<Files>(folder, last_step);
  return sink;
}

void MetricSink::write(int64_t step, const Metrics& values) {
  if (!files_) return;
  Record record{{"step", step}};
  for (const auto& [name, value] : values) record.emplace_back(name, value);
  files_->lines << to_json(record) << '\n';
  files_->events.write(step, values);
}

void MetricSink::flush() {
  if (!files_) return;
  files_->lines.flush();
  files_->events.flush();
  if (!files_->lines) {
    throw std::runtime_error("[metrics] writing " + files_->lines_path + " failed");
  }
}

}  // namespace mnemosyne::io
