// What Rust and C++ share: tables, numbers and choices. Each is stated here, and nowhere else.
// build.rs makes `shim::tables` from this file. It understands three forms, and stops at any other:
//   a struct of int64_t columns (a row of a table), one column a line with a comment behind it;
//   an enum class, one value a line with a comment behind it;
//   a constant (int64_t or double) on one line, with a comment behind it.
// Comments become the documentation of the Rust items. See build.rs.
#pragma once
#include <cstdint>

namespace docre {

// One document of the attention of entities.
struct AttentionDocument {
  int64_t entities;      // number of entities
  int64_t tokens;        // number of tokens
  int64_t first_row;     // the first of its rows in the table of rows
  int64_t rows;          // number of its rows
  int64_t first_window;  // the first of its windows in the table of windows
  int64_t windows;       // number of its windows
  int64_t renormalise;   // 1 if rows are divided by their sums, 0 if they have a sum of 1 anyway
  int64_t first_cell;    // entities · tokens, summed over the documents before
};

// One token whose attention is part of an entity's.
struct AttentionRow {
  int64_t entity;  // entity of the document
};

// One window of a document.
struct AttentionWindow {
  int64_t start;        // its first token in the stream of windows
  int64_t length;       // number of tokens in the stream, prefix and suffix included
  int64_t skip;         // tokens before the first one that counts for the document
  int64_t count;        // number of tokens that count
  int64_t place;        // position in the document of the first token that counts
  int64_t first_slice;  // the first of its slices in the table of slices
  int64_t slices;       // number of its slices
};

// What one window contributes to one row of its document.
struct AttentionSlice {
  int64_t token;  // token of the window whose attention is taken
  int64_t row;    // row of the document
};

// One document of the contexts of pairs.
struct ContextDocument {
  int64_t entities;     // number of entities
  int64_t tokens;       // number of tokens
  int64_t first_token;  // its first token in the stream of documents
  int64_t first_cell;   // entities · tokens, summed over the documents before
  int64_t first_pair;   // the first of its pairs in the table of pairs
  int64_t pairs;        // number of its pairs
};

// One pair of entities whose context is asked for.
struct ContextPair {
  int64_t head;  // entity of the document
  int64_t tail;  // entity of the document
};

// One document of the attention that pairs share, summed over spans of tokens.
struct SpanDocument {
  int64_t first_span;  // the first of its spans in the table of spans
  int64_t spans;       // number of its spans
  int64_t first_sum;   // pairs · spans, summed over the documents before
};

// Tokens of a document whose attention is summed.
struct TokenSpan {
  int64_t first;   // first token of the document
  int64_t tokens;  // number of tokens
};

// An element-wise function.
enum class Activation : int64_t {
  kGelu,      // x · Φ(x), with the normal distribution function Φ
  kGeluTanh,  // its approximation by a hyperbolic tangent
  kTanh,      // the hyperbolic tangent
  kSigmoid,   // 1 / (1 + e^−x)
};

constexpr int64_t kLstmWeights = 4;    // weights of one direction of an LSTM layer
constexpr double kRowEpsilon = 1e-10;  // added to the sum of a row of attention

}  // namespace docre
