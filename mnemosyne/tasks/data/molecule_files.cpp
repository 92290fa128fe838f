#include "mnemosyne/tasks/data/molecule_files.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "mnemosyne/core/random.h"
#include "mnemosyne/io/byte_source.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/io/line_reader.h"
#include "mnemosyne/io/tar.h"
#include "mnemosyne/tasks/data/bytes.h"
#include "mnemosyne/tasks/fields.h"

namespace mnemosyne::tasks {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLargestMolecule = 16 << 20;
constexpr uint64_t kOrderSeed = 7101;
constexpr int64_t kFewest = 10;

struct Molecule {
  XyzFrame frame;
  std::string place;
};
using MoleculesByName = std::map<std::string, Molecule>;

/// The one frame of a file "a/b/0001.xyz", under "0001.xyz". Other files are passed over.
void add_file(const std::string& path, std::unique_ptr<io::ByteSource> source,
              MoleculesByName& molecules) {
  const std::string place = source->name();
  XyzReader reader(std::move(source));
  Molecule molecule{.frame = {}, .place = place};
  if (!reader.next(molecule.frame)) refuse_data(place, "a molecule", "an empty file");
  XyzFrame more;
  if (reader.next(more)) refuse_data(reader.place(), "one molecule a file", "another");
  const std::string name = path.substr(path.find_last_of('/') + 1);
  if (!molecules.emplace(name, std::move(molecule)).second) {
    refuse_data(place, "every molecule once", io::in_quotes(name) + " again");
  }
}

/// What a Mac puts beside every file: "._NAME" with what only a Mac can use, under the same ending.
bool is_apple_double(const std::string& path) {
  return path.substr(path.find_last_of('/') + 1).starts_with("._");
}

bool is_xyz(const std::string& path) { return path.ends_with(".xyz") && !is_apple_double(path); }

/// For errors, which shorten what they quote: of a long path the end tells files apart.
std::string quoted_end(const std::string& path) {
  constexpr size_t kShown = 57;
  if (path.size() <= kShown) return io::in_quotes(path);
  return io::in_quotes("..." + path.substr(path.size() - kShown));
}

MoleculesByName read_archive(const std::string& path) {
  MoleculesByName molecules;
  io::TarReader archive(io::open_unpacked(path));
  while (archive.next()) {
    const std::string& member = archive.member();
    if (!is_xyz(member)) continue;
    add_file(member,
             io::open_bytes(archive.content(kLargestMolecule),
                            path + " (member " + quoted_end(member) + ")"),
             molecules);
  }
  return molecules;
}

MoleculesByName read_folder(const std::string& folder) {
  MoleculesByName molecules;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string path = entry.path().string();
    if (is_xyz(path)) add_file(path, io::open_unpacked(path), molecules);
  }
  return molecules;
}

MoleculesByName read_molecules(const std::string& folder) {
  for (const char* name : {"qm7.tar.xz", "qm7.tar.gz", "qm7.tar"}) {
    const std::string path = folder + "/" + name;
    if (fs::exists(path)) return read_archive(path);
  }
  const std::string inner = folder + "/qm7";
  return read_folder(fs::is_directory(inner) ? inner : folder);
}

/// "file energy ..." a line.
std::map<std::string, double> read_energies(const std::string& path) {
  std::map<std::string, double> energies;
  io::LineReader lines(io::open_unpacked(path));
  std::string_view line;
  while (lines.next(line)) {
    const std::vector<std::string_view> words = split_words(line, 2);
    if (words.empty()) continue;
    const std::string name(words[0]);
    if (words.size() < 2) {
      refuse_data(lines.place(), "a file and its energy", io::in_quotes(name) + " alone");
    }
    const std::optional<double> energy = parse_number(words[1]);
    if (!energy || !(std::abs(*energy) <= 1e9)) {
      refuse_data(lines.place(), "a finite energy of at most 1e9", io::in_quotes(words[1]));
    }
    if (!energies.emplace(name, *energy).second) {
      refuse_data(lines.place(), "every molecule once", io::in_quotes(name) + " again");
    }
  }
  return energies;
}

/// The one file in the folder that ends in `ending`, packed or not.
std::string find_file(const std::string& folder, const std::string& ending) {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string path = entry.path().string();
    for (const char* packed : {"", ".gz", ".xz"}) {
      if (path.ends_with(ending + packed) && !is_apple_double(path)) found.push_back(path);
    }
  }
  if (found.size() != 1) {
    refuse_data(folder, "one file whose name ends in " + ending, std::to_string(found.size()));
  }
  return found[0];
}

std::vector<int64_t> read_frames(const std::string& path, MoleculeSet& molecules) {
  XyzReader reader(io::open_unpacked(path));
  XyzFrame frame;
  std::vector<int64_t> numbers;
  while (reader.next(frame)) {
    if (!frame.energy) refuse_data(reader.place(), "an energy in the comment line", "none");
    numbers.push_back(molecules.size());
    molecules.add(frame, *frame.energy, reader.place());
  }
  if (numbers.empty()) refuse_data(path, "at least one frame", "none");
  return numbers;
}

}  // namespace

MoleculeData read_qm7(const std::string& folder, const std::vector<int64_t>& elements) {
  const std::string table = folder + "/hof_qm7.txt";
  const std::map<std::string, double> energies = read_energies(table);
  const MoleculesByName molecules = read_molecules(folder);
  MoleculeData data{.molecules = MoleculeSet(elements), .train = {}, .test = {}};
  for (const auto& [name, molecule] : molecules) {
    const auto energy = energies.find(name);
    if (energy == energies.end()) {
      refuse_data(table, "an energy for " + molecule.place, "none");
    }
    data.molecules.add(molecule.frame, energy->second, molecule.place);
  }
  for (const auto& [name, energy] : energies) {
    if (molecules.count(name) == 0) {
      refuse_data(folder, "a molecule for each line of hof_qm7.txt", "no " + io::in_quotes(name));
    }
  }
  const int64_t count = data.molecules.size();
  if (count < kFewest) refuse_data(folder, "10 molecules or more", std::to_string(count));
  const std::vector<int64_t> order = permutation(count, kOrderSeed);
  const int64_t test = std::min<int64_t>(count / 5, 1000);
  const int64_t between = std::min<int64_t>(count / 10, 500);
  data.train.assign(order.begin(), order.end() - test - between);
  data.test.assign(order.end() - test, order.end());
  measure(data);
  return data;
}

MoleculeData read_rmd17(const std::string& folder, const std::vector<int64_t>& elements) {
  MoleculeData data{.molecules = MoleculeSet(elements), .train = {}, .test = {}};
  data.train = read_frames(find_file(folder, "train.xyz"), data.molecules);
  data.test = read_frames(find_file(folder, "test.xyz"), data.molecules);
  measure(data);
  return data;
}

}  // namespace mnemosyne::tasks
