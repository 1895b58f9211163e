// What attention scores hold beside the product of queries and keys: terms of the distance between
// two tokens (MPNet, DeBERTa, XLNet), rotated queries and keys, and a window (ModernBERT).
//
// A distance is key - query. `index` gives it a row of the tables, so that a table of a few buckets
// or of every distance costs the same. No term is ever stored for all pairs of tokens and channels:
// products with a table are [tokens, rows], and scores take their numbers from there.
//
//   score(i, j) = scale · (q_i · k_j + q_i · key_table[r] + k_j · query_table[r]) + bias[r],
//   r = index(j - i)
#pragma once
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "panel.hpp"
#include "rows.hpp"
#include "scratch.hpp"

namespace docre {

constexpr float kHidden = -1e30f;       // the score of a key that is outside of the window
constexpr int64_t kGradientGroups = 8;  // sums over documents that are made side by side

// Queries first..first + count of a document.
struct Rows {
  int64_t first, count;
};

// Keys first..first + count of a document. `first` is a multiple of 16.
struct Columns {
  int64_t first, count;
};

// One head of one document.
struct HeadShape {
  int64_t head, heads, length, width;
};

// Rotates pairs of numbers (x[m], x[m + half]) by the angle of (position, m). `sign` -1 turns back.
DOCRE_CLONES void rotate_rows(float* x, int64_t stride, int64_t rows, int64_t half,
                              const float* cosines, const float* sines, float sign) {
  for (int64_t r = 0; r < rows; r++) {
    float *a = x + r * stride, *b = a + half;
    const float *c = cosines + r * half, *s = sines + r * half;
    for (int64_t m = 0; m < half; m++) {
      float turned = a[m] * c[m] - sign * b[m] * s[m];
      b[m] = b[m] * c[m] + sign * a[m] * s[m];
      a[m] = turned;
    }
  }
}

// Takes and adds the numbers of table rows, for keys one after the other.
DOCRE_CLONES void take_rows(const float* from, const int32_t* index, float* to, int64_t count) {
  for (int64_t j = 0; j < count; j++) to[j] += from[index[j]];
}
DOCRE_CLONES void take_columns(const float* from, int64_t stride, const int32_t* index, float* to,
                               int64_t count) {
  for (int64_t j = 0; j < count; j++) to[j] += from[j * stride + index[j]];
}
DOCRE_CLONES void give_rows(const float* from, const int32_t* index, float* to, int64_t count) {
  for (int64_t j = 0; j < count; j++) to[index[j]] += from[j];
}
DOCRE_CLONES void give_columns(const float* from, int64_t stride, const int32_t* index, float* to,
                               int64_t count) {
  for (int64_t j = 0; j < count; j++) to[j * stride + index[j]] += from[j];
}

// What all heads and documents of a call share.
struct ScoreTerms {
  std::vector<int32_t> index;          // [2 · reach + 1]: the row of a distance
  int64_t reach = 0;                   // the longest distance of `index`
  const float* key_table = nullptr;    // [rows, heads, width]
  const float* query_table = nullptr;  // [rows, heads, width]
  const float* bias = nullptr;         // [rows, heads]
  const float* rotary = nullptr;       // [2, positions, width / 2]: cosines, then sines
  int64_t positions = 0;
  int64_t window = -1;  // keys that a query sees on each side; negative: all
  float scale = 1;

