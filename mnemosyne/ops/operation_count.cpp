#include "mnemosyne/ops/operation_count.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <memory>

namespace mnemosyne::ops {
namespace {

thread_local OperationCount* counting = nullptr;

/// Whether the dispatcher only sees what the operation is made of.
bool is_composite(const c10::OperatorName& name) {
  const auto handle = c10::Dispatcher::singleton().findOp(name);
  return handle && handle->hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd);
}

/// Of an operation that is counted, until it ends.
struct Counted : at::ObserverContext {};

}  // namespace

OperationCount* OperationCount::active() { return counting; }

struct OperationCallback {
  static std::unique_ptr<at::ObserverContext> start(const at::RecordFunction& function) {
    OperationCount* count = OperationCount::active();
    if (count == nullptr || !count->begin(function)) return nullptr;
    return std::make_unique<Counted>();
  }
  static void end(const at::RecordFunction&, at::ObserverContext* context) {
    OperationCount* count = OperationCount::active();
    if (count != nullptr && context != nullptr) --count->depth_;
  }
};

OperationCount::OperationCount() {
  counting = this;
  handle_ = at::addThreadLocalCallback(
      at::RecordFunctionCallback(OperationCallback::start, OperationCallback::end)
          .scopes({at::RecordScope::FUNCTION}));
}

OperationCount::~OperationCount() {
  at::removeCallback(handle_);
  counting = nullptr;
}

bool OperationCount::begin(const at::RecordFunction& function) {
  const auto name = function.operator_name();
  if (!name) return false;
  if (name->name == "aten::_local_scalar_dense") ++host_reads_;
  if (depth_ == 0 && is_composite(*name)) return false;
  if (depth_++ == 0) ++operations_;
  return true;
}

}  // namespace mnemosyne::ops
