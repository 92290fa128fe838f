#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <string>

#include "mnemosyne/io/record.h"

namespace mnemosyne::cli {

/// What every command shares: the options that all of them have, and what runs after parsing.
struct Context {
  bool json = false;         ///< --json: the last line of standard output is one JSON value.
  std::function<int()> run;  ///< Set by the chosen command; returns the exit status.
  std::string speaker = {};  ///< Before what an error says: which of several processes it is.
};

/// Every command adds its options to `app` and leaves what it does in `context.run`.
void add_tasks_command(CLI::App& app, Context& context);
void add_train_command(CLI::App& app, Context& context);
void add_compare_command(CLI::App& app, Context& context);
void add_evaluate_command(CLI::App& app, Context& context);
void add_meta_train_command(CLI::App& app, Context& context);
void add_info_command(CLI::App& app, Context& context);
void add_bench_command(CLI::App& app, Context& context);
void add_plot_command(CLI::App& app, Context& context);

/// --data, with the variable MNEMOSYNE_DATA as its default.
void add_data_option(CLI::App& app, std::string& data);

/// --device, by default the CPU; `parse_device` reads it (core/device.h).
void add_device_option(CLI::App& app, std::string& device);

/// Makes the folder and those above it; InputError that names it when that cannot be.
void make_folder(const std::string& folder);

/// Draws the learning curves in a folder of `compare` by the package's Python, if it is found, else
/// says how to; on standard error.
void draw_curves(const std::string& folder);

/// Checks for numbers whose message says what was expected; CLI11 puts the option's name before it.
CLI::Validator whole_number(int64_t at_least);
CLI::Validator real_number(bool zero_allowed);

/// Keeps freed memory for the next step, which takes as much again, where the C library would give
/// it back to the system and clear new pages each time.
void keep_freed_memory();

/// Whether the user asked for an end by Ctrl-C; a second one ends the program at once.
bool interrupted();
void watch_interrupts();

}  // namespace mnemosyne::cli
