#include "mnemosyne/ops/tensor_step/cpu.h"

#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <iterator>

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

using Pieces = std::vector<kernels::StepPiece>;

Pieces split(const TensorStep& step, bool only_matrices = false) {
  Pieces pieces;
  const std::vector<StepChunk> chunks = step_chunks(step);
  for (size_t c = 0; c < chunks.size(); ++c) {
    const StepChunk& chunk = chunks[c];
    if (only_matrices && !is_matrix(step, chunk.tensor)) continue;
    for (int64_t at = 0; at < chunk.size; at += kPiece) {
      pieces.push_back({static_cast<int64_t>(chunk.tensor), static_cast<int64_t>(c),
                        chunk.begin + at, std::min(kPiece, chunk.size - at)});
    }
  }
  return pieces;
}

/// A kernel on all pieces, by threads.
void run(void (*kernel)(const kernels::TensorStepSlice&), kernels::TensorStepParams problem,
         const Pieces& pieces) {
  problem.pieces = pieces.data();
  const int64_t count = static_cast<int64_t>(pieces.size());
  int64_t total = 0;
  for (const kernels::StepPiece& piece : pieces) total += piece.size;
  parallel_for(0, count, parallel_grain(count, total, kWorth),
               [&](int64_t begin, int64_t end) { kernel({problem, begin, end, nullptr}); });
}

at::Tensor dense(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat && tensor.is_contiguous()) return tensor;
  return tensor.detach().to(at::kFloat).contiguous();
}

uint16_t* bits_of(const at::Tensor& x) {
  return reinterpret_cast<uint16_t*>(x.mutable_data_ptr<at::BFloat16>());
}

/// The tensors of a list as the kernels take them.
struct Tensors {
  std::vector<at::Tensor> params;  // stand-ins where they are not contiguous float32
  std::vector<kernels::StepTensor> all;

  Tensors(TensorStep& step, bool with_params) {
    for (size_t i = 0; i < step.size(); ++i) {
      const StepBase& base = step.base[i];
      const at::Tensor v = step.second_moment(i);
      step.grads[i] = dense(step.grads[i]);
      kernels::StepTensor& x = all.emplace_back();
      x.grad = step.grads[i].const_data_ptr<float>();
      x.momentum = step.momenta[i].mutable_data_ptr<float>();
      if (v.defined() && v.scalar_type() == at::kBFloat16) {
        x.compact_second_moment = bits_of(v);
        x.rounding_seed = base.rounding_seed;
      } else {
        x.second_moment = v.defined() ? v.mutable_data_ptr<float>() : nullptr;
      }
      x.update = has_previous_updates(step) ? bits_of(step.previous_updates[i]) : nullptr;
      x.momentum_decay = static_cast<float>(base.momentum_decay);
      x.second_decay = static_cast<float>(base.second_decay);
      x.momentum_correction = static_cast<float>(base.momentum_correction);
      x.second_correction = static_cast<float>(base.second_correction);
      x.eps = static_cast<float>(base.eps);
      if (!with_params) continue;
      params.push_back(dense(step.params[i]));
      x.param = params[i].mutable_data_ptr<float>();
    }
  }

  void write_back(const TensorStep& step) const {
    for (size_t i = 0; i < params.size(); ++i) {
      const at::Tensor& param = step.params[i];
      if (!params[i].is_alias_of(param)) param.detach().copy_(params[i]);
    }
  }
};

/// Sums of chunks, in the order of kStepSums.
class ChunkSums {
 public:
  ChunkSums(int64_t num_chunks, int64_t num_sums)
      : num_chunks_(num_chunks),
        all_(at::zeros({num_sums, num_chunks}, at::kDouble)),
        data_(all_.mutable_data_ptr<double>()) {}

  /// Adds numbers of a chunk to the sums from number `first` on.
  void add(int64_t chunk, int64_t first, std::initializer_list<double> values) {
    double* place = data_ + first * num_chunks_ + chunk;
    for (const double value : values) {
      *place += value;
      place += num_chunks_;
    }
  }

  StepSums named() const {
    StepSums result;
    auto member = std::begin(kStepSums);
    for (const at::Tensor& sums : all_.unbind()) result.*(*member++) = sums;
    return result;
  }

 private:
  int64_t num_chunks_;
  at::Tensor all_;
  double* data_;
};

/// The numbers of a tensor; none where it is undefined.
std::vector<double> numbers(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  const at::Tensor values = tensor.detach().to(at::kCPU, at::kDouble).contiguous();
  const double* data = values.const_data_ptr<double>();
  return {data, data + values.numel()};
}

/// The numbers of every chunk, and whether what is learned of all chunks of a tensor is finite.
struct Decisions {
  std::vector<kernels::ChunkNumbers> chunks;  // [C]
  std::vector<char> finite;                   // [T]
  bool readouts = false;

