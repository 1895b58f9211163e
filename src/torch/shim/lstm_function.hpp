// The LSTM layer of lstm.hpp as a function that libtorch can differentiate.
#pragma once
#include "lstm.hpp"

namespace docre {

inline LstmShape lstm_shape(const at::Tensor& x, const at::Tensor& offsets,
                            at::TensorList weights) {
  int64_t directions = weights.size() / kLstmWeights;
  TORCH_CHECK((directions == 1 || directions == 2) &&
                  weights.size() == static_cast<size_t>(directions * kLstmWeights),
              "lstm: four weights for each of one or two directions are needed, not ",
              weights.size());
  TORCH_CHECK(x.dim() == 2 && x.scalar_type() == at::kFloat && x.device().is_cpu(),
              "lstm: the input must be [tokens, in] of 32-bit floats on the CPU, not ", x.sizes(),
              " of ", x.scalar_type(), " on ", x.device());
  const int64_t* offset = checked_offsets("lstm", offsets, x.size(0));
  int64_t hidden = weights[1].dim() == 2 ? weights[1].size(1) : 0;
  LstmShape shape{x.size(0), offsets.numel() - 1, x.size(1), hidden, directions, offset};
  TORCH_CHECK(shape.input > 0 && shape.hidden > 0, "lstm: neither the input ", x.sizes(),
              " nor the recurrent weight ", weights[1].sizes(), " may be empty");
  for (size_t i = 0; i < weights.size(); i++) {
    const int64_t columns[] = {shape.input, shape.hidden, 0, 0};
    std::vector<int64_t> wanted{4 * shape.hidden};
    if (columns[i % kLstmWeights]) wanted.push_back(columns[i % kLstmWeights]);
    TORCH_CHECK(weights[i].sizes() == wanted && weights[i].scalar_type() == at::kFloat &&
                    weights[i].device().is_cpu(),
                "lstm: weight ", i, " must be ", at::IntArrayRef(wanted),
                " of 32-bit floats on the CPU, not ", weights[i].sizes(), " of ",
                weights[i].scalar_type(), " on ", weights[i].device());
  }
  return shape;
}

// Copies [directions, sequences, hidden] to rows of `stride` numbers, with zeros beyond. Without a
// state, all numbers are zero.
inline at::Tensor widened(const LstmShape& shape, const std::optional<at::Tensor>& state,
                          int64_t stride) {
  at::Tensor rows = at::zeros({shape.directions, shape.sequences, stride}, at::kFloat);
  if (!state || !state->defined()) return rows;
  TORCH_CHECK(state->sizes() == at::IntArrayRef({shape.directions, shape.sequences, shape.hidden}),
              "lstm: an initial state must be [directions, sequences, hidden], here [",
              shape.directions, ", ", shape.sequences, ", ", shape.hidden, "], not ",
              state->sizes());
  rows.narrow(2, 0, shape.hidden).copy_(*state);
  return rows;
}

struct LstmBuffers {
  at::Tensor start_hidden, start_cell, gates, cells, out;
};

inline std::vector<LstmSide> lstm_sides(const LstmShape& shape, const LstmBuffers& buffers) {
  std::vector<LstmSide> sides;
  for (int64_t d = 0; d < shape.directions; d++) {
    auto part = [&](const at::Tensor& all) {
      return all.mutable_data_ptr<float>() + d * (all.numel() / shape.directions);
    };
    sides.push_back({d == 1, part(buffers.start_hidden), part(buffers.start_cell),
                     part(buffers.gates), part(buffers.cells),
                     buffers.out.mutable_data_ptr<float>() + d * shape.hidden});
  }
  return sides;
}

// The last hidden state and cell of each sequence, [directions, sequences, hidden]. An empty
// sequence keeps its initial state.
inline std::vector<at::Tensor> final_states(const LstmShape& shape,
                                            const std::vector<LstmSide>& sides) {
  std::vector<at::Tensor> states;
  for (int i = 0; i < 2; i++)
    states.push_back(at::empty({shape.directions, shape.sequences, shape.hidden}, at::kFloat));
  for (int64_t d = 0; d < shape.directions; d++)
    for (int64_t s = 0; s < shape.sequences; s++) {
      const LstmSide& side = sides[d];
      int64_t length = shape.length(s),
              token = length ? shape.token(s, length - 1, side.reverse) : 0,
              at = (d * shape.sequences + s) * shape.hidden;
      const float* hidden =
          length ? side.out + token * shape.width() : side.start_hidden + s * shape.units();
      const float* cell =
          length ? side.cells + token * shape.units() : side.start_cell + s * shape.units();
      std::memcpy(states[0].mutable_data_ptr<float>() + at, hidden, shape.hidden * sizeof(float));
      std::memcpy(states[1].mutable_data_ptr<float>() + at, cell, shape.hidden * sizeof(float));
    }
  return states;
}

inline at::Tensor packed_gates(const LstmShape& shape, const at::Tensor& weight) {
  at::Tensor from = weight.contiguous(),
             panels = at::empty({shape.blocks(), weight.size(1), kPanel}, at::kFloat);
  pack_for_gates(shape, from.const_data_ptr<float>(), weight.size(1),
                 panels.mutable_data_ptr<float>());
  return panels;
}

inline at::Tensor packed_inputs(const LstmShape& shape, const at::Tensor& weight) {
  at::Tensor from = weight.contiguous(),
             panels = at::empty({rounded_up(weight.size(1), kPanel), shape.gates()}, at::kFloat);
  pack_for_inputs(shape, from.const_data_ptr<float>(), weight.size(1),
                  panels.mutable_data_ptr<float>());
  return panels;
}

// The weights of a direction are weight_ih [4H, in], weight_hh [4H, H], bias_ih [4H] and bias_hh
// [4H]. The inputs are x [tokens, in], offsets [sequences + 1], the initial hidden state and cell
// [directions, sequences, hidden] (zeros if absent), and the weights. The outputs are the states
// [tokens, directions · hidden], and the final hidden state and cell [directions, sequences,
// hidden].
struct PackedLstm : torch::autograd::Function<PackedLstm> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const at::Tensor& x_any, const at::Tensor& offsets,
                                                const std::optional<at::Tensor>& hidden,
                                                const std::optional<at::Tensor>& cell,
                                                at::TensorList weights) {
    LstmShape shape = lstm_shape(x_any, offsets, weights);
    at::Tensor x = x_any.contiguous();
    auto empty = [&](at::IntArrayRef sizes) { return at::empty(sizes, x.options()); };
    LstmBuffers buffers{widened(shape, hidden, shape.units()), widened(shape, cell, shape.units()),
                        empty({shape.directions, shape.tokens, shape.gates()}),
                        empty({shape.directions, shape.tokens, shape.units()}),
                        empty({shape.tokens, shape.width()})};
    std::vector<LstmSide> sides = lstm_sides(shape, buffers);
    std::vector<at::Tensor> recurrent;
    for (int64_t d = 0; d < shape.directions; d++) {
      const at::Tensor* weight = &weights[d * kLstmWeights];
      at::Tensor panels = packed_gates(shape, weight[0]),
                 bias = packed_gates(shape, (weight[2] + weight[3]).unsqueeze(1));
      lstm_multiply(shape.tokens, x.const_data_ptr<float>(), shape.input,
                    panels.const_data_ptr<float>(), bias.const_data_ptr<float>(), sides[d].gates,
                    shape.gates());
      recurrent.push_back(packed_gates(shape, weight[1]));
    }
    for_each_side(shape, sides, [&](int64_t d, const std::vector<int64_t>& order) {
      lstm_advance(shape, sides[d], recurrent[d].const_data_ptr<float>(), order);
    });
    std::vector<at::Tensor> finals = final_states(shape, sides);
    torch::autograd::variable_list saved{
        x,          offsets, buffers.start_hidden, buffers.start_cell, buffers.gates, buffers.cells,
        buffers.out};
    saved.insert(saved.end(), weights.begin(), weights.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["hidden"] = hidden.has_value();
    ctx->saved_data["cell"] = cell.has_value();
    ctx->saved_data["spent"] = false;
    ctx->set_materialize_grads(false);
    return {buffers.out, finals[0], finals[1]};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    TORCH_CHECK(
        !ctx->saved_data["spent"].toBool(),
        "lstm: backward overwrites the gates, so it runs once; it was called a second time");
    ctx->saved_data["spent"] = true;
    auto saved = ctx->get_saved_variables();
    const at::Tensor& x = saved[0];
    at::TensorList weights(saved.data() + 7, saved.size() - 7);
    LstmShape shape = lstm_shape(x, saved[1], weights);
    std::vector<LstmSide> sides =
        lstm_sides(shape, {saved[2], saved[3], saved[4], saved[5], saved[6]});
    int64_t stride = rounded_up(shape.hidden, kPanel);
    at::Tensor hidden = widened(shape, grads[1], stride),
               cell = widened(shape, grads[2], shape.units());
    retreat(shape, sides, weights, grads[0].defined() ? grads[0].contiguous() : at::Tensor(),
            hidden, cell);
    torch::autograd::variable_list result{
        ctx->needs_input_grad(0) ? input_gradient(shape, sides, weights) : at::Tensor(),
        at::Tensor()};
    auto start = [&](const at::Tensor& state, bool given) {
      return given ? state.narrow(2, 0, shape.hidden).contiguous() : at::Tensor();
    };
    result.push_back(start(hidden, ctx->saved_data["hidden"].toBool()));
    result.push_back(start(cell, ctx->saved_data["cell"].toBool()));
    for (const LstmSide& side : sides)
      for (at::Tensor& grad : weight_gradients(shape, side, x)) result.push_back(std::move(grad));
    return result;
  }

 private:
  static void retreat(const LstmShape& shape, const std::vector<LstmSide>& sides,
                      at::TensorList weights, const at::Tensor& above, at::Tensor& hidden,
                      at::Tensor& cell) {
    std::vector<at::Tensor> recurrent;
    std::vector<LstmBack> back;
    for (int64_t d = 0; d < shape.directions; d++) {
      recurrent.push_back(packed_inputs(shape, weights[d * kLstmWeights + 1]));
      back.push_back(
          {hidden[d].mutable_data_ptr<float>(), cell[d].mutable_data_ptr<float>(), hidden.size(2),
           above.defined() ? above.const_data_ptr<float>() + d * shape.hidden : nullptr});
    }
    for_each_side(shape, sides, [&](int64_t d, const std::vector<int64_t>& order) {
      lstm_retreat(shape, sides[d], back[d], recurrent[d].const_data_ptr<float>(), order);
    });
  }

  // The gradient of x, [tokens, in].
  static at::Tensor input_gradient(const LstmShape& shape, const std::vector<LstmSide>& sides,
                                   at::TensorList weights) {
    int64_t stride = rounded_up(shape.input, kPanel);
    at::Tensor grad = at::empty({shape.tokens, stride}, at::kFloat);
    std::vector<float> zeros(stride);
    for (int64_t d = 0; d < shape.directions; d++) {
      at::Tensor panels = packed_inputs(shape, weights[d * kLstmWeights]);
      lstm_multiply(shape.tokens, sides[d].gates, shape.gates(), panels.const_data_ptr<float>(),
                    d == 0 ? zeros.data() : nullptr, grad.mutable_data_ptr<float>(), stride);
    }
    return grad.narrow(1, 0, shape.input).contiguous();
  }

  // The gradients of weight_ih, weight_hh, bias_ih and bias_hh.
  static std::vector<at::Tensor> weight_gradients(const LstmShape& shape, const LstmSide& side,
                                                  const at::Tensor& x) {
    int64_t columns = shape.input + shape.hidden + 1;
    at::Tensor sums = at::zeros({shape.blocks(), columns, kPanel}, at::kFloat);
    std::vector<const float*> before = states_before(shape, side);
    at::parallel_for(0, shape.blocks(),
                     std::max<int64_t>(1, shape.blocks() / at::get_num_threads()),
                     [&](int64_t begin, int64_t end) {
                       lstm_weight_gradients(shape, side, x.const_data_ptr<float>(), before.data(),
                                             begin, end, sums.mutable_data_ptr<float>());
                     });
    auto part = [&](int64_t first, int64_t count) {
      at::Tensor weight = at::empty({4 * shape.hidden, count}, at::kFloat);
      unpack_gates(shape, sums.const_data_ptr<float>() + first * kPanel, columns * kPanel, count,
                   weight.mutable_data_ptr<float>());
      return weight;
    };
    at::Tensor bias = part(columns - 1, 1).squeeze(1);
    return {part(0, shape.input), part(shape.input, shape.hidden), bias, bias.clone()};
  }
};

}  // namespace docre
