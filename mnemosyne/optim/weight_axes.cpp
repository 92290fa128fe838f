#include "mnemosyne/optim/weight_axes.h"

#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mnemosyne/core/error.h"

namespace mnemosyne::optim {
namespace {

using Json = nlohmann::json;
using Names = std::vector<std::string>;

Names read_names(const Json& list, const std::string& source) {
  Names names;
  for (const Json& entry : list) {
    if (!entry.is_string()) {
      throw InputError("[load_rule] expected names along the axes of " + source +
                       ", got something else");
    }
    names.push_back(entry.get<std::string>());
  }
  return names;
}

/// `stored` along one axis, in the order of `to`.
at::Tensor align_axis(const at::Tensor& stored, int64_t axis, const Names& from, const Names& to,
                      const std::string& name) {
  std::vector<int64_t> places;
  for (const std::string& entry : from) {
    const auto found = std::find(to.begin(), to.end(), entry);
    if (found == to.end()) {
      throw InputError("[load_rule] expected weights \"" + name +
                       "\" for what this version knows, got \"" + entry.substr(0, 80) + "\"");
    }
    places.push_back(found - to.begin());
  }
  std::vector<int64_t> shape = stored.sizes().vec();
  shape[static_cast<size_t>(axis)] = static_cast<int64_t>(to.size());
  return at::zeros(shape, stored.options())
      .index_copy_(axis, at::tensor(places, at::kLong), stored);
}

}  // namespace

std::string write_axes(const WeightAxes& axes) { return axes.empty() ? "" : Json(axes).dump(); }

WeightAxes read_axes(const std::string& text, const std::string& source) {
  WeightAxes axes;
  if (text.empty()) return axes;
  const Json object = Json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  bool good = object.is_object();
  for (auto item = object.begin(); good && item != object.end(); ++item) {
    good = item->is_array() && std::all_of(item->begin(), item->end(),
                                           [](const Json& list) { return list.is_array(); });
    if (!good) break;
    for (const Json& list : *item) axes[item.key()].push_back(read_names(list, source));
  }
  if (!good) {
    throw InputError("[load_rule] expected axes of " + source +
                     " as lists of names by weight, got others");
  }
  return axes;
}

at::Tensor align_axes(const at::Tensor& stored, const std::vector<Names>& from,
                      const std::vector<Names>& to, const std::string& name) {
  const auto rank = static_cast<size_t>(stored.dim());
  bool fits = from.size() == rank && to.size() == rank;
  for (size_t axis = 0; fits && axis < rank; ++axis) {
    const auto size = static_cast<size_t>(stored.size(static_cast<int64_t>(axis)));
    fits = from[axis].empty() || from[axis].size() == size;
  }
  if (!fits) {
    throw InputError("[load_rule] expected a name for each row and column of \"" + name +
                     "\", got others");
  }
  at::Tensor result = stored;
  for (size_t axis = 0; axis < rank; ++axis) {
    if (from[axis].empty() || to[axis].empty() || from[axis] == to[axis]) continue;
    result = align_axis(result, static_cast<int64_t>(axis), from[axis], to[axis], name);
  }
  return result;
}

at::Tensor fit_axes(const at::Tensor& stored, const std::vector<Names>& from,
                    const std::vector<Names>& to, const std::string& name) {
  at::Tensor kept = stored;
  std::vector<Names> kept_names = from;
  for (size_t axis = 0; axis < from.size() && axis < to.size(); ++axis) {
    if (to[axis].empty()) continue;
    std::vector<int64_t> places;
    for (size_t i = 0; i < from[axis].size(); ++i) {
      const bool known =
          std::find(to[axis].begin(), to[axis].end(), from[axis][i]) != to[axis].end();
      if (known) places.push_back(static_cast<int64_t>(i));
    }
    if (places.size() == from[axis].size()) continue;
    kept_names[axis].clear();
    for (const int64_t i : places) kept_names[axis].push_back(from[axis][static_cast<size_t>(i)]);
    kept = kept.index_select(static_cast<int64_t>(axis), at::tensor(places, at::kLong));
  }
  return align_axes(kept, kept_names, to, name);
}

at::Tensor without_zeros(const at::Tensor& weight, const std::vector<Names>& names) {
  at::Tensor result = weight;
  for (size_t axis = 0; axis < names.size(); ++axis) {
    if (names[axis].empty()) continue;
    const auto dim = static_cast<int64_t>(axis);
    const at::Tensor used = (result.movedim(dim, 0).unsqueeze(-1).flatten(1) != 0).any(1);
    result = result.index_select(dim, used.nonzero().view({-1}));
  }
  return result;
}

}  // namespace mnemosyne::optim
