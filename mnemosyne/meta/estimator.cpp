#include "mnemosyne/meta/estimator.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros_like.h>

#include "mnemosyne/meta/fitness.h"

namespace mnemosyne::meta {

MetaGradient combine_contributions(const std::vector<MetaGradient>& contributions,
                                   const at::Tensor& weights) {
  MetaGradient total{.gradient = at::zeros_like(weights)};
  std::vector<double> losses;
  for (const MetaGradient& part : contributions) {
    total.inner_steps += part.inner_steps;
    total.skipped += part.skipped;
    total.runs.insert(total.runs.end(), part.runs.begin(), part.runs.end());
    if (!part.gradient.defined()) continue;
    if (!at::isfinite(part.gradient).all().item<bool>()) {
      ++total.skipped;
      continue;
    }
    total.gradient.add_(part.gradient);
    losses.push_back(part.meta_loss);
    ++total.used;
  }
  if (total.used > 0) total.gradient.div_(static_cast<double>(total.used));
  total.meta_loss = finite_mean(losses);
  return total;
}

}  // namespace mnemosyne::meta
