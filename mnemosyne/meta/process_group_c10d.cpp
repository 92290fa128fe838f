#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <sstream>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/process_group.h"

namespace mnemosyne::meta {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;
using StorePtr = c10::intrusive_ptr<c10d::Store>;

// The store refuses values of more than 8 MiB.
constexpr size_t kChunk = size_t{4} << 20;
// Joining waits longer than anything else: machines do not start at the same moment.
constexpr int kJoinPatience = 10;
constexpr Milliseconds kLongestPause{20};
constexpr const char* kAlive = "alive/";
constexpr const char* kEnded = "ended";
constexpr const char* kLeft = "left";

Milliseconds milliseconds(double seconds) {
  return Milliseconds(std::max<int64_t>(1, static_cast<int64_t>(1000 * seconds)));
}

std::string place(const ProcessGroupOptions& options) {
  return options.address + ":" + std::to_string(options.port);
}

StorePtr open_store(const ProcessGroupOptions& options) {
  c10d::TCPStoreOptions own;
  own.port = static_cast<uint16_t>(options.port);
  own.isServer = options.rank == 0 && !options.store_is_served;
  own.waitWorkers = false;
  own.timeout = kJoinPatience * milliseconds(options.timeout);
  try {
    const auto store = c10::make_intrusive<c10d::TCPStore>(options.address, own);
    return c10::make_intrusive<c10d::PrefixStore>(options.prefix + "/mnemosyne", store);
  } catch (const std::exception&) {
    if (own.isServer) {
      refuse("processes", "a free port of this machine for rank 0", in_quotes(place(options)));
    }
    refuse("processes", "a store at the address of rank 0",
           "no answer from " + in_quotes(place(options)));
  }
}

/// Signs of life, as long as this object lives, from a thread with a connection of its own: that of
/// the others may wait.
class Heart {
 public:
  Heart(const StorePtr& store, int64_t rank, Milliseconds interval)
      : thread_([this, own = store->clone(), rank, interval] { beat(*own, rank, interval); }) {}

