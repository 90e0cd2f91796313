"""The strict reader of the part of HDF5 that model files use.

# Design
The HDF5 library trusts the structures it walks, and a crafted file can make it crash,
read other files or allocate without bound. A model file needs very little of HDF5, so
this module reads only that, in Python, and refuses everything else:

- every access goes through `Cursor` or `Reader.bytes_at`, which check bounds;
- every structure carries a checksum, and it is verified;
- groups nest at most `MAX_DEPTH` deep and there are at most `MAX_OBJECTS` objects;
- every byte of the file belongs to exactly one structure or dataset, or is one of a
  few zeros between two. So nothing is shared, hidden or appended, and no file can
  describe more data than it has bytes.

A docstring's quoted title names the section of the HDF5 File Format Specification,
version 3.0, that describes the structure; ``docs/format.md`` says which variants are
allowed and what the codes of refusals mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from struct import Struct, pack
from typing import Any, NamedTuple

from .errors import ModelFormatError
from .kernels._checksum import lookup3
from .spec import Shape

ALIGNMENT = 64
MAX_DEPTH = 3
MAX_OBJECTS = 20_000
MAX_RANK = 8
MAX_SIZE = 2**31 - 1
MAX_NAME = 128
MAX_CONTINUATIONS = 64
MAX_GAP = 65_536
MAX_METADATA = 16 * 2**20
UNDEFINED = 2**64 - 1

NIL = 0x00
DATASPACE = 0x01
LINK_INFO = 0x02
DATATYPE = 0x03
FILL_VALUE = 0x05
LINK = 0x06
LAYOUT = 0x08
GROUP_INFO = 0x0A
ATTRIBUTE = 0x0C
CONTINUATION = 0x10
ATTRIBUTE_INFO = 0x15
REFERENCE_COUNT = 0x16
ATTRIBUTES = {ATTRIBUTE, ATTRIBUTE_INFO}
GROUP_MESSAGES = ATTRIBUTES | {LINK_INFO, LINK, GROUP_INFO}
DATASET_MESSAGES = ATTRIBUTES | {DATASPACE, DATATYPE, FILL_VALUE, LAYOUT}

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUPERBLOCK = Struct("<8sBBBBQQQQ4x")
MESSAGE = Struct("<BHB")
TRACKED_MESSAGE = Struct("<BHB2x")
ADDRESS_AND_SIZE = Struct("<QQ")
CONTIGUOUS_LAYOUT = Struct("<2xQQ")
ATTRIBUTE_SIZES = Struct("<2xHHHx")
SIZES = [Struct(f"<{rank}Q") for rank in range(MAX_RANK + 1)]

# The HDF5 library gives every group of many links a heap and a tree of these sizes.
HEAP = b"FRHP\0" + pack("<HHBIQQ", 7, 0, 2, 4096, 0, UNDEFINED)
HEAP_FIELDS = Struct("<8xQ24xQ52s2xQH")
HEAP_GEOMETRY = pack("<QQQQHQQH", 0, 0, 0, 0, 4, 512, 65_536, 32)
HEAP_WIDTH = 4
HEAP_ROWS = [512, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536]
HEAP_MOST_ROWS = 16
HEAP_OWNER = Struct("<QI")
FREE_SPACE = Struct("<32x16sQQ8x")
FREE_SPACE_SETTINGS = pack("<HHHHQ", 4, 80, 120, 32, 65_536)
TREE = b"BTHD\0\5" + pack("<IH", 512, 11)
TREE_FIELDS = Struct("<H2xQHQ")
TREE_RECORD = Struct("<IBIH")
TREE_LEVELS = [(45, 0, 0), (24, 1, 0), (22, 1, 2), (22, 1, 2)]
"""For each level the most records, and the widths of a pointer's two counts."""


class DataType(NamedTuple):
    """A number, or a string of `size` bytes."""

    name: str
    size: int


class Attribute(NamedTuple):
    """A named value in the root group's header."""

    dtype: DataType
    shape: Shape
    data: bytes


