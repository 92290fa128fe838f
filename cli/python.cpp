#include "python.h"

#include <errno.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

extern char** environ;

namespace mnemosyne::cli {

namespace fs = std::filesystem;

namespace {

// The folder of the program as it was called, which for a link is that of the link: a build folder
// has no Python, the environment that links to it has.
fs::path folder_as_called() {
  std::error_code error;
  const fs::path called = program_invocation_name;
  if (called.has_parent_path()) return called.parent_path();
  std::stringstream folders(std::getenv("PATH") != nullptr ? std::getenv("PATH") : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (fs::exists(folder / called, error)) return folder;
  }
  return {};
}

}  // namespace

std::string find_python() {
  std::error_code error;
  if (const char* own = std::getenv("MNEMOSYNE_PYTHON"); own != nullptr && fs::exists(own, error)) {
    return own;
  }
  const fs::path resolved = fs::read_symlink("/proc/self/exe", error);
  for (const fs::path& folder : {folder_as_called(), resolved.parent_path()}) {
    if (!folder.empty() && fs::exists(folder / "python", error)) return folder / "python";
  }
  return {};
}

int run_module(const std::string& python, const std::string& module,
               const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {python, "-m", module};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  if (::posix_spawn(&child, python.c_str(), nullptr, nullptr, argv.data(), environ) != 0) return 1;
  int status = 0;
  const bool ended = ::waitpid(child, &status, 0) == child && WIFEXITED(status);
  return ended ? WEXITSTATUS(status) : 1;
}

}  // namespace mnemosyne::cli
