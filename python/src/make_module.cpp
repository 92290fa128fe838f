#include "make_module.h"

#include <functional>
#include <optional>
#include <variant>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/nn/causal_lm.h"
#include "mnemosyne/nn/performer_block.h"
#include "mnemosyne/nn/point_encoder.h"
#include "mnemosyne/nn/softmax_attention.h"
#include "mnemosyne/nn/vit.h"
#include "options.h"

namespace mnemosyne::python {
namespace {

using Handle = std::shared_ptr<ModuleHandle>;
using Maker = std::function<Handle(const py::args&)>;

/// None, or a dictionary of options whose "type" says of what.
template <typename... Options>
void read_position(const py::object& given, std::variant<std::monostate, Options...>& position) {
  if (given.is_none()) return;
  const py::dict rest = given.attr("copy")();
  const std::string type = rest.attr("pop")("type").cast<std::string>();
  const auto read = [&](auto options) {
    if (type != options.kNames.type) return false;
    position = read_options(rest, options);
    return true;
  };
  if (!(read(Options{}) || ...)) refuse_choice("options", type, {Options::kNames.type...}, "type");
}

template <typename... Options>
py::object write_position(const std::variant<std::monostate, Options...>& position) {
  return std::visit(
      [](const auto& options) -> py::object {
        if constexpr (std::is_same_v<std::decay_t<decltype(options)>, std::monostate>) {
          return py::none();
        } else {
          py::dict result = write_options(options);
          result["type"] = options.kNames.type;
          return result;
        }
      },
      position);
}

template <typename Impl, typename Options>
Handle make_handle(const Options& options) {
  return std::make_shared<ModuleHandle>(std::make_shared<Impl>(options));
}

template <typename Impl, typename Options>
Handle make_plain(const py::args& a) {
  return make_handle<Impl>(read_options<Options>(a[0]));
}

template <typename Impl, typename Options>
Handle make_attention(const py::args& a) {
  auto options = read_options<Options>(a[0]);
  read_position(a[1], options.position);
  return make_handle<Impl>(options);
}

template <typename Impl, typename Options>
Handle make_model(const py::args& a) {
  auto options = read_options<Options>(a[0]);
  options.attention = read_options<nn::AttentionOptions>(a[1], options.attention);
  return make_handle<Impl>(options);
}

Handle make_block(const py::args& a) {
  return make_handle<nn::PerformerBlockImpl>(
      nn::PerformerBlockOptions{.site = read_options<nn::AttentionSite>(a[0]),
                                .attention = read_options<nn::AttentionOptions>(a[1]),
                                .hidden = a[2].cast<int64_t>()});
}

const Choices<Maker>& makers() {
  static const Choices<Maker> all = {
      {"CausalLM", make_model<nn::CausalLMImpl, nn::CausalLMOptions>},
      {"DampedPosition", make_plain<nn::DampedPositionImpl, nn::DampedPositionOptions>},
      {"FourierPosition", make_plain<nn::FourierPositionImpl, nn::FourierPositionOptions>},
      {"LinearAttention", make_attention<nn::LinearAttentionImpl, nn::LinearAttentionOptions>},
      {"PerformerBlock", make_block},
      {"PointEncoder", make_model<nn::PointEncoderImpl, nn::PointEncoderOptions>},
      {"SoftmaxAttention", make_attention<nn::SoftmaxAttentionImpl, nn::SoftmaxAttentionOptions>},
      {"ViT", make_model<nn::ViTImpl, nn::ViTOptions>}};
  return all;
}

/// Empty unless the module is an Impl.
template <typename Impl, typename Write>
void write_if(const torch::nn::Module& module, py::tuple& result, Write write) {
  if (const auto* found = dynamic_cast<const Impl*>(&module)) result = write(found->options());
}

}  // namespace

Handle make_module(const std::string& kind, const py::args& arguments) {
  return one_of("module", kind, makers())(arguments);
}

py::tuple arguments_of(const ModuleHandle& handle) {
  const torch::nn::Module& module = handle.module();
  py::tuple result;
  const auto plain = [](const auto& o) { return py::make_tuple(write_options(o)); };
  const auto attention = [](const auto& o) {
    return py::make_tuple(write_options(o), write_position(o.position));
  };
  const auto model = [](const auto& o) {
    return py::make_tuple(write_options(o), write_options(o.attention));
  };
  write_if<nn::FourierPositionImpl>(module, result, plain);
  write_if<nn::DampedPositionImpl>(module, result, plain);
  write_if<nn::LinearAttentionImpl>(module, result, attention);
  write_if<nn::SoftmaxAttentionImpl>(module, result, attention);
  write_if<nn::PerformerBlockImpl>(module, result, [](const auto& o) {
    return py::make_tuple(write_options(o.site), write_options(o.attention), o.hidden);
  });
  write_if<nn::CausalLMImpl>(module, result, model);
  write_if<nn::ViTImpl>(module, result, model);
  write_if<nn::PointEncoderImpl>(module, result, model);
  return result;
}

}  // namespace mnemosyne::python
