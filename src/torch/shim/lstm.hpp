// One LSTM layer of one or two directions over a packed stream of sequences, without padding and
// without gathering tokens.
//
// Sequences advance together, longest first. The product with the inputs of all tokens, the
// recurrent product and all gradients use the tiles of panel.hpp. So the bits of a sequence depend
// neither on other sequences nor on the number of threads.
//
// A gate row holds, for each 16 units, 16 numbers of i, of f, of g and of o. Units beyond the last
// one are always zero.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "checks.hpp"
#include "panel.hpp"

namespace docre {

constexpr int64_t kNoRow = -1;

struct LstmShape {
  int64_t tokens, sequences, input, hidden, directions;
  const int64_t* offsets;
  int64_t blocks() const { return pieces(hidden, kLanes); }
  int64_t units() const { return blocks() * kLanes; }
  int64_t gates() const { return blocks() * kPanel; }
  int64_t width() const { return directions * hidden; }
  int64_t length(int64_t sequence) const { return offsets[sequence + 1] - offsets[sequence]; }
  // The token of a step of a sequence. A reverse direction starts at the end.
  int64_t token(int64_t sequence, int64_t step, bool reverse) const {
    return reverse ? offsets[sequence + 1] - 1 - step : offsets[sequence] + step;
  }
  // The row of PyTorch's weights that belongs to a place in a gate row.
  int64_t weight_row(int64_t place) const {
    int64_t unit = place / kPanel * kLanes + place % kLanes, gate = place % kPanel / kLanes;
    return unit < hidden ? gate * hidden + unit : kNoRow;
  }
};

// [4H, columns] → panels of gate columns, [blocks][columns][64], for products of inputs with
// weightᵀ.
inline void pack_for_gates(const LstmShape& shape, const float* weight, int64_t columns,
                           float* to) {
  for (int64_t place = 0; place < shape.gates(); place++) {
    int64_t row = shape.weight_row(place);
    float* panel = to + place / kPanel * columns * kPanel + place % kPanel;
    for (int64_t k = 0; k < columns; k++)
      panel[k * kPanel] = row == kNoRow ? 0 : weight[row * columns + k];
  }
}

// [4H, columns] → panels of the weight's own columns, [⌈columns/64⌉][gates][64], for products of
// gate gradients with the weight.
inline void pack_for_inputs(const LstmShape& shape, const float* weight, int64_t columns,
                            float* to) {
  for (int64_t column = 0; column < columns; column += kPanel)
    for (int64_t place = 0; place < shape.gates(); place++, to += kPanel) {
      int64_t row = shape.weight_row(place), count = std::min(kPanel, columns - column);
      std::fill_n(to, kPanel, 0.0f);
      if (row != kNoRow) std::memcpy(to, weight + row * columns + column, count * sizeof(float));
    }
}

// Panels of gate columns, [blocks][columns][64] → [4H, columns].
inline void unpack_gates(const LstmShape& shape, const float* panels, int64_t panel_stride,
                         int64_t columns, float* weight) {
  for (int64_t place = 0; place < shape.gates(); place++) {
    int64_t row = shape.weight_row(place);
    const float* panel = panels + place / kPanel * panel_stride + place % kPanel;
    for (int64_t k = 0; row != kNoRow && k < columns; k++)
      weight[row * columns + k] = panel[k * kPanel];
  }
}

// The numbers of one direction.
struct LstmSide {
  bool reverse;
  float *start_hidden, *start_cell;  // [sequences, units]
  float *gates, *cells;              // [tokens, gates], [tokens, units]
  float* out;                        // [tokens, width], from this direction's first column on
};

// Pointers to the rows of the sequences that still run at one step.
struct LstmStep {
  std::vector<float*> gates, cell, hidden;
  std::vector<const float*> cell_before, hidden_before;
  explicit LstmStep(size_t count)
      : gates(count), cell(count), hidden(count), cell_before(count), hidden_before(count) {}
  void point(const LstmShape& shape, const LstmSide& side, const std::vector<int64_t>& order,
             size_t running, int64_t step) {
    for (size_t i = 0; i < running; i++) {
      int64_t token = shape.token(order[i], step, side.reverse),
              before = token + (side.reverse ? 1 : -1);
      gates[i] = side.gates + token * shape.gates();
      cell[i] = side.cells + token * shape.units();
      hidden[i] = side.out + token * shape.width();
      cell_before[i] =
          step ? side.cells + before * shape.units() : side.start_cell + order[i] * shape.units();
      hidden_before[i] =
          step ? side.out + before * shape.width() : side.start_hidden + order[i] * shape.units();
    }
  }
};

// The sequences of one task, longest first. The tasks together hold each sequence once.
inline std::vector<int64_t> dealt(const LstmShape& shape, int64_t task, int64_t tasks) {
  std::vector<int64_t> order(shape.sequences), own;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return shape.length(a) > shape.length(b); });
  for (int64_t i = task; i < shape.sequences; i += tasks) own.push_back(order[i]);
  return own;
}

