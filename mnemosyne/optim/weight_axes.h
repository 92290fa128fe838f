#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

namespace mnemosyne::optim {

/// Names along the axes of learned weights, for weights whose rows or columns belong to things that
/// have names: by the weight's name, one list for each axis, empty for an axis without.
using WeightAxes = std::map<std::string, std::vector<std::vector<std::string>>>;

/// {"controller": [["step", ...], ["one", ...]]} for a file's metadata; "" where there are none.
std::string write_axes(const WeightAxes& axes);

/// The inverse. InputError, said to be of `source`, for text that is no such.
WeightAxes read_axes(const std::string& text, const std::string& source);

/// `stored`, whose axes have the names `from`, with its numbers where the axes `to` have these
/// names, and zeros for names that it does not have: what an older version did not look at counts
/// for nothing. InputError for a name that is not in `to`, or where `from` does not fit `stored`.
at::Tensor align_axes(const at::Tensor& stored, const std::vector<std::vector<std::string>>& from,
                      const std::vector<std::vector<std::string>>& to, const std::string& name);

/// `align_axes` that drops what has a name which is not in `to`.
at::Tensor fit_axes(const at::Tensor& stored, const std::vector<std::vector<std::string>>& from,
                    const std::vector<std::vector<std::string>>& to, const std::string& name);

/// Without the rows and columns that have a name and hold nothing but zeros: what weights are,
/// whatever else a version knows by name.
at::Tensor without_zeros(const at::Tensor& weight,
                         const std::vector<std::vector<std::string>>& names);

}  // namespace mnemosyne::optim