  ~Heart() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  void beat(c10d::Store& store, int64_t rank, Milliseconds interval) {
    std::unique_lock lock(mutex_);
    while (!stopped_) {
      try {
        store.add(kAlive + std::to_string(rank), 1);
      } catch (const std::exception&) {
        return;  // The store is gone, as whoever asks it next will find, too.
      }
      changed_.wait_for(lock, interval, [this] { return stopped_; });
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
  std::thread thread_;
};

class StoreGroup : public ProcessGroup {
  /// What a call of the store gives; the store itself may be gone.
  template <typename Call>
  auto asked(const Call& call) {
    try {
      return call();
    } catch (const RankLost&) {
      throw;
    } catch (const std::exception&) {
      throw RankLost("[processes] expected every rank to go on, got no answer from " +
                     std::string(options_.store_is_served ? "the store at " : "rank 0 at ") +
                     in_quotes(place(options_)));
    }
  }

 public:
  explicit StoreGroup(const ProcessGroupOptions& options)
      : ProcessGroup(options.rank, options.size),
        options_(options),
        timeout_(milliseconds(options.timeout)),
        store_(open_store(options)),
        heart_(store_, options.rank, std::min(timeout_ / 8, Milliseconds(1000))),
        signs_(static_cast<size_t>(options.size)) {
    all_gather("");
  }

  ~StoreGroup() override {
    if (finished_) return;
    try {
      if (!store_->check({kEnded})) store_->set(kEnded, std::to_string(rank()));
      leave(Milliseconds(1000));
    } catch (const std::exception&) {  // The others find that the store is gone.
    }
  }

  std::vector<std::string> all_gather(const std::string& own) override {
    send(own);
    std::vector<std::string> all;
    for (int64_t r = 0; r < size(); ++r) all.push_back(r == rank() ? own : receive(r));
    // All ranks have come to this round, so that nobody will read what was sent before.
    forget_until(round_);
    return all;
  }

  std::vector<std::string> gather(const std::string& own) override {
    if (is_root()) {
      ++round_;
      std::vector<std::string> all;
      for (int64_t r = 0; r < size(); ++r) all.push_back(r == rank() ? own : receive(r));
      return all;
    }
    send(own);
    return {};
  }

  void finish() override {
    all_gather("");
    finished_ = true;
    asked([&] { leave(timeout_); });
  }

 private:
  /// What is known of the life of a rank.
  struct Sign {
    int64_t count = 0;
    Clock::time_point seen = {};
  };

  std::string key(int64_t round, int64_t rank, size_t chunk) const {
    return std::to_string(round) + "/" + std::to_string(rank) + "/" + std::to_string(chunk);
  }

  /// As the next round: chunks from the last to the first, which says how many there are.
  void send(const std::string& bytes) {
    ++round_;
    const size_t chunks = std::max<size_t>(1, (bytes.size() + kChunk - 1) / kChunk);
    asked([&] {
      for (size_t c = chunks; c-- > 0;) {
        std::string piece = bytes.substr(c * kChunk, kChunk);
        if (c == 0) piece = std::to_string(chunks) + " " + piece;
        store_->set(key(round_, rank(), c), std::vector<uint8_t>(piece.begin(), piece.end()));
        sent_.emplace_back(round_, key(round_, rank(), c));
      }
    });
  }

  std::string receive(int64_t from) {
    return asked([&] {
      wait_for(key(round_, from, 0));
      const std::string first = store_->get_to_str(key(round_, from, 0));
      const size_t space = first.find(' ');
      const size_t chunks = std::stoul(first.substr(0, space));
      std::string bytes = first.substr(space + 1);
      for (size_t c = 1; c < chunks; ++c) bytes += store_->get_to_str(key(round_, from, c));
      return bytes;
    });
  }

  void forget_until(int64_t round) {
    const auto old = std::stable_partition(sent_.begin(), sent_.end(),
                                           [&](const auto& one) { return one.first >= round; });
    asked([&] {
      for (auto one = old; one != sent_.end(); ++one) store_->deleteKey(one->second);
    });
    sent_.erase(old, sent_.end());
  }

  void wait_for(const std::string& key) {
    for (Sign& sign : signs_) sign.seen = Clock::now();  // Nobody has looked since the last wait.
    Milliseconds pause{1};
    const Milliseconds between = std::min(timeout_ / 4, Milliseconds(1000));
    Clock::time_point next_look = Clock::now() + between;
    while (!store_->check({key})) {
      if (store_->check({kEnded})) {
        throw RankLost("[processes] expected every rank to go on, got the end of rank " +
                       store_->get_to_str(kEnded));
      }
      if (Clock::now() >= next_look) {
        look_for_life();
        next_look = Clock::now() + between;
      }
      std::this_thread::sleep_for(pause);
      pause = std::min(2 * pause, kLongestPause);
    }
  }

  void look_for_life() {
    for (int64_t r = 0; r < size(); ++r) {
      Sign& sign = signs_[static_cast<size_t>(r)];
      const int64_t count =
          r == rank() ? sign.count + 1 : store_->add(kAlive + std::to_string(r), 0);
      const auto now = Clock::now();
      if (count != sign.count) sign = {.count = count, .seen = now};
      const Milliseconds patience = count == 0 ? kJoinPatience * timeout_ : timeout_;
      if (now - sign.seen > patience) {
        std::ostringstream seconds;
        seconds << static_cast<double>(patience.count()) / 1000;
        throw RankLost("[processes] expected a sign of life from rank " + std::to_string(r) +
                       " within " + seconds.str() + " s, got none");
      }
    }
  }

  /// Who keeps the store stays until the others need it no more, but not for ever.
  void leave(Milliseconds longest) {
    store_->add(kLeft, 1);
    if (!is_root() || options_.store_is_served) return;
    const auto end = Clock::now() + longest;
    while (store_->add(kLeft, 0) < size() && Clock::now() < end) {
      std::this_thread::sleep_for(kLongestPause);
    }
  }

  ProcessGroupOptions options_;
  Milliseconds timeout_;
  StorePtr store_;
  Heart heart_;
  std::vector<Sign> signs_;
  std::vector<std::pair<int64_t, std::string>> sent_;  // keys that are still in the store, by round
  int64_t round_ = 0;
  bool finished_ = false;
};

}  // namespace

std::shared_ptr<ProcessGroup> join_process_group(const ProcessGroupOptions& options) {
  const std::string where = "processes";
  if (options.size < 1) {
    refuse(where, "a size of at least 1", std::to_string(options.size));
  }
  if (options.rank < 0 || options.rank >= options.size) {
    refuse(where, "a rank from 0 to " + std::to_string(options.size - 1),
           std::to_string(options.rank));
  }
  if (options.size == 1) return alone();
  if (options.address.empty()) refuse(where, "the address of rank 0", "none");
  if (options.port < 1 || options.port > 65535) {
    refuse(where, "a port from 1 to 65535", std::to_string(options.port));
  }
  check_option(options.timeout > 0, where, "a positive timeout", options.timeout);
  return std::make_shared<StoreGroup>(options);
}

}  // namespace mnemosyne::meta
