// Prints what the library reads from XYZ files, for tests that compare it with other readers: one
// path a line on standard input, one JSON object a line on standard output, {"frames": [...]} or
// {"error": "..."}.
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/byte_source.h"
#include "mnemosyne/tasks/data/xyz.h"

namespace {

using mnemosyne::tasks::XyzFrame;
using nlohmann::json;

json to_json(const XyzFrame& frame) {
  json result{{"numbers", frame.elements}, {"positions", frame.positions}};
  if (!frame.forces.empty()) result["forces"] = frame.forces;
  if (frame.energy) result["energy"] = *frame.energy;
  if (frame.lattice) result["lattice"] = *frame.lattice;
  return result;
}

json read(const std::string& path) {
  json frames = json::array();
  try {
    mnemosyne::tasks::XyzReader reader(mnemosyne::io::open_unpacked(path));
    XyzFrame frame;
    while (reader.next(frame)) frames.push_back(to_json(frame));
  } catch (const mnemosyne::InputError& error) {
    return {{"error", error.what()}};
  }
  return {{"frames", frames}};
}

}  // namespace

int main() {
  std::string path;
  while (std::getline(std::cin, path)) std::cout << read(path).dump() << "\n";
}
