#include "python.h"

#include <spawn.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>

extern char** environ;

namespace mnemosyne::cli {

namespace fs = std::filesystem;

std::string find_python() {
  std::error_code error;
  if (const char* own = std::getenv("MNEMOSYNE_PYTHON"); own != nullptr && fs::exists(own, error)) {
    return own;
  }
  const fs::path python = fs::read_symlink("/proc/self/exe", error).parent_path() / "python";
  return !error && fs::exists(python, error) ? python.string() : "";
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
