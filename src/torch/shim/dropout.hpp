// Dropout whose mask is a hash of (token key, salt, channel). Nothing is stored, and other tokens
// do not matter.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "checks.hpp"
#include "simd.hpp"
#include "tasks.hpp"

namespace docre {

// The random bits of one row of the mask.
struct RowKey {
  uint32_t low, high;
};

// The finaliser of SplitMix64, applied to the token's key and the number of the layer.
DOCRE_INLINE RowKey row_key(int64_t token_key, uint64_t salt) {
  uint64_t z = static_cast<uint64_t>(token_key) + (salt + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return {static_cast<uint32_t>(z), static_cast<uint32_t>(z >> 32)};
}

// Sets all bits of the lanes that are kept, for channels first..first+16 of the row.
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

// The dropped share of the 2^32 values of a hash.
inline uint32_t threshold_of(double p) {
  return static_cast<uint32_t>(std::min(p * 4294967296.0, 4294967295.0));
}

// One row: out = keep ? in · scale : 0, plus `residual` if there is one.
template <typename T>
DOCRE_INLINE void drop_row(const T* in, const T* residual, T* out, int64_t width, RowKey row,
                           uint32_t threshold, float scale) {
  for (int64_t c = 0; c < width; c += kLanes) {
    Floats x, r = {};
    Words mask;
    load_next(in + c, width - c, x);
    if (residual) load_next(residual + c, width - c, r);
    keep_mask(row, static_cast<uint32_t>(c), threshold, mask);
    x = (Floats)((Words)(x * scale) & mask) + r;
    store_next(out + c, width - c, x);
  }
}

// Rows begin..end of a stream, with `width` numbers each.
struct DropRows {
  int64_t begin, end, width;
  const int64_t* keys;  // of all rows
  uint64_t salt;
  uint32_t threshold;
  float scale;
};

template <typename T>
DOCRE_INLINE void drop_all(const T* in, const T* residual, T* out, const DropRows& rows) {
  for (int64_t t = rows.begin; t < rows.end; t++) {
    int64_t first = t * rows.width;
    drop_row(in + first, residual ? residual + first : nullptr, out + first, rows.width,
             row_key(rows.keys[t], rows.salt), rows.threshold, rows.scale);
  }
}
DOCRE_CLONES void drop_rows(const float* in, const float* residual, float* out,
                            const DropRows& rows) {
  drop_all(in, residual, out, rows);
}
DOCRE_CLONES void drop_rows(const c10::BFloat16* in, const c10::BFloat16* residual,
                            c10::BFloat16* out, const DropRows& rows) {
  drop_all(in, residual, out, rows);
}

// x, residual: [tokens, width] of one kind; keys: int64 [tokens].
inline at::Tensor drop(const at::Tensor& x_any, const std::optional<at::Tensor>& residual_any,
                       const at::Tensor& keys, int64_t salt, double p) {
  at::Tensor x = x_any.contiguous(),
             residual = residual_any ? residual_any->contiguous() : at::Tensor();
  TORCH_CHECK(x.dim() == 2 && x.device().is_cpu(),
              "dropout: x must be [tokens, width] on the CPU, not ", x.sizes(), " on ", x.device());
  TORCH_CHECK(is_host_table(keys) && keys.dim() == 1 && keys.size(0) == x.size(0),
              "dropout: one int64 key a row is needed on the host, ", x.size(0), " in all, not ",
              keys.sizes(), " of ", keys.scalar_type(), " on ", keys.device());
  TORCH_CHECK(!residual.defined() ||
                  (residual.sizes() == x.sizes() && residual.scalar_type() == x.scalar_type() &&
                   residual.device().is_cpu()),
              "dropout: the residual, ", residual.sizes(), " of ", residual.scalar_type(), " on ",
              residual.device(), ", is not like x, ", x.sizes(), " of ", x.scalar_type());
  at::Tensor out = at::empty_like(x);
  DropRows rows{0,
                x.size(0),
                x.size(1),
                keys.const_data_ptr<int64_t>(),
                static_cast<uint64_t>(salt),
                threshold_of(p),
                static_cast<float>(1.0 / (1.0 - p))};
  for_kind("dropout", x, [&](auto zero) {
    using T = decltype(zero);
    const T *in = x.const_data_ptr<T>(),
            *add = residual.defined() ? residual.const_data_ptr<T>() : nullptr;
    T* to = out.mutable_data_ptr<T>();
    at::parallel_for(0, x.size(0), grain(32768, x.size(1)), [&](int64_t begin, int64_t end) {
      DropRows own = rows;
      own.begin = begin;
      own.end = end;
      drop_rows(in, add, to, own);
    });
  });
  return out;
}

// dropout(x) + residual, if there is one. Backward computes the mask again.
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