  Decisions(const TensorStep& list, const StepCorrection& correction) : finite(list.size(), 1) {
    const double scale = list.scale.defined() ? numbers(list.scale)[0] : 1.0;
    const double decay_scale = list.decay_scale.defined() ? numbers(list.decay_scale)[0] : 1.0;
    const std::vector<double> step = numbers(correction.step), blend = numbers(correction.blend),
                              mixture = numbers(correction.mixture),
                              decay = numbers(correction.decay),
                              own_readouts = numbers(correction.readouts);
    readouts = !own_readouts.empty();
    const std::vector<StepChunk> places = step_chunks(list);
    for (const auto* values : {&step, &blend, &mixture, &decay, &own_readouts}) {
      const size_t width = values->size() / std::max<size_t>(places.size(), 1);
      for (size_t k = 0; k < values->size(); ++k) {
        if (!std::isfinite((*values)[k])) finite[places[k / width].tensor] = 0;
      }
    }
    for (size_t c = 0; c < places.size(); ++c) {
      const StepBase& base = list.base[places[c].tensor];
      const auto own = [&](const std::vector<double>& values, double otherwise) {
        return values.empty() || !finite[places[c].tensor] ? otherwise : values[c];
      };
      kernels::ChunkNumbers& chunk = chunks.emplace_back();
      const double size = base.step * own(step, 1.0) * scale;
      chunk.step = static_cast<float>(size);
      chunk.decay = static_cast<float>(base.decay * scale * decay_scale + size * own(decay, 0.0));
      chunk.blend = static_cast<float>(base.blend * own(blend, 1.0));
      chunk.mixture = static_cast<float>(own(mixture, 0.0));
      for (size_t k = 0; readouts && k < kNumReadouts; ++k) {
        chunk.readouts[k] = static_cast<float>(own_readouts[c * kNumReadouts + k]);
      }
    }
  }
};

// The scratch directions of all matrices, one after the other; kept by each thread between steps.
struct Directions {
  std::vector<float> values;
  std::vector<MatrixRef> matrices;  // in the order of the list

  void layout(const TensorStep& step, std::vector<kernels::StepTensor>& tensors) {
    matrices.clear();
    size_t total = 0;
    for (size_t i = 0; i < step.size(); ++i) {
      if (is_matrix(step, i)) total += static_cast<size_t>(step.params[i].numel());
    }
    if (values.size() < total) values.resize(total);
    float* next = values.data();
    for (size_t i = 0; i < step.size(); ++i) {
      if (!is_matrix(step, i)) continue;
      tensors[i].direction = next;
      matrices.push_back({next, step.rows[i], step.params[i].numel() / step.rows[i]});
      next += step.params[i].numel();
    }
  }
};

void repair_(const at::Tensor& tensor) {
  if (tensor.defined()) tensor.copy_(at::where(at::isfinite(tensor), tensor, 0.0));
}

/// A tensor that moves along Adam's direction, or, a matrix without a second moment, along its
/// momentum, which is then written to `direction`.
void take_plain_direction(const TensorStep& step, size_t i, kernels::StepTensor& x) {
  repair_(step.momenta[i]);
  repair_(step.second_moment(i));
  x.corrected = false;
  x.scale = 1.0f;
  if (!is_matrix(step, i)) return;
  x.scale = static_cast<float>(kDirectionRms);
  if (x.second_moment != nullptr || x.compact_second_moment != nullptr) {
    x.direction = nullptr;
    return;
  }
  const int64_t size = step.params[i].numel();
  double squares = 0.0;
  for (int64_t k = 0; k < size; ++k) {
    x.direction[k] = x.momentum[k];
    squares += static_cast<double>(x.momentum[k]) * x.momentum[k];
  }
  const double rms = std::sqrt(squares / static_cast<double>(size));
  x.scale = squares > 0.0 ? static_cast<float>(kDirectionRms / rms) : 0.0f;
}

/// Which tensors leave their own direction for the plain one.
std::vector<char> broken(const TensorStep& step, const StepSums& sums, const Decisions& decisions,
                         const std::vector<kernels::StepTensor>& tensors) {
  std::vector<char> result(step.size());
  const std::vector<StepChunk> chunks = step_chunks(step);
  for (const at::Tensor& member : {sums.new_squared, sums.second_moment}) {
    const std::vector<double> values = numbers(member);
    for (size_t c = 0; c < values.size(); ++c) {
      if (!std::isfinite(values[c])) result[chunks[c].tensor] = 1;
    }
  }
  for (size_t i = 0; i < step.size(); ++i) {
    // A matrix that is not finite has become NaN throughout.
    const float* direction = tensors[i].direction;
    const bool lost = direction != nullptr && std::isnan(*direction);
    result[i] = result[i] != 0 || decisions.finite[i] == 0 || lost;
  }
  return result;
}

