"""Well-known networks through `torch.export` or ONNX against PyTorch, as a command.

``python -m tests.torch_nets timm:ghostnet_100 torchvision:resnet18@96`` converts each
with random weights and statistics, at a reduced resolution, and tells how far the
answers are apart; with ``--through dynamo`` or ``legacy`` by way of an ONNX file of
that exporter. Without names it takes the list below. The libraries are no dependency of
striate; those that are missing are left out and said so.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from striate import Graph, Model
from striate.errors import StriateError
from striate.tools import convert
from torch import nn

TOLERANCE = 1e-4
"""What the largest error may be, as a part of the largest output.

More is allowed to a network that makes more than that of PyTorch's own rounding."""

TORCHVISION_OPERATORS = (
    "nms",
    "qnms",
    "roi_align",
    "_roi_align_backward",
    "ps_roi_align",
    "_ps_roi_align_backward",
    "roi_pool",
    "_roi_pool_backward",
    "ps_roi_pool",
    "_ps_roi_pool_backward",
    "deform_conv2d",
    "_deform_conv2d_backward",
)
"""Operators that torchvision cannot be imported without; nothing here calls them."""

NETS = (
    "torchvision:alexnet@96",
    "torchvision:convnext_tiny",
    "torchvision:densenet121",
    "torchvision:efficientnet_b0",
    "torchvision:efficientnet_v2_s",
    "torchvision:fcn_resnet50",
    "torchvision:deeplabv3_mobilenet_v3_large",
    "torchvision:googlenet",
    "torchvision:inception_v3@96",
    "torchvision:lraspp_mobilenet_v3_large",
    "torchvision:mc3_18@48x8",
    "torchvision:mnasnet0_5",
    "torchvision:mobilenet_v2",
    "torchvision:mobilenet_v3_small",
    "torchvision:r2plus1d_18@48x8",
    "torchvision:r3d_18@48x8",
    "torchvision:regnet_x_400mf",
    "torchvision:regnet_y_400mf",
    "torchvision:resnet18",
    "torchvision:resnext50_32x4d",
    "torchvision:s3d@64x16",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:squeezenet1_0",
    "torchvision:swin_t",
    "torchvision:vgg11_bn",
    "torchvision:vit_b_32@64",
)
"""Library, name and resolution, 64 unless said: ``@HEIGHT`` or ``@HEIGHTxFRAMES``."""


def libraries() -> Iterator[str]:
    """Yield the libraries that can be imported."""
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in TORCHVISION_OPERATORS:
        operators.define(f"{name}(Tensor a) -> Tensor")
    _KEPT.append(operators)
    yield from filter(_importable, ("torchvision", "timm"))


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        sys.stdout.write(f"without {name}: {error}\n")
        return False
    return True


_KEPT: list[Any] = []
"""What PyTorch forgets when it is collected."""


def made(library: str, name: str, size: int) -> nn.Module:
    """Return a network of a library."""
    if library == "torchvision":
        from torchvision import models

        settings: dict[str, Any] = {}
        if name.startswith(("googlenet", "inception")):
            settings = {"aux_logits": False, "init_weights": False}
        elif name.startswith(("fcn", "deeplab", "lraspp")):
            settings = {"weights_backbone": None}
        elif name.startswith("vit"):
            settings = {"image_size": size}
        return models.get_model(name, weights=None, **settings)
    import timm

    try:
        return timm.create_model(name, pretrained=False, img_size=size)
    except TypeError:
        return timm.create_model(name, pretrained=False)


