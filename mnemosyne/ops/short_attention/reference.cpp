#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/full.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>
#include <vector>

#include "mnemosyne/ops/short_attention/fused.h"
#include "mnemosyne/ops/short_attention/short_attention.h"

namespace mnemosyne::ops {

double short_attention_scale(int64_t depth) { return 1.0 / std::sqrt(static_cast<double>(depth)); }

void check_short_attention(const at::Tensor& qkv, int64_t tokens, int64_t heads) {
  TORCH_CHECK(qkv.dim() == 2 && tokens > 0 && heads > 0 && qkv.size(0) % tokens == 0 &&
                  qkv.size(1) % (3 * heads) == 0,
              "[short_attention] expected qkv [E*", tokens, ",3*", heads, "*D], got ", qkv.sizes());
}

at::Tensor short_attention_reference(const at::Tensor& qkv, int64_t tokens, int64_t heads,
                                     bool causal) {
  check_short_attention(qkv, tokens, heads);
  const int64_t examples = qkv.size(0) / tokens, depth = qkv.size(1) / (3 * heads);
  const std::vector<at::Tensor> parts = qkv.reshape({examples, tokens, 3, heads, depth})
                                            .permute({2, 0, 3, 1, 4})
                                            .reshape({3, examples * heads, tokens, depth})
                                            .unbind(0);
  at::Tensor mask = at::full({tokens, tokens}, 0.0, qkv.options());
  if (causal) mask.fill_(-std::numeric_limits<double>::infinity()).triu_(1);
  const at::Tensor scores =
      at::baddbmm(mask, parts[0], parts[1].transpose(1, 2), 1.0, short_attention_scale(depth));
  return at::bmm(at::softmax(scores, -1), parts[2])
      .view({examples, heads, tokens, depth})
      .transpose(1, 2)
      .reshape({examples * tokens, heads * depth});
}

}  // namespace mnemosyne::ops
