#include "mnemosyne/tasks/data/xyz_columns.h"

#include <cstdint>
#include <set>
#include <vector>

#include "mnemosyne/io/file.h"
#include "mnemosyne/tasks/data/bytes.h"
#include "mnemosyne/tasks/fields.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kWidest = 100;
constexpr size_t kMostColumns = 1000;

/// Between the colons; one at the end, as some programs write it, begins nothing.
std::vector<std::string_view> split_at_colons(std::string_view text) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t colon = text.find(':');
    parts.push_back(text.substr(0, colon));
    text.remove_prefix(colon == std::string_view::npos ? text.size() : colon + 1);
  }
  return parts;
}

struct Property {
  std::string_view name;
  char kind;
  size_t width;

  bool is_vector() const { return (kind == 'R' || kind == 'I') && width == 3; }
};

Property parse_property(std::string_view name, std::string_view kind, std::string_view width,
                        const std::string& place) {
  if (kind.size() != 1 || std::string_view("RISL").find(kind[0]) == std::string_view::npos) {
    refuse_data(place, "R, I, S or L as the kind of each of Properties", io::in_quotes(kind));
  }
  const std::optional<int64_t> columns = parse_integer(trimmed(width));
  if (!columns || *columns < 1 || *columns > kWidest) {
    refuse_data(place, "1 to 100 columns for each of Properties", io::in_quotes(width));
  }
  return {name, kind[0], static_cast<size_t>(*columns)};
}

/// The names of all columns, as ASE has them: a position is pos0, pos1 and pos2.
void add_names(const Property& property, const std::string& place, std::set<std::string>& names) {
  for (size_t i = 0; i < property.width; ++i) {
    const std::string name =
        std::string(property.name) + (property.width == 1 ? "" : std::to_string(i));
    if (!names.insert(name).second) {
      refuse_data(place, "each of Properties once", io::in_quotes(name) + " again");
    }
  }
}

}  // namespace

XyzColumns parse_properties(std::string_view properties, const std::string& place) {
  const std::vector<std::string_view> parts = split_at_colons(properties);
  XyzColumns columns{.species = {}, .number = {}, .position = 0, .forces = {}, .kinds = ""};
  std::optional<size_t> position, force;
  std::set<std::string> names;
  const auto take = [&](std::optional<size_t>& column, bool fits) {
    if (column || !fits) {
      refuse_data(place, "species:S:1, Z:I:1 and pos:R:3 once at most in Properties",
                  io::in_quotes(properties));
    }
    column = columns.kinds.size();
  };
  for (size_t i = 0; i + 2 < parts.size(); i += 3) {
    const Property property = parse_property(parts[i], parts[i + 1], parts[i + 2], place);
    add_names(property, place, names);
    if (property.name == "species" || property.name == "symbols") {
      take(columns.species, property.kind == 'S' && property.width == 1);
    } else if (property.name == "Z" || property.name == "numbers") {
      take(columns.number, property.kind == 'I' && property.width == 1);
    } else if (property.name == "pos" || property.name == "positions") {
      take(position, property.is_vector());
    } else if (property.name == "forces" && property.is_vector()) {
      columns.forces = columns.kinds.size();
    } else if (property.name == "force" && property.is_vector()) {
      force = columns.kinds.size();
    }
    columns.kinds.append(property.width, property.kind);
  }
  if ((!columns.species && !columns.number) || !position || parts.size() % 3 != 0 ||
      columns.kinds.size() >= kMostColumns) {
    refuse_data(place, "Properties with species:S:1 or Z:I:1, and pos:R:3",
                io::in_quotes(properties));
  }
  columns.position = *position;
  if (!columns.forces) columns.forces = force;
  return columns;
}

}  // namespace mnemosyne::tasks