inline size_t running_at(const LstmShape& shape, const std::vector<int64_t>& order, int64_t step) {
  return std::partition_point(order.begin(), order.end(),
                              [&](int64_t sequence) { return shape.length(sequence) > step; }) -
         order.begin();
}

// Runs work(side, its sequences) on all available threads.
template <typename Work>
void for_each_side(const LstmShape& shape, const std::vector<LstmSide>& sides, const Work& work) {
  int64_t count = sides.size(), wanted = (at::get_num_threads() + count - 1) / count;
  int64_t groups =
      std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, shape.sequences / kTileRows));
  at::parallel_for(0, count * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) work(i % count, dealt(shape, i / count, groups));
  });
}

// Turns sums into gates, and computes the cell and the hidden state, for 16 units (`block`) of some
// rows.
DOCRE_CLONES void lstm_gates(const LstmStep& rows, size_t first, size_t count, int64_t block,
                             int64_t hidden) {
  int64_t unit = block * kLanes;
  for (size_t r = first; r < first + count; r++) {
    float* row = rows.gates[r] + block * kPanel;
    Floats i, f, g, o, c;
    load(row, i);
    load(row + kLanes, f);
    load(row + 2 * kLanes, g);
    load(row + 3 * kLanes, o);
    load(rows.cell_before[r] + unit, c);
    sigmoid(i);
    sigmoid(f);
    hyperbolic_tangent(g);
    sigmoid(o);
    c = f * c + i * g;
    store(row, i);
    store(row + kLanes, f);
    store(row + 2 * kLanes, g);
    store(row + 3 * kLanes, o);
    store(rows.cell[r] + unit, c);
    hyperbolic_tangent(c);
    Floats h = o * c;
    store_next(rows.hidden[r] + unit, hidden - unit, h);
  }
}

// Turns gates into the gradients of their sums, in place. `carry` is the gradient of the cell, and
// becomes that of the cell before; `upstream` is the gradient of the hidden state.
DOCRE_CLONES void lstm_gate_gradients(float* gates, const float* cell, const float* cell_before,
                                      const float* upstream, const float* above, float* carry,
                                      int64_t hidden) {
  for (int64_t unit = 0; unit < hidden; unit += kLanes, gates += kPanel) {
    Floats i, f, g, o, t, before, dh, dc, more = {};
    load(gates, i);
    load(gates + kLanes, f);
    load(gates + 2 * kLanes, g);
    load(gates + 3 * kLanes, o);
    load(cell + unit, t);
    load(cell_before + unit, before);
    load(upstream + unit, dh);
    load(carry + unit, dc);
    if (above) load_next(above + unit, hidden - unit, more);
    dh += more;
    hyperbolic_tangent(t);
    dc += dh * o * (1.0f - t * t);
    store(gates, dc * g * i * (1.0f - i));
    store(gates + kLanes, dc * before * f * (1.0f - f));
    store(gates + 2 * kLanes, dc * i * (1.0f - g * g));
    store(gates + 3 * kLanes, dh * t * o * (1.0f - o));
    store(carry + unit, dc * f);
  }
}

// to [tokens, stride] = start + from [tokens, depth] · panels, in whole panels of columns. `start`
// is one row of `stride` numbers; if it is null, the product is added to `to`.
inline void lstm_multiply(int64_t tokens, const float* from, int64_t depth, const float* panels,
                          const float* start, float* to, int64_t stride) {
  at::parallel_for(0, pieces(tokens, kDepth), 1, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin * kDepth; token < std::min(end * kDepth, tokens); token += kDepth)
      for (int64_t column = 0; column < stride; column += kPanel) {
        Panel panel{panels + column * depth, kPanel, depth, kVectors};
        panel_product([&](int64_t r) { return from + (token + r) * depth; }, 1,
                      std::min(kDepth, tokens - token), panel, start ? start + column : nullptr,
                      [&](int64_t r) { return to + (token + r) * stride + column; });
      }
  });
}

