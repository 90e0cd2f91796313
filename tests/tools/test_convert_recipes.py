"""docs/converters.md: its recipes run, its commands exist, its table is up to date."""

import json
import re
import shlex
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from striate.tools.builder import Builder
from striate.tools.convert_model import main as convert_model
from striate.tools.formats import operators_table

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "converters.md").read_text()
README = (PROJECT / "README.md").read_text()
COMMANDS = ("convert_model", "compare_model", "inspect_model", "run_model")


def blocks(title, page=PAGE):
    """Return the (language, text) of the code in a section."""
    section = page.partition(f"### {title}\n")[2]
    section = re.split(r"^##", section, maxsplit=1, flags=re.M)[0]
    return re.findall(r"^```(python|console)\n(.*?)^```", section, re.M | re.S)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs blocks beside a picture and returns the answers."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save("picture.png")
    Path("labels.txt").write_text("\n".join(f"class {i}" for i in range(10)))

    def call(code):
        warnings.simplefilter("ignore")  # frameworks warn of their own code
        names, answers = {}, []
        for kind, text in code:
            if kind == "python":
                exec(text, names)
                continue
            for command, *arguments in commands(text):
                main = import_module(f"striate.tools.{command}").main
                capsys.readouterr()
                status = main([*arguments, "--json"])
                answers.append((command, status, json.loads(capsys.readouterr().out)))
        return answers

    with warnings.catch_warnings():
        yield call


def commands(text):
    """Yield the commands of a block, with continued lines joined."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            for part in line[2:].split(" && "):
                yield shlex.split(part)


def check(answers, wanted):
    assert [command for command, _, _ in answers] == wanted
    for _, status, told in answers:
        assert status == 0
        if "verification" in told:
            assert told["verified"] is True, told["verification"]


def test_pytorch_and_onnx(run):
    answers = run([*blocks("PyTorch"), *blocks("ONNX")])
    check(answers, ["convert_model", "run_model"] * 2)
    picture = answers[3][2]
    assert "class " in json.dumps(picture)


def test_keras(run, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    answers = run(blocks("Keras"))
    check(answers, ["convert_model", "run_model"])


def test_darknet(tmp_path, monkeypatch, capsys):
    """The recipe's command on a network of one layer."""
    monkeypatch.chdir(tmp_path)
    numbers = np.random.default_rng(0).standard_normal(2 + 2 * 3 * 9).astype("<f4")
    header = np.array([0, 2, 5], "<i4").tobytes() + bytes(8)
    for name in ("yolov4-tiny.weights", "other.weights"):
        Path(name).write_bytes(header + numbers.tobytes())
    Path("yolov4-tiny.cfg").write_text(
        "[net]\nwidth=8\nheight=8\nchannels=3\n\n[convolutional]\nfilters=2\nsize=3\n"
        "stride=1\npad=1\nactivation=leaky\n"
    )
    (_, text), *_ = blocks("Darknet")
    shown = shlex.split(text.removeprefix("$ convert_model "))
    arguments = [x for x in shown if x not in ("--option", "nms=0.45")]
    assert len(arguments) == len(shown) - 2
    for options in (arguments, arguments[:2]):
        assert convert_model([*options, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["verified"] is True
        assert told["verification"]["oracle"].lower().startswith("opencv")


def test_an_importer_of_your_own():
    section = PAGE.partition("## Other formats\n")[2]
    names = {}
    exec(re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)[0], names)
    assert names["layers"].operators() == ["Scale"]
    g = Builder({"N": (2, 3)})
    x = g.input("x", ("N", 2), (0, 1))
    g.output(names["layers"].find("Scale")(g, x, factor=3), "y")
    assert g.graph("net").reference({"x": np.ones((1, 2))})["y"].tolist() == [[3, 3]]


def console_lines(page):
    """Yield the commands a page shows."""
    for text in re.findall(r"^```console\n(.*?)^```", page, re.M | re.S):
        yield from commands(text)


@pytest.mark.parametrize("page", [PAGE, README], ids=["converters", "readme"])
def test_the_commands_have_the_options_that_are_shown(page, capsys):
    shown = 0
    for command, *arguments in console_lines(page):
        if command not in COMMANDS:
            continue
        with pytest.raises(SystemExit):
            import_module(f"striate.tools.{command}").main(["--help"])
        known = capsys.readouterr().out
        for argument in arguments:
            if argument.startswith("--"):
                assert f"  {argument}" in known or f", {argument}" in known
                shown += 1
    assert shown > 3


def test_every_option_that_is_told_of_exists(capsys):
    told = set(re.findall(r"`(--[a-z-]+)", PAGE))
    known = ""
    for command in (*COMMANDS, "formats"):
        with pytest.raises(SystemExit):
            import_module(f"striate.tools.{command}").main(["--help"])
        known += capsys.readouterr().out
    assert not {option for option in told if f"{option}" not in known}


def test_the_table_of_operators_is_up_to_date():
    """`python -m striate.tools.formats --operators` prints what belongs there."""
    inside = PAGE.partition("<!-- operators -->")[2].partition("<!-- end of")[0]
    assert inside.strip() == operators_table()
