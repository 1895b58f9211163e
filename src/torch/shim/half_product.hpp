// Products in bfloat16 on the CPU: f(x · Wᵀ + b) or f(x · W + b), and their gradients. Numbers have
// 16 bits, sums 32.
//
// Machines with AVX512-BF16 multiply pairs of numbers in one step. Others widen numbers to 32 bits,
// which loses nothing, and multiply those. As with 32-bit products, the bits of a row of the result
// and of the gradient of x depend on that row alone. What has 32 bits, such as weights, is rounded
// where it is read, and its gradients keep 32 bits.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "activation.hpp"
#include "checks.hpp"
#include "pairs.hpp"
#include "product.hpp"

namespace docre {

// Rows of numbers with 16 bits, or with 32 that are rounded where they are read. They lie one after
// the other.
template <typename T>
struct HalfMatrix {
  const T* data;
  int64_t rows, columns;
  const T* row(int64_t r) const { return data + r * columns; }
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
    std::vector<uint32_t> words(kPanel * panels.pairs);
    for (int64_t i = first; i < last; i++) {
      for (int64_t c = 0; c < panels.width(i); c++)
        round_row(b + (i * kPanel + c) * depth,
                  reinterpret_cast<at::BFloat16*>(words.data() + c * panels.pairs), depth);
      turn_words(words.data(), panels.pairs, panels.width(i), panels.pairs, panels.row(i, 0),
                 kPanel);
    }
  });
  return panels;
}

// Some rows of a matrix as pairs: as they are if they hold whole pairs of 16-bit numbers, else
// copied, rounded, with a zero behind an odd last number.
template <typename T>
class PairsOfRows {
 public:
  explicit PairsOfRows(const HalfMatrix<T>& matrix)
      : matrix_(matrix), stride_(pieces(matrix.columns, 2)) {}
  void move_to(int64_t first, int64_t rows) {
    if (first == first_) return;
    first_ = first;
    if (std::is_same_v<T, at::BFloat16> && matrix_.columns % 2 == 0) {
      words_ = reinterpret_cast<const uint32_t*>(matrix_.row(first));
      return;
    }
    copies_.resize(rows * stride_);
    words_ = copies_.data();
    for (int64_t r = 0; r < rows; r++) {
      auto* halves = reinterpret_cast<at::BFloat16*>(copies_.data() + r * stride_);
      round_row(matrix_.row(first + r), halves, matrix_.columns);
      if (matrix_.columns % 2) halves[matrix_.columns] = 0.0f;
    }
  }
  const uint32_t* words() const { return words_; }
  int64_t stride() const { return stride_; }

 private:
  const HalfMatrix<T>& matrix_;
  int64_t stride_, first_ = -1;
  const uint32_t* words_ = nullptr;
  std::vector<uint32_t> copies_;
};

// Rows between two calls of a function: few, so that its table and the panel stay in the nearest
// cache.
constexpr int64_t kFunctionRows = 3 * kTileRows;

// Where a product goes: to `floats`, or rounded to `halves`. If there are `results`, those of a
// function go there; then `halves` may be null.
struct ProductTarget {
  float* floats;
  at::BFloat16* halves;
  at::BFloat16* results;
  Activation function;
};

// Some rows of a product, from row `first` of its target on, and the columns of panel i. `start` is
// what sums start with.
inline void multiply_rows(PairRows rows, int64_t first, int64_t count, const PairPanels& panels,
                          int64_t i, const float* start, const ProductTarget& target) {
  alignas(64) float sums[kChunk * kPanel];
  PairPanel panel{panels.at(i), kPanel, panels.pairs};
  int64_t stride = panels.columns, place = first * stride + i * kPanel;
  rows.width = panels.width(i);
  rows.base = start + i * kPanel;
  rows.out = sums;
  rows.stride = kPanel;
  if (target.halves) {
    rows.halves = target.halves + place;
    rows.halves_stride = stride;
  }
  if (target.results) {
    alignas(64) at::BFloat16 arguments[kFunctionRows * kPanel];
    for (int64_t row = 0; row < count; row += kFunctionRows) {
      int64_t some = std::min(kFunctionRows, count - row);
      PairRows part = rows.from(row);
      if (!target.halves) {
        part.halves = arguments;
        part.halves_stride = kPanel;
      }
      pair_product(part, some, panel);
      for (int64_t r = 0; r < some; r++)
        activate(target.function, part.halves + r * part.halves_stride,
                 target.results + place + (row + r) * stride, rows.width);
    }
    return;
  }
  bool direct = target.floats && rows.width % kLanes == 0;
  if (direct) {
    rows.out = target.floats + place;
    rows.stride = stride;
  }
  pair_product(rows, count, panel);
  if (target.floats && !direct)
    for (int64_t r = 0; r < count; r++)
      std::memcpy(target.floats + place + r * stride, sums + r * kPanel,
                  rows.width * sizeof(float));
}

