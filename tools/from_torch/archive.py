"""Programs in ``.pt2`` files, read without PyTorch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from striate.errors import ModelFormatError, UnsupportedModelError
from striate.spec import Array
from striate.tools.conversion import MALFORMED, sha256_of
from striate.tools.from_torch.source import (
    Ref,
    SourceNode,
    SourceProgram,
    SourceTensor,
)
from striate.tools.from_torch.storage import (
    DTYPES,
    decoded,
    refusal,
    result_names,
    strided,
    width,
)
from striate.tools.from_torch.zipped import Archive

SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)")
"""A size that is open, as the file writes it."""

MODEL = "models/model.json"

SCHEMA = 8
"""The version of the program's description that is read."""

LARGEST_DESCRIPTION = 1 << 29
"""The most bytes of JSON that are parsed."""

AGAIN = (
    "load it with torch.export.load, if you trust it, and give the program to "
    "striate.tools.convert; or save it again with torch 2.13"
)


def read_pt2(path: str | os.PathLike[str]) -> SourceProgram:
    """Return the program of a ``.pt2`` file.

    Raises
    ------
    ModelFormatError
        If it is not such a file, not whole, or of another version.
    UnsupportedModelError
        If it holds more than a program of tensors.
    """
    name = str(path)
    with Archive(path) as archive:
        if MODEL not in archive:
            raise refusal(
                name,
                f"no member {MODEL!r}: not a program of torch 2.13 or later; {AGAIN}",
                "torch_version",
            )
        if archive.size("byteorder") and archive.read("byteorder") != b"little":
            raise refusal(name, "it was written by a big-endian machine", "byte_order")
        try:
            described = _parsed(archive, MODEL)
            version = described["schema_version"]["major"]
            if version != SCHEMA:
                raise refusal(
                    name,
                    f"version {version!r} of the description, wanted {SCHEMA}; {AGAIN}",
                    "torch_version",
                )
            return _program(name, archive, described)
        except (ModelFormatError, UnsupportedModelError):
            raise
        except (*MALFORMED, RecursionError) as error:
            raise refusal(
                name, f"its description makes no sense: {type(error).__name__}: {error}"
            ) from None


def _parsed(archive: Archive, name: str) -> Any:
    if archive.size(name) > LARGEST_DESCRIPTION:
        raise refusal(archive.path, f"{archive.size(name)} bytes of {name}", "size")
    return json.loads(archive.read(name))


def _program(
    path: str, archive: Archive, described: Mapping[str, Any]
) -> SourceProgram:
    module = described["graph_module"]
    graph, signature = module["graph"], module["signature"]
    stored = _Stored(archive)
    inputs: dict[str, str] = {}
    weights: dict[str, str] = {}
    fixed: dict[str, Any] = {}
    for spec in signature["input_specs"]:
        kind, entry = next(iter(spec.items()))
        if kind in ("parameter", "buffer", "tensor_constant"):
            weights[str(entry["arg"]["name"])] = str(entry[f"{kind}_name"])
        elif kind == "user_input" and "as_tensor" in entry["arg"]:
            name = str(entry["arg"]["as_tensor"]["name"])
            inputs[name] = name
        elif kind == "constant_input":
            fixed[str(entry["name"])] = _only(entry["value"])
        elif kind == "user_input":
            argument = _argument(entry["arg"])
            if isinstance(argument, Ref):
                raise UnsupportedModelError(
                    f"{path}: its input {argument.name!r} is no tensor"
                )
        else:
            raise UnsupportedModelError(f"{path}: it has an input that is a {kind}")
    arrays = {name: stored.value(target) for name, target in weights.items()}
    return SourceProgram(
        name=path,
        inputs=inputs,
        outputs=_outputs(path, module),
        weights={name: partial(_same, a) for name, a in arrays.items()},
        nodes=[_node(node) for node in graph["nodes"]],
        tensors={
            str(name): SourceTensor(
                tuple(_size(size) for size in entry["sizes"]),
                DTYPES.get(entry["dtype"], f"type {entry['dtype']}"),
            )
            for name, entry in graph["tensor_values"].items()
        },
        fixed=fixed,
        format=f"torch.export {described.get('torch_version', '')}"[:60],
        sha256=sha256_of(path),
    )


def _same(array: Array) -> Array:
    return array