  // Whether they need queries or keys themselves, beside their products.
  bool read_rows() const { return rotary || key_table || query_table; }
  // The keys that some of these queries see.
  Columns columns(int64_t row, int64_t rows, int64_t length) const {
    if (window < 0) return {0, length};
    int64_t first = std::max<int64_t>(0, row - window) / kLanes * kLanes;
    return {first, std::min(length, row + rows + window) - first};
  }
  void rotate(float* x, int64_t stride, int64_t rows, int64_t width) const {
    turn(x, stride, {0, rows}, width, 1);
  }
  void rotate_back(float* x, int64_t stride, const Rows& rows, int64_t width) const {
    turn(x, stride, rows, width, -1);
  }
  void turn(float* x, int64_t stride, const Rows& rows, int64_t width, float sign) const {
    if (!rotary) return;
    int64_t half = width / 2;
    const float* cosines = rotary + rows.first * half;
    rotate_rows(x, stride, rows.count, half, cosines, cosines + positions * half, sign);
  }
};

// Where gradients of tables are summed: one copy of each table for every group of documents. Null
// where a call has no such table.
struct TableGrads {
  int64_t groups = 0;
  int64_t rows = 0;
  float *key_table = nullptr, *query_table = nullptr, *bias = nullptr;
};

// The terms of one head of one document. All buffers are parts of the task's scratch.
class HeadTerms {
 public:
  // How much scratch it takes, for blocks of up to `block` queries.
  static int64_t floats(const ScoreTerms& terms, int64_t length, int64_t width, int64_t block) {
    if (terms.index.empty()) return 0;
    auto [low, rows] = range(terms, length);
    int64_t table = rows * padded(width) + width * spread(rows), sum = 4 * length;
    if (terms.key_table) sum += table + block * spread(rows);
    if (terms.query_table) sum += table + length * spread(rows);
    return sum + 256;
  }
  static int64_t floats_backward(const ScoreTerms& terms, int64_t length, int64_t width,
                                 int64_t block) {
    if (terms.index.empty()) return 0;
    auto [low, rows] = range(terms, length);
    int64_t sum = floats(terms, length, width, block) + 2 * length;
    if (terms.key_table) sum += rows * padded(width) + block * spread(rows);
    if (terms.query_table) sum += rows * padded(width) + length * spread(rows);
    return sum + 256;
  }

  // `k`: the document's keys [length, padded(width)].
  HeadTerms(const ScoreTerms& terms, const HeadShape& shape, const float* k, int64_t block,
            Scratch& scratch)
      : terms_(terms), shape_(shape), wide_(padded(shape.width)), block_(block) {
    if (terms.index.empty()) return;
    std::tie(low_, rows_) = range(terms, shape.length);
    stride_ = spread(rows_);
    number_distances(scratch);
    if (terms.key_table) {
      std::tie(keys_, turned_keys_) = table(terms.key_table, 1, scratch);
      products_ = scratch.take(block * stride_);
    }
    if (terms.query_table) {
      float* turned;
      std::tie(queries_, turned) = table(terms.query_table, terms.scale, scratch);
      by_key_ = scratch.take(shape.length * stride_);
      multiply_block(k, wide_, 1, turned, stride_, by_key_, stride_, shape.length, rows_,
                     shape.width, false);
    }
  }

  // Adds the terms to the scores [rows, columns] of queries one after the other.
  void add(const float* q, const Rows& rows, const Columns& columns, float* scores,
           int64_t stride) {
    add_at(
        q, rows.count, [&](int64_t r) { return rows.first + r; }, reached(rows, columns), columns,
        scores, stride);
  }
  // The same for queries anywhere; query r stands at `at(r)`.
  template <typename At>
  void add_anywhere(const float* q, int64_t count, const At& at, float* scores, int64_t stride) {
    add_at(q, count, at, {0, rows_}, {0, shape_.length}, scores, stride);
  }

