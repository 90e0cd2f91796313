"""PyTorch's own samples of its operators, converted and compared with PyTorch.

``python -m tests.fuzz.opinfo --samples 40 --operators conv2d,pad.reflect`` from the
project's root prints how many samples of each operator are right, refused (with
reasons), wrong or crashed. A sample is wrapped in a module that `convert` reads;
tensors that a network would learn are the module's buffers. PyTorch answers in float64.

The samples are those of `torch.testing._internal`, which is no public interface: the
version of PyTorch that the tests install is the one this is written for.
"""

import argparse
import sys
import warnings
from functools import cache

import numpy as np
from striate import Model
from striate.errors import StriateError
from striate.tools import convert

from .isolated import isolated
from .models import Outcome, reason, table

OPERATORS = (
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "rms_norm",
    "local_response_norm",
    "normalize",
    "pad.constant",
    "pad.reflect",
    "pad.replicate",
    "pad.replicate_negative",
    "pad.circular",
    "interpolate.nearest",
    "interpolate.nearest-exact",
    "interpolate.linear",
    "interpolate.bilinear",
    "interpolate.bicubic",
    "interpolate.trilinear",
    "interpolate.area",
    "upsample_nearest",
    "upsample_bilinear",
    "pixel_shuffle",
    "pixel_unshuffle",
    "grid_sample",
    "linear",
    "prelu",
)
"""Of ``torch.nn.functional``, a variant after the dot."""

TOLERANCE = 1e-5
"""Of the largest element: sums of at most some hundreds of products in float32."""


@cache
def samples(name):
    """Return the samples of an operator and the function that computes it."""
    import torch
    from torch.testing._internal.common_methods_invocations import op_db

    torch.set_num_threads(1)
    torch.manual_seed(0)
    op, _, variant = name.partition(".")
    (info,) = (
        each
        for each in op_db
        if each.name == f"nn.functional.{op}" and each.variant_test_name == variant
    )
    return list(info.sample_inputs("cpu", torch.float32)), info.op


def wrapped(function, sample, fed):
    """Return a module that computes a sample and the tensors it is called with.

    Parameters
    ----------
    function : callable
        What computes it.
    sample : SampleInput
        Its operands.
    fed : bool
        Whether all tensors are fed, or only the first.
    """
    import torch

    class Sampled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.example = [sample.input]
            self.places = []
            for place, operand in enumerate(sample.args):
                self.places.append(self.keep(f"operand{place}", operand))
            self.named = {n: self.keep(n, v) for n, v in sample.kwargs.items()}

        def keep(self, name, operand):
            if not isinstance(operand, torch.Tensor):
                return "plain", operand
            if fed:
                self.example.append(operand)
                return "fed", len(self.example) - 1
            self.register_buffer(f"kept_{name}", operand)
            return "kept", f"kept_{name}"

        def operand(self, kind, what, tensors):
            if kind == "fed":
                return tensors[what]
            return getattr(self, what) if kind == "kept" else what

        def forward(self, *tensors):
            places = [self.operand(*place, tensors) for place in self.places]
            named = {n: self.operand(*v, tensors) for n, v in self.named.items()}
            return function(tensors[0], *places, **named)

    module = Sampled().eval()
    return module, tuple(module.example)


def run(name, index):
    """Return the outcome of one sample of an operator."""
    import torch

    every, function = samples(name)
    module, example = wrapped(function, every[index], fed=name == "grid_sample")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precise = tuple(x.double() if x.is_floating_point() else x for x in example)
        try:
            wanted = module.double()(*precise)
            module.float()
            graph = convert(module, example=example, io="source")
            with Model(graph, threads=1) as model:
                names = [entry.name for entry in graph.inputs]
                feeds = [x.numpy() for x in example]
                found = model.run(dict(zip(names, feeds, strict=True)))
        except StriateError as error:
            return Outcome("refused", reason(error))
        except Exception as error:
            return Outcome("crashed", f"{type(error).__name__}: {error}"[:300])
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for have, want in zip(found.values(), wanted, strict=True):
        text = difference(have, want.numpy())
        if text:
            return Outcome("wrong", text)
    return Outcome("right")


def difference(have, want):
    """Return how an answer differs from what was wanted, or ""."""
    if have.shape != want.shape:
        return f"shape {have.shape}, wanted {want.shape}"
    if not want.size:
        return ""
    same = (have == want) | (np.isnan(have) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(have - want)).max()
    size = np.abs(want[np.isfinite(want)]).max(initial=0)
    return "" if error <= TOLERANCE * size else f"off by {error:.3g} of {size:.3g}"


def chosen(name, most):
    """Return the numbers of at most so many samples, spread over all of them."""
    count = len(samples(name)[0])
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, most))})


def fuzz(operators, most):
    """Yield (operator, number, outcome) of every chosen sample."""
    calls = [(name, index) for name in operators for index in chosen(name, most)]
    for (name, index), outcome, ended in isolated(run, calls):
        yield name, index, outcome or Outcome("crashed", ended)


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50, help="of each operator")
    parser.add_argument("--operators", metavar="A,B", default=",".join(OPERATORS))
    options = parser.parse_args(arguments)
    outcomes = []
    for name, index, outcome in fuzz(options.operators.split(","), options.samples):
        outcomes.append((name, index, outcome))
        if outcome.verdict in ("wrong", "crashed"):
            sys.stderr.write(f"{outcome.verdict}: {name} {index}: {outcome.reason}\n")
    sys.stdout.write("\n".join(table(outcomes)) + "\n")
    return int(any(o.verdict in ("wrong", "crashed") for *_, o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
