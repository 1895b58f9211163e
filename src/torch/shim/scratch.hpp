// Memory for the intermediate results of a task.
#pragma once
#include <c10/util/Exception.h>

#include <cstdint>
#include <cstdlib>
#include <memory>

namespace docre {

// Buffers of one task, cut from one aligned block of memory that the thread keeps.
//
// A thread has one block, so at most one Scratch may exist on a thread at a time. A second one
// would hand out the same memory, or free it. The constructor therefore refuses a second one. A
// task makes one Scratch that is large enough for everything it calls, and passes it on. It must
// not start other tasks that make a Scratch: a nested parallel loop runs them on the same thread.
class Scratch {
 public:
  explicit Scratch(int64_t floats) {
    Block& block = own_block();
    TORCH_CHECK(!block.in_use,
                "scratch: this thread's memory is already in use by another Scratch");
    TORCH_CHECK(floats >= 0, "scratch: a size of ", floats, " floats is impossible");
    int64_t needed = rounded(floats + kSlack);
    if (needed > block.capacity) {
      block.capacity = 0;
      block.memory.reset();
      size_t bytes = static_cast<size_t>(needed) * sizeof(float);
      block.memory.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
      TORCH_CHECK(block.memory, "scratch: no memory for ", bytes, " bytes");
      block.capacity = needed;
    }
    next_ = block.memory.get();
    end_ = next_ + needed;
    block.in_use = true;
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { own_block().in_use = false; }

  // The next `floats` numbers, aligned to a cache line; not set to anything.
  float* take(int64_t floats) {
    TORCH_CHECK(floats >= 0 && floats <= end_ - next_, "scratch: ", floats,
                " floats were asked for, but ", end_ - next_, " are left");
    float* taken = next_;
    next_ += rounded(floats);
    return taken;
  }

 private:
  static constexpr int64_t kSlack = 4096;  // for the rounding of each buffer to whole cache lines

  struct Block {
    std::unique_ptr<float, void (*)(void*)> memory{nullptr, std::free};
    int64_t capacity = 0;
    bool in_use = false;
  };
  static Block& own_block() {
    thread_local Block block;
    return block;
  }
  static int64_t rounded(int64_t floats) { return (floats + 15) / 16 * 16; }

  float *next_, *end_;
};

}  // namespace docre
