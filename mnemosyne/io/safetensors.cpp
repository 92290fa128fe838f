#include "mnemosyne/io/safetensors.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"

// The format: 8 bytes little endian with the length of the header, the header in JSON
// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, "__metadata__": {...}},
// then the tensors' bytes, little endian, without holes or overlaps.

namespace mnemosyne::io {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensors are read as they lie in the file");

// Keeps the order of the header.
using Json = nlohmann::ordered_json;

constexpr const char* kMetadata = "__metadata__";
constexpr size_t kLengthBytes = 8;
// As in the reference implementation: a longer header is an attack or an accident.
constexpr uint64_t kLongestHeader = 100'000'000;

const std::vector<std::pair<std::string, at::ScalarType>>& dtypes() {
  static const std::vector<std::pair<std::string, at::ScalarType>> table{
      {"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf},  {"BF16", at::kBFloat16},
      {"I64", at::kLong},   {"I32", at::kInt},   {"I16", at::kShort}, {"I8", at::kChar},
      {"U8", at::kByte},    {"BOOL", at::kBool}};
  return table;
}

[[noreturn]] void refuse(const std::string& file, const std::string& expected,
                         const std::string& got) {
  throw InputError("[safetensors] " + file + ": expected " + expected + ", got " + got);
}

// What the header says of one tensor.
struct Entry {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  uint64_t begin;
  uint64_t end;
};

at::ScalarType parse_dtype(const Json& value, const std::string& where, const std::string& file) {
  if (value.is_string()) {
    for (const auto& [name, dtype] : dtypes()) {
      if (name == value.get_ref<const std::string&>()) return dtype;
    }
  }
  refuse(file, "the dtype of " + where + " to be one of " + listed(names_of(dtypes())),
         value.is_string() ? in_quotes(value.get<std::string>()) : value.type_name());
}

// The number of bytes that a tensor of this shape needs; refuses shapes that no memory could hold.
uint64_t parse_shape(const Json& value, Entry& entry, const std::string& where,
                     const std::string& file) {
  constexpr size_t kMostDimensions = 64;
  if (!value.is_array() || value.size() > kMostDimensions) {
    refuse(file, "the shape of " + where + " to be a list of sizes", value.type_name());
  }
  constexpr uint64_t kMostBytes = std::numeric_limits<int64_t>::max();
  const uint64_t item_bytes = c10::elementSize(entry.dtype);
  uint64_t bytes = item_bytes;
  bool empty = false;
  for (const Json& size : value) {
    if (!size.is_number_unsigned()) {
      refuse(file, "the shape of " + where + " to hold sizes", in_quotes(size.dump()));
    }
    const auto length = size.get<uint64_t>();
    // Sizes of zero count as one here, so that [0, 2^62, 2^62] cannot overflow strides either.
    if (length > kMostBytes / bytes)
      refuse(file, "a shape that fits into memory for " + where, in_quotes(value.dump()));
    bytes *= std::max<uint64_t>(length, 1);
    empty = empty || length == 0;
    entry.shape.push_back(static_cast<int64_t>(length));
  }
  return empty ? 0 : bytes;
}

Entry parse_entry(const std::string& name, const Json& value, uint64_t data_bytes,
                  const std::string& file) {
  const std::string where = "tensor " + in_quotes(name);
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets")) {
    refuse(file, "dtype, shape and data_offsets for " + where, in_quotes(value.dump()));
  }
  Entry entry{name, parse_dtype(value["dtype"], where, file), {}, 0, 0};
  const uint64_t bytes = parse_shape(value["shape"], entry, where, file);
  const Json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    refuse(file, "data_offsets of " + where + " to be [begin, end]", in_quotes(offsets.dump()));
  }
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();
  if (entry.begin > entry.end || entry.end > data_bytes) {
    refuse(file, "data_offsets of " + where + " within " + std::to_string(data_bytes) + " bytes",
           in_quotes(offsets.dump()));
  }
  if (entry.end - entry.begin != bytes) {
    refuse(file, std::to_string(bytes) + " bytes for " + where,
           std::to_string(entry.end - entry.begin));
  }
  return entry;
}

// Every byte of the data belongs to exactly one tensor.
void check_coverage(const std::vector<Entry>& entries, uint64_t data_bytes,
                    const std::string& file) {
  std::vector<std::pair<uint64_t, const Entry*>> order;
  for (const Entry& entry : entries) order.emplace_back(entry.begin, &entry);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first, a.second->end) < std::pair(b.first, b.second->end);
  });
  uint64_t covered = 0;
  for (const auto& [begin, entry] : order) {
    if (begin != covered) {
      refuse(file,
             "tensor " + in_quotes(entry->name) + " to begin at byte " + std::to_string(covered),
             std::to_string(begin));
    }
    covered = entry->end;
  }
  if (covered != data_bytes) {
    refuse(file, std::to_string(covered) + " bytes of tensors", std::to_string(data_bytes));
  }
}

