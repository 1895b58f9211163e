// Products in bfloat16 on the CPU: x · Wᵀ + b or x · W + b, and their gradients. Numbers have 16
// bits, sums 32.
//
// Machines with AVX512-BF16 multiply pairs of numbers in one step. Others widen numbers to 32 bits,
// which loses nothing, and multiply those. As with 32-bit products, the bits of a row of the result
// and of the gradient of x depend on that row alone. Weights and their gradients stay in 32 bits:
// a weight is rounded while it is packed.
#pragma once
#include <ATen/ops/constant_pad_nd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "checks.hpp"
#include "product.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DOCRE_HAS_PAIRS 1
#include <immintrin.h>
#else
#define DOCRE_HAS_PAIRS 0
#endif

namespace docre {

constexpr int64_t kPairDepth = 128;  // pairs at a time: 32 KB of a panel stay in the nearest cache

inline bool multiplies_pairs() {
#if DOCRE_HAS_PAIRS
  static const bool has = __builtin_cpu_supports("avx512bf16") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return has;
#else
  return false;
#endif
}

// Rows of 16-bit numbers, `stride` apart.
struct HalfMatrix {
  const at::BFloat16* data;
  int64_t rows, columns, stride;
};

// A matrix cut into panels of 64 columns of pairs, [pairs][64] each. A pair holds two numbers of a
// column, from rows 2k and 2k + 1. Beyond the last row and column there are zeros.
struct PairPanels {
  std::vector<uint32_t> data;
  int64_t pairs, columns;
  PairPanels(int64_t depth, int64_t columns_)
      : data(pieces(depth, 2) * rounded_up(columns_, kPanel)),
        pairs(pieces(depth, 2)),
        columns(columns_) {}
  int64_t count() const { return pieces(columns, kPanel); }
  int64_t width(int64_t i) const { return std::min(kPanel, columns - i * kPanel); }
  const uint32_t* at(int64_t i) const { return data.data() + i * kPanel * pairs; }
  uint32_t* row(int64_t i, int64_t k) { return data.data() + (i * pairs + k) * kPanel; }
};

// Rounds two rows and puts the second into the upper halves. `high` may be null.
template <typename T>
DOCRE_INLINE void pair_rows_of(const T* low, const T* high, uint32_t* to, int64_t count) {
  for (int64_t c = 0; c < count; c += kLanes) {
    Floats a, b = {};
    Words below, above;
    load_next(low + c, count - c, a);
    if (high) load_next(high + c, count - c, b);
    rounded_halves(a, below);
    rounded_halves(b, above);
    Words both = below | (above << 16);
    std::memcpy(to + c, &both, std::min(kLanes, count - c) * sizeof(uint32_t));
  }
}
DOCRE_CLONES void pair_rows(const float* low, const float* high, uint32_t* to, int64_t count) {
  pair_rows_of(low, high, to, count);
}
DOCRE_CLONES void pair_rows(const c10::BFloat16* low, const c10::BFloat16* high, uint32_t* to,
                            int64_t count) {
  pair_rows_of(low, high, to, count);
}

// The panels of b [depth, columns].
template <typename T>
PairPanels pair_panels(const T* b, int64_t depth, int64_t columns) {
  PairPanels panels(depth, columns);
  at::parallel_for(0, panels.count(), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++)
      for (int64_t k = 0; k < panels.pairs; k++) {
        const T* low = b + 2 * k * columns + i * kPanel;
        pair_rows(low, 2 * k + 1 < depth ? low + columns : nullptr, panels.row(i, k),
                  panels.width(i));
      }
  });
  return panels;
}

DOCRE_CLONES void round_row(const float* from, c10::BFloat16* to, int64_t count) {
  for (int64_t c = 0; c < count; c += kLanes) {
    Floats x;
    load_next(from + c, count - c, x);
    store_next(to + c, count - c, x);
  }
}
inline void round_row(const c10::BFloat16* from, c10::BFloat16* to, int64_t count) {
  std::memcpy(to, from, count * sizeof(*to));
}