def lively(module: nn.Module, sample: torch.Tensor, seed: int) -> nn.Module:
    """Give a network weights and statistics that do something, in place.

    Batch norms measure one random batch and are then off by a little; what a network
    begins with as zeros or ones is drawn.
    """
    random = torch.Generator().manual_seed(seed)
    norms = [
        m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    module.eval()
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.numel() > 1 and float(weight.std()) == 0 and weight.dim() < 3:
                drawn = torch.rand(weight.shape, generator=random)
                if float(weight.flatten()[0]) == 0:
                    weight.copy_(0.2 * drawn - 0.1)
                else:
                    weight.copy_(
                        0.6 + 0.8 * drawn
                        if "norm" in name or "bn" in name
                        else 0.2 + 0.4 * drawn
                    )
        for norm in norms:
            norm.momentum = None
            norm.reset_running_stats()
            norm.train()
        if norms:
            module(sample)
        for norm in norms:
            norm.eval()
            if norm.running_mean is not None:
                mean, variance = norm.running_mean, norm.running_var
                shift = torch.randn(mean.shape, generator=random)
                mean += 0.1 * variance.sqrt() * shift
                variance *= 1.2 ** (2 * torch.rand(mean.shape, generator=random) - 1)
    return module


def tensors(result: Any) -> list[torch.Tensor]:
    """Return the tensors of a result in order."""
    if isinstance(result, torch.Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result
    return [tensor for part in parts for tensor in tensors(part)]


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest difference as a part of the largest number wanted."""
    apart = (found.double() - wanted.double()).abs().max()
    return float(apart) / max(float(wanted.abs().max()), 1e-30)


def through_onnx(module: nn.Module, sample: torch.Tensor, dynamo: bool) -> Graph:
    """Return the network by way of an ONNX file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        open_batch: dict[str, Any] = (
            {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
            if dynamo
            else {"dynamic_axes": {"x": {0: "batch"}}}
        )
        with contextlib.redirect_stdout(None):
            torch.onnx.export(
                module,
                (sample,),
                str(path),
                input_names=["x"],
                dynamo=dynamo,
                **open_batch,
            )
        return convert(path, io="source")


def difference(
    module: nn.Module, sample: torch.Tensor, through: str
) -> tuple[float, float, dict[str, Any]]:
    """Return the largest error, PyTorch's own, and the account of the conversion.

    PyTorch's own is what it differs by from itself in float64: a network may make much
    of little.
    """
    if through == "export":
        graph = convert(module, example=sample[:1], io="source")
    else:
        graph = through_onnx(module, sample, through == "dynamo")
    with torch.no_grad():
        wanted = tensors(module(sample))
        results = Model(graph, threads=1).run({graph.inputs[0].name: sample.numpy()})
        found = [torch.from_numpy(results[name]) for name in graph.outputs]
        error = max(relative(f, w) for f, w in zip(found, wanted, strict=True))
        own = 0.0
        if error > TOLERANCE:
            exact = tensors(module.double()(sample.double()))
            own = max(relative(w, e) for w, e in zip(wanted, exact, strict=True))
    return (
        error,
        own,
        {**graph.metadata["conversion"], "batch": graph.inputs[0].shape[0]},
    )


def measured(name: str, seed: int, through: str) -> tuple[bool, str]:
    """Return whether a network's answers agree, and a line about it."""
    library, _, rest = name.partition(":")
    rest, _, size = rest.partition("@")
    height, _, frames = size.partition("x")
    shape = [3, *([int(frames)] if frames else []), *[int(height or 64)] * 2]
    random = torch.Generator().manual_seed(seed)
    start = time.monotonic()
    try:
        module = made(library, rest, int(height or 64))
        lively(module, torch.randn(4, *shape, generator=random), seed)
        sample = torch.randn(3, *shape, generator=random)
        error, own, done = difference(module, sample, through)
    except StriateError as error:
        return False, f"{name:42} refused: {error}"
    except Exception as error:
        return False, f"{name:42} not run: {type(error).__name__}: {str(error)[:300]}"
    seconds = time.monotonic() - start
    notes = f"  (PyTorch itself {own:.1e} from float64)" if own else ""
    if done["batch"] != "N":
        notes += f"  batch stays {done['batch']}"
    return error <= max(TOLERANCE, 4 * own), (
        f"{name:42} {error:8.1e}  {done['nodes_out']:4} layers  "
        f"{len(done['transposes']):3} transposes  {seconds:5.1f} s{notes}"
    )


def main() -> int:
    """Convert the networks named on the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.torch_nets")
    parser.add_argument("nets", nargs="*", default=NETS, metavar="LIBRARY:NAME[@SIZE]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--through", choices=("export", "dynamo", "legacy"), default="export"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = set(libraries())
    good = 0
    chosen = [net for net in options.nets if net.partition(":")[0] in found]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for net in chosen:
            passed, line = measured(net, options.seed, options.through)
            good += passed
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            gc.collect()
    sys.stdout.write(f"{good} of {len(chosen)} agree\n")
    return int(good < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
