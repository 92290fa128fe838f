#include "config_file.h"

namespace mnemosyne::cli {
namespace {

// Sections of other commands are left out, keys without a section belong to the chosen command.
class CommandConfig : public CLI::ConfigTOML {
 public:
  explicit CommandConfig(std::vector<std::string> command) : command_(std::move(command)) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> chosen;
    for (CLI::ConfigItem& item : CLI::ConfigTOML::from_config(input)) {
      // "++" and "--" open and close a section in CLI11.
      if (item.name == "++" || item.name == "--") continue;
      if (item.parents.empty()) item.parents = command_;
      if (item.parents == command_) chosen.push_back(item);
    }
    return chosen;
  }

 private:
  std::vector<std::string> command_;
};

}  // namespace

void add_config_option(CLI::App& app, const std::vector<std::string>& command) {
  app.set_config("--config", "", "TOML file with options of the command")->type_name("FILE");
  app.config_formatter(std::make_shared<CommandConfig>(command));
  app.allow_config_extras(CLI::config_extras_mode::error);
}

}  // namespace mnemosyne::cli