// The panels of the transpose of b [columns, depth].
template <typename T>
PairPanels pair_panels_of_transposed(const T* b, int64_t columns, int64_t depth) {
  PairPanels panels(depth, columns);
  at::parallel_for(0, panels.count(), 1, [&](int64_t first, int64_t last) {
    // Pairs of a row lie side by side, so turning the matrix moves whole pairs.
    std::vector<float> rounded(kPanel * panels.pairs);
    for (int64_t i = first; i < last; i++) {
      for (int64_t c = 0; c < panels.width(i); c++)
        round_row(b + (i * kPanel + c) * depth,
                  reinterpret_cast<at::BFloat16*>(rounded.data() + c * panels.pairs), depth);
      transpose(rounded.data(), panels.pairs, panels.width(i), panels.pairs,
                reinterpret_cast<float*>(panels.row(i, 0)), kPanel);
    }
  });
  return panels;
}

// Rows of pairs: row r begins at a[r], and its pairs lie `step` apart.
struct PairRows {
  const uint32_t* a[kTileRows];
  float* out[kTileRows];
  int64_t step;
};

#if DOCRE_HAS_PAIRS
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")
// out[r] += Σ_k a[r][k] · panel[k], over the columns of `Vectors` groups of 16.
template <int Rows, int Vectors>
static inline void pair_tile(const PairRows& rows, const uint32_t* panel, int64_t depth) {
  __m512 sums[Rows][Vectors];
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) sums[r][v] = _mm512_loadu_ps(rows.out[r] + v * kLanes);
  for (int64_t k = 0; k < depth; k++, panel += kPanel) {
    __m512i b[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) b[v] = _mm512_loadu_si512(panel + v * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < Rows; r++) {
      uint32_t pair;
      std::memcpy(&pair, rows.a[r] + k * rows.step, sizeof(pair));
      __m512i a = _mm512_set1_epi32(static_cast<int>(pair));
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; v++)
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)a, (__m512bh)b[v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) _mm512_storeu_ps(rows.out[r] + v * kLanes, sums[r][v]);
}

template <int Vectors>
static inline void pair_tiles(int64_t count, const PairRows& rows, const uint32_t* panel,
                              int64_t depth) {
  switch (count) {
    case 1:
      return pair_tile<1, Vectors>(rows, panel, depth);
    case 2:
      return pair_tile<2, Vectors>(rows, panel, depth);
    case 3:
      return pair_tile<3, Vectors>(rows, panel, depth);
    case 4:
      return pair_tile<4, Vectors>(rows, panel, depth);
    case 5:
      return pair_tile<5, Vectors>(rows, panel, depth);
    default:
      return pair_tile<6, Vectors>(rows, panel, depth);
  }
}

static inline void pair_tiles(int64_t count, int64_t vectors, const PairRows& rows,
                              const uint32_t* panel, int64_t depth) {
  switch (vectors) {
    case 1:
      return pair_tiles<1>(count, rows, panel, depth);
    case 2:
      return pair_tiles<2>(count, rows, panel, depth);
    case 3:
      return pair_tiles<3>(count, rows, panel, depth);
    default:
      return pair_tiles<4>(count, rows, panel, depth);
  }
}
#pragma GCC pop_options
#else
static inline void pair_tiles(int64_t, int64_t, const PairRows&, const uint32_t*, int64_t) {}
#endif

// sums(r) += Σ_k a(r)[k · step] · panel[k] for `rows` rows and `width` columns of a panel, whose
// sums have room for whole groups of 16.
template <typename A, typename Sums>
void pair_product(const A& a, int64_t step, int64_t rows, const uint32_t* panel, int64_t depth,
                  int64_t width, const Sums& sums) {
  for (int64_t k = 0; k < depth; k += kPairDepth)
    for_tiles(rows, [&](int64_t first, int64_t count) {
      PairRows tile{{}, {}, step};
      for (int64_t r = 0; r < count; r++) {
        tile.a[r] = a(first + r) + k * step;
        tile.out[r] = sums(first + r);
      }
      pair_tiles(count, pieces(width, kLanes), tile, panel + k * kPanel,
                 std::min(kPairDepth, depth - k));
    });
}

