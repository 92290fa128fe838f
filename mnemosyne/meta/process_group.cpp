#include "mnemosyne/meta/process_group.h"

#include <algorithm>

namespace mnemosyne::meta {
namespace {

class OneProcess : public ProcessGroup {
 public:
  OneProcess() : ProcessGroup(0, 1) {}
  std::vector<std::string> all_gather(const std::string& own) override { return {own}; }
  std::vector<std::string> gather(const std::string& own) override { return {own}; }
};

}  // namespace

std::vector<int64_t> ProcessGroup::own_items(int64_t count) const {
  std::vector<int64_t> items;
  for (int64_t i = rank_; i < count; i += size_) items.push_back(i);
  return items;
}

std::string ProcessGroup::broadcast(const std::string& of_root) {
  return all_gather(is_root() ? of_root : "").front();
}

bool ProcessGroup::any(bool own) {
  const std::vector<std::string> all = all_gather(own ? "1" : "");
  return std::any_of(all.begin(), all.end(), [](const std::string& one) { return !one.empty(); });
}

std::shared_ptr<ProcessGroup> alone() { return std::make_shared<OneProcess>(); }

}  // namespace mnemosyne::meta
