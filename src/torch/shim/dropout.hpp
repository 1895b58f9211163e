// Dropout whose mask is a hash of (token key, salt, channel): nothing is stored, and no other token
// matters.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "simd.hpp"

namespace docre {

// What a row of the mask is drawn from.
struct RowKey {
  uint32_t low, high;
};

// The finaliser of SplitMix64 over the token's key and the place in the network.
DOCRE_INLINE RowKey row_key(int64_t token_key, uint64_t salt) {
  uint64_t z = static_cast<uint64_t>(token_key) + (salt + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return {static_cast<uint32_t>(z), static_cast<uint32_t>(z >> 32)};
}

// All ones where channels first..first+16 of the row are kept.
DOCRE_INLINE void keep_mask(const RowKey& row, uint32_t first, uint32_t threshold, Words& mask) {
  const Words lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  Words x = (lanes + first) * 0x9e3779b9u + row.low;
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= row.high;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  Words least = threshold - Words{};
  less(x, least, mask);
  mask = ~mask;
}

// The part of 2^32 that is dropped.
inline uint32_t threshold_of(double p) {
  return static_cast<uint32_t>(std::min(p * 4294967296.0, 4294967295.0));
}

// One row: out = keep ? in · scale : 0, plus `residual` where there is one.
template <typename T>
DOCRE_INLINE void drop_row(const T* in, const T* residual, T* out, int64_t width, RowKey row,
                           uint32_t threshold, float scale) {
  for (int64_t c = 0; c < width; c += kLanes) {
    int64_t count = std::min(kLanes, width - c);
    Floats x, r = {};
    Words mask;
    if (count == kLanes)
      load(in + c, x);
    else
      load_some(in + c, count, x);
    if (residual && count == kLanes)
      load(residual + c, r);
    else if (residual)
      load_some(residual + c, count, r);
    keep_mask(row, static_cast<uint32_t>(c), threshold, mask);
    x = (Floats)((Words)(x * scale) & mask) + r;
    if (count == kLanes)
      store(out + c, x);
    else
      store_some(out + c, count, x);
  }
}

#define DOCRE_DROP_ROWS(NAME, TYPE)                                                               \
  DOCRE_CLONES void NAME(const TYPE* in, const TYPE* residual, TYPE* out, int64_t begin,          \
                         int64_t end, int64_t width, const int64_t* keys, uint64_t salt,          \
                         uint32_t threshold, float scale) {                                       \
    for (int64_t t = begin; t < end; t++)                                                         \
      drop_row(in + t * width, residual ? residual + t * width : nullptr, out + t * width, width, \
               row_key(keys[t], salt), threshold, scale);                                         \
  }
DOCRE_DROP_ROWS(drop_rows_f32, float)
DOCRE_DROP_ROWS(drop_rows_bf16, c10::BFloat16)
#undef DOCRE_DROP_ROWS

// x, residual: [T, d] of one kind; keys: [T] int64.
inline at::Tensor drop(const at::Tensor& x_any, const std::optional<at::Tensor>& residual_any,
                       const at::Tensor& keys, int64_t salt, double p) {
  at::Tensor x = x_any.contiguous(),
             residual = residual_any ? residual_any->contiguous() : at::Tensor();
  TORCH_CHECK(x.dim() == 2 && keys.dim() == 1 && keys.size(0) == x.size(0), "dropout: x ",
              x.sizes(), " needs one key a row, not ", keys.sizes());
  TORCH_CHECK(keys.scalar_type() == at::kLong && keys.is_contiguous(),
              "dropout: token keys must be contiguous int64");
  TORCH_CHECK(!residual.defined() ||
                  (residual.sizes() == x.sizes() && residual.scalar_type() == x.scalar_type()),
              "dropout: the residual differs from x in shape or kind");
  at::Tensor out = at::empty_like(x);
  const int64_t* key = keys.const_data_ptr<int64_t>();
  int64_t width = x.size(1), grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, width));
  uint32_t threshold = threshold_of(p);
  float scale = static_cast<float>(1.0 / (1.0 - p));
  auto run = [&](auto kernel, auto* zero) {
    using T = std::remove_pointer_t<decltype(zero)>;
    const T* in = x.const_data_ptr<T>();
    const T* res = residual.defined() ? residual.const_data_ptr<T>() : nullptr;
    T* to = out.mutable_data_ptr<T>();
    at::parallel_for(0, x.size(0), grain, [&](int64_t b, int64_t e) {
      kernel(in, res, to, b, e, width, key, static_cast<uint64_t>(salt), threshold, scale);
    });
  };
  if (x.scalar_type() == at::kFloat)
    run(drop_rows_f32, static_cast<float*>(nullptr));
  else if (x.scalar_type() == at::kBFloat16)
    run(drop_rows_bf16, static_cast<c10::BFloat16*>(nullptr));
  else
    TORCH_CHECK(false, "dropout: kind ", x.scalar_type(), " is not supported on the CPU");
  return out;
}

// dropout(x) + residual (where given); backward draws the mask again.
struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const std::optional<at::Tensor>& residual, const at::Tensor& keys,
                            int64_t salt, double p) {
    ctx->save_for_backward({keys});
    ctx->saved_data["salt"] = salt;
    ctx->saved_data["p"] = p;
    ctx->saved_data["residual"] = residual.has_value();
    return drop(x, residual, keys, salt, p);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    at::Tensor keys = ctx->get_saved_variables()[0];
    at::Tensor grad = drop(grads[0], std::nullopt, keys, ctx->saved_data["salt"].toInt(),
                           ctx->saved_data["p"].toDouble());
    return {grad, ctx->saved_data["residual"].toBool() ? grads[0] : at::Tensor(), at::Tensor(),
            at::Tensor(), at::Tensor()};
  }
};

}  // namespace docre
