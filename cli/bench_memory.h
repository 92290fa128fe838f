#pragma once

#include <CLI/CLI.hpp>

#include "command.h"

namespace mnemosyne::cli {

/// `mnemosyne bench memory`, below the command `bench`.
void add_bench_memory(CLI::App& bench, Context& context);

}  // namespace mnemosyne::cli