Json parse_header(std::string_view header, const std::string& file) {
  // JSON allows a key twice and parsers silently keep one of them: two readers would see two files.
  std::vector<std::set<std::string>> keys;
  std::string duplicate;
  const auto watch = [&](int depth, nlohmann::detail::parse_event_t event, Json& parsed) {
    using Event = nlohmann::detail::parse_event_t;
    // A tensor's shape is at depth 3; printing or destroying a deep tree would exhaust the stack.
    if (depth > 8) refuse(file, "a header of tensors", "JSON nested more than 8 deep");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second) {
      duplicate = parsed.get<std::string>();
    }
    return true;
  };
  Json json;
  try {
    json = Json::parse(header.begin(), header.end(), watch);
  } catch (const nlohmann::json::parse_error& error) {
    refuse(file, "a header in JSON", "something else at byte " + std::to_string(error.byte));
  } catch (const nlohmann::json::exception&) {
    refuse(file, "a header in JSON", "a number out of range");
  }
  if (!duplicate.empty()) refuse(file, "every name once", in_quotes(duplicate) + " twice");
  if (!json.is_object()) refuse(file, "a JSON object as header", json.type_name());
  return json;
}

std::map<std::string, std::string> parse_metadata(const Json& json, const std::string& file) {
  if (!json.is_object()) refuse(file, "metadata to be a JSON object", json.type_name());
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) {
      refuse(file, "text as metadata " + in_quotes(key), value.type_name());
    }
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

at::Tensor read_tensor(const Entry& entry, std::string_view data, const std::string& file) {
  const std::string_view bytes = data.substr(entry.begin, entry.end - entry.begin);
  // A bool that is neither 0 nor 1 is undefined behaviour for everyone who looks at it.
  if (entry.dtype == at::kBool &&
      std::any_of(bytes.begin(), bytes.end(), [](char c) { return c != 0 && c != 1; })) {
    refuse(file, "bytes 0 and 1 in tensor " + in_quotes(entry.name), "another byte");
  }
  at::Tensor tensor = at::empty(entry.shape, at::TensorOptions().dtype(entry.dtype));
  if (!bytes.empty()) std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

const std::string& dtype_name(const at::Tensor& tensor, const std::string& tensor_name) {
  for (const auto& [name, dtype] : dtypes()) {
    if (dtype == tensor.scalar_type()) return name;
  }
  throw InputError("[safetensors] expected a dtype of the format for tensor " +
                   in_quotes(tensor_name) + ", got " + c10::toString(tensor.scalar_type()));
}

// The bytes of a file without copies of its tensors.
struct Encoded {
  uint64_t header_bytes = 0;
  std::string header;
  NamedTensors data;  // on the CPU, contiguous, in the order of their bytes

  std::vector<std::string_view> pieces() const {
    std::vector<std::string_view> result{
        {reinterpret_cast<const char*>(&header_bytes), kLengthBytes}, header};
    for (const auto& [name, tensor] : data) {
      result.emplace_back(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
    }
    return result;
  }
};

Encoded encode(const NamedTensors& tensors, const std::map<std::string, std::string>& metadata,
               const std::string& where) {
  Encoded result;
  Json header = Json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  for (const auto& [name, tensor] : tensors) {
    if (name == kMetadata || header.contains(name)) {
      throw InputError("[safetensors] expected every name once, got " + in_quotes(name) + " again");
    }
    header[name] = {{"dtype", dtype_name(tensor, name)}, {"shape", tensor.sizes().vec()}};
    result.data.emplace_back(name, tensor.detach().to(at::kCPU).contiguous());
  }
  // Wide types first keeps every tensor aligned for readers that map the file.
  std::stable_sort(result.data.begin(), result.data.end(), [](const auto& a, const auto& b) {
    return a.second.element_size() > b.second.element_size();
  });
  uint64_t offset = 0;
  for (const auto& [name, tensor] : result.data) {
    header[name]["data_offsets"] = {offset, offset + tensor.nbytes()};
    offset += tensor.nbytes();
  }
  try {
    result.header = header.dump();
  } catch (const nlohmann::json::exception&) {
    throw InputError("[safetensors] expected names and metadata in UTF-8 for " + where +
                     ", got other bytes");
  }
  result.header.resize((result.header.size() + 7) / 8 * 8, ' ');
  result.header_bytes = result.header.size();
  return result;
}

}  // namespace

TensorFile parse_safetensors(std::string_view bytes, const std::string& name_for_errors) {
  const std::string& file = name_for_errors;
  if (bytes.size() < kLengthBytes) {
    refuse(file, "at least 8 bytes", std::to_string(bytes.size()));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  const uint64_t limit = std::min<uint64_t>(bytes.size() - kLengthBytes, kLongestHeader);
  if (header_bytes > limit) {
    refuse(file, "a header of at most " + std::to_string(limit) + " bytes",
           std::to_string(header_bytes));
  }
  const Json header = parse_header(bytes.substr(kLengthBytes, header_bytes), file);
  const std::string_view data = bytes.substr(kLengthBytes + header_bytes);

  TensorFile result;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata) {
      result.metadata = parse_metadata(value, file);
    } else {
      entries.push_back(parse_entry(name, value, data.size(), file));
    }
  }
  check_coverage(entries, data.size(), file);
  for (const Entry& entry : entries) {
    result.tensors.emplace_back(entry.name, read_tensor(entry, data, file));
  }
  return result;
}

TensorFile read_safetensors(const std::string& path) {
  return parse_safetensors(read_file(path), path);
}

void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const Encoded encoded = encode(tensors, metadata, path);
  write_file(path, encoded.pieces());
}

std::string format_safetensors(const NamedTensors& tensors,
                               const std::map<std::string, std::string>& metadata) {
  std::string bytes;
  const Encoded encoded = encode(tensors, metadata, "a message");
  for (const std::string_view piece : encoded.pieces()) bytes += piece;
  return bytes;
}

}  // namespace mnemosyne::io
