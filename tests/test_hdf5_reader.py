import struct

import h5py
import hostile
import numpy as np
import pytest
from striate import Graph, ModelFormatError, ops
from striate.hdf5_reader import HEAP, TREE, read_hdf5
from striate.kernels._checksum import lookup3
from striate.model_file import save


def contents(data):
    return read_hdf5(memoryview(data), "file.h5")


def chain(layers):
    """Return a network of so many layers with one tensor each."""
    graph = Graph("chain")
    x = graph.input("x", ("N", 2))
    for index in range(layers):
        kernel = np.full((2, 2), index, np.float32)
        x = graph.add(ops.Dense(), x, name=f"layer.{index:03d}", kernel=kernel)
    graph.output(x)
    return graph


@pytest.fixture(scope="module")
def deep_index(tmp_path_factory):
    """Return the bytes of a file whose links need an index of three levels."""
    path = tmp_path_factory.mktemp("deep") / "chain.h5"
    save(chain(3000), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("data", "initial", "wanted"),
    [
        (b"", 0, 0xDEADBEEF),
        (b"", 0xDEADBEEF, 0xBD5B7DDE),
        (b"Four score and seven years ago", 0, 0x17770551),
        (b"Four score and seven years ago", 1, 0xCD628161),
    ],
)
def test_checksum_gives_the_published_values(data, initial, wanted):
    assert lookup3(data, initial) == wanted


def test_checksum_sees_every_byte_at_every_length_and_alignment():
    data = bytes(range(1, 65))
    for size in range(1, 40):
        whole = lookup3(data[:size])
        assert whole == lookup3(memoryview(b"xyz" + data)[3 : 3 + size])
        for position in range(size):
            assert lookup3(hostile.flipped(data[:size], position)) != whole


def assert_same_as_library(path):
    """Assert that names, order, types, shapes and places are those h5py tells."""
    found = contents(path.read_bytes())
    told = {}

    def visit(group, prefix):
        for name in group:
            item = group[name]
            if isinstance(item, h5py.Group):
                visit(item, f"{prefix}{name}/")
            else:
                told[prefix + name] = item

    with h5py.File(path) as file:
        assert set(found.attributes) == set(file.attrs)
        visit(file, "")
        assert list(found.datasets) == list(told)
        for name, dataset in found.datasets.items():
            assert dataset.shape == told[name].shape
            assert dataset.address == told[name].id.get_offset()
            assert dataset.nbytes == told[name].id.get_storage_size()
            if dataset.dtype.name != "string":
                assert dataset.dtype.name == told[name].dtype.name
    return found


@pytest.mark.parametrize("layers", [1, 8, 9, 161, 3000])
def test_finds_what_the_library_finds(layers, tmp_path):
    path = tmp_path / "chain.h5"
    save(chain(layers), path)
    assert len(assert_same_as_library(path).datasets) == layers + 1


@pytest.mark.parametrize("operands", [1, 8, 9, 161])
def test_finds_many_datasets_in_one_group(operands, tmp_path):
    def edit(root):
        fc = h5py.h5g.open(root, b"weights/fc")
        for index in range(operands):
            hostile.store(fc, b"%x" % index, np.zeros(index % 3 + 1, np.int32))

    path = hostile.write(tmp_path / "wide.h5", edit=edit)
    assert len(assert_same_as_library(path).datasets) == operands + 6


def wide(path, links):
    """Write a file with a group of so many links of the longest names."""

    def edit(root):
        fc = h5py.h5g.open(root, b"weights/fc")
        for index in range(links):
            hostile.store(fc, b"%0128d" % index, np.zeros(1, np.int8))

    return hostile.write(path, edit=edit)


def test_finds_as_many_links_as_one_table_holds(tmp_path):
    path = wide(tmp_path / "wide.h5", 2200)
    assert len(assert_same_as_library(path).datasets) == 2206
    data = path.read_bytes()
    table, rows = data.index(b"FHIB"), 16
    last = 17 + 8 * (4 * rows - 1)
    assert data[table + last : table + last + 8] == b"\xff" * 8
    changed = with_field(data, b"FHIB", 21 + 8 * 4 * rows, last, "<Q", 4096)
    assert refusal(changed).code == "limit"


