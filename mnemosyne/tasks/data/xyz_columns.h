#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace mnemosyne::tasks {

/// What stands where in the line of an atom.
struct XyzColumns {
  std::optional<size_t> species = 0;  ///< A symbol.
  std::optional<size_t> number;       ///< An atomic number, which counts where there are both.
  size_t position = 1;                ///< The first of three.
  std::optional<size_t> forces;       ///< The first of three.
  std::string kinds = "SRRR";         ///< Of each column: R(eal), I(nteger), S(tring) or L(ogical).
};

/// The value of Properties in a comment line, "species:S:1:pos:R:3:...": name, kind and number of
/// columns of each. Names are those of extended XYZ or of ASE's arrays: species or symbols (S:1), Z
/// or numbers (I:1), pos or positions (R:3), forces, else force (R:3); other columns are passed
/// over.
///
/// InputError that names `place` for a list that is no such one, a name that comes twice, 1,000
/// columns or more, no element, and no position.
XyzColumns parse_properties(std::string_view properties, const std::string& place);

}  // namespace mnemosyne::tasks
