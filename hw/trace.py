"""Any PyTorch callable -> `Program`, by watching every operation that reaches the dispatcher.

One run of the step is watched: forward, backward and optimizer. The run leaves no trace of its
own: parameters, buffers, optimizer state and random generators are put back after it, and so are
gradients, but for those that the step itself clears before it uses their parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from core.errors import DataError
from hw.formats import format_of
from hw.program import Op, Phase, Program, Role, Storage, TensorInfo
from hw.trace_tensor import (
    COMPRESSED,
    bind,
    describe_compressed,
    is_fake,
    stored_byte,
    strided_part,
)

#: Written in place although their schemas do not say so.
_WRITES_UNANNOUNCED = {
    "aten.native_batch_norm": ("running_mean", "running_var"),
}
#: Results of these are constant until written: an optimizer's first step makes its state so.
_CREATES = ("aten.zeros_like", "aten.zeros", "aten.empty_like", "aten.full_like", "aten.clone")


def trace(step: Callable[..., Any], *args: Any, fake: bool = False) -> Program:
    """Run `step(*args)` once and return the program of operations that it asked for.

    Parameters
    ----------
    step : callable
        Any PyTorch code: an inference, or a training step with its backward pass and optimizer.
        NumPy inside it is invisible.
    *args
        Handed to `step`.
    fake : bool
        Run under `FakeTensorMode`: nothing is computed and no result takes memory. A model built
        of fake tensors needs no flag.

    Raises
    ------
    DataError
        If a fake run needs a value that only a real run has.

    Examples
    --------
    >>> import torch, hw
    >>> program = hw.trace(torch.nn.Linear(8, 4), torch.randn(2, 8))
    >>> [op.name for op in program.ops]
    ['aten.t', 'aten.addmm']
    """
    tracer = _Tracer()
    with ExitStack() as stack:
        stack.callback(tracer.put_back)
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for hook in (
            register_module_forward_pre_hook(tracer.enter_module),
            register_module_forward_hook(tracer.leave_module, always_call=True),
            register_optimizer_step_pre_hook(tracer.enter_optimizer),
            register_optimizer_step_post_hook(tracer.leave_optimizer),
        ):
            stack.callback(hook.remove)
        if fake:
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(tracer)
        try:
            result = step(*args)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise DataError(
                f"hw.trace: {error.func} needs the value of a fake tensor after "
                f"{len(tracer.ops)} ops; its result or shape depends on data. "
                f"Trace with real tensors, or keep the decision out of the step"
            ) from error
        return tracer.program(result)


class _Tracer(TorchDispatchMode):
    """Records ops and storages, and remembers what the run changes."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self._storages: dict[int, Storage] = {}
        self._alive: dict[int, StorageWeakRef] = {}  # pins each key, not its memory
        self._same: dict[int, int] = {}
        self._data: dict[tuple[Any, ...], NDArray[np.int64]] = {}
        self._modules: list[torch.nn.Module] = []
        self._path_of: dict[int, str] = {}
        self._module_of_node: dict[int, str] = {}
        self._optimizers: dict[int, tuple[Optimizer, set[Tensor]]] = {}
        self._in_optimizer = False
        self._host: set[int] = set()
        self._saved: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._generators: dict[int, tuple[torch.Generator, Tensor]] = {}

    # --- hooks -------------------------------------------------------------------------------

    def enter_module(self, module: torch.nn.Module, args: Any) -> None:
        if not self._modules:
            root = type(module).__name__
            for name, child in module.named_modules():
                self._path_of[id(child)] = f"{root}.{name}" if name else root
            for role, named in (
                ("parameter", module.named_parameters()),
                ("buffer", module.named_buffers()),
            ):
                for name, tensor in named:
                    self._resident(tensor, role, name)  # type: ignore[arg-type]
        self._modules.append(module)

    def leave_module(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        if self._modules:
            self._modules.pop()

    def enter_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._in_optimizer = True
        if id(optimizer) not in self._optimizers:
            self._optimizers[id(optimizer)] = (optimizer, set(optimizer.state))
        self._name_state(optimizer)

    def leave_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._in_optimizer = False
        self._name_state(optimizer)

    def _name_state(self, optimizer: Optimizer) -> None:
        for owner, state in optimizer.state.items():
            whose = self._storages[self._storage(owner, "parameter", "parameter")].name
            for name, tensor in state.items():
                if isinstance(tensor, Tensor):
                    key = self._resident(tensor, "optimizer", f"{name} of {whose}")
                    if tensor.dim() == 0:
                        self._host.add(key)

    # --- dispatch ----------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace in ("prim", "profiler"):
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        ):  # inference mode hands composite ops over undissolved
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        name = f"{func.namespace}.{func._schema.name.split('::')[1]}"
        bound = bind(func, args, kwargs)
        self._protect(func, name, bound)
        want_data = func.namespace == "core"
        described = {key: self._describe(value, want_data) for key, value in bound.items()}
        result = func(*args, **kwargs)
        if isinstance(result, FakeTensor) and (func.is_view or name.endswith("_")):
            self._same_storage(result, described)
        self._record(name, described, result)
        return result

    def _record(self, name: str, args: dict[str, Any], result: Any) -> None:
        results = result if isinstance(result, tuple | list) else (result,)
        tensors: list[Tensor] = []
        for value in results:
            tensors += value if isinstance(value, tuple | list) else [value]
        outputs = tuple(
            self._describe(value, False, produced_by=name)
            for value in tensors
            if isinstance(value, Tensor)
        )
        module, phase = self._place()
        op = Op(name, args, outputs, phase, module)
        i_op = len(self.ops)
        for tensor in (*op.inputs, *op.outputs):
            self._storages[tensor.storage].last_op = i_op
        self.ops.append(op)

    def _place(self) -> tuple[str, Phase]:
        """Return module path and phase of the op that runs now."""
        if torch._C._current_graph_task_id() != -1:
            node = torch._C._current_autograd_node()
            number = node._sequence_nr() if hasattr(node, "_sequence_nr") else -1
            return self._module_of_node.get(number, ""), "backward"
        if self._in_optimizer:
            return "", "optimizer"
        path = ""
        if self._modules:
            module = self._modules[-1]
            path = self._path_of.get(id(module), type(module).__name__)
        # the first op after a node's birth is the node's own
        self._module_of_node.setdefault(torch.autograd._get_sequence_nr() - 1, path)
        return path, "forward"

    # --- tensors -----------------------------------------------------------------------------

    def _describe(self, value: Any, want_data: bool, produced_by: str = "") -> Any:
        if isinstance(value, tuple | list):
            return tuple(self._describe(item, want_data, produced_by) for item in value)
        if not isinstance(value, Tensor):
            return value
        if produced_by:
            key = self._storage(value, "activation", f"{produced_by} {tuple(value.shape)}")
        else:
            role: Role = "parameter" if value.requires_grad and value.is_leaf else "input"
            key = self._storage(value, role, f"{role} {tuple(value.shape)}")
        info = TensorInfo(
            shape=tuple(value.shape),
            format=format_of(value.dtype),
            storage=key,
            is_complex=value.is_complex(),
            n_stored=value.numel(),
        )
        if value.layout in COMPRESSED:
            with _disable_current_modes():
                return describe_compressed(info, value)
        if value.layout != torch.strided:
            return replace(info, layout="coo", n_stored=value._values().numel())
        data = self._read(value, key) if want_data else None
        is_contiguous, stride = value.is_contiguous(), tuple(value.stride())
        return replace(info, data=data, is_contiguous=is_contiguous, stride=stride)

    def _read(self, tensor: Tensor, key: int) -> NDArray[np.int64] | None:
        """Return the entries of an integer tensor, shared between equal calls."""
        if is_fake(tensor) or tensor.dtype not in (torch.int32, torch.int64):
            return None
        version = (key, tensor._version, tensor.storage_offset(), tuple(tensor.shape))
        if version not in self._data:
            with _disable_current_modes():
                self._data[version] = tensor.detach().numpy().astype(np.int64)
        return self._data[version]

    def _storage(self, tensor: Tensor, role: Role, name: str) -> int:
        """Return the key of a tensor's storage, noted as `role` when it is new."""
        strided = strided_part(tensor)
        storage = strided.untyped_storage()
        key = self._same.get(storage._cdata, storage._cdata)
        if key not in self._storages:
            self._alive[key] = StorageWeakRef(storage)
            byte = storage.nbytes() if role != "activation" else stored_byte(tensor)
            i_op = len(self.ops)
            self._storages[key] = Storage(byte, role, name, i_op, i_op)
        return key

    def _same_storage(self, result: Tensor, args: dict[str, Any]) -> None:
        """Note that a fake view of a real tensor, or a fake write to one, shares its storage."""
        source = args.get("self")
        storage = result.untyped_storage()
        if isinstance(source, TensorInfo) and storage._cdata not in self._storages:
            self._alive[storage._cdata] = StorageWeakRef(storage)
            self._same[storage._cdata] = source.storage

    def _resident(self, tensor: Tensor, role: Role, name: str) -> int:
        key = self._storage(tensor, role, name)
        self._storages[key].role = role
        self._storages[key].name = name
        return key

    # --- what the run changes ----------------------------------------------------------------

    def _protect(self, func: Any, name: str, bound: dict[str, Any]) -> None:
        """Keep a copy of everything the op is about to change and that outlives the run."""
        unannounced = _WRITES_UNANNOUNCED.get(name, ())
        for argument in func._schema.arguments:
            value = bound[argument.name]
            is_written = argument.name in unannounced or (
                argument.alias_info is not None and argument.alias_info.is_write
            )
            for tensor in value if isinstance(value, tuple | list) else (value,):
                if isinstance(tensor, torch.Generator) and id(tensor) not in self._generators:
                    self._generators[id(tensor)] = (tensor, tensor.get_state())
                if not isinstance(tensor, Tensor):
                    continue
                if tensor.is_leaf and tensor.requires_grad and id(tensor) not in self._grads:
                    self._grads[id(tensor)] = (tensor, tensor.grad)
                if is_written and not is_fake(tensor):
                    storage = strided_part(tensor).untyped_storage()
                    known = self._storages.get(storage._cdata)
                    if (known is None or known.role != "activation") and (
                        storage._cdata not in self._saved
                    ):
                        with _disable_current_modes():
                            self._saved[storage._cdata] = (storage, storage.clone())

    def put_back(self) -> None:
        """Undo what the run changed."""
        for storage, before in self._saved.values():
            storage.copy_(before)
        for tensor, grad in self._grads.values():
            tensor.grad = grad
        for generator, state in self._generators.values():
            generator.set_state(state)
        for optimizer, known in self._optimizers.values():
            for parameter in [p for p in optimizer.state if p not in known]:
                del optimizer.state[parameter]

    # --- result ------------------------------------------------------------------------------

    def program(self, result: Any) -> Program:
        """Return the ops that a machine would run, once per step."""
        last = max(len(self.ops) - 1, 0)
        leaves, _ = torch.utils._pytree.tree_flatten(result)
        kept = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not any(op.phase == "optimizer" for op in self.ops):
            kept += [t.grad for t, _ in self._grads.values() if t.grad is not None]
        for tensor in kept:
            self._storages[self._storage(tensor, "input", "result")].last_op = last
        position = np.cumsum([self._is_kept(op) for op in self.ops]) - 1
        ops = tuple(op for op in self.ops if self._is_kept(op))
        used = {t.storage for op in ops for t in (*op.inputs, *op.outputs)}
        storages = {
            key: replace(
                storage,
                first_op=max(int(position[min(storage.first_op, last)]), 0),
                last_op=max(int(position[min(storage.last_op, last)]), 0),
            )
            for key, storage in self._storages.items()
            if len(self.ops) and (key in used or storage.role in ("parameter", "buffer"))
        }
        return Program(ops, storages)

    def _is_kept(self, op: Op) -> bool:
        """Tell whether the machine runs `op`: no step counter, no set-up of a first step."""
        if op.phase != "optimizer":
            return True
        if op.inputs and all(t.storage in self._host for t in op.inputs):
            return False
        if op.name == "aten.lift_fresh":
            return False
        return not (
            op.name in _CREATES
            and all(self._storages[t.storage].role == "optimizer" for t in op.outputs)
        )