  // Zeroes what gradients are summed in.
  void start_backward(Scratch& scratch) {
    if (terms_.index.empty()) return;
    int64_t length = shape_.length;
    if (terms_.bias) distance_grads_ = zeros(scratch, 2 * length);
    if (terms_.key_table) {
      key_grads_ = zeros(scratch, rows_ * wide_);
      product_grads_ = scratch.take(block_ * stride_);
    }
    if (terms_.query_table) {
      query_grads_ = zeros(scratch, rows_ * wide_);
      by_key_grads_ = zeros(scratch, length * stride_);
    }
  }
  // Adds the share of the terms to the gradients `dq` of queries one after the other. `grads` are
  // those of their scores.
  void add_gradients(const float* q, const Rows& rows, const Columns& columns, const float* grads,
                     int64_t stride, float* dq) {
    gradients_at(
        q, rows.count, [&](int64_t r) { return rows.first + r; }, reached(rows, columns), columns,
        grads, stride, dq);
  }
  template <typename At>
  void add_gradients_anywhere(const float* q, int64_t count, const At& at, const float* grads,
                              int64_t stride, float* dq) {
    gradients_at(q, count, at, {0, rows_}, {0, shape_.length}, grads, stride, dq);
  }
  // Adds the share of the terms to the gradients of the keys, and the gradients of the tables to
  // those of the group.
  void finish_backward(const float* k, float* dk, const TableGrads& grads, int64_t group) {
    if (terms_.index.empty()) return;
    int64_t length = shape_.length, d = shape_.width, heads = shape_.heads,
            first = group * grads.rows + low_;
    if (terms_.query_table) {
      multiply_block(by_key_grads_, stride_, 1, queries_, wide_, dk, wide_, length, d, rows_, true);
      multiply_block(by_key_grads_, 1, stride_, k, wide_, query_grads_, wide_, rows_, d, length,
                     true);
    }
    for (int64_t r = 0; r < rows_; r++) {
      int64_t place = ((first + r) * heads + shape_.head) * d;
      if (terms_.key_table) add_scaled(key_grads_ + r * wide_, 1, grads.key_table + place, d);
      if (terms_.query_table)
        add_scaled(query_grads_ + r * wide_, terms_.scale, grads.query_table + place, d);
    }
    if (terms_.bias)
      for (int64_t r = 0; r < 2 * length - 1; r++)
        grads.bias[(first + index_[r]) * heads + shape_.head] += distance_grads_[r];
  }

 private:
  // The first row that a document of this length needs, and how many.
  static std::pair<int64_t, int64_t> range(const ScoreTerms& terms, int64_t length) {
    const int32_t* first = terms.index.data() + terms.reach - (length - 1);
    auto [low, high] = std::minmax_element(first, first + 2 * length - 1);
    return {*low, *high - *low + 1};
  }
  static float* zeros(Scratch& scratch, int64_t count) {
    float* taken = scratch.take(count);
    std::memset(taken, 0, count * sizeof(float));
    return taken;
  }

  // The rows of this document's distances, counted from its first row; their longest run without a
  // gap around distance 0; and the biases by distance.
  void number_distances(Scratch& scratch) {
    int64_t count = 2 * shape_.length - 1;
    const int32_t* from = terms_.index.data() + terms_.reach - (shape_.length - 1);
    index_ = reinterpret_cast<int32_t*>(scratch.take(count));
    for (int64_t r = 0; r < count; r++) index_[r] = from[r] - static_cast<int32_t>(low_);
    run_ = {shape_.length - 1, shape_.length};
    while (run_.first > 0 && index_[run_.first - 1] + 1 == index_[run_.first]) run_.first--;
    while (run_.second < count && index_[run_.second - 1] + 1 == index_[run_.second]) run_.second++;
    if (!terms_.bias) return;
    biases_ = scratch.take(count);
    for (int64_t r = 0; r < count; r++)
      biases_[r] = terms_.bias[from[r] * shape_.heads + shape_.head];
  }

  // A table's rows of this head, and the same turned.
  std::pair<float*, float*> table(const float* all, float factor, Scratch& scratch) const {
    int64_t d = shape_.width, heads = shape_.heads;
    float *rows = scratch.take(rows_ * wide_), *turned = scratch.take(d * stride_);
    pack(all + (low_ * heads + shape_.head) * d, heads * d, rows, wide_, rows_, d, factor);
    transpose(rows, wide_, rows_, d, turned, stride_);
    return {rows, turned};
  }

  // The table rows that these queries and keys need. The first is a multiple of 16.
  Columns reached(const Rows& rows, const Columns& columns) const {
    if (terms_.index.empty()) return {0, 0};
    int64_t middle = shape_.length - 1,
            first = middle + columns.first - (rows.first + rows.count - 1),
            last = middle + columns.first + columns.count - 1 - rows.first;
    auto [low, high] = std::minmax_element(index_ + first, index_ + last + 1);
    int64_t start = *low / kLanes * kLanes;
    return {start, *high + 1 - start};
  }

