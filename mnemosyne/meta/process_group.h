#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace mnemosyne::meta {

/// The processes that share one meta-training, each of which knows its rank.
///
/// Items of work (the runs of an outer step, the tasks of a validation) belong to ranks in turn;
/// what they gave is gathered and added in the order of the items: the same result, bit for bit,
/// for any number of ranks. All ranks call the same functions in the same order.
class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }

  /// Rank 0 alone reads and writes files and reports.
  bool is_root() const { return rank_ == 0; }

  /// Which of the items 0 ... count - 1 are this rank's, in their order.
  std::vector<int64_t> own_items(int64_t count) const;

  /// What every rank brings, on every rank, in the order of ranks. RankLost when one of them is not
  /// there any more, for this and the other functions, too.
  virtual std::vector<std::string> all_gather(const std::string& own) = 0;

  /// The same on rank 0; nothing on the others, which do not wait.
  virtual std::vector<std::string> gather(const std::string& own) = 0;

  /// What rank 0 brings, on every rank.
  std::string broadcast(const std::string& of_root);

  /// Whether it is so on any rank.
  bool any(bool own);

  /// The last call of a meta-training that ended well: waits for all ranks. A group that is
  /// destroyed without it tells the others, which end, too.
  virtual void finish() {}

 protected:
  ProcessGroup(int64_t rank, int64_t size) : rank_(rank), size_(size) {}

 private:
  int64_t rank_, size_;
};

/// Another rank has ended or has not been heard of.
class RankLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// This process alone.
std::shared_ptr<ProcessGroup> alone();

/// Who meets where: what torchrun tells its processes.
struct ProcessGroupOptions {
  int64_t rank = 0;
  int64_t size = 1;
  std::string address = "";      ///< Host of the store by which the processes meet.
  int64_t port = 0;              ///< Its port.
  bool store_is_served = false;  ///< Whether somebody else keeps the store; else rank 0 does.
  std::string prefix = "";       ///< Of all keys, where a store is used by others, too.
  double timeout = 20;           ///< Seconds without a sign of life after which a rank is lost.
};

/// The group of processes that join with the same address and size, over a TCPStore of torch.
///
/// What is exchanged is small (gradients of an optimizer's weights, losses; for a checkpoint the
/// networks that are carried), and goes through the store: Gloo's headers, which its own process
/// group needs, are not in torch's wheels. Every process gives signs of life from a thread of its
/// own, so that one that is slow is waited for and one that is gone is not.
///
/// Waits ten timeouts for ranks that have not come yet. InputError for a rank or size that is none
/// and for an address where no store can be kept, or that does not answer; and where torch was
/// built without torch.distributed.
std::shared_ptr<ProcessGroup> join_process_group(const ProcessGroupOptions& options);

}  // namespace mnemosyne::meta
