// Checks of what Rust passes. The kernels do not check the numbers that they use as indices, so
// each of these numbers is checked here once, before a kernel starts.
#pragma once
#include <ATen/core/Tensor.h>

#include "tables.hpp"

namespace docre {

// Whether the range first..first + count lies in 0..total.
inline bool within(int64_t first, int64_t count, int64_t total) {
  return first >= 0 && count >= 0 && first <= total && count <= total - first;
}

// Whether `count` numbers, `step` apart, are at least 0 and less than `limit`. If one is not, it is
// negative, or the last allowed number minus it is negative. Both set the highest bit.
inline bool all_below(const int64_t* numbers, int64_t count, int64_t step, int64_t limit) {
  uint64_t outside = 0, last = static_cast<uint64_t>(limit) - 1;
  for (int64_t i = 0; i < count; i++) {
    uint64_t number = static_cast<uint64_t>(numbers[i * step]);
    outside |= number | (last - number);
  }
  return outside >> 63 == 0;
}

// Whether no number is smaller than the one before. The numbers must not be negative.
inline bool never_falls(const int64_t* numbers, int64_t count) {
  uint64_t falls = 0;
  for (int64_t i = 1; i < count; i++)
    falls |= static_cast<uint64_t>(numbers[i]) - static_cast<uint64_t>(numbers[i - 1]);
  return falls >> 63 == 0;
}

// Adds the cells (entities · tokens) of a document to those of the documents before it. False if it
// does not begin where they end, or if the sum is too large.
template <typename Document>
bool add_cells(const Document& document, int64_t& cells) {
  int64_t own;
  return document.first_cell == cells && document.entities >= 0 && document.tokens >= 0 &&
         !__builtin_mul_overflow(document.entities, document.tokens, &own) &&
         !__builtin_add_overflow(cells, own, &cells);
}

inline bool is_host_table(const at::Tensor& table) {
  return table.device().is_cpu() && table.scalar_type() == at::kLong && table.is_contiguous();
}

// The offsets of the documents of a stream of `tokens` tokens: they start with 0, never fall, and
// end with the number of tokens. `who` names the caller in messages.
inline const int64_t* checked_offsets(const char* who, const at::Tensor& offsets, int64_t tokens) {
  TORCH_CHECK(is_host_table(offsets) && offsets.dim() == 1 && offsets.numel() > 0, who,
              ": the offsets must be a contiguous int64 vector on the host, not ", offsets.sizes(),
              " of ", offsets.scalar_type(), " on ", offsets.device());
  const int64_t* numbers = offsets.const_data_ptr<int64_t>();
  int64_t last = offsets.numel() - 1;
  TORCH_CHECK(numbers[0] == 0 && numbers[last] == tokens &&
                  all_below(numbers, last, 1, tokens + 1) && never_falls(numbers, last + 1),
              who, ": the offsets do not cover ", tokens,
              " tokens: they must start with 0, never fall, and end with that number");
  return numbers;
}

// Runs body(T{}) with the type T of the numbers of `x`.
template <typename Body>
void for_kind(const char* who, const at::Tensor& x, const Body& body) {
  if (x.scalar_type() == at::kFloat)
    body(float{});
  else if (x.scalar_type() == at::kBFloat16)
    body(at::BFloat16{});
  else
    TORCH_CHECK(false, who, ": on the CPU numbers must be 32-bit floats or bfloat16, not ",
                x.scalar_type());
}

// The rows of a table that Rust made.
template <typename Row>
struct Table {
  static constexpr int64_t kColumns = sizeof(Row) / sizeof(int64_t);
  const Row* rows;
  int64_t count;

  Table(const char* who, const char* name, const at::Tensor& table)
      : rows(nullptr), count(table.dim() == 2 ? table.size(0) : 0) {
    TORCH_CHECK(is_host_table(table) && table.dim() == 2 && table.size(1) == kColumns, who,
                ": the table of ", name, " must be contiguous [rows, ", kColumns,
                "] of int64 on the host, not ", table.sizes(), " of ", table.scalar_type(), " on ",
                table.device());
    rows = reinterpret_cast<const Row*>(table.const_data_ptr<int64_t>());
  }
  const Row& operator[](int64_t i) const { return rows[i]; }
  // The numbers of some row, for messages.
  at::IntArrayRef numbers(int64_t i) const {
    return {reinterpret_cast<const int64_t*>(rows + i), static_cast<size_t>(kColumns)};
  }
};

}  // namespace docre