// target [a.rows, panels.columns] = a · panels + bias, if there is one.
template <typename T>
void multiply_halves(const HalfMatrix<T>& a, const PairPanels& panels, const float* bias,
                     const ProductTarget& target) {
  std::vector<float> start(rounded_up(panels.columns, kPanel));
  if (bias) std::memcpy(start.data(), bias, panels.columns * sizeof(float));
  int64_t chunks = pieces(a.rows, kChunk), work = std::min(a.rows, kChunk) * kPanel * panels.pairs;
  auto multiply_tasks = [&](int64_t begin, int64_t end) {
    PairsOfRows<T> left(a);
    for (int64_t task = begin; task < end; task++) {
      int64_t first = task / panels.count() * kChunk, rows = std::min(kChunk, a.rows - first);
      left.move_to(first, rows);
      PairRows own{};
      own.a = left.words();
      own.lda = left.stride();
      own.step = 1;
      multiply_rows(own, first, rows, panels, task % panels.count(), start.data(), target);
    }
  };
  at::parallel_for(0, chunks * panels.count(), grain(kTaskWork, work), multiply_tasks);
}

// Sides of a block of multiply_transposed: its sums take 256 KB.
constexpr int64_t kBlockSide = 4 * kPanel;

// Rows m..m+rows and columns n..n+columns of aᵀ · b, in 32 bits.
template <typename A, typename B>
void multiply_transposed_halves(const HalfMatrix<A>& a, const HalfMatrix<B>& b, int64_t m,
                                int64_t rows, int64_t n, int64_t columns, float* out) {
  constexpr int64_t kSpread = kBlockSide + kLanes, kPairs = 64;
  alignas(64) uint32_t left[kPairs * kSpread], right[kPairs * kSpread];
  thread_local std::vector<float> sums;
  sums.assign(kBlockSide * kSpread, 0.0f);
  std::memset(right, 0, sizeof(right));
  for (int64_t k = 0; k < a.rows; k += 2 * kPairs) {
    int64_t depth = std::min(2 * kPairs, a.rows - k), pairs = pieces(depth, 2);
    for (int64_t p = 0; p < pairs; p++) {
      const A* of_a = a.row(k + 2 * p) + m;
      const B* of_b = b.row(k + 2 * p) + n;
      bool whole = 2 * p + 1 < depth;
      pair_rows(of_a, whole ? of_a + a.columns : nullptr, left + p * kSpread, rows);
      pair_rows(of_b, whole ? of_b + b.columns : nullptr, right + p * kSpread, columns);
    }
    multiply_pairs(left, 1, kSpread, right, kSpread, sums.data(), kSpread, rows, columns, pairs,
                   true);
  }
  for (int64_t r = 0; r < rows; r++)
    std::memcpy(out + (m + r) * b.columns + n, sums.data() + r * kSpread, columns * sizeof(float));
}