class Dataset(NamedTuple):
    """Where a tensor lies in the file and how to read it."""

    dtype: DataType
    shape: Shape
    address: int
    nbytes: int


class Contents(NamedTuple):
    """All that a file of the profile can hold; paths have no leading slash."""

    attributes: dict[str, Attribute]
    datasets: dict[str, Dataset]


class Link(NamedTuple):
    """A hard link; `order` is the order of creation if the group tracks it."""

    order: int
    name: str
    address: int


def _float(size: int, exponent: int, mantissa: int) -> bytes:
    """Return the datatype message of an IEEE-like little-endian float."""
    bits, bias = 8 * size, 2 ** (exponent - 1) - 1
    return pack("<4BIHH", 0x11, 0x20, bits - 1, 0, size, 0, bits) + pack(
        "<4BI", mantissa, exponent, 0, mantissa, bias
    )


def _integer(size: int, signed: bool) -> bytes:
    """Return the datatype message of a little-endian integer."""
    return pack("<4BIHH", 0x10, 8 * signed, 0, 0, size, 0, 8 * size)


NUMBERS = {
    _float(4, 8, 23): DataType("float32", 4),
    _float(2, 5, 10): DataType("float16", 2),
    _float(2, 8, 7): DataType("bfloat16", 2),
    _integer(1, signed=True): DataType("int8", 1),
    _integer(1, signed=False): DataType("uint8", 1),
    _integer(4, signed=True): DataType("int32", 4),
    _integer(8, signed=True): DataType("int64", 8),
}
STRING = b"\x13\x11\0\0"
"""How the datatype message of a null-padded UTF-8 string starts."""


def read_hdf5(buffer: memoryview, path: str) -> Contents:
    """Return what `buffer` holds, if it is an HDF5 file of the profile.

    Parameters
    ----------
    buffer : memoryview
        The whole file.
    path : str
        How refusals name the file.

    Raises
    ------
    ModelFormatError
        If the file is damaged or uses anything outside the profile.
    """
    reader = Reader(buffer, path)
    reader.object("", reader.superblock(), depth=0)
    reader.account_for_every_byte()
    return reader.contents


class Cursor:
    """A place in a block of metadata; reading past its end is a refusal."""

    __slots__ = ("data", "position", "reader", "what")

    def __init__(self, reader: Reader, data: bytes, what: str) -> None:
        self.reader = reader
        self.data = data
        self.what = what
        self.position = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        start = self.position
        self.position = start + size
        if self.position > len(self.data):
            raise self.reader.refusal("corrupt", f"{self.what} is cut short")
        return self.data[start : self.position]

    def number(self, size: int) -> int:
        """Return the next `size` bytes as an unsigned number."""
        return int.from_bytes(self.take(size), "little")

    def fields(self, layout: Struct) -> tuple[Any, ...]:
        """Return the next fields as `layout` lists them."""
        start = self.position
        self.position = start + layout.size
        if self.position > len(self.data):
            raise self.reader.refusal("corrupt", f"{self.what} is cut short")
        return layout.unpack_from(self.data, start)

    def name(self, size: int) -> str:
        """Return the next `size` bytes as a name."""
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            message = f"{self.what}: a name that is not UTF-8"
            raise self.reader.refusal("link", message) from None