  // Calls apart(first, count) for keys whose rows have gaps between them, and together(first,
  // count) for the run without gaps. `at` is the query's place.
  template <typename Apart, typename Together>
  void in_runs(int64_t at, const Columns& columns, const Apart& apart,
               const Together& together) const {
    int64_t first = shape_.length - 1 - at + columns.first, end = first + columns.count;
    int64_t begin = std::clamp(run_.first, first, end), stop = std::clamp(run_.second, begin, end);
    if (begin > first) apart(0, begin - first);
    if (stop > begin) together(begin - first, stop - begin);
    if (end > stop) apart(stop - first, end - stop);
  }

  template <typename At>
  void add_at(const float* q, int64_t count, const At& at, const Columns& table,
              const Columns& columns, float* scores, int64_t stride) {
    int64_t width = columns.count;
    if (terms_.key_table)
      multiply_block(q, wide_, 1, turned_keys_ + table.first, stride_, products_, stride_, count,
                     table.count, shape_.width, false);
    for (int64_t r = 0; r < count; r++) {
      float* row = scores + r * stride;
      int64_t place = at(r);
      if (!terms_.index.empty()) {
        int64_t distance = shape_.length - 1 - place + columns.first;
        const int32_t* index = index_ + distance;
        if (terms_.key_table) {
          const float* from = products_ + r * stride_ - table.first;
          in_runs(
              place, columns,
              [&](int64_t j, int64_t some) { take_rows(from, index + j, row + j, some); },
              [&](int64_t j, int64_t some) { add_scaled(from + index[j], 1, row + j, some); });
        }
        if (terms_.query_table)
          take_columns(by_key_ + columns.first * stride_, stride_, index, row, width);
        if (terms_.bias) add_scaled(biases_ + distance, 1, row, width);
      }
      if (terms_.window >= 0) hide(row, place, columns);
    }
  }

  void hide(float* row, int64_t place, const Columns& columns) const {
    int64_t first = std::clamp<int64_t>(place - terms_.window - columns.first, 0, columns.count),
            end = std::clamp<int64_t>(place + terms_.window + 1 - columns.first, 0, columns.count);
    std::fill(row, row + first, kHidden);
    std::fill(row + end, row + columns.count, kHidden);
  }

  template <typename At>
  void gradients_at(const float* q, int64_t count, const At& at, const Columns& table,
                    const Columns& columns, const float* grads, int64_t stride, float* dq) {
    if (terms_.index.empty()) return;
    int64_t d = shape_.width;
    for (int64_t r = 0; r < count; r++) {
      const float* row = grads + r * stride;
      int64_t place = at(r), distance = shape_.length - 1 - place + columns.first;
      const int32_t* index = index_ + distance;
      if (terms_.key_table) {
        std::memset(product_grads_ + r * stride_, 0, table.count * sizeof(float));
        float* to = product_grads_ + r * stride_ - table.first;
        in_runs(
            place, columns,
            [&](int64_t j, int64_t some) { give_rows(row + j, index + j, to, some); },
            [&](int64_t j, int64_t some) { add_scaled(row + j, 1, to + index[j], some); });
      }
      if (terms_.query_table)
        give_columns(row, stride_, index, by_key_grads_ + columns.first * stride_, columns.count);
      if (terms_.bias) add_scaled(row, 1, distance_grads_ + distance, columns.count);
    }
    if (!terms_.key_table) return;
    multiply_block(product_grads_, stride_, 1, keys_ + table.first * wide_, wide_, dq, wide_, count,
                   d, table.count, true);
    multiply_block(product_grads_, 1, stride_, q, wide_, key_grads_ + table.first * wide_, wide_,
                   table.count, d, count, true);
  }

  const ScoreTerms& terms_;
  const HeadShape shape_;
  const int64_t wide_, block_;
  int64_t low_ = 0, rows_ = 0, stride_ = 0;
  std::pair<int64_t, int64_t> run_{0, 0};  // distances, from the most negative one on
  int32_t* index_ = nullptr;
  float *biases_ = nullptr, *distance_grads_ = nullptr;
  float *keys_ = nullptr, *turned_keys_ = nullptr, *products_ = nullptr;
  float *key_grads_ = nullptr, *product_grads_ = nullptr;
  float *queries_ = nullptr, *by_key_ = nullptr, *query_grads_ = nullptr, *by_key_grads_ = nullptr;
};

// The tensors of the terms of a call.
struct TermTensors {
  std::optional<at::Tensor> index, key_table, query_table, bias, rotary;