// out [a.columns, b.columns] = aᵀ · b.
template <typename A, typename B>
void multiply_transposed(const HalfMatrix<A>& a, const HalfMatrix<B>& b, float* out) {
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

// f(x [.., in] · weight [in, out] + bias [out]), or with weight [out, in] transposed if `turned`.
// `function` is an Activation, or less than 0 for none; the bias may be missing. x, weight and bias
// have 16 or 32 bits; the result has 16. If `learns`, what the function's gradient needs is kept.
struct HalfProduct : torch::autograd::Function<HalfProduct> {
  template <typename T>
  static HalfMatrix<T> matrix(const at::Tensor& z) {
    int64_t rows = c10::size_to_dim_(static_cast<int>(z.dim() - 1), z.sizes());
    return {z.const_data_ptr<T>(), rows, z.size(-1)};
  }
  // Numbers as they are after rounding to 16 bits, in 32.
  static at::Tensor widened(const at::Tensor& z) { return z.to(at::kBFloat16).to(at::kFloat); }

  // a · weight, or · weightᵀ if `turned`, + bias.
  static void product(const at::Tensor& a, const at::Tensor& weight, const at::Tensor& bias,
                      bool turned, const ProductTarget& target) {
    int64_t columns = weight.size(turned ? 0 : 1), depth = weight.size(turned ? 1 : 0);
    const float* start = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
    for_kind("product", weight, [&](auto of_weight) {
      const auto* b = weight.const_data_ptr<decltype(of_weight)>();
      PairPanels panels =
          turned ? pair_panels_of_transposed(b, columns, depth) : pair_panels(b, depth, columns);
      for_kind("product", a, [&](auto of_a) {
        multiply_halves(matrix<decltype(of_a)>(a), panels, start, target);
      });
    });
  }
  // The same where pairs cannot be multiplied, in 32 bits.
  static at::Tensor wide_product(const at::Tensor& a, const at::Tensor& weight,
                                 const at::Tensor& bias, bool turned) {
    at::Tensor wide = widened(weight), rows = widened(a);
    at::Tensor out = at::empty(sizes_of(a, weight, turned), rows.options());
    Matrix b = Product::matrix(wide);
    multiply(Product::matrix(rows), turned ? panels_of_transposed(b) : panels_of(b),
             bias.defined() ? bias.const_data_ptr<float>() : nullptr,
             out.mutable_data_ptr<float>());
    return out;
  }
  static std::vector<int64_t> sizes_of(const at::Tensor& a, const at::Tensor& weight, bool turned) {
    std::vector<int64_t> sizes = a.sizes().vec();
    sizes.back() = weight.size(turned ? 0 : 1);
    return sizes;
  }

  // The gradient of x, of x's kind.
  static at::Tensor grad_of_x(const at::Tensor& grad, const at::Tensor& weight, bool turned,
                              at::ScalarType kind) {
    if (!multiplies_pairs()) return wide_product(grad, weight, at::Tensor(), turned).to(kind);
    at::Tensor out = at::empty(sizes_of(grad, weight, turned), grad.options().dtype(kind));
    ProductTarget target{};
    if (kind == at::kFloat)
      target.floats = out.mutable_data_ptr<float>();
    else
      target.halves = out.mutable_data_ptr<at::BFloat16>();
    product(grad, weight, at::Tensor(), turned, target);
    return out;
  }

  // aᵀ · b in 32 bits.
  static at::Tensor transposed_product(const at::Tensor& a, const at::Tensor& b) {
    at::Tensor out = at::empty({a.size(-1), b.size(-1)}, a.options().dtype(at::kFloat));
    if (!multiplies_pairs()) {
      at::Tensor left = widened(a), right = widened(b);
      multiply_transposed(Product::matrix(left), Product::matrix(right),
                          out.mutable_data_ptr<float>());
      return out;
    }
    for_kind("product", a, [&](auto of_a) {
      for_kind("product", b, [&](auto of_b) {
        multiply_transposed(matrix<decltype(of_a)>(a), matrix<decltype(of_b)>(b),
                            out.mutable_data_ptr<float>());
      });
    });
    return out;
  }

  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_any,
                            const at::Tensor& weight_any, const std::optional<at::Tensor>& bias_any,
                            bool turned, int64_t function, bool learns) {
    at::Tensor x = x_any.contiguous(), weight = weight_any.contiguous(),
               bias = bias_any ? bias_any->to(at::kFloat).contiguous() : at::Tensor();
    TORCH_CHECK(x.dim() > 0 && weight.dim() == 2 && x.size(-1) > 0 &&
                    x.size(-1) == weight.size(turned ? 1 : 0),
                "product: rows of ", x.sizes(), " do not fit a weight of ", weight.sizes(),
                turned ? ", which is transposed" : "");
    TORCH_CHECK(x.device().is_cpu() && weight.device().is_cpu(),
                "product: numbers must be on the CPU, not on ", x.device(), " and ",
                weight.device());
    int64_t columns = weight.size(turned ? 0 : 1);
    TORCH_CHECK(!bias.defined() || bias.numel() == columns, "product: the bias must have ", columns,
                " numbers, not ", bias.sizes());
    bool applies = function >= 0;
    Activation activation = applies ? checked_activation(function) : Activation::kGelu;
    at::Tensor out, kept;
    if (!multiplies_pairs()) {
      kept = wide_product(x, weight, bias, turned).to(at::kBFloat16);
      out = applies ? activated(activation, kept) : kept;
    } else {
      out = at::empty(sizes_of(x, weight, turned), x.options().dtype(at::kBFloat16));
      auto* to = out.mutable_data_ptr<at::BFloat16>();
      ProductTarget target{};
      if (applies) {
        target.function = activation;
        target.results = to;
        if (learns) kept = at::empty_like(out);
        if (learns) target.halves = kept.mutable_data_ptr<at::BFloat16>();
      } else {
        target.halves = to;
      }
      product(x, weight, bias, turned, target);
    }
    if (applies && !slope_needs_argument(activation)) kept = out;
    ctx->save_for_backward({x, weight, applies && learns ? kept : at::Tensor()});
    ctx->saved_data["turned"] = turned;
    ctx->saved_data["function"] = function;
    ctx->saved_data["bias"] =
        static_cast<int64_t>(bias_any ? bias_any->scalar_type() : at::ScalarType::Undefined);
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    bool turned = ctx->saved_data["turned"].toBool();
    int64_t function = ctx->saved_data["function"].toInt();
    at::Tensor grad = grads[0].contiguous(), grad_x, grad_weight, grad_bias;
    if (function >= 0) grad = activated_gradient(checked_activation(function), saved[2], grad);
    if (ctx->needs_input_grad(0)) grad_x = grad_of_x(grad, weight, !turned, x.scalar_type());
    if (ctx->needs_input_grad(1))
      grad_weight =
          transposed_product(turned ? grad : x, turned ? x : grad).to(weight.scalar_type());
    auto kind = static_cast<at::ScalarType>(ctx->saved_data["bias"].toInt());
    if (kind != at::ScalarType::Undefined && ctx->needs_input_grad(2)) {
      grad_bias = at::empty({grad.size(-1)}, grad.options().dtype(at::kFloat));
      sum_rows(grad.const_data_ptr<at::BFloat16>(), matrix<at::BFloat16>(grad).rows, grad.size(-1),
               grad_bias.mutable_data_ptr<float>());
      grad_bias = grad_bias.to(kind);
    }
    return {grad_x, grad_weight, grad_bias, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace docre
