#include <fmt/format.h>

#include "command.h"
#include "mnemosyne/io/record.h"
#include "mnemosyne/tasks/registry.h"
#include "table.h"

namespace mnemosyne::cli {
namespace {

// What --data has to be or to hold.
std::string needs(const tasks::TaskInfo& info) {
  if (info.data.empty()) return info.own_data.empty() ? "-" : info.own_data;
  return info.data + "/" + (info.own_data.empty() ? "" : " or " + info.own_data);
}

int run_tasks(bool json) {
  Table table({"task", "network and data", "needs --data with", "parameters", "steps", "batch"}, 3);
  std::vector<io::Record> records;
  for (const tasks::TaskInfo& info : tasks::task_list()) {
    table.add({info.name, info.description, needs(info), std::to_string(info.num_params),
               std::to_string(info.default_steps), std::to_string(info.default_batch)});
    records.push_back({{"name", info.name},
                       {"description", info.description},
                       {"data", info.data},
                       {"own_data", info.own_data},
                       {"attention", info.attention},
                       {"parameters", info.num_params},
                       {"steps", info.default_steps},
                       {"batch", info.default_batch}});
  }
  fmt::print(
      "{}\n{}\n", table.text(),
      "--data is a folder with the folders of published sets (NAME/), or what is yours itself: "
      "--data novel.txt,\n--data photos. Images are IDX files, or PNG and JPEG files in "
      "train/CLASS/ "
      "and val/CLASS/, or in CLASS/;\nparameters are those for 3 x 32 x 32 pixels and 10 classes.\n"
      "flt_NAME:KIND-POSITION has another attention than linear-flt: linear- or softmax- with "
      "none, absolute,\nrope, flt, fft, damped, alibi or t5, where there is one, for example "
      "flt_char_lm:softmax-rope.");
  if (json) fmt::print("{}\n", io::to_json(records));
  return 0;
}

}  // namespace

void add_tasks_command(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("tasks", "What can be trained, with sizes and the data each needs");
  command->callback([&context] { context.run = [&context] { return run_tasks(context.json); }; });
}

}  // namespace mnemosyne::cli
