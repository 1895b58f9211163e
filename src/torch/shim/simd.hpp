// Arithmetic on 16 lanes with the vector extension of the compiler. Functions are compiled three
// times (x86-64-v4, v3, baseline), and the loader chooses one. The number of lanes is fixed, so
// sums are added in the same order on every machine.
#pragma once
#include <c10/util/BFloat16.h>

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DOCRE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DOCRE_CLONES
#endif
#define DOCRE_INLINE static inline __attribute__((always_inline))

namespace docre {

constexpr int64_t kLanes = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

DOCRE_INLINE void splat(float value, Floats& to) { to = value - Floats{}; }
DOCRE_INLINE void load(const float* from, Floats& to) { std::memcpy(&to, from, sizeof(to)); }
DOCRE_INLINE void store(float* to, const Floats& from) { std::memcpy(to, &from, sizeof(from)); }

DOCRE_INLINE void load(const c10::BFloat16* from, Floats& to) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  to = (Floats)(__builtin_convertvector(halves, Words) << 16);
}

// Rounds to 16 bits, to nearest even, as libtorch does. A NaN stays a NaN because the quiet bit is
// set.
DOCRE_INLINE void rounded_halves(const Floats& from, Words& to) {
  Words bits = (Words)from;
  Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  Words quiet = (bits >> 16) | 0x40;
  Ints is_nan = from != from;
  to = ((Words)is_nan & quiet) | (~(Words)is_nan & rounded);
}
DOCRE_INLINE void store(c10::BFloat16* to, const Floats& from) {
  Words rounded;
  rounded_halves(from, rounded);
  Halves halves = __builtin_convertvector(rounded, Halves);
  std::memcpy(to, &halves, sizeof(halves));
}

// The last group of a row may be incomplete. It goes through a buffer.
template <typename T>
DOCRE_INLINE void load_some(const T* from, int64_t count, Floats& to) {
  T buffer[kLanes] = {};
  std::memcpy(buffer, from, count * sizeof(T));
  load(buffer, to);
}

template <typename T>
DOCRE_INLINE void store_some(T* to, int64_t count, const Floats& from) {
  T buffer[kLanes];
  store(buffer, from);
  std::memcpy(to, buffer, count * sizeof(T));
}

// A group of a row in which `left` numbers are left.
template <typename T>
DOCRE_INLINE void load_next(const T* from, int64_t left, Floats& to) {
  if (left >= kLanes)
    load(from, to);
  else
    load_some(from, left, to);
}

template <typename T>
DOCRE_INLINE void store_next(T* to, int64_t left, const Floats& from) {
  if (left >= kLanes)
    store(to, from);
  else
    store_some(to, left, from);
}

// Comparisons by arithmetic. Compilers split comparisons and `?:` of vectors wider than the
// machine's into single numbers.
//
// Sets all bits of the lanes whose number is negative (its sign bit is set).
DOCRE_INLINE void negative(const Floats& x, Words& mask) { mask = (Words)((Ints)x >> 31); }
// a where the mask is set, b elsewhere.
DOCRE_INLINE void choose(const Words& mask, const Floats& a, const Floats& b, Floats& to) {
  to = (Floats)(((Words)a & mask) | ((Words)b & ~mask));
}
// Sets all bits of the lanes where x < y.
DOCRE_INLINE void less(const Words& x, const Words& y, Words& mask) {
  mask = (Words)((Ints)((~x & y) | (~(x ^ y) & (x - y))) >> 31);
}

// The larger number. If one of them is a NaN, either may come out.
DOCRE_INLINE void maximum(Floats& a, const Floats& b) {
  Words mask;
  negative(b - a, mask);
  choose(mask, a, b, a);
}

// Limits |x|. A NaN stays a NaN.
DOCRE_INLINE void limit_magnitude(Floats& x, float limit) {
  Words sign = (Words)x & 0x80000000u, over;
  // A NaN without its sign bit gives a difference without it, so it is not replaced.
  Floats size = (Floats)((Words)x & 0x7fffffffu), top;
  splat(limit, top);
  negative(top - size, over);
  choose(over, top, size, size);
  x = (Floats)((Words)size | sign);
}

DOCRE_INLINE float sum_lanes(const Floats& v) {
  float sum = 0;
  for (int i = 0; i < kLanes; i++) sum += v[i];
  return sum;
}

DOCRE_INLINE float max_lanes(const Floats& v) {
  float top = v[0];
  for (int i = 1; i < kLanes; i++) top = v[i] > top ? v[i] : top;
  return top;
}

// The same by halves, so that fewer steps wait for each other; the bits of a sum differ.
typedef float EightFloats __attribute__((vector_size(32)));
typedef float FourFloats __attribute__((vector_size(16)));
DOCRE_INLINE float sum_halves(const Floats& v) {
  EightFloats eight[2];
  std::memcpy(eight, &v, sizeof(v));
  eight[0] += eight[1];
  FourFloats four[2];
  std::memcpy(four, eight, sizeof(four));
  four[0] += four[1];
  return (four[0][0] + four[0][1]) + (four[0][2] + four[0][3]);
}
// A NaN may be lost.
DOCRE_INLINE float max_halves(const Floats& v) {
  float lanes[kLanes];
  std::memcpy(lanes, &v, sizeof(v));
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++)
      lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  return lanes[0];
}

// e^x = 2^n · (1 + p) for |x| ≤ 87: range reduction by ln 2 in two parts, then the polynomial of
// Cephes' expf. The error of 1 + p is below 2 ulp, and p has full relative precision where n = 0.
// The low bits of `biased` hold n. For a NaN, p is a NaN.
DOCRE_INLINE void exponent_parts(const Floats& x, Floats& p, Words& biased) {
  const float shift = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer in the low bits
  Floats rounded = x * 1.44269504088896341f + shift;
  Floats n = rounded - shift;
  Floats r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r;
  biased = (Words)rounded;
}

// e^x for x ≤ 0 (also correct up to 87).
DOCRE_INLINE void exponential(Floats& x) {
  Floats floor, p;
  Words n;
  splat(-87.0f, floor);
  maximum(x, floor);
  exponent_parts(x, p, n);
  x = (Floats)((Words)(p + 1.0f) + (n << 23));
}

// Both keep a NaN, and have a relative error of a few ulp everywhere.
DOCRE_INLINE void sigmoid(Floats& x) {
  Floats z = -x, p;
  Words n;
  limit_magnitude(z, 87.0f);
  exponent_parts(z, p, n);
  Floats power = (Floats)((n << 23) + 0x3f800000);
  x = 1.0f / (power * p + power + 1.0f);
}

// -m / (2 + m) with m = e^(-2|x|) - 1.
DOCRE_INLINE void hyperbolic_tangent(Floats& x) {
  Words sign = (Words)x & 0x80000000u, n;
  Floats p, z = -2.0f * (Floats)((Words)x & 0x7fffffffu);
  limit_magnitude(z, 87.0f);
  exponent_parts(z, p, n);
  Floats power = (Floats)((n << 23) + 0x3f800000);
  Floats m = power * p + (power - 1.0f);
  x = (Floats)((Words)(-m / (m + 2.0f)) | sign);
}

}  // namespace docre
