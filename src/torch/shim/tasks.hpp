// Independent tasks on the threads of libtorch's pool, the largest first.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <vector>

namespace docre {

// The number of units, of `work` each, that make up `enough` work for another thread.
inline int64_t grain(int64_t enough, int64_t work) {
  return std::max<int64_t>(1, enough / std::max<int64_t>(1, work));
}

// Runs task(i) for all i < count with size(i) > 0, on whichever thread is free.
template <typename Size, typename Task>
void for_each_by_size(int64_t count, const Size& size, const Task& task) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return size(a) > size(b); });
  std::atomic<int64_t> next{0};
  at::parallel_for(0, std::min<int64_t>(count, at::get_num_threads()), 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < count; i = next++)
      if (size(order[i]) > 0) task(order[i]);
  });
}

// Runs task(item, head, group) for all heads of all items with size(item) > 0. Without groups,
// large items come first. With groups, the items of a group come one after the other, so that sums
// over them are added in the same order, however many threads work.
template <typename Size, typename Task>
void for_each_head(int64_t items, int64_t heads, int64_t groups, const Size& size,
                   const Task& task) {
  if (groups == 0)
    return for_each_by_size(
        items * heads, [&](int64_t i) { return size(i / heads); },
        [&](int64_t i) { task(i / heads, i % heads, 0); });
  auto sum = [&](int64_t i) {
    int64_t total = 0;
    for (int64_t item = i / heads; item < items; item += groups) total += size(item);
    return total;
  };
  for_each_by_size(groups * heads, sum, [&](int64_t i) {
    for (int64_t item = i / heads; item < items; item += groups)
      if (size(item) > 0) task(item, i % heads, i / heads);
  });
}

}  // namespace docre
