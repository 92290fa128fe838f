#pragma once

/// Everything that a user of the library includes (docs/design.md is the map).

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/safetensors.h"
#include "mnemosyne/meta/rollout.h"
#include "mnemosyne/meta/trainer.h"
#include "mnemosyne/nn/damped_position.h"
#include "mnemosyne/nn/fourier_position.h"
#include "mnemosyne/ops/linear_attention.h"
#include "mnemosyne/ops/masked_attention.h"
#include "mnemosyne/ops/memory_step.h"
#include "mnemosyne/ops/orthogonalize.h"
#include "mnemosyne/optim/optimizer.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"
#include "mnemosyne/tasks/families.h"
#include "mnemosyne/tasks/registry.h"
#include "mnemosyne/tasks/task.h"
#include "mnemosyne/version.h"
