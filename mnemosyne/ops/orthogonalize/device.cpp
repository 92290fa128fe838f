// What runs on any device: polynomials, and lists in batches.
#include "mnemosyne/ops/orthogonalize/device.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>

#include "mnemosyne/ops/raw_view.h"

namespace mnemosyne::ops {
namespace {

struct Quintic {
  double a;
  double b;
  double c;
};

// Made by scripts/polar_express.py for the interval [1e-3, 1].
constexpr std::array<Quintic, 5> kSteps = {{
    {8.2060759, -22.9074631, 16.4653415},
    {4.0678718, -2.8623313, 0.5185908},
    {3.9162356, -2.8266315, 0.5253175},
    {3.3121525, -2.4347444, 0.4879049},
    {2.3088200, -1.6457595, 0.4019424},
}};

/// x.mT() of x [count, M, N].
at::Tensor transposed(const at::Tensor& x) {
  return raw_view(x, {x.size(0), x.size(2), x.size(1)}, {x.stride(0), x.stride(2), x.stride(1)});
}

/// x <- (a + b G + c G^2) x, five times, with G = x x^T of each x [count, M, N]. By way of the
/// product of the polynomials of the first G long matrices would take half the arithmetic, but
/// small singular values drown in the rounding of G: 1.34 instead of 1.14 in float32, 30 and more
/// in bfloat16.
at::Tensor polynomials(at::Tensor x) {
  for (const Quintic& step : kSteps) {
    const at::Tensor gram = at::bmm(x, transposed(x));
    const at::Tensor even = at::baddbmm(gram, gram, gram, /*beta=*/step.b, /*alpha=*/step.c);
    x = at::baddbmm(x, even, x, /*beta=*/step.a);
  }
  return x;
}

/// x / |x| in float64, the range of which takes any magnitude; zero stays zero, what is not finite
/// becomes NaN in the products that follow.
at::Tensor normalized(const at::Tensor& x) {
  const bool has_double = !x.is_mps();
  const double tiny = has_double ? std::numeric_limits<double>::min()
                                 : static_cast<double>(std::numeric_limits<float>::min());
  const at::Tensor norm = at::linalg_vector_norm(x, 2, {-2, -1}, /*keepdim=*/true,
                                                 has_double ? at::kDouble : at::kFloat);
  return x / norm.clamp_min(tiny);
}

/// Wide matrices: x [count, M, N], M <= N.
at::Tensor polynomial_of_wide(const at::Tensor& x, at::ScalarType precision) {
  return polynomials(normalized(x).to(precision));
}

/// Multiplications and additions of `polynomials`.
double cost(int64_t rows, int64_t columns) {
  const double m = static_cast<double>(rows), n = static_cast<double>(columns);
  return 5 * m * m * (2 * n + m);
}

/// What a batch more costs beside its arithmetic, some twenty operations, in the same unit: about
/// 100 microseconds of a GPU at ten trillion a second.
constexpr double kBatchCost = 1e9;

/// Matrices that are treated as one, [., M, N], each of them padded by zeros at its end: wide ones
/// by rows, tall ones, which are stored as [., N, M], as well, so that what is next to each other
/// stays so.
struct Batch {
  int64_t rows = 0;     // M
  int64_t columns = 0;  // N
  std::vector<size_t> wide, tall;
};

struct Shape {
  bool tall;
  int64_t inner;  // the dimension that may not be padded
  int64_t outer;
  std::vector<size_t> members;
};

/// Equal shapes, the largest first.
std::vector<Shape> shapes_of(at::TensorList matrices) {
  std::map<std::pair<int64_t, int64_t>, Shape> found;
  for (size_t i = 0; i < matrices.size(); ++i) {
    const int64_t rows = matrices[i].size(0), columns = matrices[i].size(1);
    if (rows == 0 || columns == 0) continue;
    Shape& shape = found[{rows, columns}];
    shape.tall = rows > columns;
    shape.inner = columns;
    shape.outer = rows;
    shape.members.push_back(i);
  }
  std::vector<Shape> shapes;
  for (auto& [sizes, shape] : found) shapes.push_back(std::move(shape));
  std::stable_sort(shapes.begin(), shapes.end(), [](const Shape& a, const Shape& b) {
    return cost(std::min(a.inner, a.outer), std::max(a.inner, a.outer)) >
           cost(std::min(b.inner, b.outer), std::max(b.inner, b.outer));
  });
  return shapes;
}

/// Batches whose padding costs less than one batch more.
std::vector<Batch> batches_of(at::TensorList matrices, double batch_cost) {
  std::vector<Batch> batches;
  for (const Shape& shape : shapes_of(matrices)) {
    const int64_t rows = shape.tall ? shape.inner : shape.outer;
    const int64_t columns = shape.tall ? shape.outer : shape.inner;
    const double own = cost(rows, columns);
    const auto takes = [&](const Batch& batch) {
      const bool inner = shape.tall ? batch.rows == rows : batch.columns == columns;
      const double padding = cost(batch.rows, batch.columns) - own;
      return inner && batch.rows >= rows && batch.columns >= columns &&
             padding * static_cast<double>(shape.members.size()) <= batch_cost;
    };
    auto batch = std::find_if(batches.begin(), batches.end(), takes);
    if (batch == batches.end()) {
      batch =
          batches.insert(batches.end(), {.rows = rows, .columns = columns, .wide = {}, .tall = {}});
    }
    std::vector<size_t>& members = shape.tall ? batch->tall : batch->wide;
    members.insert(members.end(), shape.members.begin(), shape.members.end());
  }
  return batches;
}

/// Parts of `stack`, one after the other, in the shapes of the matrices.
void add_views(const at::Tensor& stack, at::TensorList matrices, const std::vector<size_t>& members,
               std::vector<at::Tensor>& views, std::vector<at::Tensor>& originals) {
  for (size_t k = 0; k < members.size(); ++k) {
    const at::Tensor& matrix = matrices[members[k]];
    const int64_t offset = static_cast<int64_t>(k) * stack.size(1) * stack.size(2);
    views.push_back(raw_view(stack, matrix.sizes(), offset));
    originals.push_back(matrix);
  }
}

}  // namespace

at::Tensor orthogonalize_polynomial(const at::Tensor& x, at::ScalarType precision) {
  TORCH_CHECK(x.dim() >= 2, "[orthogonalize_polynomial] expected x of shape [..., M, N], got ",
              x.sizes());
  TORCH_CHECK(at::isFloatingType(x.scalar_type()) && at::isFloatingType(precision),
              "[orthogonalize_polynomial] expected floating-point dtypes, got ", x.scalar_type(),
              " and ", precision);
  if (x.numel() == 0) return x.clone();
  const bool tall = x.size(-2) > x.size(-1);
  at::Tensor wide = tall ? x.mT() : x;
  wide = wide.reshape({-1, wide.size(-2), wide.size(-1)});
  if (wide.scalar_type() != at::kDouble) wide = wide.to(at::kFloat);
  const at::Tensor y = polynomial_of_wide(wide, precision);
  return (tall ? y.mT() : y).reshape(x.sizes()).contiguous().to(x.scalar_type());
}

void orthogonalize_batches_(at::TensorList matrices, std::optional<at::ScalarType> precision) {
  const std::vector<Batch> batches = batches_of(matrices, precision ? kBatchCost : 0.0);
  if (batches.empty()) return;
  std::vector<at::Tensor> wide, tall, views, originals;
  const auto stack = [&](const std::vector<size_t>& members, int64_t rows, int64_t columns) {
    if (members.empty()) return at::Tensor();
    const int64_t count = static_cast<int64_t>(members.size());
    const at::Tensor zeros = at::zeros({count, rows, columns}, matrices[members[0]].options());
    add_views(zeros, matrices, members, views, originals);
    return zeros;
  };
  for (const Batch& batch : batches) {
    wide.push_back(stack(batch.wide, batch.rows, batch.columns));
    tall.push_back(stack(batch.tall, batch.columns, batch.rows));
  }
  at::_foreach_copy_(views, originals);
  views.clear();
  originals.clear();
  for (size_t b = 0; b < batches.size(); ++b) {
    at::Tensor x = wide[b];
    if (tall[b].defined()) {
      const at::Tensor flat = transposed(tall[b]);
      x = x.defined() ? at::cat({x, flat}) : flat;
    }
    x = precision ? polynomial_of_wide(x, *precision).to(x.scalar_type())
                  : orthogonalize_reference(x);
    const int64_t num_wide = static_cast<int64_t>(batches[b].wide.size());
    add_views(x, matrices, batches[b].wide, views, originals);
    if (!tall[b].defined()) continue;
    const at::Tensor flat = raw_view(x, {x.size(0) - num_wide, x.size(1), x.size(2)}, x.strides(),
                                     num_wide * x.stride(0));
    const at::Tensor back = transposed(flat).contiguous();
    add_views(back, matrices, batches[b].tall, views, originals);
  }
  at::_foreach_copy_(originals, views);
}

}  // namespace mnemosyne::ops
