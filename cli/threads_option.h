#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace mnemosyne::cli {

/// Adds `--threads T,...` to a benchmark, which runs once for each number.
void add_threads_option(CLI::App& command, std::vector<int>& threads);

/// Time as a fraction of that on the first of `threads`: the heading of its column.
std::string threads_heading(const std::vector<int>& threads);

}  // namespace mnemosyne::cli
