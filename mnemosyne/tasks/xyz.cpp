#include "mnemosyne/tasks/xyz.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "mnemosyne/io/file.h"
#include "mnemosyne/tasks/bytes.h"

namespace mnemosyne::tasks {
namespace {

constexpr std::string_view kBlanks = " \t";
constexpr int64_t kMostAtoms = 100'000;
constexpr size_t kMostColumns = 1000;
constexpr double kLargest = 1e9;

constexpr std::string_view kSymbols[] = {
    "H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg", "Al", "Si", "P",
    "S",  "Cl", "Ar", "K",  "Ca", "Sc", "Ti", "V",  "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn",
    "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",  "Zr", "Nb", "Mo", "Tc", "Ru", "Rh",
    "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I",  "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd",
    "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W",  "Re",
    "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th",
    "Pa", "U",  "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db",
    "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"};

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::vector<std::string_view> split(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> parts;
  while (parts.size() < kMostColumns) {
    const size_t first = text.find_first_not_of(separators);
    if (first == std::string_view::npos) break;
    text.remove_prefix(first);
    const size_t length = std::min(text.find_first_of(separators), text.size());
    parts.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return parts;
}

/// Takes the next `key=value` or `key="value"` off the front of a comment; false at its end.
bool take_pair(std::string_view& comment, std::string_view& key, std::string_view& value) {
  comment = trimmed(comment);
  if (comment.empty()) return false;
  const size_t end = std::min(comment.find_first_of("= \t"), comment.size());
  key = comment.substr(0, end);
  value = {};
  comment.remove_prefix(end);
  if (comment.empty() || comment.front() != '=') return true;
  comment.remove_prefix(1);
  const bool quoted = !comment.empty() && comment.front() == '"';
  if (quoted) comment.remove_prefix(1);
  const size_t length =
      std::min(quoted ? comment.find('"') : comment.find_first_of(kBlanks), comment.size());
  value = comment.substr(0, length);
  comment.remove_prefix(std::min(comment.size(), length + (quoted ? 1 : 0)));
  return true;
}

bool parse_count(std::string_view text, int64_t& count) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

}  // namespace

int64_t atomic_number(std::string_view symbol) {
  const auto* found = std::find(std::begin(kSymbols), std::end(kSymbols), symbol);
  return found == std::end(kSymbols) ? 0 : found - std::begin(kSymbols) + 1;
}

std::string_view XyzReader::need_line(const std::string& what) {
  std::string_view line;
  if (!lines_.next(line)) refuse_data(lines_.place(), what, "the end of the file");
  return line;
}

double XyzReader::number(std::string_view text) const {
  double value = 0.0;
  const std::string_view digits = text.substr(!text.empty() && text.front() == '+' ? 1 : 0);
  const char* end = digits.data() + digits.size();
  const auto [stopped, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc() || stopped != end || !(std::abs(value) <= kLargest)) {
    refuse_data(lines_.place(), "a finite number of at most 1e9", io::in_quotes(text));
  }
  return value;
}

std::array<double, 3> XyzReader::vector(const std::vector<std::string_view>& fields,
                                        size_t first) const {
  return {number(fields[first]), number(fields[first + 1]), number(fields[first + 2])};
}

// "species:S:1:pos:R:3:...": name, kind and number of columns of each.
XyzReader::Columns XyzReader::read_properties(std::string_view properties) const {
  const std::vector<std::string_view> parts = split(properties, ":");
  Columns columns;
  columns.count = 0;
  bool species = false, position = false;
  for (size_t i = 0; i + 2 < parts.size(); i += 3) {
    const std::string kind = std::string(parts[i + 1]) + ":" + std::string(parts[i + 2]);
    int64_t width = 0;
    if (!parse_count(parts[i + 2], width) || width < 1 || width > 100) {
      refuse_data(lines_.place(), "1 to 100 columns for each of Properties",
                  io::in_quotes(parts[i + 2]));
    }
    if (parts[i] == "species" && kind == "S:1") {
      species = true;
      columns.species = columns.count;
    } else if (parts[i] == "pos" && kind == "R:3") {
      position = true;
      columns.position = columns.count;
    } else if ((parts[i] == "forces" || parts[i] == "force") && kind == "R:3") {
      columns.forces = columns.count;
    }
    columns.count += static_cast<size_t>(width);
  }
  if (!species || !position || parts.size() % 3 != 0 || columns.count >= kMostColumns) {
    refuse_data(lines_.place(), "Properties with species:S:1 and pos:R:3",
                io::in_quotes(properties));
  }
  return columns;
}

XyzReader::Columns XyzReader::read_comment(std::string_view comment, XyzFrame& frame) const {
  Columns columns;
  // A plain file's comment is anything, words that look like keys included.
  if (comment.find("Properties=") == std::string_view::npos) return columns;
  std::string_view key, value;
  while (take_pair(comment, key, value)) {
    if (key == "Properties") columns = read_properties(value);
    if (key == "energy") frame.energy = number(value);
    if (key == "Lattice") {
      const std::vector<std::string_view> parts = split(value, kBlanks);
      if (parts.size() != 9) {
        refuse_data(lines_.place(), "9 numbers for Lattice", std::to_string(parts.size()));
      }
      frame.lattice.emplace();
      for (size_t i = 0; i < 9; ++i) (*frame.lattice)[i] = number(parts[i]);
    }
  }
  return columns;
}

bool XyzReader::next(XyzFrame& frame) {
  std::string_view line;
  do {
    if (!lines_.next(line)) return false;
    line = trimmed(line);
  } while (line.empty());
  int64_t count = 0;
  if (!parse_count(line, count) || count < 1 || count > kMostAtoms) {
    refuse_data(lines_.place(), "a number of atoms from 1 to 100000", io::in_quotes(line));
  }
  frame = {};
  const Columns columns = read_comment(need_line("a comment"), frame);
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<std::string_view> fields =
        split(need_line("atom " + std::to_string(i + 1) + " of " + std::to_string(count)), kBlanks);
    if (fields.size() < columns.count) {
      refuse_data(lines_.place(), std::to_string(columns.count) + " columns or more",
                  std::to_string(fields.size()));
    }
    frame.elements.push_back(atomic_number(fields[columns.species]));
    if (frame.elements.back() == 0) {
      refuse_data(lines_.place(), "the symbol of an element",
                  io::in_quotes(fields[columns.species]));
    }
    frame.positions.push_back(vector(fields, columns.position));
    if (columns.forces) frame.forces.push_back(vector(fields, *columns.forces));
  }
  return true;
}

}  // namespace mnemosyne::tasks
