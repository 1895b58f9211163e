// Element-wise functions, and the logarithm of a sum of exponentials. The bits of an element of the
// result depend on that element of the input alone. libtorch does not promise this: it uses one
// formula for whole vectors, and another for the rest at the end of a thread's share.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "checks.hpp"
#include "simd.hpp"
#include "tables.hpp"

namespace docre {

constexpr int64_t kActivationGrain = 16384;

// Φ(x), the distribution function of the standard normal distribution. It is computed from erfc by
// the fit of Numerical Recipes (Press et al., section 6.2, erfcc), whose relative error is
// below 1.2e-7 everywhere.
DOCRE_INLINE void normal_distribution(const Floats& x, Floats& to) {
  Floats z = (Floats)((Words)x & 0x7fffffffu) * 0.70710678118654752f, t = 1.0f / (1.0f + 0.5f * z);
  Floats fit = t * 0.17087277f - 0.82215223f;
  fit = fit * t + 1.48851587f;
  fit = fit * t - 1.13520398f;
  fit = fit * t + 0.27886807f;
  fit = fit * t - 0.18628806f;
  fit = fit * t + 0.09678418f;
  fit = fit * t + 0.37409196f;
  fit = fit * t + 1.00002368f;
  fit = fit * t - 1.26551223f;
  Floats tail = fit - z * z;
  exponential(tail);
  tail = 0.5f * t * tail;
  Words mask;
  negative(x, mask);
  choose(mask, tail, 1.0f - tail, to);
}

struct Gelu {
  DOCRE_INLINE void forward(const Floats& x, Floats& y) {
    normal_distribution(x, y);
    y = x * y;
  }
  // `kept`: x.
  DOCRE_INLINE void backward(const Floats& kept, Floats& slope) {
    Floats density = -0.5f * kept * kept;
    exponential(density);
    normal_distribution(kept, slope);
    slope += kept * (density * 0.39894228040143268f);
  }
};

struct GeluTanh {
  DOCRE_INLINE void inner(const Floats& x, Floats& t) {
    t = 0.79788456080286536f * (x + 0.044715f * (x * x * x));
    hyperbolic_tangent(t);
  }
  DOCRE_INLINE void forward(const Floats& x, Floats& y) {
    inner(x, y);
    y = 0.5f * x * (1.0f + y);
  }
  DOCRE_INLINE void backward(const Floats& kept, Floats& slope) {
    Floats t;
    inner(kept, t);
    slope = 0.5f * (1.0f + t) + 0.5f * kept * (1.0f - t * t) *
                                    (0.79788456080286536f * (1.0f + 0.134145f * (kept * kept)));
  }
};

struct Tanh {
  DOCRE_INLINE void forward(const Floats& x, Floats& y) {
    y = x;
    hyperbolic_tangent(y);
  }
  // `kept`: the result.
  DOCRE_INLINE void backward(const Floats& kept, Floats& slope) { slope = 1.0f - kept * kept; }
};

struct Sigmoid {
  DOCRE_INLINE void forward(const Floats& x, Floats& y) {
    y = x;
    sigmoid(y);
  }
  DOCRE_INLINE void backward(const Floats& kept, Floats& slope) { slope = kept * (1.0f - kept); }
};

template <typename Kind>
DOCRE_INLINE void activate_all(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    Floats in, out;
    load_next(x + i, count - i, in);
    Kind::forward(in, out);
    store_next(y + i, count - i, out);
  }
}

template <typename Kind>
DOCRE_INLINE void slope_all(const float* kept, const float* grad, float* to, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    Floats in, g, out;
    load_next(kept + i, count - i, in);
    load_next(grad + i, count - i, g);
    Kind::backward(in, out);
    store_next(to + i, count - i, g * out);
  }
}

DOCRE_CLONES void activate(Activation kind, const float* x, float* y, int64_t count) {
  switch (kind) {
    case Activation::kGelu:
      return activate_all<Gelu>(x, y, count);
    case Activation::kGeluTanh:
      return activate_all<GeluTanh>(x, y, count);
    case Activation::kTanh:
      return activate_all<Tanh>(x, y, count);
    case Activation::kSigmoid:
      return activate_all<Sigmoid>(x, y, count);
  }
}

