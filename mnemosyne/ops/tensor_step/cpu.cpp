#include "mnemosyne/ops/tensor_step/cpu.h"

#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/kernels/tensor_step.h"
#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/parallel.h"
#include "mnemosyne/ops/tensor_step/chunks.h"
#include "mnemosyne/ops/without_kernels.h"

namespace mnemosyne::ops {
namespace {

constexpr int64_t kPiece = 16384;

/// The coordinates that are worth waking up a thread.
constexpr int64_t kWorth = 32768;

/// What one call of a kernel treats: a stretch of a chunk.
struct Piece {
  size_t tensor;
  size_t chunk;
  int64_t begin;
  int64_t size;
};

std::vector<Piece> split(const TensorStep& step, bool only_matrices = false) {
  std::vector<Piece> pieces;
  const std::vector<StepChunk> chunks = step_chunks(step);
  for (size_t c = 0; c < chunks.size(); ++c) {
    const StepChunk& chunk = chunks[c];
    if (only_matrices && !is_matrix(step, chunk.tensor)) continue;
    for (int64_t at = 0; at < chunk.size; at += kPiece) {
      pieces.push_back({chunk.tensor, c, chunk.begin + at, std::min(kPiece, chunk.size - at)});
    }
  }
  return pieces;
}

template <typename Function>
void for_each_piece(const std::vector<Piece>& pieces, const Function& function) {
  const int64_t count = static_cast<int64_t>(pieces.size());
  int64_t total = 0;
  for (const Piece& piece : pieces) total += piece.size;
  const int64_t grain = parallel_grain(count, total, kWorth);
  parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) function(static_cast<size_t>(k), pieces[k]);
  });
}

at::Tensor dense(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat && tensor.is_contiguous()) return tensor;
  return tensor.detach().to(at::kFloat).contiguous();
}

/// The tensors of a list as the kernels take them.
struct Pointers {
  std::vector<at::Tensor> params;  // stand-ins where they are not contiguous float32
  std::vector<float*> param, momentum, second_moment;
  std::vector<const float*> grad;

  Pointers(TensorStep& step, bool with_params) {
    for (size_t i = 0; i < step.size(); ++i) {
      step.grads[i] = dense(step.grads[i]);
      grad.push_back(step.grads[i].const_data_ptr<float>());
      momentum.push_back(step.momenta[i].mutable_data_ptr<float>());
      const at::Tensor v = step.second_moment(i);
      second_moment.push_back(v.defined() ? v.mutable_data_ptr<float>() : nullptr);
      if (!with_params) continue;
      params.push_back(dense(step.params[i]));
      param.push_back(params[i].mutable_data_ptr<float>());
    }
  }

  void write_back(const TensorStep& step) const {
    for (size_t i = 0; i < params.size(); ++i) {
      const at::Tensor& param = step.params[i];
      if (!params[i].is_alias_of(param)) param.detach().copy_(params[i]);
    }
  }
};

/// The numbers of a [C, ...] member of a correction; none where it is undefined.
std::vector<double> numbers(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  const at::Tensor values = tensor.detach().to(at::kCPU, at::kDouble).contiguous();
  const double* data = values.const_data_ptr<double>();
  return {data, data + values.numel()};
}

/// What is learned of every chunk, and whether that of a tensor is finite.
struct Decisions {
  std::vector<double> step, blend, mixture, readouts;
  std::vector<char> finite;  // [T]
  double scale = 1.0, decay_scale = 1.0;

  Decisions(const TensorStep& list, const StepCorrection& correction)
      : step(numbers(correction.step)),
        blend(numbers(correction.blend)),
        mixture(numbers(correction.mixture)),
        readouts(numbers(correction.readouts)),
        finite(list.size(), 1) {
    if (list.scale.defined()) scale = numbers(list.scale)[0];
    if (list.decay_scale.defined()) decay_scale = numbers(list.decay_scale)[0];
    const std::vector<StepChunk> chunks = step_chunks(list);
    for (const auto* values : {&step, &blend, &mixture, &readouts}) {
      const size_t width = values->size() / std::max<size_t>(chunks.size(), 1);
      for (size_t k = 0; k < values->size(); ++k) {
        if (!std::isfinite((*values)[k])) finite[chunks[k / width].tensor] = 0;
      }
    }
  }

  double of(const std::vector<double>& values, const Piece& piece, double otherwise) const {
    return values.empty() || !finite[piece.tensor] ? otherwise : values[piece.chunk];
  }
};

// The scratch directions of all matrices, one after the other; kept by each thread between steps.
struct Directions {
  std::vector<float> values;
  std::vector<int64_t> offsets;     // per tensor, -1 for those that are no matrices
  std::vector<MatrixRef> matrices;  // in the order of the list