def test_reads_groups_that_do_not_track_an_order(tmp_path):
    def edit(root):
        layer = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
        layer.set_obj_track_times(False)
        group = h5py.h5g.create(root, b"other", gcpl=layer)
        for name in b"cab":
            hostile.store(group, bytes([name]), np.zeros(2, np.int8))

    path = hostile.write(tmp_path / "plain.h5", edit=edit)
    names = [name for name in contents(path.read_bytes()).datasets if "other" in name]
    assert names == ["other/a", "other/b", "other/c"]


def test_refuses_an_index_by_creation_order(tmp_path):
    def edit(root):
        properties = hostile.group_properties()
        tracked, indexed = h5py.h5p.CRT_ORDER_TRACKED, h5py.h5p.CRT_ORDER_INDEXED
        properties.set_link_creation_order(tracked | indexed)
        group = h5py.h5g.create(root, b"other", gcpl=properties)
        hostile.store(group, b"a", np.zeros(2, np.int8))

    path = hostile.write(tmp_path / "indexed.h5", edit=edit)
    assert refusal(path.read_bytes()).code == "link"


def refusal(data):
    with pytest.raises(ModelFormatError) as caught:
        contents(data)
    assert str(caught.value).startswith("file.h5: ")
    return caught.value


def resealed(data, start, size):
    """Return `data` with the checksum that ends the structure at `start` right."""
    end = start + size - 4
    return data[:end] + lookup3(data[start:end]).to_bytes(4, "little") + data[end + 4 :]


def with_field(data, signature, size, offset, field, value):
    """Return `data` with a field of the first structure of that kind changed."""
    start = data.index(signature)
    place = start + offset
    value = struct.pack(field, value)
    changed = data[:place] + value + data[place + len(value) :]
    assert changed != data
    return resealed(changed, start, size)


HEAP_FIELDS = {
    "id_size": (5, "<H", 8),
    "filter_size": (7, "<H", 4),
    "flags": (9, "<B", 0),
    "largest_object": (10, "<I", 0),
    "huge_tree": (22, "<Q", 64),
    "free_space": (38, "<Q", 8),
    "objects": (70, "<Q", 2999),
    "huge_objects": (86, "<Q", 1),
    "tiny_objects": (102, "<Q", 1),
    "width": (110, "<H", 0),
    "first_block": (112, "<Q", 0),
    "largest_block": (120, "<Q", 2**63),
    "address_bits": (128, "<H", 65535),
    "root": (132, "<Q", 0),
    "rows": (140, "<H", 17),
    "more_rows": (140, "<H", 15),
    "fewer_rows": (140, "<H", 1),
    "no_rows": (140, "<H", 0),
}
TREE_FIELDS = {
    "node_size": (6, "<I", 0),
    "record_size": (10, "<H", 0),
    "shallow": (12, "<H", 1),
    "deep": (12, "<H", 65535),
    "root": (16, "<Q", 2**64 - 1),
    "root_records": (24, "<H", 65535),
    "fewer_root_records": (24, "<H", 1),
    "records": (26, "<Q", 2**63),
    "fewer_records": (26, "<Q", 2999),
}


@pytest.mark.parametrize("name", HEAP_FIELDS)
def test_refuses_a_heap_that_lies(name, deep_index):
    changed = with_field(deep_index, HEAP[:5], 146, *HEAP_FIELDS[name])
    others = {"rows": "limit", "more_rows": "bounds", "no_rows": "bounds"}
    assert refusal(changed).code == others.get(name, "corrupt")


@pytest.mark.parametrize("name", TREE_FIELDS)
def test_refuses_an_index_that_lies(name, deep_index):
    changed = with_field(deep_index, TREE[:6], 38, *TREE_FIELDS[name])
    assert refusal(changed).code in ("corrupt", "limit", "bounds")


