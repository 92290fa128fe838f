#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace mnemosyne {

/// Instances that one caller at a time has: an idle one, or a new one where all are lent. So many
/// threads, and calls within calls, share what cannot run twice at once.
///
///     Pool<Network> networks([] { return std::make_unique<Network>(); });
///     const auto network = networks.borrow();   // goes back at the end of the block
template <typename Instance>
class Pool {
 public:
  using Make = std::function<std::unique_ptr<Instance>()>;

  explicit Pool(Make make) : make_(std::move(make)) {}

  class Loan {
   public:
    Loan(Pool& pool, std::unique_ptr<Instance> instance)
        : pool_(&pool), instance_(std::move(instance)) {}
    Loan(Loan&& other) noexcept = default;
    Loan& operator=(Loan&&) = delete;
    ~Loan() {
      if (instance_) pool_->add(std::move(instance_));
    }

    Instance& operator*() const { return *instance_; }
    Instance* operator->() const { return instance_.get(); }

    /// It does not go back: whoever comes next gets another.
    void keep_apart() { instance_.reset(); }

   private:
    Pool* pool_;
    std::unique_ptr<Instance> instance_;
  };

  Loan borrow() {
    std::unique_ptr<Instance> instance;
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        instance = std::move(idle_.back());
        idle_.pop_back();
      }
    }
    if (!instance) instance = make_();
    return Loan(*this, std::move(instance));
  }

  void add(std::unique_ptr<Instance> instance) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(instance));
  }

 private:
  Make make_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Instance>> idle_;
};

}  // namespace mnemosyne
