// Products of 32-bit matrices on the CPU, x · Wᵀ + b or x · W + b, and their gradients.
//
// The tiles of panel.hpp add each sum in the order of its terms. So a row of the result, and of the
// gradient of x, has the same bits whatever other rows there are. The gradient of the weight is a
// sum over rows; its bits do not depend on the number of threads.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/TensorImpl.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstring>
#include <vector>

#include "panel.hpp"
#include "tasks.hpp"

namespace docre {

constexpr int64_t kChunk = 126;         // rows of a task: whole tiles
constexpr int64_t kTaskWork = 1 << 20;  // multiplications worth another thread

// Rows of numbers, `stride` apart.
struct Matrix {
  const float* data;
  int64_t rows, columns, stride;
};

// A matrix cut into panels of 64 columns, [rows][64] each, one after the other. The last panel has
// only as many lanes as it needs, with zeros beyond the last column.
struct Panels {
  std::vector<float> data;
  int64_t depth, columns;
  Panels(int64_t depth_, int64_t columns_)
      : data(depth_ * padded(columns_)), depth(depth_), columns(columns_) {}
  int64_t count() const { return pieces(columns, kPanel); }
  int64_t width(int64_t i) const { return std::min(kPanel, columns - i * kPanel); }
  Panel at(int64_t i) const {
    return {data.data() + i * kPanel * depth, padded(width(i)), depth, padded(width(i)) / kLanes};
  }
  float* row(int64_t i, int64_t k) {
    return data.data() + i * kPanel * depth + k * padded(width(i));
  }
};

inline Panels panels_of(const Matrix& b) {
  Panels panels(b.rows, b.columns);
  at::parallel_for(0, panels.count(), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++)
      for (int64_t k = 0; k < b.rows; k++)
        std::memcpy(panels.row(i, k), b.data + k * b.stride + i * kPanel,
                    panels.width(i) * sizeof(float));
  });
  return panels;
}

// The panels of the transpose of b.
inline Panels panels_of_transposed(const Matrix& b) {
  Panels panels(b.columns, b.rows);
  at::parallel_for(0, panels.count(), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++)
      transpose(b.data + i * kPanel * b.stride, b.stride, panels.width(i), b.columns,
                panels.row(i, 0), padded(panels.width(i)));
  });
  return panels;
}

// The columns of one panel, for some rows of a · panels + bias.
inline void multiply_chunk(const Matrix& a, int64_t first, int64_t rows, const Panels& panels,
                           int64_t i, const float* start, float* out) {
  const float* from = a.data + first * a.stride;
  float* to = out + first * panels.columns + i * kPanel;
  auto own = [&](int64_t r) { return from + r * a.stride; };
  int64_t width = panels.width(i);
  if (width % kLanes == 0)
    return panel_product(own, 1, rows, panels.at(i), start,
                         [&](int64_t r) { return to + r * panels.columns; });
  alignas(64) float whole[kChunk * kPanel];
  panel_product(own, 1, rows, panels.at(i), start, [&](int64_t r) { return whole + r * kPanel; });
  for (int64_t r = 0; r < rows; r++)
    std::memcpy(to + r * panels.columns, whole + r * kPanel, width * sizeof(float));
}

// out [a.rows, panels.columns] = a · panels + bias, if there is one.
inline void multiply(const Matrix& a, const Panels& panels, const float* bias, float* out) {
  std::vector<float> start(padded(panels.columns));
  if (bias) std::memcpy(start.data(), bias, panels.columns * sizeof(float));
  int64_t chunks = pieces(a.rows, kChunk), work = std::min(a.rows, kChunk) * kPanel * panels.depth;
  at::parallel_for(0, chunks * panels.count(), grain(kTaskWork, work),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t task = begin; task < end; task++) {
                       int64_t first = task / panels.count() * kChunk, i = task % panels.count();
                       multiply_chunk(a, first, std::min(kChunk, a.rows - first), panels, i,
                                      start.data() + i * kPanel, out);
                     }
                   });
}

inline void copy_block(const Matrix& from, int64_t row, int64_t rows, int64_t column,
                       int64_t columns, float* to, int64_t stride) {
  for (int64_t r = 0; r < rows; r++)
    std::memcpy(to + r * stride, from.data + (row + r) * from.stride + column,
                columns * sizeof(float));
}

