#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "command.h"
#include "config_file.h"
#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/version.h"

namespace mnemosyne::cli {
namespace {

constexpr int kFailure = 1;
constexpr int kBadInput = 2;

// The first line of `what`, safe to print whatever a user's files and arguments put into it.
int complain(const std::string& what, int status) {
  std::string line;
  for (const char c : what.substr(0, what.find('\n'))) {
    if (c >= ' ' && c <= '~') {
      line += c;
    } else {
      line += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  fmt::print(stderr, "mnemosyne: {}\n", line);
  return status;
}

// What CLI11 says of a key in a file that is no option is "INI was not able to parse KEY".
std::string describe(const CLI::App& app, const CLI::ConfigError& error) {
  const std::string what = error.what();
  const std::string file = app.get_config_ptr()->as<std::string>();
  return fmt::format("[config] {}: expected options of the command, got {}", file,
                     what.substr(what.rfind(' ') + 1));
}

// --config belongs to the chosen command, which has to be known before the file is read: the
// commands among the arguments, ("bench", "optimizer") for example.
std::vector<std::string> chosen_command(const CLI::App& app, int argc, char** argv) {
  std::vector<std::string> path;
  const CLI::App* level = &app;
  for (int i = 1; i < argc; ++i) {
    for (const CLI::App* command : level->get_subcommands([](const CLI::App*) { return true; })) {
      if (command->get_name() != argv[i]) continue;
      path.push_back(command->get_name());
      level = command;
      break;
    }
  }
  return path;
}

// CLI11 says "Could not convert: --option = value".
std::string describe(const CLI::ConversionError& error) {
  const std::string what = error.what();
  const size_t option = what.find("--");
  const size_t equals = what.find(" = ");
  if (option == std::string::npos || equals == std::string::npos) return what;
  return fmt::format("{}: expected a value as in --help, got \"{}\"",
                     what.substr(option, equals - option), what.substr(equals + 3));
}

// CLI11 would only say that a command is required.
std::string describe_missing_command(const CLI::App& app, int argc, char** argv) {
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    known.push_back(command->get_name());
  }
  const bool named = argc > 1 && argv[1][0] != '-';
  return fmt::format("expected one of the commands {}, got {}", listed(known),
                     named ? fmt::format("\"{}\"", argv[1]) : "none");
}

void add_common_options(CLI::App& app, Context& context) {
  app.require_subcommand(1);
  app.footer(
      "Every command takes --config FILE (TOML with its options) and --json (ends with one line of "
      "JSON).");
  app.fallthrough();
  app.set_help_flag("-h,--help", "This text");
  app.set_version_flag("--version", fmt::format("{}.{}.{}", MNEMOSYNE_VERSION_MAJOR,
                                                MNEMOSYNE_VERSION_MINOR, MNEMOSYNE_VERSION_PATCH));
  app.add_flag("--json", context.json, "End with one line of JSON on standard output");
}

int run(int argc, char** argv) {
  CLI::App app("Mnemosyne: a learned optimizer for PyTorch and LibTorch", "mnemosyne");
  Context context;
  add_common_options(app, context);
  add_tasks_command(app, context);
  add_train_command(app, context);
  add_compare_command(app, context);
  add_evaluate_command(app, context);
  add_meta_train_command(app, context);
  add_info_command(app, context);
  add_bench_command(app, context);
  add_plot_command(app, context);
  const std::vector<std::string> command = chosen_command(app, argc, argv);
  add_config_option(app, command);
  try {
    app.parse(argc, argv);
    return context.run();
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ConfigError& error) {
    return complain(describe(app, error), kBadInput);
  } catch (const CLI::ConversionError& error) {
    return complain(describe(error), kBadInput);
  } catch (const CLI::FileError&) {
    return complain(
        "[config] expected a readable file, got " + app.get_config_ptr()->as<std::string>(),
        kBadInput);
  } catch (const CLI::ParseError& error) {
    if (command.empty()) {
      return complain(describe_missing_command(app, argc, argv), kBadInput);
    }
    return complain(error.what(), kBadInput);
  } catch (const InputError& error) {
    return complain(context.speaker + error.what(), kBadInput);
  } catch (const c10::Error& error) {
    return complain(context.speaker + error.what_without_backtrace(), kFailure);
  } catch (const std::exception& error) {
    return complain(context.speaker + error.what(), kFailure);
  }
}

}  // namespace
}  // namespace mnemosyne::cli

int main(int argc, char** argv) { return mnemosyne::cli::run(argc, argv); }
