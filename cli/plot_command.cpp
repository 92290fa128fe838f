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
  std::string checkpoint, out;
};

int run_plot_mask(const PlotOptions& options, bool json) {
  const std::string python = find_python();
  if (python.empty()) {
    throw std::runtime_error(
        "[plot] expected the package's Python beside this program or in MNEMOSYNE_PYTHON, got "
        "none; the picture is made by: python -m mnemosyne.plot_mask CHECKPOINT");
  }
  std::string picture = options.out;
  if (picture.empty()) {
    const bool folder = std::filesystem::is_directory(options.checkpoint);
    picture = options.checkpoint + (folder ? "/masks.png" : ".masks.png");
  }
  const int status =
      run_module(python, "mnemosyne.plot_mask", {"--out", picture, "--", options.checkpoint});
  if (status == 0 && json) {
    fmt::print("{}\n", io::to_json({{"checkpoint", options.checkpoint}, {"picture", picture}}));
  }
  return status;
}

}  // namespace

void add_plot_command(CLI::App& app, Context& context) {
  const auto options = std::make_shared<PlotOptions>();
  CLI::App* plot = app.add_subcommand("plot", "Pictures of what was learned");
  plot->require_subcommand(1);
  CLI::App* mask = plot->add_subcommand(
      "mask", "The masks f(z) and spectra of all learned positions in a checkpoint");
  mask->add_option("checkpoint", options->checkpoint, "A safetensors file or the --out of train")
      ->required()
      ->type_name("CHECKPOINT");
  mask->add_option("--out", options->out, "The picture")
      ->type_name("FILE")
      ->default_str("CHECKPOINT.masks.png");
  mask->callback([options, &context] {
    context.run = [=, &context] { return run_plot_mask(*options, context.json); };
  });
}

}  // namespace mnemosyne::cli