// Rows m..m+rows and columns n..n+columns of aᵀ · b.
inline void multiply_transposed_block(const Matrix& a, const Matrix& b, int64_t m, int64_t rows,
                                      int64_t n, int64_t columns, float* out) {
  constexpr int64_t kSpread = kDepth + kLanes;
  alignas(64) float left[kDepth * kSpread], right[kDepth * kPanel], sums[kDepth * kPanel] = {};
  int64_t width = padded(columns);
  std::memset(right, 0, sizeof(right));
  for (int64_t k = 0; k < a.rows; k += kDepth) {
    int64_t depth = std::min(kDepth, a.rows - k);
    copy_block(a, k, depth, m, rows, left, kSpread);
    copy_block(b, k, depth, n, columns, right, width);
    panel_product([&](int64_t r) { return left + r; }, kSpread, rows,
                  Panel{right, width, depth, width / kLanes}, nullptr,
                  [&](int64_t r) { return sums + r * width; });
  }
  for (int64_t r = 0; r < rows; r++)
    std::memcpy(out + (m + r) * b.columns + n, sums + r * width, columns * sizeof(float));
}

// out [a.columns, b.columns] = aᵀ · b.
inline void multiply_transposed(const Matrix& a, const Matrix& b, float* out) {
  int64_t heights = pieces(a.columns, kDepth), widths = pieces(b.columns, kPanel),
          work = std::min(a.columns, kDepth) * kPanel * a.rows;
  at::parallel_for(0, heights * widths, grain(kTaskWork, work), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      int64_t m = task / widths * kDepth, n = task % widths * kPanel;
      multiply_transposed_block(a, b, m, std::min(kDepth, a.columns - m), n,
                                std::min(kPanel, b.columns - n), out);
    }
  });
}

template <typename T>
DOCRE_INLINE void add_rows_of(const T* rows, int64_t count, int64_t stride, int64_t width,
                              float* sums) {
  for (int64_t r = 0; r < count; r++)
    for (int64_t c = 0; c < width; c += kLanes) {
      Floats sum, x;
      load_next(sums + c, width - c, sum);
      load_next(rows + r * stride + c, width - c, x);
      store_next(sums + c, width - c, sum + x);
    }
}
// sums [width] += the rows, which lie `stride` apart.
DOCRE_CLONES void add_rows(const float* rows, int64_t count, int64_t stride, int64_t width,
                           float* sums) {
  add_rows_of(rows, count, stride, width, sums);
}
DOCRE_CLONES void add_rows(const c10::BFloat16* rows, int64_t count, int64_t stride, int64_t width,
                           float* sums) {
  add_rows_of(rows, count, stride, width, sums);
}

// out [columns] = the sum of all rows, kDepth of them at a time.
template <typename T>
void sum_rows(const T* data, int64_t rows, int64_t columns, float* out) {
  at::parallel_for(0, pieces(columns, kPanel), grain(kTaskWork / 16, rows * kPanel),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t column = begin * kPanel; column < std::min(end * kPanel, columns);
                          column += kPanel) {
                       int64_t width = std::min(kPanel, columns - column);
                       float total[kPanel] = {};
                       for (int64_t row = 0; row < rows; row += kDepth) {
                         float sums[kPanel] = {};
                         add_rows(data + row * columns + column, std::min(kDepth, rows - row),
                                  columns, width, sums);
                         for (int64_t c = 0; c < width; c++) total[c] += sums[c];
                       }
                       std::memcpy(out + column, total, width * sizeof(float));
                     }
                   });
}

// x [.., in] · weight [in, out], or · weight [out, in] transposed if `turned`, + bias [out] if
// there is one.
struct Product : torch::autograd::Function<Product> {
  static Matrix matrix(const at::Tensor& z) {
    int64_t rows = c10::size_to_dim_(static_cast<int>(z.dim() - 1), z.sizes());
    return {z.const_data_ptr<float>(), rows, z.size(-1), z.size(-1)};
  }
  static void check_ours(const at::Tensor& z) {
    TORCH_CHECK(z.device().is_cpu() && z.scalar_type() == at::kFloat,
                "product: numbers must be 32-bit floats on the CPU, not ", z.scalar_type(), " on ",
                z.device());
  }

  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_any,
                            const at::Tensor& weight_any, const std::optional<at::Tensor>& bias_any,
                            bool turned) {
    at::Tensor x = x_any.contiguous(), weight = weight_any.contiguous(),
               bias = bias_any ? bias_any->contiguous() : at::Tensor();
    TORCH_CHECK(x.dim() > 0 && weight.dim() == 2 && x.size(-1) > 0 &&
                    x.size(-1) == weight.size(turned ? 1 : 0),
                "product: rows of ", x.sizes(), " do not fit a weight of ", weight.sizes(),
                turned ? ", which is transposed" : "");
    int64_t columns = weight.size(turned ? 0 : 1);
    check_ours(x);
    check_ours(weight);
    TORCH_CHECK(!bias.defined() || bias.numel() == columns, "product: the bias must have ", columns,
                " numbers, not ", bias.sizes());
    if (bias.defined()) check_ours(bias);
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes.back() = columns;
    at::Tensor out = at::empty(sizes, x.options());
    Panels panels = turned ? panels_of_transposed(matrix(weight)) : panels_of(matrix(weight));
    multiply(matrix(x), panels, bias.defined() ? bias.const_data_ptr<float>() : nullptr,
             out.mutable_data_ptr<float>());
    ctx->save_for_backward({x, weight});
    ctx->saved_data["turned"] = turned;
    ctx->saved_data["bias"] = bias.defined();
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    bool turned = ctx->saved_data["turned"].toBool();
    at::Tensor grad = grads[0].contiguous(), grad_x, grad_weight, grad_bias;
    if (ctx->needs_input_grad(0)) {
      grad_x = at::empty_like(x);
      Panels panels = turned ? panels_of(matrix(weight)) : panels_of_transposed(matrix(weight));
      multiply(matrix(grad), panels, nullptr, grad_x.mutable_data_ptr<float>());
    }
    if (ctx->needs_input_grad(1)) {
      grad_weight = at::empty_like(weight);
      multiply_transposed(matrix(turned ? grad : x), matrix(turned ? x : grad),
                          grad_weight.mutable_data_ptr<float>());
    }
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2)) {
      grad_bias = at::empty({grad.size(-1)}, grad.options());
      sum_rows(grad.const_data_ptr<float>(), matrix(grad).rows, grad.size(-1),
               grad_bias.mutable_data_ptr<float>());
    }
    return {grad_x, grad_weight, grad_bias, at::Tensor()};
  }
};

