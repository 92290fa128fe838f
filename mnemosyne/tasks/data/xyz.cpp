#include "mnemosyne/tasks/data/xyz.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <string>

#include "mnemosyne/io/file.h"
#include "mnemosyne/tasks/data/bytes.h"
#include "mnemosyne/tasks/data/utf8.h"
#include "mnemosyne/tasks/data/xyz_comment.h"
#include "mnemosyne/tasks/fields.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kMostAtoms = 100'000;
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

/// The words of an entry's value, between white space or commas.
std::vector<std::string> words_of(std::string value) {
  std::replace(value.begin(), value.end(), ',', ' ');
  const std::vector<std::string_view> words = split_words(value, value.size());
  return {words.begin(), words.end()};
}

/// Nothing where a word is no number.
std::optional<std::vector<double>> parse_numbers(const std::string& value) {
  std::vector<double> numbers;
  for (const std::string& word : words_of(value)) {
    const std::optional<double> number = parse_number(word);
    if (!number) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

std::string found_value(const CommentEntry& entry) {
  return entry.value ? io::in_quotes(*entry.value) : "the key alone";
}

/// The entry of that key, of several the last as in ASE, where the others say the same.
const CommentEntry* find_entry(const std::vector<CommentEntry>& entries, std::string_view key,
                               const std::string& place) {
  const CommentEntry* found = nullptr;
  for (const CommentEntry& entry : entries) {
    if (entry.key != key) continue;
    if (found != nullptr && found->value && found->value != entry.value) {
      refuse_data(place, std::string(key) + " once",
                  found_value(*found) + " and " + found_value(entry));
    }
    found = &entry;
  }
  return found;
}

std::array<double, 9> matrix_of(const CommentEntry& entry, const std::string& place) {
  const auto numbers = parse_numbers(entry.value.value_or("T"));
  if (!numbers || numbers->size() != 9) {
    refuse_data(place, "9 numbers for " + entry.key,
                numbers ? std::to_string(numbers->size()) : found_value(entry));
  }
  std::array<double, 9> matrix;
  std::copy(numbers->begin(), numbers->end(), matrix.begin());
  return matrix;
}

/// Entries that are not read here, but that ASE needs in a certain form.
void check_other(const CommentEntry& entry, const std::string& place) {
  if (entry.key == "stress" || entry.key == "virial") matrix_of(entry, place);
  if (entry.key == "pbc" && entry.value) {
    const size_t count = words_of(*entry.value).size();
    if (count != 1 && count != 3) {
      refuse_data(place, "1 or 3 values for pbc", std::to_string(count));
    }
  }
}

/// None where the word only stands in a text.
std::optional<double> energy_of(const CommentEntry& entry, const std::string& place) {
  if (!entry.value) return std::nullopt;
  const auto numbers = parse_numbers(*entry.value);
  if (!numbers || numbers->size() != 1 || !(std::abs((*numbers)[0]) <= kLargest)) {
    refuse_data(place, "a finite number of at most 1e9 for energy", found_value(entry));
  }
  return (*numbers)[0];
}

char to_case(char c, char first, int shift) {
  return c >= first && c < first + 26 ? static_cast<char>(c + shift) : c;
}

/// Of the kind that Properties gives, as far as ASE looks at columns that nobody asks for.
bool is_of_kind(std::string_view field, char kind) {
  if (kind == 'R') return parse_number(field).has_value();
  if (kind != 'I') return true;
  const std::optional<int64_t> number = parse_integer(field);
  return number && *number >= std::numeric_limits<int32_t>::min() &&
         *number <= std::numeric_limits<int32_t>::max();
}

bool is_text(std::string_view line) {
  while (!line.empty()) {
    const std::optional<Utf8Character> character = first_character(line);
    if (!character) return false;
    line.remove_prefix(character->length);
  }
  return true;
}

}  // namespace

int64_t atomic_number(std::string_view symbol) {
  std::string usual(symbol);
  for (char& c : usual) c = to_case(c, 'A', 'a' - 'A');
  if (!usual.empty()) usual[0] = to_case(usual[0], 'a', 'A' - 'a');
  const auto* found = std::find(std::begin(kSymbols), std::end(kSymbols), usual);
  return found == std::end(kSymbols) ? 0 : found - std::begin(kSymbols) + 1;
}

std::string_view XyzReader::need_line(const std::string& what) {
  std::string_view line;
  if (!lines_.next(line)) refuse_data(lines_.place(), what, "the end of the file");
  if (!is_text(line)) {
    refuse_data(lines_.place(), what + " in UTF-8", io::in_quotes(line));
  }
  return line;
}

double XyzReader::number(std::string_view text) const {
  const std::optional<double> value = parse_number(text);
  if (!value || !(std::abs(*value) <= kLargest)) {
    refuse_data(lines_.place(), "a finite number of at most 1e9", io::in_quotes(text));
  }
  return *value;
}

std::array<double, 3> XyzReader::vector(const std::vector<std::string_view>& fields,
                                        size_t first) const {
  return {number(fields[first]), number(fields[first + 1]), number(fields[first + 2])};
}

XyzColumns XyzReader::read_comment(std::string_view comment, XyzFrame& frame) const {
  const std::string place = lines_.place();
  const auto entries = parse_comment(comment);
  if (!entries) refuse_data(place, "a key before the first =", io::in_quotes(comment));
  for (const CommentEntry& entry : *entries) check_other(entry, place);
  if (const CommentEntry* energy = find_entry(*entries, "energy", place)) {
    frame.energy = energy_of(*energy, place);
  }
  if (const CommentEntry* lattice = find_entry(*entries, "Lattice", place)) {
    frame.lattice = matrix_of(*lattice, place);
    for (const double x : *frame.lattice) {
      if (std::abs(x) <= kLargest) continue;
      refuse_data(place, "finite numbers of at most 1e9 for Lattice", found_value(*lattice));
    }
  }
  const CommentEntry* properties = find_entry(*entries, "Properties", place);
  if (properties == nullptr) return {};
  return parse_properties(properties->value.value_or(""), place);
}

int64_t XyzReader::element(const std::vector<std::string_view>& fields,
                           const XyzColumns& columns) const {
  if (columns.number) {
    const std::string_view field = fields[*columns.number];
    const int64_t number = parse_integer(field).value_or(0);
    if (number < 1 || number > static_cast<int64_t>(std::size(kSymbols))) {
      refuse_data(lines_.place(), "an atomic number from 1 to 118", io::in_quotes(field));
    }
    return number;
  }
  const std::string_view symbol = fields[*columns.species];
  const int64_t number = atomic_number(symbol);
  if (number == 0) {
    refuse_data(lines_.place(), "the symbol of an element", io::in_quotes(symbol));
  }
  return number;
}

void XyzReader::read_atom(std::string_view line, const XyzColumns& columns, XyzFrame& frame) const {
  const std::vector<std::string_view> fields = split_words(line, columns.kinds.size());
  if (fields.size() < columns.kinds.size()) {
    refuse_data(lines_.place(), std::to_string(columns.kinds.size()) + " columns or more",
                std::to_string(fields.size()));
  }
  frame.elements.push_back(element(fields, columns));
  frame.positions.push_back(vector(fields, columns.position));
  if (columns.forces) frame.forces.push_back(vector(fields, *columns.forces));
  for (size_t i = 0; i < fields.size(); ++i) {
    if (is_of_kind(fields[i], columns.kinds[i])) continue;
    refuse_data(lines_.place(),
                std::string(columns.kinds[i] == 'I' ? "a whole number of 32 bits" : "a number") +
                    " in column " + std::to_string(i + 1),
                io::in_quotes(fields[i]));
  }
}

bool XyzReader::next(XyzFrame& frame) {
  std::string_view line;
  do {
    if (!lines_.next(line)) return false;
    line = trimmed(line);
  } while (line.empty());
  const int64_t count = parse_integer(line).value_or(0);
  if (count < 1 || count > kMostAtoms) {
    refuse_data(lines_.place(), "a number of atoms from 1 to 100000", io::in_quotes(line));
  }
  frame = {};
  const XyzColumns columns = read_comment(need_line("a comment"), frame);
  for (int64_t i = 0; i < count; ++i) {
    read_atom(need_line("atom " + std::to_string(i + 1) + " of " + std::to_string(count)), columns,
              frame);
  }
  return true;
}

}  // namespace mnemosyne::tasks