  void layout(const TensorStep& step) {
    offsets.clear();
    matrices.clear();
    int64_t total = 0;
    for (size_t i = 0; i < step.size(); ++i) {
      offsets.push_back(is_matrix(step, i) ? total : -1);
      if (is_matrix(step, i)) total += step.params[i].numel();
    }
    if (static_cast<int64_t>(values.size()) < total) values.resize(total);
    for (size_t i = 0; i < step.size(); ++i) {
      if (offsets[i] < 0) continue;
      matrices.push_back({of(i), step.rows[i], step.params[i].numel() / step.rows[i]});
    }
  }

  float* of(size_t tensor) {
    return offsets[tensor] < 0 ? nullptr : values.data() + offsets[tensor];
  }
};

kernels::ApplyParams apply_params(const TensorStep& step, const Pointers& pointers,
                                  const Decisions& decisions, const Piece& piece) {
  const StepBase& base = step.base[piece.tensor];
  kernels::ApplyParams p{};
  p.param = pointers.param[piece.tensor] + piece.begin;
  p.grad = pointers.grad[piece.tensor] + piece.begin;
  p.momentum = pointers.momentum[piece.tensor] + piece.begin;
  float* second_moment = pointers.second_moment[piece.tensor];
  p.second_moment = second_moment == nullptr ? nullptr : second_moment + piece.begin;
  p.size = piece.size;
  const double factor = decisions.of(decisions.step, piece, 1.0);
  p.step = static_cast<float>(base.step * factor * decisions.scale);
  p.decay = static_cast<float>(base.decay * decisions.scale * decisions.decay_scale);
  p.scale = 1.0f;
  p.rms = static_cast<float>(kDirectionRms);
  p.mixture = static_cast<float>(decisions.of(decisions.mixture, piece, 0.0));
  p.momentum_correction = static_cast<float>(base.momentum_correction);
  p.second_correction = static_cast<float>(base.second_correction);
  p.eps = static_cast<float>(base.eps);
  p.bound = static_cast<float>(kReadoutBound);
  p.corrected = !decisions.readouts.empty();
  if (!p.corrected) return p;
  const double* own = decisions.readouts.data() + piece.chunk * kNumReadouts;
  for (int k = 0; k < kNumReadouts; ++k) p.readouts[k] = static_cast<float>(own[k]);
  return p;
}

/// The sums of v of whole tensors; none where there are no sums.
std::vector<double> second_moment_sums(const TensorStep& step, const StepSums& sums) {
  const std::vector<double> own = numbers(sums.second_moment);
  if (own.empty()) return {};
  std::vector<double> totals(step.size());
  const std::vector<StepChunk> chunks = step_chunks(step);
  for (size_t c = 0; c < chunks.size(); ++c) totals[chunks[c].tensor] += own[c];
  return totals;
}

void repair_(const at::Tensor& tensor) {
  if (tensor.defined()) tensor.copy_(at::where(at::isfinite(tensor), tensor, 0.0));
}

/// What its coordinates are multiplied with when a tensor moves along Adam's direction, or, for a
/// matrix without a second moment, along its momentum, which is then written to `direction`.
double plain_direction(const TensorStep& step, size_t i, float* direction) {
  repair_(step.momenta[i]);
  repair_(step.second_moment(i));
  if (!is_matrix(step, i)) return 1.0;
  if (step.second_moment(i).defined()) return kDirectionRms;
  const int64_t size = step.params[i].numel();
  const float* momentum = step.momenta[i].const_data_ptr<float>();
  double squares = 0.0;
  for (int64_t k = 0; k < size; ++k) {
    direction[k] = momentum[k];
    squares += static_cast<double>(momentum[k]) * momentum[k];
  }
  return squares > 0.0 ? kDirectionRms / std::sqrt(squares / static_cast<double>(size)) : 0.0;
}

/// Which tensors leave their own direction for the plain one, and its scale.
struct PlainDirections {
  std::vector<char> taken;
  std::vector<double> scales;
};

PlainDirections plain_directions(const TensorStep& step, const StepSums& sums,
                                 const Decisions& decisions, Directions& directions) {
  PlainDirections plain{std::vector<char>(step.size()), std::vector<double>(step.size())};
  for (size_t i = 0; i < step.size(); ++i) plain.taken[i] = !decisions.finite[i];
  const std::vector<StepChunk> chunks = step_chunks(step);
  for (const at::Tensor& member : {sums.new_squared, sums.second_moment}) {
    const std::vector<double> values = numbers(member);
    for (size_t c = 0; c < values.size(); ++c) {
      if (!std::isfinite(values[c])) plain.taken[chunks[c].tensor] = 1;
    }
  }
  for (size_t i = 0; i < step.size(); ++i) {
    float* direction = directions.of(i);
    // A matrix that is not finite has become NaN throughout.
    if (direction != nullptr && std::isnan(*direction)) plain.taken[i] = 1;
    if (plain.taken[i]) plain.scales[i] = plain_direction(step, i, direction);
  }
  return plain;
}

}  // namespace