@pytest.fixture
def one_block(tmp_path):
    """Return the bytes of a file whose links fit one block."""
    path = tmp_path / "chain.h5"
    save(chain(9), path)
    return path.read_bytes()


def resealed_block(data):
    """Return `data` with the checksum inside its only heap block right."""
    start = data.index(b"FHDB")
    block = data[start : start + 512]
    checksum = lookup3(block[:17] + bytes(4) + block[21:]).to_bytes(4, "little")
    return data[: start + 17] + checksum + data[start + 21 :]


def test_refuses_a_link_filed_under_another_name(one_block):
    place = one_block.index(b"layer.008", one_block.index(b"FHDB"))
    renamed = one_block[:place] + b"L" + one_block[place + 1 :]
    error = refusal(resealed_block(renamed))
    assert error.code == "corrupt"
    assert "Layer.008" in str(error)


def test_refuses_a_heap_block_of_another_offset(one_block):
    assert resealed_block(one_block) == one_block
    place = one_block.index(b"FHDB") + 13
    moved = one_block[:place] + b"\1" + one_block[place + 1 :]
    assert refusal(resealed_block(moved)).code == "corrupt"


def test_refuses_bytes_that_belong_to_nothing():
    data = hostile.good_bytes()
    text = data.index(b'{\n "name"')
    gap = data.index(bytes(8), data.index(b"\0", text))
    assert refusal(data[:gap] + b"x" + data[gap + 1 :]).code == "corrupt"


@pytest.mark.parametrize(("size", "code"), [(65_536, None), (65_537, "limit")])
def test_refuses_long_gaps(size, code):
    data = hostile.good_bytes()
    padded = data + bytes(size)
    end = struct.pack("<Q", len(padded))
    padded = hostile.resealed_superblock(padded[:28] + end + padded[36:])
    if code:
        assert refusal(padded).code == code
    else:
        assert contents(padded) == contents(data)


def grown_header(data, messages, gap=False):
    """Return `data` with the root group's header moved to the end and longer.

    The messages come last if they are to end in a gap.
    """
    root = struct.unpack_from("<Q", data, 36)[0]
    flags = data[root + 5]
    width = 1 << (flags & 3)
    start = root + 6 + (4 if flags & 0x10 else 0)
    size = int.from_bytes(data[start : start + width], "little")
    old = data[start + width : start + width + size]
    end = 0
    while len(old) - end >= 4:
        end += 4 + int.from_bytes(old[end + 1 : end + 3], "little")
    old = old[:end]
    header = data[root:start]
    header = header[:5] + bytes([flags & ~3 | 2]) + header[6:]
    header += struct.pack("<I", len(messages) + len(old))
    header += old + messages if gap else messages + old
    header += lookup3(header).to_bytes(4, "little")
    end = start + width + size + 4
    data = data[:root] + bytes(end - root) + data[end:]
    place = len(data)
    data += header
    addresses = struct.pack("<QQ", len(data), place)
    return hostile.resealed_superblock(data[:28] + addresses + data[44:])


def test_bounds_the_metadata():
    data = hostile.good_bytes()
    nil = struct.pack("<BHB", 0, 0, 0)
    assert contents(grown_header(data, nil * 1000)) == contents(data)
    assert refusal(grown_header(data, nil * (4 << 20))).code == "limit"


