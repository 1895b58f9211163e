// Layer normalisation of a sum on the CPU: norm(x + dropout(y)) · weight + bias, and its gradients,
// in one pass over each row.
//
// Sums and results have 32 bits. The bits of a row of the result, and of its gradients, depend on
// that row alone; those of the weight's and the bias's do not depend on the number of threads.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <vector>

#include "checks.hpp"
#include "dropout.hpp"
#include "simd.hpp"
#include "tasks.hpp"

namespace docre {

constexpr int64_t kNormWork = 32768;  // numbers worth another thread
constexpr int64_t kNormRows = 256;    // rows whose shares of the weight's gradient are added first

// What one call works on. `y`, `bias` and `keys` may be null.
template <typename T>
struct NormRows {
  const float* x;
  const T* y;
  const float *weight, *bias;
  const int64_t* keys;  // of the rows' masks
  uint64_t salt;
  uint32_t threshold;
  float keep_scale, epsilon;
  int64_t width;
};

// sum = x + dropout(y), and its mean.
template <typename T>
DOCRE_INLINE float add_row(const NormRows<T>& rows, int64_t row, float* sum) {
  int64_t width = rows.width, first = row * width;
  RowKey key = rows.keys ? row_key(rows.keys[row], rows.salt) : RowKey{};
  Floats total = {};
  for (int64_t c = 0; c < width; c += kLanes) {
    Floats a, b;
    load_next(rows.x + first + c, width - c, a);
    if (rows.y) {
      load_next(rows.y + first + c, width - c, b);
      if (rows.keys) drop_lanes(key, c, rows.threshold, rows.keep_scale, b);
      a += b;
    }
    total += a;
    store_next(sum + c, width - c, a);
  }
  return sum_halves(total) / static_cast<float>(width);
}

// 1 / √(variance + ε).
DOCRE_INLINE float inverse_deviation(const float* sum, float mean, int64_t width, float epsilon) {
  Floats squares = {};
  for (int64_t c = 0; c < width; c += kLanes) {
    Floats a;
    load_next(sum + c, width - c, a);
    a -= mean;
    for (int64_t i = width - c; i < kLanes; i++) a[i] = 0;
    squares += a * a;
  }
  return 1.0f / std::sqrt(sum_halves(squares) / static_cast<float>(width) + epsilon);
}

template <typename T>
DOCRE_INLINE void norm_all(const NormRows<T>& rows, int64_t begin, int64_t end, float* sums,
                           float* means, float* inverses, float* out) {
  int64_t width = rows.width;
  std::vector<float> own(sums ? 0 : width);
  for (int64_t row = begin; row < end; row++) {
    float *sum = sums ? sums + row * width : own.data(), *to = out + row * width;
    float mean = add_row(rows, row, sum),
          inverse = inverse_deviation(sum, mean, width, rows.epsilon);
    if (sums) {
      means[row] = mean;
      inverses[row] = inverse;
    }
    for (int64_t c = 0; c < width; c += kLanes) {
      Floats a, w, b = {};
      load_next(sum + c, width - c, a);
      load_next(rows.weight + c, width - c, w);
      if (rows.bias) load_next(rows.bias + c, width - c, b);
      store_next(to + c, width - c, (a - mean) * inverse * w + b);
    }
  }
}
// `sums`, `means` and `inverses` are what the gradients need, or null.
DOCRE_CLONES void norm_rows(const NormRows<float>& rows, int64_t begin, int64_t end, float* sums,
                            float* means, float* inverses, float* out) {
  norm_all(rows, begin, end, sums, means, inverses, out);
}
DOCRE_CLONES void norm_rows(const NormRows<c10::BFloat16>& rows, int64_t begin, int64_t end,
                            float* sums, float* means, float* inverses, float* out) {
  norm_all(rows, begin, end, sums, means, inverses, out);
}

// What forward kept, and where gradients go. `of_y` may be null.
template <typename T>
struct NormGrads {
  const float *sums, *means, *inverses, *grad;
  float* of_x;
  T* of_y;
};

// Adds the rows' shares to the gradients of weight and bias.
template <typename T>
DOCRE_INLINE void norm_all_backward(const NormRows<T>& rows, const NormGrads<T>& grads,
                                    int64_t begin, int64_t end, float* of_weight, float* of_bias) {
  int64_t width = rows.width;
  for (int64_t row = begin; row < end; row++) {
    const float *sum = grads.sums + row * width, *grad = grads.grad + row * width;
    float mean = grads.means[row], inverse = grads.inverses[row];
    Floats plain = {}, weighted = {};
    for (int64_t c = 0; c < width; c += kLanes) {
      Floats a, g, w, share;
      load_next(sum + c, width - c, a);
      load_next(grad + c, width - c, g);
      load_next(rows.weight + c, width - c, w);
      a = (a - mean) * inverse;
      load_next(of_weight + c, width - c, share);
      store_next(of_weight + c, width - c, share + g * a);
      load_next(of_bias + c, width - c, share);
      store_next(of_bias + c, width - c, share + g);
      g *= w;
      plain += g;
      weighted += g * a;
    }
    float share = 1.0f / static_cast<float>(width), shift = sum_halves(plain) * share,
          slope = sum_halves(weighted) * share;
    RowKey key = rows.keys ? row_key(rows.keys[row], rows.salt) : RowKey{};
    for (int64_t c = 0; c < width; c += kLanes) {
      Floats a, g, w;
      load_next(sum + c, width - c, a);
      load_next(grad + c, width - c, g);
      load_next(rows.weight + c, width - c, w);
      a = (a - mean) * inverse;
      g = (g * w - shift - a * slope) * inverse;
      store_next(grads.of_x + row * width + c, width - c, g);
      if (!grads.of_y) continue;
      if (rows.keys) drop_lanes(key, c, rows.threshold, rows.keep_scale, g);
      store_next(grads.of_y + row * width + c, width - c, g);
    }
  }
}
DOCRE_CLONES void norm_rows_backward(const NormRows<float>& rows, const NormGrads<float>& grads,
                                     int64_t begin, int64_t end, float* of_weight, float* of_bias) {
  norm_all_backward(rows, grads, begin, end, of_weight, of_bias);
}
DOCRE_CLONES void norm_rows_backward(const NormRows<c10::BFloat16>& rows,
                                     const NormGrads<c10::BFloat16>& grads, int64_t begin,
                                     int64_t end, float* of_weight, float* of_bias) {
  norm_all_backward(rows, grads, begin, end, of_weight, of_bias);
}

// x: 32 bits [rows, width]; y: of either kind, like x; weight, bias: [width]; keys: int64 [rows],
// for dropout of y. If `learns`, what the gradients need is kept.
struct SumNorm : torch::autograd::Function<SumNorm> {
  template <typename T>
  static NormRows<T> rows_of(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight,
                             const at::Tensor& bias, const at::Tensor& keys, int64_t salt, double p,
                             double epsilon) {
    return {x.defined() ? x.const_data_ptr<float>() : nullptr,
            y.defined() ? y.const_data_ptr<T>() : nullptr,
            weight.const_data_ptr<float>(),
            bias.defined() ? bias.const_data_ptr<float>() : nullptr,
            keys.defined() ? keys.const_data_ptr<int64_t>() : nullptr,
            static_cast<uint64_t>(salt),
            threshold_of(p),
            static_cast<float>(1.0 / (1.0 - p)),
            static_cast<float>(epsilon),
            weight.numel()};
  }

  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_any,
                            const std::optional<at::Tensor>& y_any, const at::Tensor& weight_any,
                            const std::optional<at::Tensor>& bias_any,
                            const std::optional<at::Tensor>& keys_any, int64_t salt, double p,
                            double epsilon, bool learns) {
    at::Tensor x = x_any.contiguous(), y = y_any ? y_any->contiguous() : at::Tensor(),
               weight = weight_any.contiguous(),
               bias = bias_any ? bias_any->contiguous() : at::Tensor(),
               keys = keys_any ? *keys_any : at::Tensor();
    int64_t width = weight.numel();
    TORCH_CHECK(x.dim() > 0 && width > 0 && x.size(-1) == width && x.scalar_type() == at::kFloat &&
                    x.device().is_cpu() && weight.scalar_type() == at::kFloat &&
                    weight.device().is_cpu(),
                "norm: rows of ", x.sizes(), " and a weight of ", weight.sizes(),
                " must have 32-bit numbers of one width on the CPU");
    TORCH_CHECK(!bias.defined() || (bias.numel() == width && bias.scalar_type() == at::kFloat),
                "norm: the bias must be like the weight, ", weight.sizes(), ", not ", bias.sizes());
    TORCH_CHECK(!y.defined() || (y.sizes() == x.sizes() && y.device().is_cpu()),
                "norm: what is added, ", y.sizes(), ", is not like the rows, ", x.sizes());
    int64_t count = x.numel() / width;
    TORCH_CHECK(!keys.defined() || (y.defined() && is_host_table(keys) && keys.numel() == count),
                "norm: dropout needs something to drop and one int64 key a row on the host");
    at::Tensor out = at::empty_like(x), sums, means, inverses;
    if (learns) {
      sums = at::empty_like(x);
      means = at::empty({count}, x.options());
      inverses = at::empty({count}, x.options());
    }
    auto numbers = [](at::Tensor& z) {
      return z.defined() ? z.mutable_data_ptr<float>() : nullptr;
    };
    float *to = numbers(out), *sum = numbers(sums), *mean = numbers(means),
          *inverse = numbers(inverses);
    for_kind("norm", y.defined() ? y : x, [&](auto zero) {
      auto rows = rows_of<decltype(zero)>(x, y, weight, bias, keys, salt, p, epsilon);
      at::parallel_for(0, count, grain(kNormWork, width), [&](int64_t begin, int64_t end) {
        norm_rows(rows, begin, end, sum, mean, inverse, to);
      });
    });
    ctx->save_for_backward({sums, means, inverses, weight, keys});
    ctx->saved_data["salt"] = salt;
    ctx->saved_data["p"] = p;
    ctx->saved_data["bias"] = bias.defined();
    ctx->saved_data["y"] =
        static_cast<int64_t>(y.defined() ? y.scalar_type() : at::ScalarType::Undefined);
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &sums = saved[0], &means = saved[1], &inverses = saved[2], &weight = saved[3],
                     &keys = saved[4];
    auto kind = static_cast<at::ScalarType>(ctx->saved_data["y"].toInt());
    bool added = kind != at::ScalarType::Undefined;
    int64_t width = weight.numel(), count = means.numel(),
            parts = (count + kNormRows - 1) / kNormRows;
    at::Tensor grad = grads[0].to(at::kFloat).contiguous(), of_x = at::empty_like(sums),
               of_y = added ? at::empty(sums.sizes(), sums.options().dtype(kind)) : at::Tensor(),
               shares = at::zeros({parts, 2, width}, sums.options());
    float* share = shares.mutable_data_ptr<float>();
    for_kind("norm", added ? of_y : of_x, [&](auto zero) {
      using T = decltype(zero);
      auto rows = rows_of<T>({}, {}, weight, {}, keys, ctx->saved_data["salt"].toInt(),
                             ctx->saved_data["p"].toDouble(), 0);
      NormGrads<T> own{
          sums.const_data_ptr<float>(),     means.const_data_ptr<float>(),
          inverses.const_data_ptr<float>(), grad.const_data_ptr<float>(),
          of_x.mutable_data_ptr<float>(),   added ? of_y.template mutable_data_ptr<T>() : nullptr};
      at::parallel_for(
          0, parts, grain(kNormWork, kNormRows * width), [&](int64_t begin, int64_t end) {
            for (int64_t part = begin; part < end; part++)
              norm_rows_backward(rows, own, part * kNormRows,
                                 std::min((part + 1) * kNormRows, count), share + part * 2 * width,
                                 share + (part * 2 + 1) * width);
          });
    });
    at::Tensor both = at::zeros({2, width}, sums.options());
    float* total = both.mutable_data_ptr<float>();
    for (int64_t part = 0; part < parts; part++)
      for (int64_t c = 0; c < 2 * width; c++) total[c] += share[part * 2 * width + c];
    at::Tensor none;
    return {of_x, of_y, both[0], ctx->saved_data["bias"].toBool() ? both[1] : none, none, none,
            none, none, none};
  }
};

}  // namespace docre
