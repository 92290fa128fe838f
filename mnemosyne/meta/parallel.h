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

}  // namespace mnemosyne::meta