def _outputs(path: str, module: Mapping[str, Any]) -> list[tuple[str, Any]]:
    results = []
    for spec in module["signature"]["output_specs"]:
        kind, entry = next(iter(spec.items()))
        if kind in ("buffer_mutation", "parameter_mutation"):
            raise UnsupportedModelError(
                f"{path}: each run changes a buffer: wanted a module whose results "
                "depend on nothing but its inputs"
            )
        if kind == "user_output":
            argument = _argument(entry["arg"])
            results.append(argument if isinstance(argument, Ref) else None)
    calls = module["module_call_graph"]
    tree = next((c["signature"]["out_spec"] for c in calls if not c["fqn"]), "")
    return list(zip(result_names(str(tree), len(results)), results, strict=True))


def _size(size: Mapping[str, Any]) -> int | str:
    if "as_int" in size:
        return int(size["as_int"])
    return SYMBOL.sub(r"\1", str(size["as_expr"]["expr_str"]))


def _node(node: Mapping[str, Any]) -> SourceNode:
    target = str(node["target"]).removeprefix("torch.ops.")
    if target.startswith("aten."):
        target = target.removeprefix("aten.")
    elif not target.startswith(("_operator.", "math.", "torch.")):
        target = target.replace(".", "::", 1).rsplit(".", 1)[0]
    outputs: list[str] = []
    for output in node["outputs"]:
        found = _argument(output)
        several = found if isinstance(found, list) else [found]
        outputs += [each.name if isinstance(each, Ref) else "" for each in several]
    modules = str(node["metadata"].get("nn_module_stack", "")).split(";")
    parts = modules[-1].split(",")
    return SourceNode(
        target=target,
        args=(),
        kwargs={str(each["name"]): _argument(each["arg"]) for each in node["inputs"]},
        outputs=tuple(outputs),
        path=parts[1] if len(parts) > 1 else "",
    )


def _only(value: Mapping[str, Any]) -> Any:
    kind, found = next(iter(value.items()))
    return None if kind == "as_none" else found


def _argument(argument: Mapping[str, Any]) -> Any:
    """Return an argument in our terms."""
    kind, value = next(iter(argument.items()))
    if kind in ("as_tensor", "as_custom_obj"):
        return Ref(str(value["name"]))
    if kind == "as_tensors":
        return [Ref(str(each["name"])) for each in value]
    if kind == "as_name":
        return Ref(str(value))
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"):
        return _argument(value)
    if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools", "as_optional_tensors"):
        return [_argument(each) for each in value]
    if kind == "as_nested_tensors":
        return [[Ref(str(each["name"])) for each in part] for part in value]
    if kind == "as_scalar_type":
        return DTYPES.get(value, f"type {value}")
    if kind in ("as_int", "as_float", "as_bool", "as_string") or (
        kind in ("as_ints", "as_floats", "as_bools", "as_strings", "as_int_lists")
    ):
        return value
    if kind in ("as_none", "as_memory_format", "as_layout", "as_device"):
        return None
    raise UnsupportedModelError(f"an argument that is {kind}")


class _Stored:
    """The weights and constants of an archive."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.entries: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self.blobs: dict[str, bytes] = {}
        for folder, config in (
            ("data/weights", "model_weights_config.json"),
            ("data/constants", "model_constants_config.json"),
        ):
            if f"{folder}/{config}" in archive:
                for name, entry in _parsed(archive, f"{folder}/{config}")[
                    "config"
                ].items():
                    self.entries[str(name)] = (folder, entry)

    def value(self, name: str) -> Array:
        """Return one of them."""
        path = self.archive.path
        if name not in self.entries:
            raise refusal(path, f"the weight {name[:80]!r} is missing", "truncated")
        folder, entry = self.entries[name]
        meta = entry["tensor_meta"]
        if entry["use_pickle"] or meta is None:
            raise refusal(
                path,
                f"the weight {name[:80]!r} is a pickle, which is never read",
                "pickle",
            )
        dtype = DTYPES.get(meta["dtype"])
        if dtype is None or meta["layout"] != 7:
            raise UnsupportedModelError(
                f"{path}: the weight {name[:80]!r} has elements of type "
                f"{meta['dtype']} in layout {meta['layout']}"
            )
        blob = f"{folder}/{entry['path_name']}"
        data = self.blobs.setdefault(blob, self.archive.read(blob))
        whole = len(data) // width(dtype) * width(dtype)
        elements = decoded(memoryview(data)[:whole], dtype)
        offset, *rest = (
            n["as_int"]
            for n in (meta["storage_offset"], *meta["sizes"], *meta["strides"])
        )
        rank = len(meta["sizes"])
        try:
            return strided(elements, offset, rest[:rank], rest[rank:])
        except ValueError as error:
            raise refusal(path, f"the weight {name[:80]!r}: {error}", "size") from None
