#pragma once

#include <cstdint>

#include "mnemosyne/kernels/dispatch.h"

namespace mnemosyne::kernels {

constexpr int kMaxSignTerms = 4;

/// A row-major matrix, not owned.
struct OrthogonalizeMatrix {
  float* data;
  int64_t rows;
  int64_t columns;
};

/// A list of matrices that do not overlap, each orthogonalised in place: P X / sqrt(b) with
/// P = sum_j weight_j (G / b + pole_j)^-1, see ops/orthogonalize/orthogonalize.h; poles ascend.
/// What is finite comes out finite; else all of a matrix becomes NaN.
struct OrthogonalizeParams {
  const OrthogonalizeMatrix* matrices;
  int64_t count;
  const float* weights;
  const float* poles;
  int num_terms;
};

/// The matrices from begin to end, one after the other, in scratch memory that is aligned to 64
/// bytes and has any content.
using OrthogonalizeSlice = Slice<OrthogonalizeParams>;

/// Rows and columns of blocks to which the kernel pads, and how much of X it packs at a time:
/// constants of the body that the size of the workspace depends on, at their largest over the
/// instruction sets.
constexpr int64_t kOrthogonalizeBlock = 16;
constexpr int64_t kOrthogonalizePanel = 32;
constexpr int64_t kOrthogonalizeGramTerms = 128;
constexpr int64_t kOrthogonalizeRows = 32;
constexpr int64_t kOrthogonalizeDepth = 64;

/// Numbers of packed X, of one symmetric matrix, of scratch and of the check of the inverse (always
/// double) for a matrix whose smaller side is `m`.
struct OrthogonalizeSizes {
  constexpr explicit OrthogonalizeSizes(int64_t m) {
    const int64_t rows = (m + kOrthogonalizeBlock - 1) / kOrthogonalizeBlock * kOrthogonalizeBlock;
    const int64_t columns =
        (m + kOrthogonalizePanel - 1) / kOrthogonalizePanel * kOrthogonalizePanel;
    const int64_t gram = columns * kOrthogonalizeGramTerms;
    const int64_t apply = (rows + kOrthogonalizeBlock) * kOrthogonalizeRows;
    packed = gram > apply ? gram : apply;
    symmetric = rows * columns;
    check = 2 * columns;
    scratch = kMaxSignTerms * (kOrthogonalizeBlock * kOrthogonalizeBlock +
                               (kOrthogonalizeBlock + kOrthogonalizeDepth) * columns);
  }

  int64_t packed = 0;
  int64_t symmetric = 0;
  int64_t scratch = 0;
  int64_t check = 0;
};

// orthogonalize_scratch: floats for any of the matrices, also in double precision: that half is
// only touched by matrices that ask for it.

}  // namespace mnemosyne::kernels

MN_DECLARE_KERNEL(orthogonalize, OrthogonalizeSlice)
MN_DECLARE_SCRATCH(orthogonalize_scratch, OrthogonalizeParams)