  static TermTensors restored(const torch::autograd::variable_list& saved, size_t first) {
    auto at = [&](size_t i) {
      return saved[first + i].defined() ? std::optional<at::Tensor>(saved[first + i])
                                        : std::nullopt;
    };
    return {at(0), at(1), at(2), at(3), at(4)};
  }
  torch::autograd::variable_list saved(torch::autograd::variable_list others) const {
    for (const auto& tensor : {index, key_table, query_table, bias, rotary})
      others.push_back(tensor ? *tensor : at::Tensor());
    return others;
  }
  int64_t rows() const {
    for (const auto& table : {key_table, query_table, bias})
      if (table) return table->size(0);
    return 0;
  }
  // The terms without window and scale. `who` names the caller in messages.
  ScoreTerms terms(const char* who, int64_t heads, int64_t width, int64_t longest) const {
    ScoreTerms terms;
    terms.key_table = numbers(who, "key table", key_table, {rows(), heads, width});
    terms.query_table = numbers(who, "query table", query_table, {rows(), heads, width});
    terms.bias = numbers(who, "bias", bias, {rows(), heads});
    TORCH_CHECK(rows() == 0 || (index && is_host_table(*index) && index->dim() == 1 &&
                                index->numel() >= 2 * longest - 1 && index->numel() % 2 == 1),
                who, ": tables need an index of an odd number of distances on the host, at least ",
                2 * longest - 1);
    if (rows() > 0) {
      const int64_t* from = index->const_data_ptr<int64_t>();
      TORCH_CHECK(all_below(from, index->numel(), 1, rows()), who,
                  ": the index of distances leaves the tables of ", rows(), " rows");
      terms.index.assign(from, from + index->numel());
      terms.reach = index->numel() / 2;
    }
    if (rotary) {
      terms.positions = rotary->dim() == 3 ? rotary->size(1) : 0;
      TORCH_CHECK(width % 2 == 0 && terms.positions >= longest, who, ": rotary angles of ",
                  terms.positions, " positions do not fit ", longest,
                  " tokens and a head width of ", width);
      terms.rotary = numbers(who, "rotary angles", rotary, {2, terms.positions, width / 2});
    }
    return terms;
  }
  static const float* numbers(const char* who, const char* name,
                              const std::optional<at::Tensor>& table, at::IntArrayRef shape) {
    if (!table) return nullptr;
    TORCH_CHECK(table->device().is_cpu() && table->scalar_type() == at::kFloat &&
                    table->is_contiguous() && table->sizes() == shape,
                who, ": the ", name, " must be contiguous ", shape,
                " of 32-bit floats on the CPU, not ", table->sizes(), " of ", table->scalar_type());
    return table->const_data_ptr<float>();
  }
};

// The gradients of the tables of a call while they are summed.
struct GroupedGrads {
  at::Tensor key_table, query_table, bias;
  TableGrads view;

  GroupedGrads(const TermTensors& tensors, int64_t documents) {
    view.rows = tensors.rows();
    if (view.rows == 0) return;
    view.groups = std::clamp<int64_t>(documents, 1, kGradientGroups);
    auto make = [&](const std::optional<at::Tensor>& table, at::Tensor& sum) -> float* {
      if (!table) return nullptr;
      std::vector<int64_t> sizes{view.groups};
      for (int64_t size : table->sizes()) sizes.push_back(size);
      sum = at::zeros(sizes, table->options());
      return sum.mutable_data_ptr<float>();
    };
    view.key_table = make(tensors.key_table, key_table);
    view.query_table = make(tensors.query_table, query_table);
    view.bias = make(tensors.bias, bias);
  }
  // Writes the gradients of key table, query table and bias.
  void sums(torch::autograd::variable_list& grads, size_t first) const {
    for (const auto& sum : {key_table, query_table, bias}) {
      if (sum.defined()) grads[first] = sum.sum(0);
      first++;
    }
  }
};

}  // namespace docre
