#pragma once

#include <cstdint>

#include "mnemosyne/kernels/dispatch.h"

namespace mnemosyne::kernels {

constexpr int kMaxSignTerms = 4;

/// One matrix to orthogonalise in place: P X / sqrt(b) with P = sum_j weight_j (G / b + pole_j)^-1,
/// see ops/orthogonalize/orthogonalize.h. `matrix` is row-major [rows, columns]; poles ascend. What
/// is finite comes out finite; else all of it becomes NaN.
///
/// `workspace` holds `orthogonalize_workspace(rows, columns, num_terms)` floats, aligned to 64
/// bytes, with any content.
struct OrthogonalizeParams {
  float* matrix;
  int64_t rows;
  int64_t columns;
  float* workspace;
  const float* weights;
  const float* poles;
  int num_terms;
};

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

/// Floats that one matrix needs, enough for every instruction set, and for double precision: that
/// half is only touched by matrices that ask for it.
constexpr int64_t orthogonalize_workspace(int64_t rows, int64_t columns, int num_terms) {
  const OrthogonalizeSizes sizes(rows < columns ? rows : columns);
  return 2 * (sizes.packed + num_terms * sizes.symmetric + sizes.scratch + sizes.check);
}

}  // namespace mnemosyne::kernels

MN_DECLARE_KERNEL(orthogonalize, OrthogonalizeParams)
