// Fused Adam and AdamW on lists of tensors, and the sum of squares of a gradient bucket.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>

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
                       TensorList steps, double lr, double beta1, double beta2, double weight_decay,
                       double eps, bool decoupled, bool amsgrad) {
  at::NoGradGuard no_grad;
  auto kernel = [&](auto update) {
    update(p.vector(), g.vector(), m.vector(), v.vector(), largest.vector(), steps.vector(), lr,
           beta1, beta2, weight_decay, eps, amsgrad, false);
  };
  if (decoupled)
    kernel([](auto&&... arguments) { at::_fused_adamw_(arguments...); });
  else
    kernel([](auto&&... arguments) { at::_fused_adam_(arguments...); });
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

// On the CPU, blocks of a fixed size are summed in order, so that the number of threads does not
// matter.
inline double square_sum(const at::Tensor& flat) {
  if (!flat.device().is_cpu() || flat.scalar_type() != at::kFloat) {
    double norm = at::linalg_vector_norm(flat, 2).item<double>();
    return norm * norm;
  }
  TORCH_CHECK(flat.is_contiguous(),
              "sum of squares: the tensor must be contiguous, but its strides are ",
              flat.strides());
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