// out [a.rows, panels.columns] = a · panels + bias, if there is one. Rows of `a` must hold whole
// pairs.
inline void multiply_halves(const HalfMatrix& a, const PairPanels& panels, const float* bias,
                            at::BFloat16* out) {
  std::vector<float> start(rounded_up(panels.columns, kPanel));
  if (bias) std::memcpy(start.data(), bias, panels.columns * sizeof(float));
  int64_t chunks = pieces(a.rows, kChunk), work = std::min(a.rows, kChunk) * kPanel * panels.pairs;
  at::parallel_for(
      0, chunks * panels.count(), grain(kTaskWork, work), [&](int64_t begin, int64_t end) {
        alignas(64) float sums[kChunk * kPanel];
        for (int64_t task = begin; task < end; task++) {
          int64_t first = task / panels.count() * kChunk, i = task % panels.count(),
                  rows = std::min(kChunk, a.rows - first), width = panels.width(i);
          for (int64_t r = 0; r < rows; r++)
            std::memcpy(sums + r * kPanel, start.data() + i * kPanel, kPanel * sizeof(float));
          pair_product(
              [&](int64_t r) {
                return reinterpret_cast<const uint32_t*>(a.data + (first + r) * a.stride);
              },
              1, rows, panels.at(i), panels.pairs, width,
              [&](int64_t r) { return sums + r * kPanel; });
          for (int64_t r = 0; r < rows; r++)
            round_row(sums + r * kPanel, out + (first + r) * panels.columns + i * kPanel, width);
        }
      });
}

// Rows m..m+rows and columns n..n+columns of aᵀ · b, in 32 bits.
inline void multiply_transposed_halves(const HalfMatrix& a, const HalfMatrix& b, int64_t m,
                                       int64_t rows, int64_t n, int64_t columns, float* out) {
  constexpr int64_t kSpread = kDepth + kLanes;
  alignas(64) uint32_t left[kPairDepth * kSpread], right[kPairDepth * kPanel];
  alignas(64) float sums[kDepth * kPanel] = {};
  std::memset(right, 0, sizeof(right));
  for (int64_t k = 0; k < a.rows; k += 2 * kPairDepth) {
    int64_t depth = std::min(2 * kPairDepth, a.rows - k), pairs = pieces(depth, 2);
    for (int64_t p = 0; p < pairs; p++) {
      const at::BFloat16 *of_a = a.data + (k + 2 * p) * a.stride + m,
                         *of_b = b.data + (k + 2 * p) * b.stride + n;
      bool whole = 2 * p + 1 < depth;
      pair_rows(of_a, whole ? of_a + a.stride : nullptr, left + p * kSpread, rows);
      pair_rows(of_b, whole ? of_b + b.stride : nullptr, right + p * kPanel, columns);
    }
    pair_product([&](int64_t r) { return left + r; }, kSpread, rows, right, pairs, columns,
                 [&](int64_t r) { return sums + r * kPanel; });
  }
  for (int64_t r = 0; r < rows; r++)
    std::memcpy(out + (m + r) * b.columns + n, sums + r * kPanel, columns * sizeof(float));
}

// out [a.columns, b.columns] = aᵀ · b.
inline void multiply_transposed(const HalfMatrix& a, const HalfMatrix& b, float* out) {
  int64_t heights = pieces(a.columns, kDepth), widths = pieces(b.columns, kPanel),
          work = std::min(a.columns, kDepth) * kPanel * a.rows / 2;
  at::parallel_for(0, heights * widths, grain(kTaskWork, work), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      int64_t m = task / widths * kDepth, n = task % widths * kPanel;
      multiply_transposed_halves(a, b, m, std::min(kDepth, a.columns - m), n,
                                 std::min(kPanel, b.columns - n), out);
    }
  });
}

// x [.., in] · weight [in, out], or · weight [out, in] transposed if `turned`, + bias [out] if
// there is one. x and the result have 16 bits; weight and bias have 16 or 32.
struct HalfProduct : torch::autograd::Function<HalfProduct> {
  static HalfMatrix matrix(const at::Tensor& z) {
    int64_t rows = c10::size_to_dim_(static_cast<int>(z.dim() - 1), z.sizes());
    return {z.const_data_ptr<at::BFloat16>(), rows, z.size(-1), z.size(-1)};
  }
  // Rows that hold whole pairs.
  static at::Tensor whole_pairs(const at::Tensor& z) {
    return z.size(-1) % 2 == 0 ? z : at::constant_pad_nd(z, {0, 1});
  }
  // Numbers as they are after rounding to 16 bits, in 32.
  static at::Tensor widened(const at::Tensor& z) { return z.to(at::kBFloat16).to(at::kFloat); }