// All steps of some sequences. `panels` is weight_hh, packed for gates.
inline void lstm_advance(const LstmShape& shape, const LstmSide& side, const float* panels,
                         const std::vector<int64_t>& order) {
  LstmStep rows(order.size());
  int64_t longest = order.empty() ? 0 : shape.length(order[0]);
  for (int64_t step = 0; step < longest; step++) {
    size_t running = running_at(shape, order, step);
    rows.point(shape, side, order, running, step);
    for (int64_t block = 0; block < shape.blocks(); block++)
      for_tiles(running, [&](int64_t first, int64_t count) {
        panel_product(&rows.hidden_before[first], 1, count, panels + block * shape.hidden * kPanel,
                      shape.hidden, nullptr, &rows.gates[first], block * kPanel);
        lstm_gates(rows, first, count, block, shape.hidden);
      });
  }
}

// Gradients that travel back through one direction, in rows of whole panels and whole blocks.
struct LstmBack {
  float *hidden, *cell;  // [sequences, hidden_stride], [sequences, units]: of the final states;
                         // afterwards of the initial ones
  int64_t hidden_stride;
  const float* above;  // [tokens, width] from this direction's first column on, or null
};

// All steps of some sequences, from the last to the first. Gates become the gradients of their
// sums. `panels` is weight_hh, packed for inputs.
inline void lstm_retreat(const LstmShape& shape, const LstmSide& side, const LstmBack& back,
                         const float* panels, const std::vector<int64_t>& order) {
  static const float zeros[kPanel] = {};
  LstmStep rows(order.size());
  std::vector<float*> upstream(order.size());
  for (size_t i = 0; i < order.size(); i++)
    upstream[i] = back.hidden + order[i] * back.hidden_stride;
  for (int64_t step = order.empty() ? 0 : shape.length(order[0]); step-- > 0;) {
    size_t running = running_at(shape, order, step);
    rows.point(shape, side, order, running, step);
    for (size_t i = 0; i < running; i++) {
      int64_t token = shape.token(order[i], step, side.reverse);
      const float* above = back.above ? back.above + token * shape.width() : nullptr;
      lstm_gate_gradients(rows.gates[i], rows.cell[i], rows.cell_before[i], upstream[i], above,
                          back.cell + order[i] * shape.units(), shape.hidden);
    }
    for (int64_t column = 0; column < back.hidden_stride; column += kPanel)
      panel_product(rows.gates.data(), 1, running, panels + column * shape.gates(), shape.gates(),
                    zeros, upstream.data(), column);
  }
}

// Σ over tokens of [x, hidden before, 1]ᵀ · gate gradients, for gate panels begin..end; to:
// [blocks][input + hidden + 1][64].
inline void lstm_weight_gradients(const LstmShape& shape, const LstmSide& side, const float* x,
                                  const float* const* before, int64_t begin, int64_t end,
                                  float* to) {
  int64_t columns = shape.input + shape.hidden + 1, stride = spread(columns);
  at::Tensor inputs_kept = at::empty({kDepth, stride}, at::kFloat),
             grads_kept = at::empty({kDepth, kPanel}, at::kFloat);
  float *inputs = inputs_kept.mutable_data_ptr<float>(),
        *grads = grads_kept.mutable_data_ptr<float>();
  for (int64_t token = 0; token < shape.tokens; token += kDepth) {
    int64_t count = std::min(kDepth, shape.tokens - token);
    for (int64_t r = 0; r < count; r++) {
      float* row = inputs + r * stride;
      std::memcpy(row, x + (token + r) * shape.input, shape.input * sizeof(float));
      std::memcpy(row + shape.input, before[token + r], shape.hidden * sizeof(float));
      row[columns - 1] = 1;
    }
    for (int64_t panel = begin; panel < end; panel++) {
      for (int64_t r = 0; r < count; r++)
        std::memcpy(grads + r * kPanel, side.gates + (token + r) * shape.gates() + panel * kPanel,
                    kPanel * sizeof(float));
      float* sums = to + panel * columns * kPanel;
      panel_product([&](int64_t c) { return inputs + c; }, stride, columns,
                    Panel{grads, kPanel, count, kVectors}, nullptr,
                    [&](int64_t c) { return sums + c * kPanel; });
    }
  }
}

// The hidden state before each token of a direction.
inline std::vector<const float*> states_before(const LstmShape& shape, const LstmSide& side) {
  std::vector<const float*> before(shape.tokens);
  for (int64_t sequence = 0; sequence < shape.sequences; sequence++)
    for (int64_t step = 0; step < shape.length(sequence); step++) {
      int64_t token = shape.token(sequence, step, side.reverse);
      before[token] = step
                          ? side.out + shape.token(sequence, step - 1, side.reverse) * shape.width()
                          : side.start_hidden + sequence * shape.units();
    }
  return before;
}

}  // namespace docre