def test_what_the_library_refuses_is_refused():
    """A gap beside spare messages, flags and addresses that nobody can use."""
    data = hostile.good_bytes()
    assert contents(grown_header(data, b"")) == contents(data)
    spare = struct.pack("<BHB", 0, 0, 0)
    assert refusal(grown_header(data, spare + b"\x01", gap=True)).code == "corrupt"
    shared = struct.pack("<BHB", 0, 0, 2)
    assert refusal(grown_header(data, shared)).code == "storage"
    twice = struct.pack("<BHB", 0x0A, 2, 0) + bytes(2)
    assert refusal(grown_header(data, twice)).code == "corrupt"
    for old, new, code in (
        (b"\x0a\x02\0\1\0\0", b"\x0a\x02\0\1\1\0", "corrupt"),
        (b"\x05\x02\0\1\3\x0a", b"\x05\x02\0\1\2\x0a", "storage"),
        (b"\x05\x02\0\1\3\x0a", b"\x05\x02\0\1\3\x2a", "storage"),
    ):
        place = data.index(old)
        changed = data[:place] + new + data[place + len(old) :]
        assert refusal(hostile.resealed(changed, place)).code == code
    nowhere, somewhere = b"\xff" * 8, struct.pack("<Q", 64)
    for kind, body, code in (
        (0x15, b"\0\0" + nowhere + nowhere, "corrupt"),
        (0x15, b"\0\2" + nowhere + nowhere, "attribute"),
        (0x15, b"\0\0" + nowhere + somewhere, "attribute"),
    ):
        message = struct.pack("<BHB", kind, len(body), 0) + body
        assert refusal(grown_header(data, message)).code == code
    start = data.index(b"\x02\x1a\0\0\0\1") + 6
    for place, number in ((start, 2**63), (start + 16, 64)):
        changed = data[:place] + struct.pack("<Q", number) + data[place + 8 :]
        assert refusal(hostile.resealed(changed, place)).code in ("link", "bounds")


def test_bounds_continuations_and_sees_loops():
    data = hostile.good_bytes()
    itself = struct.pack("<BHBQQ", 0x10, 16, 0, len(data), 24)
    assert refusal(grown_header(data, itself)).code == "corrupt"
    block = b"OCHK" + struct.pack("<BHBQQ", 0x10, 16, 0, len(data), 28)
    block += lookup3(block).to_bytes(4, "little")
    longer = data + block
    addresses = struct.pack("<Q", len(longer))
    longer = hostile.resealed_superblock(longer[:28] + addresses + longer[36:])
    loop = struct.pack("<BHBQQ", 0x10, 16, 0, len(data), 28)
    assert refusal(grown_header(longer, loop)).code in ("limit", "overlap")


@pytest.mark.parametrize("size", range(49))
def test_refuses_what_is_too_short_for_a_superblock(size):
    assert refusal(hostile.good_bytes()[:size]).code == "size"


def test_bounds_the_number_of_objects(deep_index, monkeypatch):
    objects = 2 + 1 + 3000 * 2
    monkeypatch.setattr("striate.hdf5_reader.MAX_OBJECTS", objects)
    assert len(contents(deep_index).datasets) == 3001
    monkeypatch.setattr("striate.hdf5_reader.MAX_OBJECTS", objects - 1)
    assert refusal(deep_index).code == "limit"


def test_every_metadata_byte_of_an_index_matters(deep_index):
    """One flipped bit anywhere in heap, index and free space is noticed."""
    rng = np.random.default_rng(0)
    seen = 0
    for signature, size in (
        (b"FRHP", 146),
        (b"FHIB", 300),
        (b"FHDB", 512),
        (b"BTHD", 38),
        (b"BTIN", 300),
        (b"BTLF", 300),
        (b"FSHD", 82),
        (b"FSSE", 100),
    ):
        start = deep_index.index(signature)
        for offset in rng.choice(size, 4, replace=False):
            assert refusal(hostile.flipped(deep_index, start + int(offset)))
            seen += 1
    assert seen == 32


@pytest.mark.parametrize("name", [b"\x1b[31m", b"a\nb", b"x" * 128, b"x" * 129])
def test_messages_are_short_and_safe_to_print(name, tmp_path):
    def edit(root):
        hostile.store(root, name, np.zeros(3, np.uint64))

    message = str(refusal(hostile.write(tmp_path / "net.h5", edit=edit).read_bytes()))
    assert message.isprintable()
    assert len(message) < 400
    assert message.endswith("[limit]" if len(name) > 128 else "[dtype]")


def test_messages_name_the_file():
    with pytest.raises(ModelFormatError) as caught:
        read_hdf5(memoryview(b"x" * 100), "some/model.h5")
    assert caught.value.path == "some/model.h5"
    assert caught.value.code == "not_hdf5"