  // a · weight, or · weightᵀ if `turned`, + bias.
  static at::Tensor product(const at::Tensor& a, const at::Tensor& weight, const at::Tensor& bias,
                            bool turned) {
    int64_t columns = weight.size(turned ? 0 : 1), depth = weight.size(turned ? 1 : 0);
    std::vector<int64_t> sizes = a.sizes().vec();
    sizes.back() = columns;
    at::Tensor out = at::empty(sizes, a.options());
    const float* start = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
    if (!multiplies_pairs()) {
      at::Tensor wide = widened(weight), rows = widened(a),
                 sums = at::empty(sizes, a.options().dtype(at::kFloat));
      Matrix b = Product::matrix(wide);
      multiply(Product::matrix(rows), turned ? panels_of_transposed(b) : panels_of(b), start,
               sums.mutable_data_ptr<float>());
      return sums.to(at::kBFloat16);
    }
    at::Tensor whole = whole_pairs(a);
    for_kind("product", weight, [&](auto zero) {
      const auto* b = weight.const_data_ptr<decltype(zero)>();
      multiply_halves(
          matrix(whole),
          turned ? pair_panels_of_transposed(b, columns, depth) : pair_panels(b, depth, columns),
          start, out.mutable_data_ptr<at::BFloat16>());
    });
    return out;
  }

  // aᵀ · b in 32 bits.
  static at::Tensor transposed_product(const at::Tensor& a, const at::Tensor& b) {
    at::Tensor out = at::empty({a.size(-1), b.size(-1)}, a.options().dtype(at::kFloat));
    if (multiplies_pairs()) {
      multiply_transposed(matrix(a), matrix(b), out.mutable_data_ptr<float>());
    } else {
      at::Tensor left = widened(a), right = widened(b);
      multiply_transposed(Product::matrix(left), Product::matrix(right),
                          out.mutable_data_ptr<float>());
    }
    return out;
  }

  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_any,
                            const at::Tensor& weight_any, const std::optional<at::Tensor>& bias_any,
                            bool turned) {
    at::Tensor x = x_any.contiguous(), weight = weight_any.contiguous(),
               bias = bias_any ? bias_any->to(at::kFloat).contiguous() : at::Tensor();
    TORCH_CHECK(x.dim() > 0 && weight.dim() == 2 && x.size(-1) > 0 &&
                    x.size(-1) == weight.size(turned ? 1 : 0),
                "product: rows of ", x.sizes(), " do not fit a weight of ", weight.sizes(),
                turned ? ", which is transposed" : "");
    TORCH_CHECK(x.device().is_cpu() && x.scalar_type() == at::kBFloat16 && weight.device().is_cpu(),
                "product: 16-bit numbers are needed on the CPU, not ", x.scalar_type(), " on ",
                x.device());
    int64_t columns = weight.size(turned ? 0 : 1);
    TORCH_CHECK(!bias.defined() || bias.numel() == columns, "product: the bias must have ", columns,
                " numbers, not ", bias.sizes());
    at::Tensor out = product(x, weight, bias, turned);
    ctx->save_for_backward({x, weight});
    ctx->saved_data["turned"] = turned;
    ctx->saved_data["bias"] =
        static_cast<int64_t>(bias_any ? bias_any->scalar_type() : at::ScalarType::Undefined);
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    bool turned = ctx->saved_data["turned"].toBool();
    at::Tensor grad = grads[0].contiguous(), grad_x, grad_weight, grad_bias;
    if (ctx->needs_input_grad(0)) grad_x = product(grad, weight, at::Tensor(), !turned);
    if (ctx->needs_input_grad(1))
      grad_weight =
          transposed_product(turned ? grad : x, turned ? x : grad).to(weight.scalar_type());
    auto kind = static_cast<at::ScalarType>(ctx->saved_data["bias"].toInt());
    if (kind != at::ScalarType::Undefined && ctx->needs_input_grad(2)) {
      at::Tensor wide = grad.to(at::kFloat);
      grad_bias = at::empty({grad.size(-1)}, wide.options());
      sum_rows(Product::matrix(wide), grad_bias.mutable_data_ptr<float>());
      grad_bias = grad_bias.to(kind);
    }
    return {grad_x, grad_weight, grad_bias, at::Tensor()};
  }
};

}  // namespace docre