// `kept`: the argument, or the result, as the function's `backward` needs it.
DOCRE_CLONES void activation_gradient(Activation kind, const float* kept, const float* grad,
                                      float* to, int64_t count) {
  switch (kind) {
    case Activation::kGelu:
      return slope_all<Gelu>(kept, grad, to, count);
    case Activation::kGeluTanh:
      return slope_all<GeluTanh>(kept, grad, to, count);
    case Activation::kTanh:
      return slope_all<Tanh>(kept, grad, to, count);
    case Activation::kSigmoid:
      return slope_all<Sigmoid>(kept, grad, to, count);
  }
}

// A function of 16-bit numbers and its slope, as tables: there are 65,536 such numbers. Those of a
// model lie in a small part of the tables, which stays in the nearest cache.
struct HalfFunction {
  std::vector<c10::BFloat16> values;
  std::vector<float> slopes;

  explicit HalfFunction(Activation kind) {
    constexpr int64_t kCount = 1 << 16;
    std::vector<float> numbers(kCount), ones(kCount, 1.0f), results(kCount);
    for (int64_t i = 0; i < kCount; i++)
      numbers[i] = c10::BFloat16(static_cast<uint16_t>(i), c10::BFloat16::from_bits());
    activate(kind, numbers.data(), results.data(), kCount);
    values.assign(results.begin(), results.end());
    slopes.resize(kCount);
    activation_gradient(kind, numbers.data(), ones.data(), slopes.data(), kCount);
  }
  static const HalfFunction& of(Activation kind) {
    static const HalfFunction all[] = {
        HalfFunction(Activation::kGelu), HalfFunction(Activation::kGeluTanh),
        HalfFunction(Activation::kTanh), HalfFunction(Activation::kSigmoid)};
    return all[static_cast<int64_t>(kind)];
  }
};

inline void activate(Activation kind, const c10::BFloat16* x, c10::BFloat16* y, int64_t count) {
  const c10::BFloat16* values = HalfFunction::of(kind).values.data();
#pragma GCC unroll 8
  for (int64_t i = 0; i < count; i++) y[i] = values[x[i].x];
}

DOCRE_CLONES void multiply_each(const float* a, const c10::BFloat16* b, c10::BFloat16* to,
                                int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    Floats x, y;
    load_next(a + i, count - i, x);
    load_next(b + i, count - i, y);
    store_next(to + i, count - i, x * y);
  }
}
inline void activation_gradient(Activation kind, const c10::BFloat16* kept,
                                const c10::BFloat16* grad, c10::BFloat16* to, int64_t count) {
  constexpr int64_t kSome = 512;
  const auto& slopes = HalfFunction::of(kind).slopes;
  float own[kSome];
  for (int64_t i = 0; i < count; i += kSome) {
    int64_t some = std::min(kSome, count - i);
    for (int64_t c = 0; c < some; c++) own[c] = slopes[kept[i + c].x];
    multiply_each(own, grad + i, to + i, some);
  }
}

inline Activation checked_activation(int64_t kind) {
  TORCH_CHECK(kind >= 0 && kind <= static_cast<int64_t>(Activation::kSigmoid),
              "activation: function ", kind, " is not known");
  return static_cast<Activation>(kind);
}
// Whether the slope is computed from the argument, or else from the result.
inline bool slope_needs_argument(Activation kind) {
  return kind == Activation::kGelu || kind == Activation::kGeluTanh;
}

// The function of each element of contiguous numbers.
inline at::Tensor activated(Activation kind, const at::Tensor& x) {
  at::Tensor y = at::empty_like(x);
  for_kind("activation", x, [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.const_data_ptr<T>();
    T* to = y.mutable_data_ptr<T>();
    at::parallel_for(0, x.numel(), kActivationGrain, [&](int64_t begin, int64_t end) {
      activate(kind, from + begin, to + begin, end - begin);
    });
  });
  return y;
}

// The gradient of the argument.
inline at::Tensor activated_gradient(Activation kind, const at::Tensor& kept,
                                     const at::Tensor& grad_any) {
  at::Tensor grad = grad_any.contiguous(), out = at::empty_like(kept);
  for_kind("activation", kept, [&](auto zero) {
    using T = decltype(zero);
    const T *from = kept.const_data_ptr<T>(), *upstream = grad.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    at::parallel_for(0, kept.numel(), kActivationGrain, [&](int64_t begin, int64_t end) {
      activation_gradient(kind, from + begin, upstream + begin, to + begin, end - begin);
    });
  });
  return out;
}

