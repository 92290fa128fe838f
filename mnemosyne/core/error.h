#pragma once

#include <stdexcept>
#include <string>

namespace mnemosyne {

/// Something that the caller handed in cannot be used: an option, a name, a file.
///
/// The text is one line of the form "[where] expected ..., got ..." and names the option or the
/// file. The command line turns it into exit status 2, Python into `ValueError`.
class InputError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

}  // namespace mnemosyne
