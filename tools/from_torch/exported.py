"""Modules and programs of PyTorch in process."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from striate.errors import SettingError, UnsupportedModelError
from striate.spec import Array
from striate.tools.from_torch.source import (
    Ref,
    SourceNode,
    SourceProgram,
    SourceTensor,
)
from striate.tools.from_torch.storage import result_names

BLOCKS = ("wrap_with_autocast", "wrap_with_set_grad_enabled")
"""Operators that run a block of a program in a mode that makes no difference here."""


def is_module(source: Any) -> bool:
    """Return whether that is a module of PyTorch, without importing PyTorch."""
    return _is_a(source, "torch.nn.modules.module", "Module")


def is_program(source: Any) -> bool:
    """Return whether that is an exported program, without importing PyTorch."""
    return _is_a(source, "torch.export.exported_program", "ExportedProgram")


def _is_a(source: Any, module: str, name: str) -> bool:
    return any(
        kind.__module__ == module and kind.__name__ == name
        for kind in type(source).__mro__
    )


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return an example as positional and named arguments, arrays as tensors.

    Raises
    ------
    SettingError
        If there is none.
    """
    if example is None:
        raise SettingError(
            "a module needs an example of what it is called with: "
            "convert(module, example=torch.zeros(1, 3, 224, 224))"
        )
    if isinstance(example, Mapping):
        return (), {str(name): _tensors(value) for name, value in example.items()}
    if isinstance(example, (tuple, list)):
        return tuple(map(_tensors, example)), {}
    return (_tensors(example),), {}


def _tensors(value: Any) -> Any:
    import torch

    return torch.as_tensor(value) if isinstance(value, np.ndarray) else value


def exported(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, open_batch: bool
) -> Any:
    """Return the program of a module in evaluation mode.

    Parameters
    ----------
    open_batch : bool
        Whether the first axis of every tensor may have any size. A batch of one is
        doubled, for a size of one counts as fixed.

    Raises
    ------
    UnsupportedModelError
        If PyTorch cannot export it.
    """
    import torch
    from torch.export import Dim, export
    from torch.utils import _pytree

    shapes: Any = None
    if open_batch:
        args, kwargs = _pytree.tree_map(_doubled, (args, kwargs))
        shapes = _pytree.tree_map(
            lambda x: {0: Dim.AUTO} if isinstance(x, torch.Tensor) else None,
            (args, kwargs),
        )
        shapes = _by_name(module, *shapes)
    with _evaluating(module), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            line = str(error).strip().splitlines() or [""]
            raise UnsupportedModelError(
                f"{type(module).__name__}: torch.export: {type(error).__name__}: "
                f"{line[0]}"
            ) from error