// Applies a function to each element.
struct Activated : torch::autograd::Function<Activated> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_any,
                            int64_t kind) {
    TORCH_CHECK(x_any.device().is_cpu(), "activation: numbers must be on the CPU, not on ",
                x_any.device());
    Activation function = checked_activation(kind);
    at::Tensor x = x_any.contiguous(), y = activated(function, x);
    ctx->save_for_backward({slope_needs_argument(function) ? x : y});
    ctx->saved_data["kind"] = kind;
    return y;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto kind = static_cast<Activation>(ctx->saved_data["kind"].toInt());
    return {activated_gradient(kind, ctx->get_saved_variables()[0], grads[0]), at::Tensor()};
  }
};

// out [width] = log Σ exp over the rows of x [rows, width]. Rows are added in their order. A row
// far below the largest adds nothing.
DOCRE_CLONES void log_sum_exp_rows(const float* x, int64_t rows, int64_t width, float* out) {
  for (int64_t c = 0; c < width; c += kLanes) {
    int64_t left = width - c;
    Floats top, sum = {}, v;
    load_next(x + c, left, top);
    for (int64_t r = 1; r < rows; r++) {
      load_next(x + r * width + c, left, v);
      maximum(top, v);
    }
    for (int64_t r = 0; r < rows; r++) {
      load_next(x + r * width + c, left, v);
      v -= top;
      exponential(v);
      sum += v;
    }
    for (int64_t i = 0; i < std::min(kLanes, left); i++) out[c + i] = top[i] + std::log(sum[i]);
  }
}

DOCRE_CLONES void log_sum_exp_gradient(const float* x, const float* out, const float* grad,
                                       int64_t rows, int64_t width, float* to) {
  for (int64_t r = 0; r < rows; r++, x += width, to += width)
    for (int64_t c = 0; c < width; c += kLanes) {
      int64_t left = width - c;
      Floats v, o, g;
      load_next(x + c, left, v);
      load_next(out + c, left, o);
      load_next(grad + c, left, g);
      v -= o;
      exponential(v);
      store_next(to + c, left, g * v);
    }
}

// log Σ exp over the middle axis: x [groups, rows, width] → [groups, width].
struct LogSumExp : torch::autograd::Function<LogSumExp> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_any) {
    at::Tensor x = x_any.contiguous();
    TORCH_CHECK(
        x.dim() == 3 && x.size(1) > 0 && x.device().is_cpu() && x.scalar_type() == at::kFloat,
        "log-sum-exp: the input must be [groups, rows, width] of 32-bit floats on the CPU with at "
        "least one row, not ",
        x.sizes(), " of ", x.scalar_type(), " on ", x.device());
    at::Tensor out = at::empty({x.size(0), x.size(2)}, x.options());
    int64_t rows = x.size(1), width = x.size(2);
    const float* from = x.const_data_ptr<float>();
    float* to = out.mutable_data_ptr<float>();
    at::parallel_for(0, x.size(0), 1 + kActivationGrain / (1 + rows * width),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t g = begin; g < end; g++)
                         log_sum_exp_rows(from + g * rows * width, rows, width, to + g * width);
                     });
    ctx->save_for_backward({x, out});
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &out = saved[1];
    at::Tensor grad = grads[0].contiguous(), grad_x = at::empty_like(x);
    int64_t rows = x.size(1), width = x.size(2);
    const float *from = x.const_data_ptr<float>(), *sums = out.const_data_ptr<float>(),
                *upstream = grad.const_data_ptr<float>();
    float* to = grad_x.mutable_data_ptr<float>();
    at::parallel_for(
        0, x.size(0), 1 + kActivationGrain / (1 + rows * width), [&](int64_t begin, int64_t end) {
          for (int64_t g = begin; g < end; g++)
            log_sum_exp_gradient(from + g * rows * width, sums + g * width, upstream + g * width,
                                 rows, width, to + g * rows * width);
        });
    return {grad_x};
  }
};

}  // namespace docre