bool tensor_step_has_kernel(const TensorStep& step) {
  const auto fits = [](const at::Tensor& t) {
    return t.is_cpu() && t.layout() == at::kStrided && t.scalar_type() != at::kDouble;
  };
  return !WithoutKernels::active() && std::all_of(step.params.begin(), step.params.end(), fits);
}

StepSums advance_moments_cpu_(TensorStep& step, bool with_sums) {
  const Pointers pointers(step, with_sums);
  const std::vector<Piece> pieces = split(step);
  std::vector<kernels::ChunkSums> partial(with_sums ? pieces.size() : 0);
  for_each_piece(pieces, [&](size_t k, const Piece& piece) {
    const size_t i = piece.tensor;
    float* second_moment = pointers.second_moment[i];
    kernels::update_moments(
        {pointers.grad[i] + piece.begin, with_sums ? pointers.param[i] + piece.begin : nullptr,
         pointers.momentum[i] + piece.begin,
         second_moment == nullptr ? nullptr : second_moment + piece.begin, piece.size,
         static_cast<float>(step.base[i].momentum_decay),
         static_cast<float>(step.base[i].second_decay), with_sums ? &partial[k] : nullptr});
  });
  if (!with_sums) return {};
  const int64_t num_chunks = static_cast<int64_t>(step_chunks(step).size());
  const at::Tensor sums = at::zeros({7, num_chunks}, at::kDouble);
  double* data = sums.mutable_data_ptr<double>();
  for (size_t k = 0; k < pieces.size(); ++k) {
    const kernels::ChunkSums& own = partial[k];
    const double values[] = {
        own.grad_dot_momentum, own.grad_squared,  own.old_squared, own.new_squared,
        own.param_squared,     own.second_moment, own.zeros};
    for (int64_t s = 0; s < 7; ++s) {
      data[s * num_chunks + static_cast<int64_t>(pieces[k].chunk)] += values[s];
    }
  }
  const std::vector<at::Tensor> of = sums.unbind();
  return {of[0], of[1], of[2], of[3], of[4], of[5], of[6]};
}

at::Tensor apply_directions_cpu_(TensorStep& step, const StepSums& sums,
                                 const StepCorrection& correction) {
  thread_local Directions directions;
  // Worker threads have to see this thread's buffers, not their own.
  Directions& own = directions;
  own.layout(step);
  const Pointers pointers(step, /*with_params=*/true);
  const Decisions decisions(step, correction);
  for_each_piece(split(step, /*only_matrices=*/true), [&](size_t, const Piece& piece) {
    const size_t i = piece.tensor;
    const double blend = step.base[i].blend * decisions.of(decisions.blend, piece, 1.0);
    kernels::blend_direction({pointers.grad[i] + piece.begin, pointers.momentum[i] + piece.begin,
                              own.of(i) + piece.begin, piece.size, static_cast<float>(blend)});
  });
  orthogonalize_(own.matrices.data(), static_cast<int64_t>(own.matrices.size()));
  PlainDirections plain = plain_directions(step, sums, decisions, own);
  const std::vector<double> second_moments = second_moment_sums(step, sums);
  const std::vector<Piece> pieces = split(step);
  std::vector<int64_t> skipped(pieces.size());
  for_each_piece(pieces, [&](size_t k, const Piece& piece) {
    const size_t i = piece.tensor;
    kernels::ApplyParams p = apply_params(step, pointers, decisions, piece);
    p.skipped = &skipped[k];
    if (plain.taken[i]) {
      p.scale = static_cast<float>(plain.scales[i]);
      p.mixture = 0.0f;
      p.corrected = false;
    } else if (is_matrix(step, i)) {
      p.scale = static_cast<float>(direction_scale(step, i));
    }
    if (is_matrix(step, i) && !(plain.taken[i] && p.second_moment != nullptr)) {
      p.direction = own.of(i) + piece.begin;
    }
    if (!second_moments.empty()) {
      const double mean = second_moments[i] / static_cast<double>(step.params[i].numel());
      p.mean_second_moment = p.second_correction * static_cast<float>(mean);
    }
    kernels::apply_direction(p);
  });
  for (size_t k = 0; k < pieces.size(); ++k) {
    if (skipped[k] == 0) continue;
    plain.taken[pieces[k].tensor] = 1;
    repair_(step.momenta[pieces[k].tensor]);
    repair_(step.second_moment(pieces[k].tensor));
  }
  pointers.write_back(step);
  return at::full({}, std::count(plain.taken.begin(), plain.taken.end(), 1), at::kLong);
}

}  // namespace mnemosyne::ops
