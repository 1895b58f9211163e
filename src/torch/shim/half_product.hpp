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
#include "pairs.hpp"
#include "product.hpp"

namespace docre {

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
              1, rows, PairPanel{panels.at(i), kPanel, panels.pairs}, width,
              [&](int64_t r) { return sums + r * kPanel; }, true);
          for (int64_t r = 0; r < rows; r++)
            round_row(sums + r * kPanel, out + (first + r) * panels.columns + i * kPanel, width);
        }
      });
}

// Sides of a block of multiply_transposed: its sums take 256 KB.
constexpr int64_t kBlockSide = 4 * kPanel;

// Rows m..m+rows and columns n..n+columns of aᵀ · b, in 32 bits.
inline void multiply_transposed_halves(const HalfMatrix& a, const HalfMatrix& b, int64_t m,
                                       int64_t rows, int64_t n, int64_t columns, float* out) {
  constexpr int64_t kSpread = kBlockSide + kLanes, kSome = 64;
  alignas(64) uint32_t left[kSome * kSpread], right[kSome * kSpread];
  thread_local std::vector<float> sums;
  sums.assign(kBlockSide * kSpread, 0.0f);
  std::memset(right, 0, sizeof(right));
  for (int64_t k = 0; k < a.rows; k += 2 * kSome) {
    int64_t depth = std::min(2 * kSome, a.rows - k), pairs = pieces(depth, 2);
    for (int64_t p = 0; p < pairs; p++) {
      const at::BFloat16 *of_a = a.data + (k + 2 * p) * a.stride + m,
                         *of_b = b.data + (k + 2 * p) * b.stride + n;
      bool whole = 2 * p + 1 < depth;
      pair_rows(of_a, whole ? of_a + a.stride : nullptr, left + p * kSpread, rows);
      pair_rows(of_b, whole ? of_b + b.stride : nullptr, right + p * kSpread, columns);
    }
    multiply_pairs(left, 1, kSpread, right, kSpread, sums.data(), kSpread, rows, columns, pairs,
                   true);
  }
  for (int64_t r = 0; r < rows; r++)
    std::memcpy(out + (m + r) * b.columns + n, sums.data() + r * kSpread, columns * sizeof(float));
}

// out [a.columns, b.columns] = aᵀ · b.
inline void multiply_transposed(const HalfMatrix& a, const HalfMatrix& b, float* out) {
  // Small matrices are cut into narrow blocks, so that all threads have work.
  int64_t heights = pieces(a.columns, kBlockSide),
          side = heights * pieces(b.columns, kBlockSide) < 2 * at::get_num_threads() ? kPanel
                                                                                     : kBlockSide,
          widths = pieces(b.columns, side), work = std::min(a.columns, kBlockSide) * side * a.rows;
  at::parallel_for(0, heights * widths, grain(kTaskWork, work / 2), [&](int64_t from, int64_t end) {
    for (int64_t task = from; task < end; task++) {
      int64_t m = task / widths * kBlockSide, n = task % widths * side;
      multiply_transposed_halves(a, b, m, std::min(kBlockSide, a.columns - m), n,
                                 std::min(side, b.columns - n), out);
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