def _by_name(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return dynamic shapes by the names of the module's arguments."""
    import inspect

    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    return dict(bound.arguments)


def _doubled(x: Any) -> Any:
    import torch

    if isinstance(x, torch.Tensor) and x.dim() > 0 and x.shape[0] == 1:
        return torch.cat([x, x])
    return x


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Put a module and its parts into evaluation mode, and back."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def functional(program: Any) -> Any:
    """Return a program without in-place operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program.run_decompositions({})


def read_program(program: Any, name: str) -> SourceProgram:
    """Return an exported program of PyTorch in our terms."""
    import torch

    signature = program.graph_signature
    sources = {
        spec.arg.name: (spec.kind.name, spec.target, spec.arg)
        for spec in signature.input_specs
    }
    inputs: dict[str, str] = {}
    weights: dict[str, Callable[[], Array]] = {}
    fixed: dict[str, Any] = {}
    tensors: dict[str, SourceTensor] = {}
    nodes: list[SourceNode] = []
    picked = _picked(program.graph)
    for node in program.graph.nodes:
        found = node.meta.get("val")
        if isinstance(found, torch.Tensor):
            tensors[node.name] = _described(found)
        if node.op == "placeholder":
            kind, target, argument = sources[node.name]
            if kind in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
                weights[node.name] = _weight(program, target)
            elif node.name in tensors:
                inputs[node.name] = str(argument.name)
            else:
                fixed[node.name] = getattr(argument, "value", None)
        elif node.op == "call_function" and node.name not in picked:
            nodes += _nodes(program.graph_module, node, picked)
    return SourceProgram(
        name=name,
        inputs=inputs,
        outputs=_outputs(program),
        weights=weights,
        nodes=nodes,
        tensors=tensors,
        fixed=fixed,
        format=f"torch.export {torch.__version__}",
    )


def _picked(graph: Any) -> dict[str, tuple[str, int]]:
    """Return what only picks one result of an operator: the operator, and which."""
    return {
        node.name: (node.args[0].name, node.args[1])
        for node in graph.nodes
        if node.op == "call_function"
        and node.target is operator.getitem
        and node.args[0].op == "call_function"
    }


def _nodes(
    module: Any, node: Any, picked: Mapping[str, tuple[str, int]]
) -> list[SourceNode]:
    """Return the node, or those of the block it only puts into another mode."""
    call = _node(node, picked)
    if call.target.rpartition(".")[2] not in BLOCKS:
        return [call]
    place = next(i for i, arg in enumerate(node.args) if _is_block(arg))
    inner = getattr(module, str(node.args[place].target))
    given = iter(call.args[place + 1 :])
    names: dict[str, Any] = {}
    found: list[SourceNode] = []
    inside = _picked(inner.graph)
    for each in inner.graph.nodes:
        names[each.name] = Ref(f"{node.name}.{each.name}")
    for each in inner.graph.nodes:
        if each.op == "placeholder":
            names[each.name] = next(given)
        elif each.op == "call_function" and each.name not in inside:
            found += [_renamed(n, names) for n in _nodes(inner, each, inside)]
        elif each.op == "output":
            results = [_renamed_value(_argument(r), names) for r in each.args[0]]
            for name, result in zip(call.outputs, results, strict=False):
                if name:
                    found.append(SourceNode("alias.default", (result,), {}, (name,)))
    return found


def _is_block(argument: Any) -> bool:
    return getattr(argument, "op", "") == "get_attr"


def _renamed(node: SourceNode, names: dict[str, Any]) -> SourceNode:
    """Return a node of a block with the names its values have outside."""
    return replace(
        node,
        args=tuple(_renamed_value(value, names) for value in node.args),
        kwargs={key: _renamed_value(v, names) for key, v in node.kwargs.items()},
        outputs=tuple(names[n].name if n else "" for n in node.outputs),
    )


def _renamed_value(value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, Ref):
        return names.get(value.name, value)
    if isinstance(value, list):
        return [_renamed_value(each, names) for each in value]
    return value


def _node(node: Any, picked: Mapping[str, tuple[str, int]]) -> SourceNode:
    picks = {
        picked[user.name][1]: user.name for user in node.users if user.name in picked
    }
    outputs = (
        tuple(picks.get(index, "") for index in range(max(picks) + 1))
        if picks
        else (node.name,) * bool(node.users)
    )
    modules = list(node.meta.get("nn_module_stack", {}).values())
    return SourceNode(
        target=_target(node.target),
        args=tuple(_argument(value) for value in node.args),
        kwargs={key: _argument(value) for key, value in node.kwargs.items()},
        outputs=outputs,
        path=str(modules[-1][0]) if modules else "",
    )


def _target(target: Any) -> str:
    schema = getattr(target, "_schema", None)
    if schema is None:
        module = getattr(target, "__module__", "") or ""
        return f"{module}.{getattr(target, '__name__', target)}"
    namespace, _, name = schema.name.partition("::")
    overload = schema.overload_name or "default"
    return f"{name}.{overload}" if namespace == "aten" else f"{namespace}::{name}"


def _argument(value: Any) -> Any:
    import torch

    if isinstance(value, torch.fx.Node):
        return Ref(value.name)
    if isinstance(value, (list, tuple)):
        return [_argument(each) for each in value]
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, (bool, int, float, str)):
        return value
    return None


def _described(tensor: Any) -> SourceTensor:
    shape = tuple(n if isinstance(n, int) else str(n) for n in tensor.shape)
    return SourceTensor(shape, str(tensor.dtype).removeprefix("torch."))


def _weight(program: Any, target: str) -> Callable[[], Array]:
    def value() -> Array:
        import torch

        tensor = program.state_dict.get(target)
        if tensor is None:
            tensor = program.constants[target]
        tensor = tensor.detach().cpu()
        if tensor.dtype in (torch.bfloat16, torch.float16):
            tensor = tensor.float()
        array: Array = tensor.numpy()
        return array

    return value


def _outputs(program: Any) -> list[tuple[str, Any]]:
    from torch.utils import _pytree

    specs = program.graph_signature.output_specs
    for spec in specs:
        if spec.kind.name in ("BUFFER_MUTATION", "PARAMETER_MUTATION"):
            raise UnsupportedModelError(
                f"each run changes {spec.target!r}: wanted a module whose results "
                "depend on nothing but its inputs"
            )
    results = [spec.arg for spec in specs if spec.kind.name == "USER_OUTPUT"]
    try:
        tree = _pytree.treespec_dumps(program.call_spec.out_spec)
    except (NotImplementedError, ValueError, TypeError):
        tree = ""
    names = result_names(tree, len(results))
    found: list[tuple[str, Any]] = []
    for name, result in zip(names, results, strict=True):
        tensor = type(result).__name__ == "TensorArgument"
        found.append((name, Ref(result.name) if tensor else None))
    return found
