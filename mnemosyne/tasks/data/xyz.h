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
#include "mnemosyne/tasks/data/xyz_columns.h"

namespace mnemosyne::tasks {

/// One molecule, or one moment of its motion. Units are the file's, by custom Angstrom and eV.
struct XyzFrame {
  std::vector<int64_t> elements;                 ///< Atomic numbers, one an atom.
  std::vector<std::array<double, 3>> positions;  ///< One an atom.
  std::vector<std::array<double, 3>> forces;     ///< One an atom, or none.
  std::optional<double> energy;                  ///< Of the comment line.
  std::optional<std::array<double, 9>> lattice;  ///< Of the comment line.
};

/// The frames of an XYZ file (a count, a comment, and a line "symbol x y z" an atom, more columns
/// passed over), or an extended one, whose comment holds entries like
/// `Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 Lattice="..."`, taken apart as ASE does
/// (`parse_comment`, `parse_properties`; https://ase-lib.org/ase/io/formatoptions.html#extxyz): any
/// quotes, escapes and blanks, columns in any order, symbols in any case, Z in place of a symbol.
/// Properties, energy, Lattice and the columns of `XyzColumns` are understood, all others passed
/// over. One frame at a time, whatever the length of the file. Unlike ASE, frames behind an empty
/// line are read, too.
///
/// InputError that names file and line for what ASE refuses, and for what it reads as something
/// that is no molecule: a count that is not in 1 ... 100,000, a symbol that is no element, a number
/// that is none or not finite or beyond 1e9 in size, an energy that is no number, a column that is
/// missing or not of its kind, Properties, energy or Lattice given twice with different values, VEC
/// lines, a comment that is not UTF-8, and an end inside a frame.
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
  std::string_view need_line(const std::string& what);
  XyzColumns read_comment(std::string_view comment, XyzFrame& frame) const;
  void read_atom(std::string_view line, const XyzColumns& columns, XyzFrame& frame) const;
  int64_t element(const std::vector<std::string_view>& fields, const XyzColumns& columns) const;
  double number(std::string_view text) const;
  std::array<double, 3> vector(const std::vector<std::string_view>& fields, size_t first) const;

  io::LineReader lines_;
};

/// Atomic number of an element's symbol in any case ("Cl", "CL" and "cl" are 17), 0 when there is
/// none.
int64_t atomic_number(std::string_view symbol);

}  // namespace mnemosyne::tasks