/// What `apply_directions` takes of every tensor beside its pointers.
void decide(const TensorStep& step, const StepSums& sums, const Decisions& decisions,
            std::vector<kernels::StepTensor>& tensors) {
  std::vector<double> second_moments(step.size());
  const std::vector<double> of_chunks = numbers(sums.second_moment);
  const std::vector<StepChunk> chunks = step_chunks(step);
  for (size_t c = 0; c < of_chunks.size(); ++c) second_moments[chunks[c].tensor] += of_chunks[c];
  for (size_t i = 0; i < step.size(); ++i) {
    kernels::StepTensor& x = tensors[i];
    const double mean = second_moments[i] / static_cast<double>(step.params[i].numel());
    x.scale = is_matrix(step, i) ? static_cast<float>(direction_scale(step, i)) : 1.0f;
    x.mean_second_moment = x.second_correction * static_cast<float>(mean);
    x.corrected = decisions.readouts;
  }
}

}  // namespace

bool tensor_step_has_kernel(const TensorStep& step) {
  const auto fits = [](const at::Tensor& t) {
    return t.is_cpu() && t.layout() == at::kStrided && t.scalar_type() != at::kDouble;
  };
  return !WithoutKernels::active() && std::all_of(step.params.begin(), step.params.end(), fits);
}

StepSums advance_moments_cpu_(TensorStep& step, bool with_sums) {
  const Tensors tensors(step, with_sums);
  const Pieces pieces = split(step);
  const bool aligned = with_sums && has_previous_updates(step);
  std::vector<kernels::PieceSums> partial(with_sums ? pieces.size() : 0);
  std::vector<kernels::PieceAlignment> alignment(aligned ? pieces.size() : 0);
  kernels::TensorStepParams problem{};
  problem.tensors = tensors.all.data();
  problem.sums = with_sums ? partial.data() : nullptr;
  problem.alignment = aligned ? alignment.data() : nullptr;
  run(kernels::update_moments, problem, pieces);
  if (!with_sums) return {};
  ChunkSums sums(static_cast<int64_t>(step_chunks(step).size()),
                 aligned ? std::ssize(kStepSums) : kNumMomentSums);
  for (size_t k = 0; k < pieces.size(); ++k) {
    const kernels::PieceSums& own = partial[k];
    sums.add(pieces[k].chunk, 0,
             {own.grad_dot_momentum, own.grad_squared, own.old_squared, own.new_squared,
              own.param_squared, own.second_moment, own.zeros});
    if (!aligned) continue;
    const kernels::PieceAlignment& more = alignment[k];
    sums.add(
        pieces[k].chunk, kNumMomentSums,
        {more.grad_dot_update, more.momentum_dot_update, more.update_squared, more.grad_dot_param});
  }
  return sums.named();
}

at::Tensor apply_directions_cpu_(TensorStep& step, const StepSums& sums,
                                 const StepCorrection& correction) {
  // Worker threads get pointers into this thread's buffer.
  thread_local Directions directions;
  Tensors tensors(step, /*with_params=*/true);
  directions.layout(step, tensors.all);
  const Decisions decisions(step, correction);
  kernels::TensorStepParams problem{};
  problem.tensors = tensors.all.data();
  problem.chunks = decisions.chunks.data();
  problem.rms = static_cast<float>(kDirectionRms);
  problem.bound = static_cast<float>(kReadoutBound);
  run(kernels::blend_directions, problem, split(step, /*only_matrices=*/true));
  orthogonalize_(directions.matrices.data(), static_cast<int64_t>(directions.matrices.size()));
  decide(step, sums, decisions, tensors.all);
  std::vector<char> replaced = broken(step, sums, decisions, tensors.all);
  for (size_t i = 0; i < step.size(); ++i) {
    if (replaced[i]) take_plain_direction(step, i, tensors.all[i]);
  }
  const Pieces pieces = split(step);
  std::vector<int64_t> skipped(pieces.size());
  problem.skipped = skipped.data();
  run(kernels::apply_directions, problem, pieces);
  for (size_t k = 0; k < pieces.size(); ++k) {
    if (skipped[k] == 0) continue;
    const auto i = static_cast<size_t>(pieces[k].tensor);
    replaced[i] = 1;
    repair_(step.momenta[i]);
    repair_(step.second_moment(i));
  }
  tensors.write_back(step);
  return at::full({}, std::count(replaced.begin(), replaced.end(), 1), at::kLong);
}

}  // namespace mnemosyne::ops
