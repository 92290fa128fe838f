#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>

#include "command.h"
#include "mnemosyne/io/record.h"
#include "python.h"

namespace mnemosyne::cli {
namespace {

struct PlotOptions {
  std::string source, out;
};

/// Draws `source` by a module of the package's Python, into `options.out` or else `picture`.
int draw(const PlotOptions& options, const std::string& module, const std::string& picture,
         const std::string& what, bool json) {
  const std::string python = find_python();
  if (python.empty()) {
    throw std::runtime_error(fmt::format(
        "[plot] expected the package's Python beside this program or in MNEMOSYNE_PYTHON, got "
        "none; the picture is made by: python -m {} FILE",
        module));
  }
  const std::string out = options.out.empty() ? picture : options.out;
  const int status = run_module(python, module, {"--out", out, "--", options.source});
  if (status == 0 && json) {
    fmt::print("{}\n", io::to_json({{what, options.source}, {"picture", out}}));
  }
  return status;
}

int run_plot_mask(const PlotOptions& options, bool json) {
  const bool folder = std::filesystem::is_directory(options.source);
  return draw(options, "mnemosyne.plot_mask",
              options.source + (folder ? "/masks.png" : ".masks.png"), "checkpoint", json);
}

int run_plot_memory(const PlotOptions& options, bool json) {
  return draw(options, "mnemosyne.plot_memory", options.source + ".png", "file", json);
}

}  // namespace

void add_plot_command(CLI::App& app, Context& context) {
  CLI::App* plot = app.add_subcommand("plot", "Pictures of what was learned and measured");
  plot->require_subcommand(1);
  const auto add = [&](const std::string& name, const std::string& text, const std::string& source,
                       const std::string& about, const std::string& picture,
                       int (*run)(const PlotOptions&, bool)) {
    const auto options = std::make_shared<PlotOptions>();
    CLI::App* command = plot->add_subcommand(name, text);
    command->add_option(CLI::detail::to_lower(source), options->source, about)
        ->required()
        ->type_name(source);
    command->add_option("--out", options->out, "The picture")
        ->type_name("FILE")
        ->default_str(picture);
    command->callback([options, run, &context] {
      context.run = [=, &context] { return run(*options, context.json); };
    });
  };
  add("mask", "The masks f(z) and spectra of all learned positions in a checkpoint", "CHECKPOINT",
      "A safetensors file or the --out of train", "CHECKPOINT.masks.png", run_plot_mask);
  add("memory", "The tables of `bench memory`", "FILE", "What `bench memory --json` printed",
      "FILE.png", run_plot_memory);
}

}  // namespace mnemosyne::cli
