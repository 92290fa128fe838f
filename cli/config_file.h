#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace mnemosyne::cli {

/// Lets `--config FILE` set the options of the chosen command: TOML with plain keys, or with keys
/// below [COMMAND] so that one file serves several commands. Flags on the command line override the
/// file; a key that is no option is an error.
void add_config_option(CLI::App& app, const std::vector<std::string>& command);

}  // namespace mnemosyne::cli
