#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mnemosyne/io/byte_source.h"
#include "mnemosyne/io/line_reader.h"

namespace mnemosyne::tasks {

/// One molecule, or one moment of its motion. Units are the file's, by custom Angstrom and eV.
struct XyzFrame {
  std::vector<int64_t> elements;                 ///< Atomic numbers, one an atom.
  std::vector<std::array<double, 3>> positions;  ///< One an atom.
  std::vector<std::array<double, 3>> forces;     ///< One an atom, or none.
  std::optional<double> energy;                  ///< Of the comment line.
  std::optional<std::array<double, 9>> lattice;  ///< Of the comment line.
};

/// The frames of an XYZ file (a count, a comment, and a line "symbol x y z" an atom; more columns
/// are passed over), or an extended one, whose comment holds
/// `Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 Lattice="..."`: the columns species and
/// pos are needed, forces, energy and Lattice understood, all others passed over. One frame at a
/// time, whatever the length of the file.
///
/// InputError that names file and line for a count that is not in 1 ... 100,000, a symbol that is
/// no element, a number that is none or not finite or beyond 1e9 in size, a missing column, and an
/// end inside a frame.
///
///     XyzReader reader(io::open_unpacked("aspirin.xyz"));
///     XyzFrame frame;
///     while (reader.next(frame)) use(frame);
class XyzReader {
 public:
  explicit XyzReader(std::unique_ptr<io::ByteSource> source) : lines_(std::move(source)) {}

  /// False at the end of the file; empty lines between frames are passed over.
  bool next(XyzFrame& frame);

  /// "line 12 of PATH": where the reader is, for errors of its caller.
  std::string place() const { return lines_.place(); }

 private:
  /// First column of what is read; the line has at least `count` columns.
  struct Columns {
    size_t species = 0, position = 1, count = 4;
    std::optional<size_t> forces;
  };

  std::string_view need_line(const std::string& what);
  Columns read_comment(std::string_view comment, XyzFrame& frame) const;
  Columns read_properties(std::string_view properties) const;
  double number(std::string_view text) const;
  std::array<double, 3> vector(const std::vector<std::string_view>& fields, size_t first) const;

  io::LineReader lines_;
};

/// Atomic number of an element's symbol ("C" is 6), 0 when there is none.
int64_t atomic_number(std::string_view symbol);

}  // namespace mnemosyne::tasks
