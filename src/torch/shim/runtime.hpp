// Hooks, random numbers, and CUDA streams. Streams are reached through libc10's virtual guard, so
// that no CUDA symbol is linked.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <utility>

namespace docre {

using HookContext = std::unique_ptr<void, void (*)(void*)>;

struct ReadyHook : torch::autograd::PostAccumulateGradHook {
  int (*call)(void*);
  HookContext context;
  ReadyHook(int (*call_)(void*), HookContext context_)
      : call(call_), context(std::move(context_)) {}
  void operator()(const at::Tensor&) override {
    TORCH_CHECK(call(context.get()) == 0, "gradient hook: the function that it calls has failed");
  }
};

// Random numbers, drawn on the CPU. A generator gives the same numbers as libtorch's shared one
// does after manual_seed.
inline at::Tensor drawn(at::Generator& generator, at::IntArrayRef shape, bool normal, double from,
                        double to) {
  auto values = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  return normal ? values.normal_(from, to, generator) : values.uniform_(from, to, generator);
}

// Whether a GPU rounds 32-bit numbers to TF32 when it multiplies them. This setter keeps libtorch's
// two records of the choice equal; setFloat32Precision changes one of them, and cuBLAS then refuses
// to work.
inline void choose_gpu_products(bool tf32) { at::globalContext().setAllowTF32CuBLAS(tf32); }
// It never does so in recurrent layers, against libtorch's default.
inline void make_gpu_recurrence_exact() { at::globalContext().setAllowTF32CuDNN(false); }

inline c10::impl::VirtualGuardImpl cuda() {
  return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA);
}
inline at::Device cuda_device(int64_t index) {
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

// `later` starts what is queued on it next only when `earlier` has finished what is queued now.
inline void let_wait(const c10::Stream& later, const c10::Stream& earlier) {
  c10::Event event(at::kCUDA);
  event.record(earlier);
  event.block(later);
}

}  // namespace docre
