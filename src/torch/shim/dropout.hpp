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

// keep ? x · scale : 0, for channels first..first+16 of the row.
DOCRE_INLINE void drop_lanes(const RowKey& row, int64_t first, uint32_t threshold, float scale,
                             Floats& x) {
  Words mask;
  keep_mask(row, static_cast<uint32_t>(first), threshold, mask);
  x = (Floats)((Words)(x * scale) & mask);
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
DOCRE_INLINE void drop_all(const T* in, T* out, const DropRows& rows) {
  for (int64_t t = rows.begin; t < rows.end; t++) {
    RowKey key = row_key(rows.keys[t], rows.salt);
    int64_t first = t * rows.width;
    for (int64_t c = 0; c < rows.width; c += kLanes) {
      Floats x;
      load_next(in + first + c, rows.width - c, x);
      drop_lanes(key, c, rows.threshold, rows.scale, x);
      store_next(out + first + c, rows.width - c, x);
    }
  }
}
DOCRE_CLONES void drop_rows(const float* in, float* out, const DropRows& rows) {
  drop_all(in, out, rows);
}
DOCRE_CLONES void drop_rows(const c10::BFloat16* in, c10::BFloat16* out, const DropRows& rows) {
  drop_all(in, out, rows);
}

// x: [tokens, width]; keys: int64 [tokens].
inline at::Tensor drop(const at::Tensor& x_any, const at::Tensor& keys, int64_t salt, double p) {
  at::Tensor x = x_any.contiguous();
  TORCH_CHECK(x.dim() == 2 && x.device().is_cpu(),
              "dropout: x must be [tokens, width] on the CPU, not ", x.sizes(), " on ", x.device());
  TORCH_CHECK(is_host_table(keys) && keys.dim() == 1 && keys.size(0) == x.size(0),
              "dropout: one int64 key a row is needed on the host, ", x.size(0), " in all, not ",
              keys.sizes(), " of ", keys.scalar_type(), " on ", keys.device());
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
    const T* in = x.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    at::parallel_for(0, x.size(0), grain(32768, x.size(1)), [&](int64_t begin, int64_t end) {
      DropRows own = rows;
      own.begin = begin;
      own.end = end;
      drop_rows(in, to, own);
    });
  });
  return out;
}

// Backward computes the mask again.
struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& keys, int64_t salt, double p) {
    ctx->save_for_backward({keys});
    ctx->saved_data["salt"] = salt;
    ctx->saved_data["p"] = p;
    return drop(x, keys, salt, p);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    at::Tensor keys = ctx->get_saved_variables()[0];
    at::Tensor grad =
        drop(grads[0], keys, ctx->saved_data["salt"].toInt(), ctx->saved_data["p"].toDouble());
    return {grad, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace docre
