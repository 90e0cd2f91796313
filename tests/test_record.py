"""Records behave as frozen dataclasses do."""

import copy
import dataclasses
import pickle

import pytest
from striate import ops
from striate.record import Record, record


@record
class Point(Record):
    x: int
    y: int = 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int
    y: int = 2


@record
class Other(Record):
    x: int
    y: int = 2


@pytest.mark.parametrize("kind", [Point, Frozen])
def test_records_and_frozen_dataclasses_are_alike(kind):
    point = kind(1, y=3)
    assert (point.x, point.y) == (1, 3)
    assert kind(1) == kind(1, 2)
    assert kind(1) != kind(2)
    assert kind(1) != (1, 2)
    assert len({kind(1), kind(1, 2), kind(5)}) == 2
    assert repr(point) == f"{kind.__name__}(x=1, y=3)"
    assert dataclasses.asdict(point) == {"x": 1, "y": 3}
    assert [field.name for field in dataclasses.fields(kind)] == ["x", "y"]
    changed = dataclasses.replace(point, y=4)
    assert (changed, point) == (kind(1, 4), kind(1, 3))
    for again in (copy.copy(point), copy.deepcopy(point)):
        assert again == point
    assert pickle.loads(pickle.dumps(point)) == point
    for name in ("x", "y", "z"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"'{name}'"):
            setattr(point, name, 1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        del point.x
    assert (point.x, point.y) == (1, 3)
    for wrong in ({}, {"x": 1, "z": 2}):
        with pytest.raises(TypeError):
            kind(**wrong)


def test_equal_fields_of_another_class_are_another_record():
    assert Point(1) != Other(1)
    assert len({Point(1), Other(1)}) == 2
    assert ops.Relu() != ops.Sigmoid()
    assert ops.Relu() == ops.Relu()
    assert repr(ops.Conv(stride=2)).startswith("Conv(stride=(2,), ")


def test_every_operator_that_has_fields_can_be_built_from_them():
    for name, kind in ops.operators().items():
        own = {
            field
            for base in kind.__mro__
            for field, text in vars(base).get("__annotations__", {}).items()
            if not str(text).startswith("ClassVar")
        }
        fields = {field.name for field in dataclasses.fields(kind)}
        assert fields == own, f"{name} lacks its decorator"
