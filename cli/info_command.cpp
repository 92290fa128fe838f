#include <fmt/format.h>

#include <memory>

#include "command.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/io/record.h"
#include "mnemosyne/io/safetensors.h"
#include "mnemosyne/optim/weights.h"
#include "shape_text.h"
#include "table.h"

namespace mnemosyne::cli {
namespace {

int run_info(const std::string& path, bool json) {
  const io::TensorFile file = io::read_safetensors(path);
  int64_t numbers = 0;
  Table table({"tensor", "type", "shape"}, 3);
  for (const auto& [name, tensor] : file.tensors) {
    table.add({name, c10::toString(tensor.scalar_type()), shape_text(tensor)});
    numbers += tensor.numel();
  }
  fmt::print("{}\n{} tensors, {} numbers\n", table.text(), file.tensors.size(), numbers);
  io::Record record{
      {"file", path}, {"tensors", static_cast<int64_t>(file.tensors.size())}, {"numbers", numbers}};
  for (const auto& [key, value] : file.metadata) {
    fmt::print("{}: {}\n", key, value);
    record.emplace_back("metadata." + key, value);
  }
  // A learned rule, as opposed to a trained network, has an identity that checkpoints refer to.
  if (file.metadata.count("rule") != 0 && file.metadata.count("options") != 0) {
    const std::string hash = optim::weights_hash(*optim::load_rule(path));
    fmt::print("learned optimizer, identity {}\n", hash);
    record.emplace_back("identity", hash);
  }
  if (json) fmt::print("{}\n", io::to_json(record));
  return 0;
}

}  // namespace

void add_info_command(CLI::App& app, Context& context) {
  const auto path = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("info", "What a weights file or checkpoint holds");
  command->add_option("weights", *path, "A safetensors file")->required()->type_name("WEIGHTS");
  command->callback(
      [path, &context] { context.run = [=, &context] { return run_info(*path, context.json); }; });
}

}  // namespace mnemosyne::cli
