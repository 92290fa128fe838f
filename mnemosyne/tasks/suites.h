#pragma once

#include <string>
#include <vector>

namespace mnemosyne::tasks {

/// Lists of test tasks with lengths, as "NAME@STEPS", that `mnemosyne compare --task` takes by
/// their names. What is meta-trained on are families of tasks (families.h) and never one of these.
///
/// "validation" is what weights are chosen by, looked at as often as one likes. "test" is what
/// judges weights that are shipped: looked at once per weights, and then noted in docs/results.
/// What was used to choose something moves to "validation", and others take its place.
const std::vector<std::string>& validation_suite();
const std::vector<std::string>& test_suite();

/// The tasks that `name` stands for: those of a suite called so, else itself.
std::vector<std::string> expand_suite(const std::string& name);

}  // namespace mnemosyne::tasks