// One pair of a batch of matrices: a · b, or a · bᵀ.
inline void multiply_matrices(const Matrix& a, const Matrix& b, float* out) {
  multiply(a, panels_of(b), nullptr, out);
}
inline void multiply_turned(const Matrix& a, const Matrix& b, float* out) {
  if (a.rows >= b.rows) return multiply(a, panels_of_transposed(b), nullptr, out);
  // The matrix with fewer rows is packed. Each sum is the same either way.
  std::vector<float> turned(a.rows * b.rows);
  multiply(b, panels_of_transposed(a), nullptr, turned.data());
  transpose(turned.data(), a.rows, b.rows, a.rows, out, b.rows);
}

// x [batch, n, k] · y [batch, k, m], or · y [batch, m, k] transposed if `turned`; the result is
// [batch, n, m]. The entries of a batch do not depend on each other.
struct BatchedProduct : torch::autograd::Function<BatchedProduct> {
  static Matrix entry(const at::Tensor& z, int64_t i) {
    return {z.const_data_ptr<float>() + i * z.size(1) * z.size(2), z.size(1), z.size(2), z.size(2)};
  }

  template <typename Each>
  static void for_each(const at::Tensor& x, int64_t columns, const Each& each) {
    int64_t work = x.size(1) * x.size(2) * columns;
    at::parallel_for(0, x.size(0), grain(kTaskWork, work), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) each(i);
    });
  }

  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_any,
                            const at::Tensor& y_any, bool turned) {
    at::Tensor x = x_any.contiguous(), y = y_any.contiguous();
    TORCH_CHECK(x.dim() == 3 && y.dim() == 3 && x.size(0) == y.size(0) &&
                    x.size(2) == y.size(turned ? 2 : 1),
                "product: a batch of ", x.sizes(), " does not fit ", y.sizes(),
                turned ? ", which is transposed" : "");
    Product::check_ours(x);
    Product::check_ours(y);
    int64_t columns = y.size(turned ? 1 : 2);
    at::Tensor out = at::empty({x.size(0), x.size(1), columns}, x.options());
    float* to = out.mutable_data_ptr<float>();
    for_each(x, columns, [&](int64_t i) {
      (turned ? multiply_turned : multiply_matrices)(entry(x, i), entry(y, i),
                                                     to + i * x.size(1) * columns);
    });
    ctx->save_for_backward({x, y});
    ctx->saved_data["turned"] = turned;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &y = saved[1];
    bool turned = ctx->saved_data["turned"].toBool();
    at::Tensor grad = grads[0].contiguous(), grad_x = at::empty_like(x), grad_y = at::empty_like(y);
    float *to_x = grad_x.mutable_data_ptr<float>(), *to_y = grad_y.mutable_data_ptr<float>();
    for_each(x, grad.size(2), [&](int64_t i) {
      Matrix g = entry(grad, i);
      (turned ? multiply_matrices : multiply_turned)(g, entry(y, i),
                                                     to_x + i * x.size(1) * x.size(2));
      multiply_transposed(turned ? g : entry(x, i), turned ? entry(x, i) : g,
                          to_y + i * y.size(1) * y.size(2));
    });
    return {grad_x, grad_y, at::Tensor()};
  }
};

}  // namespace docre
