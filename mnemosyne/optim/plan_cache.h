#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>

namespace mnemosyne::optim {

/// What was made for the lists of parameters that were stepped last, by what it was made for. Any
/// number of threads.
template <typename Key, typename Plan>
class PlanCache {
 public:
  /// The plan of a key that `fits`; else the one that `make` gives, with its key.
  template <typename Fits, typename Make>
  std::shared_ptr<const Plan> get(const Fits& fits, const Make& make) {
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : entries_) {
      if (fits(entry.first)) return entry.second;
    }
    entries_.push_front(make());
    const std::shared_ptr<const Plan> made = entries_.front().second;
    if (entries_.size() > kKept) entries_.pop_back();
    return made;
  }

 private:
  using Entry = std::pair<Key, std::shared_ptr<const Plan>>;

  static constexpr size_t kKept = 4;  // an optimizer has one, threads of a comparison one each

  std::mutex mutex_;
  std::deque<Entry> entries_;
};

}  // namespace mnemosyne::optim
