#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>

#include "command.h"
#include "config_file.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/version.h"

namespace mnemosyne::cli {
namespace {

constexpr int kFailure = 1;
constexpr int kBadInput = 2;

int complain(const std::string& what, int status) {
  std::string line = what.substr(0, what.find('\n'));
  fmt::print(stderr, "mnemosyne: {}\n", line);
  return status;
}

// --config belongs to the chosen command, which has to be known before the file is read.
std::string chosen_command(int argc, char** argv) {
  const auto is_name = [](const char* argument) { return argument[0] != '-'; };
  char** const found = std::find_if(argv + std::min(argc, 1), argv + argc, is_name);
  return found == argv + argc ? "" : *found;
}

void add_common_options(CLI::App& app, Context& context, const std::string& command) {
  app.require_subcommand(1);
  app.fallthrough();
  app.set_help_flag("-h,--help", "This text");
  app.set_version_flag("--version", fmt::format("{}.{}.{}", MNEMOSYNE_VERSION_MAJOR,
                                                MNEMOSYNE_VERSION_MINOR, MNEMOSYNE_VERSION_PATCH));
  app.add_flag("--json", context.json, "End with one line of JSON on standard output");
  add_config_option(app, command);
}

int run(int argc, char** argv) {
  CLI::App app("Mnemosyne: a learned optimizer for PyTorch and LibTorch", "mnemosyne");
  Context context;
  const std::string command = chosen_command(argc, argv);
  add_common_options(app, context, command);
  add_tasks_command(app, context);
  add_train_command(app, context);
  add_compare_command(app, context);
  add_evaluate_command(app, context);
  add_meta_train_command(app, context);
  add_info_command(app, context);
  add_bench_command(app, context);
  try {
    app.parse(argc, argv);
    return context.run();
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return complain(error.what(), kBadInput);
  } catch (const InputError& error) {
    return complain(error.what(), kBadInput);
  } catch (const c10::Error& error) {
    return complain(error.what_without_backtrace(), kFailure);
  } catch (const std::exception& error) {
    return complain(error.what(), kFailure);
  }
}

}  // namespace
}  // namespace mnemosyne::cli

int main(int argc, char** argv) { return mnemosyne::cli::run(argc, argv); }