class Reader:
    """One reading of one file: what was found, and which bytes it takes."""

    def __init__(self, buffer: memoryview, path: str) -> None:
        self.buffer = buffer
        self.path = path
        self.contents = Contents({}, {})
        self.extents: list[tuple[int, int]] = []
        self.metadata_bytes = 0
        self.visited: dict[int, str] = {}

    def refusal(self, code: str, message: str) -> ModelFormatError:
        """Return the exception to raise."""
        return ModelFormatError(message, code=code, path=self.path)

    def require(self, condition: bool, code: str, message: str) -> None:
        """Refuse the file unless `condition` holds."""
        if not condition:
            raise self.refusal(code, message)

    def bytes_at(self, address: int, size: int, what: str) -> bytes:
        """Return bytes of the file; they must lie inside it."""
        self.check_bounds(address, size, what)
        return bytes(self.buffer[address : address + size])

    def check_bounds(self, address: int, size: int, what: str) -> None:
        """Refuse bytes outside the file."""
        end = len(self.buffer)
        if address + size > end:
            raise self.refusal(
                "bounds", f"{what}: {size} bytes at {address}, the file ends at {end}"
            )

    def block(self, address: int, size: int, start: bytes, what: str) -> Cursor:
        """Return a structure whose last four bytes are the checksum of the others.

        "Checksums"
        """
        data = self.bytes_at(address, size, what)
        if not data.startswith(start):
            raise self.refusal("corrupt", f"{what} is not at {address} as it should")
        if lookup3(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise self.refusal("corrupt", f"{what} at {address} has a wrong checksum")
        self.claim(address, size, what)
        cursor = Cursor(self, data[:-4], what)
        cursor.position = len(start)
        return cursor

    def claim(self, address: int, size: int, what: str) -> None:
        """Note which bytes a structure takes; their sum bounds the time to read all."""
        self.extents.append((address, address + size))
        self.metadata_bytes += size
        if self.metadata_bytes > MAX_METADATA:
            raise self.refusal("limit", f"{what} exceeds {MAX_METADATA} metadata bytes")

    def account_for_every_byte(self) -> None:
        """Refuse overlapping structures, and bytes outside them that are not zero."""
        self.extents.sort()
        ends = [0, *(stop for _, stop in self.extents)]
        starts = [*(start for start, _ in self.extents), len(self.buffer)]
        gaps = list(zip(ends, starts, strict=True))
        for end, start in gaps:
            if end > start:
                raise self.refusal("overlap", f"two structures share byte {start}")
        for end, start in gaps:
            if start - end > MAX_GAP:
                raise self.refusal("limit", f"{start - end} unused bytes at {end}")
            if bytes(self.buffer[end:start]).strip(b"\0"):
                raise self.refusal("corrupt", f"unused bytes at {end} are not zero")

    def superblock(self) -> int:
        """Return the address of the root group.

        "Disk Format: Level 0A - Format Signature and Superblock", version 2 or 3.
        """
        found = len(self.buffer)
        self.require(found >= SUPERBLOCK.size, "size", f"{found} bytes are no model")
        signature, version, offsets, lengths, flags, base, extension, end, root = (
            SUPERBLOCK.unpack(self.buffer[: SUPERBLOCK.size])
        )
        self.require(signature == SIGNATURE, "not_hdf5", "not an HDF5 file")
        self.require(
            version in (2, 3) and (offsets, lengths) == (8, 8),
            "superblock",
            f"HDF5 superblock version {version}, wanted 2 or 3 with 8-byte addresses; "
            "convert_model can read HDF5 files that striate did not write",
        )
        self.require(flags == 0, "superblock", "its writer did not close it")
        self.block(0, SUPERBLOCK.size, SIGNATURE, "superblock")
        self.require(
            base == 0 and extension == UNDEFINED,
            "superblock",
            "a base address or a superblock extension, wanted neither",
        )
        self.require(end == found, "size", f"{found} bytes, wanted {end}")
        return int(root)

    def object(self, path: str, address: int, depth: int) -> None:
        """Read a group with all below it, or a dataset."""
        what = repr("/" + path)
        if depth > MAX_DEPTH:
            raise self.refusal("limit", f"{what} is more than {MAX_DEPTH} levels deep")
        if address in self.visited:
            raise self.refusal("alias", f"{what} is also {self.visited[address]}")
        self.visited[address] = what
        if len(self.visited) > MAX_OBJECTS:
            raise self.refusal("limit", f"more than {MAX_OBJECTS} objects")
        messages = self.header(address, what)
        kinds = {kind for kind, _ in messages}
        if REFERENCE_COUNT in kinds:
            raise self.refusal("alias", f"{what} has more than one link")
        group = LINK_INFO in kinds
        odd = kinds - (GROUP_MESSAGES if group else DATASET_MESSAGES)
        if odd:
            code = "object" if group else "storage"
            raise self.refusal(code, f"{what} has messages {sorted(map(hex, odd))}")
        for kind, body in messages:
            if kind == ATTRIBUTE_INFO:
                self.attribute_info(body, what)
            elif kind == GROUP_INFO:
                self.group_info(body, what)
            elif kind == FILL_VALUE:
                self.fill_value(body, what)
            elif kind == ATTRIBUTE:
                self.require(not path, "attribute", f"{what} has an attribute")
                self.attribute(body)
        several = {LINK, ATTRIBUTE}
        once = [kind for kind, _ in messages if kind not in several]
        self.require(
            len(once) == len(kinds - several), "corrupt", f"{what} repeats a message"
        )
        if group:
            self.group(path, messages, depth)
        else:
            self.dataset(path, messages, what)

    def group(self, path: str, messages: list[tuple[int, bytes]], depth: int) -> None:
        """Read the objects that a group links to."""
        what = repr("/" + path)
        links: list[Link] = []
        for kind, body in messages:
            if kind == LINK:
                links.append(self.link(body, what))
            elif kind == LINK_INFO:
                links.extend(self.link_info(body, what))
        names = {link.name for link in links}
        self.require(len(names) == len(links), "link", f"{what} repeats a name")
        self.require(bool(links), "object", f"{what} is an empty group")
        for link in sorted(links):
            below = f"{path}/{link.name}" if path else link.name
            self.object(below, link.address, depth + 1)

    def dataset(self, path: str, messages: list[tuple[int, bytes]], what: str) -> None:
        """Note where a dataset lies; its bytes are not read."""
        parts = dict(messages)
        if not {DATASPACE, DATATYPE, LAYOUT} <= parts.keys():
            raise self.refusal("object", f"{what} is neither a group nor a dataset")
        shape = self.dataspace(parts[DATASPACE], what)
        dtype = self.datatype(parts[DATATYPE], what)
        address, nbytes = self.layout(parts[LAYOUT], what)
        wanted = math.prod(shape) * dtype.size
        if nbytes != wanted:
            raise self.refusal(
                "shape",
                f"{what} has {nbytes} bytes, {dtype.name} {shape} takes {wanted}",
            )
        self.check_bounds(address, nbytes, what)
        if address % ALIGNMENT:
            raise self.refusal(
                "alignment", f"{what} lies at {address}, no multiple of {ALIGNMENT}"
            )
        self.extents.append((address, address + nbytes))
        self.contents.datasets[path] = Dataset(dtype, shape, address, nbytes)

    def header(self, address: int, what: str) -> list[tuple[int, bytes]]:
        """Return type and body of each message of an object.

        "Version 2 Data Object Header Prefix"
        """
        what = f"the header of {what}"
        flags = self.bytes_at(address, 6, what)[5]
        self.require(not flags & 0x20, "object", f"{what} carries time stamps")
        start = 6 + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        size = self.bytes_at(address + start, width, what)
        start += width
        end = start + int.from_bytes(size, "little")
        cursor = self.block(address, end + 4, b"OHDR\2", what)
        self.require(not flags & 0xC0, "corrupt", f"{what} has unknown flags")
        cursor.position = start
        layout = TRACKED_MESSAGE if flags & 4 else MESSAGE
        messages: list[tuple[int, bytes]] = []
        chunks = [cursor]
        for chunk in chunks:
            end, spare = len(chunk.data), False
            while end - chunk.position >= layout.size:
                kind, length, flags = chunk.fields(layout)
                body = chunk.take(length)
                if flags & ~0x05:
                    raise self.refusal("storage", f"{what} has a shared message")
                if kind == NIL:
                    spare = True
                elif kind == CONTINUATION:
                    chunks.append(self.continuation(body, what))
                else:
                    messages.append((kind, body))
            if spare and chunk.position < end:
                raise self.refusal("corrupt", f"{what} has a gap beside spare messages")
            if len(chunks) > MAX_CONTINUATIONS:
                raise self.refusal("limit", f"{what} has {len(chunks)} parts")
        return messages

    def continuation(self, body: bytes, what: str) -> Cursor:
        """Return a further block of messages.

        "The Object Header Continuation Message"
        """
        address, size = Cursor(self, body, what).fields(ADDRESS_AND_SIZE)
        self.require(size >= 8, "corrupt", f"{what} goes on with {size} bytes")
        return self.block(address, size, b"OCHK", what)

    def dataspace(self, body: bytes, what: str) -> Shape:
        """Return the shape.

        "The Dataspace Message", version 2, a scalar or of fixed size.
        """
        cursor = Cursor(self, body, f"the shape of {what}")
        version, rank, flags, kind = cursor.take(4)
        if version != 2 or kind != (rank > 0) or rank > MAX_RANK or flags > 1:
            raise self.refusal(
                "shape",
                f"{what} has a dataspace of version {version}, rank {rank}, flags "
                f"{flags} and type {kind}; wanted at most {MAX_RANK} sizes",
            )
        shape = cursor.fields(SIZES[rank])
        largest = cursor.fields(SIZES[rank]) if flags else shape
        if largest != shape:
            raise self.refusal("shape", f"{what} is resizable")
        if shape and not 1 <= min(shape) <= max(shape) <= MAX_SIZE:
            raise self.refusal("shape", f"{what} has the shape {shape}")
        return shape

    def datatype(self, body: bytes, what: str) -> DataType:
        """Return the type; the whole message must be one of those allowed.

        "The Datatype Message", versions 1 and 3, which say the same of these types.
        """
        if body and body[0] >> 4 == 3:
            body = bytes([0x10 | body[0] & 0x0F]) + body[1:]
        if body in NUMBERS:
            return NUMBERS[body]
        size = int.from_bytes(body[4:], "little")
        if not body.startswith(STRING) or len(body) != 8 or not size:
            raise self.refusal(
                "dtype",
                f"{what} has the data type {body[:24].hex()}, wanted a fixed-length "
                "UTF-8 string or " + ", ".join(t.name for t in NUMBERS.values()),
            )
        return DataType("string", size)

    def layout(self, body: bytes, what: str) -> tuple[int, int]:
        """Return address and size of the data.

        "The Data Layout Message", versions 3 and 4, contiguous storage.
        """
        if body[:2] not in (b"\3\1", b"\4\1"):
            raise self.refusal("storage", f"{what} is not stored in one piece")
        cursor = Cursor(self, body, f"the layout of {what}")
        address, nbytes = cursor.fields(CONTIGUOUS_LAYOUT)
        if address == UNDEFINED:
            raise self.refusal("storage", f"{what} was never written")
        return address, nbytes

    def attribute(self, body: bytes) -> None:
        """Read an attribute of the root group.

        "The Attribute Message", version 3.
        """
        self.require(
            body[:2] == b"\3\0", "attribute", "an attribute of unknown version"
        )
        cursor = Cursor(self, body, "an attribute of '/'")
        name_size, type_size, shape_size = cursor.fields(ATTRIBUTE_SIZES)
        name = cursor.name(name_size).removesuffix("\0")
        what = f"attribute {name!r:.80}"
        dtype = self.datatype(cursor.take(type_size), what)
        shape = self.dataspace(cursor.take(shape_size), what)
        data = cursor.take(math.prod(shape) * dtype.size)
        attributes = self.contents.attributes
        self.require(name not in attributes, "attribute", f"{what} occurs twice")
        attributes[name] = Attribute(dtype, shape, data)

    def attribute_info(self, body: bytes, what: str) -> None:
        """Refuse attributes outside the object's header.

        "The Attribute Info Message"
        """
        cursor = Cursor(self, body, f"the attribute info of {what}")
        version, flags = cursor.take(2)
        cursor.take(2 if flags & 1 else 0)
        places = cursor.fields(ADDRESS_AND_SIZE)
        if version != 0 or flags > 1 or places != (UNDEFINED, UNDEFINED):
            raise self.refusal("attribute", f"{what} has attributes outside its header")

    def group_info(self, body: bytes, what: str) -> None:
        """Refuse what is not in the form of advice to writers.

        "The Group Info Message"
        """
        version, flags = Cursor(self, body, f"the group info of {what}").take(2)
        wanted = 2 + 4 * (flags & 1) + 4 * (flags >> 1 & 1)
        if version != 0 or flags > 3 or len(body) != wanted:
            raise self.refusal("corrupt", f"{what} has an unknown group info")

    def fill_value(self, body: bytes, what: str) -> None:
        """Refuse what is not in the form of times of allocation and of filling.

        "The Data Storage - Fill Value Message", version 3, without a value.
        """
        version, flags = Cursor(self, body, f"the fill value of {what}").take(2)
        allocation, filling = flags & 3, flags >> 2
        if version != 3 or not allocation or filling > 2 or len(body) != 2:
            raise self.refusal("storage", f"{what} has a fill value")

    def link(self, body: bytes, what: str) -> Link:
        """Return a hard link.

        "The Link Message"
        """
        cursor = Cursor(self, body, f"a link of {what}")
        version, flags = cursor.take(2)
        kind = cursor.number(1) if flags & 8 else 0
        order = cursor.number(8) if flags & 4 else 0
        cursor.take(1 if flags & 16 else 0)
        size = cursor.number(1 << (flags & 3))
        if size > MAX_NAME:
            raise self.refusal("limit", f"{what}: a link's name has {size} bytes")
        name = cursor.name(size)
        if version != 1 or flags & 0xE0 or kind != 0:
            raise self.refusal("link", f"{what}: link {name!r} is soft or external")
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise self.refusal("link", f"{what}: a link has the name {name!r}")
        return Link(order, name, cursor.number(8))

    def link_info(self, body: bytes, what: str) -> Iterator[Link]:
        """Yield the links that lie outside the object's header, if any do.

        "The Link Info Message", without an index by creation order.
        """
        cursor = Cursor(self, body, f"the link info of {what}")
        version, flags = cursor.take(2)
        if version != 0 or flags > 1:
            raise self.refusal("link", f"{what} is indexed by creation order")
        if flags and cursor.number(8) >= 2**63:
            raise self.refusal("link", f"{what} counts its links below zero")
        heap_address, tree_address = cursor.fields(ADDRESS_AND_SIZE)
        if heap_address == tree_address == UNDEFINED:
            return
        objects, blocks = self.heap(heap_address, f"the heap of {what}")
        records = list(self.tree(tree_address, f"the index of {what}"))
        hashes = [record[0] for record in records]
        self.require(
            len(records) == objects and hashes == sorted(hashes),
            "corrupt",
            f"{what}: heap and index of the links do not agree",
        )
        for code, kind, offset, size in records:
            for start, data in blocks:
                if kind == 0 and start <= offset and offset + size <= start + len(data):
                    link = self.link(data[offset - start :][:size], what)
                    break
            else:
                raise self.refusal("corrupt", f"{what}: a link lies nowhere")
            if lookup3(link.name.encode()) != code:
                raise self.refusal("corrupt", f"{what}: {link.name!r} is misfiled")
            yield link

    def heap(self, address: int, what: str) -> tuple[int, list[tuple[int, bytes]]]:
        """Return how many objects a heap holds, and its blocks with their offsets.

        "Fractal Heap"
        """
        cursor = self.block(address, 146, HEAP, what)
        free, objects, geometry, root, rows = cursor.fields(HEAP_FIELDS)
        self.require(geometry == HEAP_GEOMETRY, "corrupt", f"{what} is of no group")
        self.require(rows <= HEAP_MOST_ROWS, "limit", f"{what} has {rows} rows")
        if free != UNDEFINED:
            self.free_space(free, what)
        places = (
            self.heap_table(root, address, rows, what) if rows else [(root, 0, 512)]
        )
        return objects, [
            (offset, self.heap_block(place, address, offset, size, what))
            for place, offset, size in places
        ]

    def heap_table(
        self, address: int, heap: int, rows: int, what: str
    ) -> Iterator[tuple[int, int, int]]:
        """Yield address, offset and size of each block.

        "Fractal Heap Indirect Block", with direct blocks only.
        """
        cursor = self.block(address, 21 + 8 * rows * HEAP_WIDTH, b"FHIB\0", what)
        owner = cursor.fields(HEAP_OWNER)
        self.require(owner == (heap, 0), "corrupt", f"{what} has another's table")
        offset = 0
        for size in HEAP_ROWS[:rows]:
            for _ in range(HEAP_WIDTH):
                place = cursor.number(8)
                if place != UNDEFINED:
                    yield place, offset, size
                offset += size
        tables = set(cursor.take(8 * HEAP_WIDTH * max(0, rows - len(HEAP_ROWS))))
        self.require(tables <= {0xFF}, "limit", f"{what} has tables below its table")

    def heap_block(
        self, address: int, heap: int, offset: int, size: int, what: str
    ) -> bytes:
        """Return a block of links.

        "Fractal Heap Direct Block"; its checksum lies inside and counts as zero.
        """
        data = self.bytes_at(address, size, what)
        start = b"FHDB\0" + HEAP_OWNER.pack(heap, offset)
        found = int.from_bytes(data[17:21], "little")
        if lookup3(start + bytes(4) + data[21:]) != found or data[:17] != start:
            raise self.refusal("corrupt", f"{what} has a damaged block at {address}")
        self.claim(address, size, what)
        return data

    def free_space(self, address: int, what: str) -> None:
        """Note the bytes in which a heap lists its unused parts.

        "Free-space Manager"
        """
        cursor = self.block(address, 82, b"FSHD\0\0", what)
        settings, sections, used = cursor.fields(FREE_SPACE)
        if settings != FREE_SPACE_SETTINGS:
            raise self.refusal("corrupt", f"{what} has free space of another kind")
        if sections != UNDEFINED:
            self.require(used > 16, "corrupt", f"{what} lists {used} bytes")
            self.block(sections, used, b"FSSE\0", what)

    def tree(self, address: int, what: str) -> Iterator[tuple[int, ...]]:
        """Yield hash, heap id type, offset and size of each link.

        "Version 2 B-trees", type 5.
        """
        cursor = self.block(address, 38, TREE, what)
        depth, root, root_records, total = cursor.fields(TREE_FIELDS)
        self.require(
            depth < len(TREE_LEVELS), "limit", f"{what} is {depth} levels deep"
        )
        found = 0
        for record in self.tree_node(root, root_records, depth, what):
            found += 1
            if found > min(total, MAX_OBJECTS):
                raise self.refusal("limit", f"{what} has more than {total} links")
            yield record
        self.require(found == total, "corrupt", f"{what} has lost links")

    def tree_node(
        self, address: int, count: int, level: int, what: str
    ) -> Iterator[tuple[int, ...]]:
        """Yield the records of a node and of those below it, in order.

        "Version 2 B-tree Internal Node", "Version 2 B-tree Leaf Node"
        """
        most, count_width, total_width = TREE_LEVELS[level]
        self.require(count <= most, "corrupt", f"{what}: a node of {count} records")
        children = count + 1 if level else 0
        size = 11 * count + (8 + count_width + total_width) * children
        start = b"BTIN\0\5" if level else b"BTLF\0\5"
        cursor = self.block(address, 6 + size + 4, start, what)
        records = [cursor.fields(TREE_RECORD) for _ in range(count)]
        if not level:
            yield from records
        for index in range(children):
            child, below = cursor.number(8), cursor.number(count_width)
            cursor.take(total_width)
            yield from self.tree_node(child, below, level - 1, what)
            yield from records[index : index + 1]
