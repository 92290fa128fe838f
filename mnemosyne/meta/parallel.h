#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace mnemosyne::meta {

/// Calls `work(i)` for every i in `order` from `num_workers` threads, each of which runs ATen
/// single threaded. Items are taken in the order given, so put long ones first.
///
/// Which thread takes what depends on timing; `work` therefore writes to the i-th place of
/// something and the caller reduces in a fixed order. ATen runs single threaded also with one
/// worker, because a sum over more threads may round differently. The first exception (by place in
/// `order`) is rethrown after all threads are done.
void run_parallel(const std::vector<int64_t>& order, int64_t num_workers,
                  const std::function<void(int64_t)>& work);

/// The same for 0 ... count - 1 in that order.
void run_parallel(int64_t count, int64_t num_workers, const std::function<void(int64_t)>& work);

/// Work that is done step by step, several items side by side.
struct SlicedWork {
  std::function<int64_t(int64_t item)> left;                 ///< Steps that an item still has.
  std::function<void(int64_t item, int64_t steps)> advance;  ///< Takes some of them.
};

/// Finishes items 0 ... count - 1 from `num_workers` threads as above, a few steps of one item at a
/// time: always of the one that would take longest alone, by the time that its steps have taken so
/// far. All threads end at about the same time, however much the items differ.
///
/// Which thread takes what depends on timing, the order of an item's own steps does not. An item
/// that throws is not continued; the first exception by number is rethrown after the others are
/// done.
void run_in_slices(int64_t count, int64_t num_workers, const SlicedWork& work);

}  // namespace mnemosyne::meta
