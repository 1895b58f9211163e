// Operations on lists of tensors: fused Adam and AdamW, sums, copies and norms. On a GPU each takes
// a few kernels for the whole list. And the sum of squares of a gradient bucket on the CPU.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>

#include <vector>

#include "simd.hpp"

namespace docre {

// A borrowed array of tensors, as Rust passes it.
struct TensorList {
  at::Tensor* const* items;
  size_t count;
  std::vector<at::Tensor> vector() const {
    std::vector<at::Tensor> tensors;
    tensors.reserve(count);
    for (size_t i = 0; i < count; i++) tensors.push_back(*items[i]);
    return tensors;
  }
};

inline void fused_adam(TensorList p, TensorList g, TensorList m, TensorList v, TensorList largest,
                       TensorList steps, const std::optional<at::Tensor>& divisor, double lr,
                       double beta1, double beta2, double weight_decay, double eps, bool decoupled,
                       bool amsgrad) {
  at::NoGradGuard no_grad;
  auto kernel = [&](auto update) {
    update(p.vector(), g.vector(), m.vector(), v.vector(), largest.vector(), steps.vector(), lr,
           beta1, beta2, weight_decay, eps, amsgrad, false, divisor);
  };
  if (decoupled)
    kernel([](auto&&... arguments) { at::_fused_adamw_(arguments...); });
  else
    kernel([](auto&&... arguments) { at::_fused_adam_(arguments...); });
}

inline void add_to_all(TensorList list, double number) {
  at::NoGradGuard no_grad;
  at::_foreach_add_(list.vector(), number);
}

inline void copy_all(TensorList to, TensorList from) {
  at::NoGradGuard no_grad;
  at::_foreach_copy_(to.vector(), from.vector());
}

// The 2-norm of all numbers of a list of 32-bit tensors, as a scalar.
inline at::Tensor list_norm(TensorList list) {
  at::NoGradGuard no_grad;
  return at::linalg_vector_norm(at::stack(at::_foreach_norm(list.vector(), 2)), 2);
}

constexpr int64_t kSumBlock = 16384;

DOCRE_CLONES void square_sum_block(const float* from, int64_t count, double* sum) {
  Floats lanes = {}, x;
  for (int64_t c = 0; c < count; c += kLanes) {
    load_next(from + c, count - c, x);
    lanes += x * x;
  }
  *sum = 0;
  for (int i = 0; i < kLanes; i++) *sum += static_cast<double>(lanes[i]);
}

// Blocks of a fixed size are summed in order, so that the number of threads does not
// matter.
inline double square_sum(const at::Tensor& flat) {
  TORCH_CHECK(flat.device().is_cpu() && flat.scalar_type() == at::kFloat && flat.is_contiguous(),
              "sum of squares: the tensor must be contiguous, of 32-bit floats on the CPU, not ",
              flat.scalar_type(), " on ", flat.device(), " with strides ", flat.strides());
  const float* data = flat.const_data_ptr<float>();
  int64_t count = flat.numel();
  std::vector<double> sums((count + kSumBlock - 1) / kSumBlock);
  at::parallel_for(0, static_cast<int64_t>(sums.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      square_sum_block(data + i * kSumBlock, std::min(kSumBlock, count - i * kSumBlock), &sums[i]);
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

}  // namespace docre
