#pragma once

#include <CLI/CLI.hpp>

#include "command.h"

namespace mnemosyne::cli {

/// `mnemosyne bench attention`, below the command `bench`.
void add_bench_attention(CLI::App& bench, Context& context);

}  // namespace mnemosyne::cli
