#pragma once

#include <memory>

#include "mnemosyne/tasks/stacked/model.h"

namespace mnemosyne::tasks {

struct GruLmOptions {
  int64_t vocabulary = 32;
  int64_t embedding = 32;
  int64_t hidden = 64;
};

/// A gated recurrent network over characters, from a zero state in every sequence, with torch's
/// names and equations (torch.nn.GRU). Inputs [B,T] int64, outputs [P,B*T,vocabulary].
std::shared_ptr<const Model> make_gru_lm(const GruLmOptions& options);

}  // namespace mnemosyne::tasks
