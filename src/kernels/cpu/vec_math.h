// Elementary functions over a vector type, to about 1e-7 relative error. The polynomials are minimax fits to the
// functions named beside them. NaN comes out where NaN goes in.
#pragma once

#include "kernels/views.h"

namespace kvasir::simd {

/// x = n·ln 2 + r with |r| <= ln 2 / 2: sets n and gives exp(r) - 1. REQUIRES: |x| < 1000.
template <class V>
inline typename V::F ReducedExpm1(typename V::F x, typename V::F* n) {
  using F = typename V::F;
  *n = V::Round(V::Mul(x, V::Set1(1.44269504f)));
  F r = V::Fnma(*n, V::Set1(0.693145752f), x);  // ln 2 in two parts, the first exact in few bits
  r = V::Fnma(*n, V::Set1(1.42860677e-6f), r);
  F q = V::Set1(1.381459744e-3f);  // (exp(r) - 1 - r) / r²
  q = V::Fma(q, r, V::Set1(8.368716929e-3f));
  q = V::Fma(q, r, V::Set1(4.166838808e-2f));
  q = V::Fma(q, r, V::Set1(0.1666652063f));
  q = V::Fma(q, r, V::Set1(0.4999999345f));
  return V::Fma(V::Mul(r, r), q, r);
}

template <class V>
inline typename V::F Exp(typename V::F x) {
  typename V::F n;
  x = V::Min(V::Set1(90.0f), V::Max(V::Set1(-110.0f), x));  // infinity and zero already
  const typename V::F m = ReducedExpm1<V>(x, &n);
  return V::ScaleByPowerOf2(V::Add(m, V::Set1(1.0f)), n);
}

template <class V>
inline typename V::F Tanh(typename V::F x) {
  using F = typename V::F;
  // tanh |x| = e / (e + 2) with e = exp(2|x|) - 1, which loses nothing near zero; 1 in fp32 from 9.02 on.
  F n;
  const F twice = V::Min(V::Set1(20.0f), V::Add(V::Abs(x), V::Abs(x)));
  const F m = ReducedExpm1<V>(twice, &n);
  const F power = V::ScaleByPowerOf2(V::Set1(1.0f), n);
  const F e = V::Fma(power, m, V::Sub(power, V::Set1(1.0f)));
  return V::CopySign(V::Div(e, V::Add(e, V::Set1(2.0f))), x);
}

/// x / (1 + exp(-z)).
template <class V>
inline typename V::F TimesSigmoid(typename V::F x, typename V::F z) {
  return V::Div(x, V::Add(V::Set1(1.0f), Exp<V>(V::Sub(V::Zero(), z))));
}

/// x · Φ(x), Φ the normal distribution function; accurate in the tail too, where 1 + erf cancels.
template <class V>
inline typename V::F Gelu(typename V::F x) {
  using F = typename V::F;
  const F t = V::Min(V::Set1(14.5f), V::Abs(x));  // Φ(-14.5) is zero in fp32
  // Φ(-t) = exp(-t²/2) · R(t), R a polynomial in u = 1 / (1 + 0.35 t) without constant term.
  const F u = V::Div(V::Set1(1.0f), V::Fma(V::Set1(0.35f), t, V::Set1(1.0f)));
  F r = V::Set1(-2.915947596e-2f);
  r = V::Fma(r, u, V::Set1(0.1440387956f));
  r = V::Fma(r, u, V::Set1(-0.2558555928f));
  r = V::Fma(r, u, V::Set1(0.1593390464f));
  r = V::Fma(r, u, V::Set1(-2.322598367e-2f));
  r = V::Fma(r, u, V::Set1(0.105558418f));
  r = V::Fma(r, u, V::Set1(0.1198197483f));
  r = V::Fma(r, u, V::Set1(0.1398637342f));
  r = V::Fma(r, u, V::Set1(0.1396212939f));
  r = V::Mul(r, u);
  const F minus_half = V::Set1(-0.5f);
  const F square = V::Mul(t, t);
  const F lost = V::Fma(t, t, V::Sub(V::Zero(), square));  // t² = square + lost
  F e = Exp<V>(V::Mul(square, minus_half));
  e = V::Fma(e, V::Mul(lost, minus_half), e);
  const F tail = V::Mul(e, r);
  return V::Mul(x, V::Select(V::Less(x, V::Zero()), tail, V::Sub(V::Set1(1.0f), tail)));
}

template <class V, Activation kActivation>
inline typename V::F Activate(typename V::F x) {
  using F = typename V::F;
  if constexpr (kActivation == Activation::kRelu) {
    return V::Max(V::Zero(), x);
  } else if constexpr (kActivation == Activation::kReluSquared) {
    const F positive = V::Max(V::Zero(), x);
    return V::Mul(positive, positive);
  } else if constexpr (kActivation == Activation::kSilu) {
    return TimesSigmoid<V>(x, x);
  } else if constexpr (kActivation == Activation::kGeluQuick) {
    return TimesSigmoid<V>(x, V::Mul(x, V::Set1(1.702f)));
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    // (1 + tanh z) / 2 is the sigmoid of 2z; z = √(2/π) (x + 0.044715 x³).
    const F cube = V::Mul(V::Mul(x, x), V::Set1(0.0713548163f));
    return TimesSigmoid<V>(x, V::Mul(x, V::Add(cube, V::Set1(1.5957691216f))));
  } else if constexpr (kActivation == Activation::kGelu) {
    return Gelu<V>(x);
  } else {
    return x;
  }
}

/// Calls fn.template operator()<activation>() with the activation as a constant.
template <class Fn>
inline void WithActivation(Activation activation, const Fn& fn) {
  switch (activation) {
    case Activation::kNone: return fn.template operator()<Activation::kNone>();
    case Activation::kRelu: return fn.template operator()<Activation::kRelu>();
    case Activation::kGelu: return fn.template operator()<Activation::kGelu>();
    case Activation::kGeluTanh: return fn.template operator()<Activation::kGeluTanh>();
    case Activation::kGeluQuick: return fn.template operator()<Activation::kGeluQuick>();
    case Activation::kSilu: return fn.template operator()<Activation::kSilu>();
    case Activation::kReluSquared: return fn.template operator()<Activation::kReluSquared>();
  }
}

}  // namespace kvasir::simd
