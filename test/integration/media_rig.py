"""Media made by hand, so that tests need no encoder: a TrueType font whose one glyph has a given
width, and an MP4 whose every picture says in its pixels which one it is."""
import struct


# ---- a font

FONT_UNITS = 1000


def font(advance):
    """A TrueType font that has the letter A, a square, `advance` thousandths of the size wide."""
    square = struct.pack('>5h', 1, 0, 0, 500, 500)  # contours, bounds
    square += struct.pack('>HH', 3, 0)              # last point, no instructions
    square += bytes([0x01] * 4)                     # four points on the curve, 16-bit steps
    square += struct.pack('>4h', 0, 500, 0, -500) + struct.pack('>4h', 0, 0, 500, 0)
    square += bytes(-len(square) % 4)
    glyphs = square * 2
    segments = struct.pack('>7H', 4, 24 + 8, 0, 4, 4, 1, 0)  # format 4, two segments
    segments += struct.pack('>2H', 65, 0xFFFF) + b'\0\0' + struct.pack('>2H', 65, 0xFFFF)
    segments += struct.pack('>2h', 1 - 65, 1) + struct.pack('>2H', 0, 0)
    tables = {
        b'OS/2': struct.pack('>HhHHH', 4, advance, 400, 5, 0) +
        struct.pack('>11h', *[100] * 10, 0) + bytes(10) + bytes(16) + b'weir' +
        struct.pack('>3H', 0x40, 65, 65) + struct.pack('>3h2H', 800, -200, 0, 800, 200) +
        bytes(8) + struct.pack('>2h3H', 500, 700, 0, 32, 1),
        b'cmap': struct.pack('>2H2HI', 0, 1, 3, 1, 12) + segments,
        b'glyf': glyphs,
        b'head': struct.pack('>4I2H2q4h2H3h', 0x10000, 0x10000, 0, 0x5F0F3CF5, 3, FONT_UNITS, 0, 0,
                             0, 0, 500, 500, 0, 8, 2, 1, 0),
        b'hhea': struct.pack('>I3hH11hH', 0x10000, 800, -200, 0, advance, 0, 0, 500, 1,
                             *[0] * 7, 2),
        b'hmtx': struct.pack('>HhHh', advance, 0, advance, 0),
        b'loca': struct.pack('>3I', 0, len(square), len(glyphs)),
        b'maxp': struct.pack('>I14H', 0x10000, 2, 4, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0),
        b'name': struct.pack('>3H', 0, 1, 18) + struct.pack('>6H', 3, 1, 0x409, 1, 8, 0) +
        'weir'.encode('utf-16-be'),
        b'post': struct.pack('>Ii2h5I', 0x30000, 0, 0, 0, 0, 0, 0, 0, 0),
    }
    head = struct.pack('>I4H', 0x10000, len(tables), 128, 3, len(tables) * 16 - 128)
    at, body = len(head) + 16 * len(tables), b''
    for tag, data in sorted(tables.items()):
        padded = data + bytes(-len(data) % 4)
        total = sum(struct.unpack(f'>{len(padded) // 4}I', padded)) & 0xFFFFFFFF
        head += tag + struct.pack('>3I', total, at + len(body), len(data))
        body += padded
    return head + body


# ---- a video

MACROBLOCKS = 8   # in a row, and rows
SIDE = 16 * MACROBLOCKS
CODE_BITS = 16    # the first macroblocks are white for 1, black for 0
WHITE, BLACK = 220, 30


class Bits:
    """Writes H.264's fields."""

    def __init__(self):
        self.text = ''

    def fixed(self, value, width):
        self.text += format(value, f'0{width}b')
        return self

    def golomb(self, *values):
        for value in values:
            text = format(value + 1, 'b')
            self.text += '0' * (len(text) - 1) + text
        return self

    def bytes(self):
        assert len(self.text) % 8 == 0
        return int(self.text, 2).to_bytes(len(self.text) // 8, 'big')

    def aligned(self):
        self.text += '0' * (-len(self.text) % 8)
        return self

    def ended(self):
        self.text += '1'
        return self.aligned().bytes()


# Baseline, level 3; pictures in the order in which they are sent; none refers to another.
SEQUENCE = b'\x67' + (Bits().fixed(66, 8).fixed(0xC0, 8).fixed(30, 8).golomb(0, 0, 2, 0).fixed(0, 1)
                      .golomb(MACROBLOCKS - 1, MACROBLOCKS - 1).fixed(0b11000, 5).ended())
# Coding without CABAC, one slice group, and the filter between blocks can be switched off.
PICTURES = b'\x68' + (Bits().golomb(0, 0).fixed(0, 2).golomb(0, 0, 0).fixed(0, 3).golomb(0, 0, 0)
                      .fixed(0b100, 3).ended())


def picture(number):
    """One complete picture, its macroblocks as plain samples (I_PCM): about 24 KiB."""
    head = (Bits().golomb(0, 7, 0).fixed(0, 4).golomb(number % 2).fixed(0, 2).golomb(0, 1)
            .golomb(25).aligned())
    plain = Bits().golomb(25).aligned().bytes()
    blocks = []
    for block in range(MACROBLOCKS * MACROBLOCKS):
        white = block < CODE_BITS and number >> block & 1
        blocks.append(bytes([WHITE if white else BLACK]) * 256 + b'\x80' * 128)
    data = b'\x65' + head.bytes() + plain.join(blocks) + b'\x80'
    assert b'\0\0' not in data  # else it would need escapes
    return struct.pack('>I', len(data)) + data


def box(kind, *parts):
    body = b''.join(parts)
    return struct.pack('>I', len(body) + 8) + kind + body


def full(kind, flags, *parts):
    return box(kind, struct.pack('>I', flags), *parts)


def video(seconds, rate=25):
    """An MP4 with `rate` pictures a second, each a place to seek to. In front is what a player
    needs to find them, so that it has to read no more than it shows."""
    pictures = [picture(number) for number in range(seconds * rate)]
    matrix = struct.pack('>9I', 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    length = seconds * 1000
    settings = box(b'avcC', bytes([1, 66, 0xC0, 30, 0xFF, 0xE1]), struct.pack('>H', len(SEQUENCE)),
                   SEQUENCE, b'\1', struct.pack('>H', len(PICTURES)), PICTURES)
    entry = box(b'avc1', bytes(6), struct.pack('>H', 1), bytes(16), struct.pack('>2H', SIDE, SIDE),
                struct.pack('>3IH', 0x480000, 0x480000, 0, 1), bytes(32),
                struct.pack('>Hh', 24, -1), settings)
    kind = box(b'ftyp', b'isom', struct.pack('>I', 512), b'isomavc1')

    def movie(first):
        table = box(
            b'stbl', full(b'stsd', 0, struct.pack('>I', 1), entry),
            full(b'stts', 0, struct.pack('>3I', 1, len(pictures), 1000 // rate)),
            full(b'stsc', 0, struct.pack('>4I', 1, 1, len(pictures), 1)),
            full(b'stsz', 0, struct.pack('>2I', 0, len(pictures)),
                 *(struct.pack('>I', len(data)) for data in pictures)),
            full(b'stco', 0, struct.pack('>2I', 1, first)))
        media = box(
            b'mdia', full(b'mdhd', 0, struct.pack('>4IHH', 0, 0, 1000, length, 0x55C4, 0)),
            full(b'hdlr', 0, bytes(4), b'vide', bytes(12), b'weir\0'),
            box(b'minf', full(b'vmhd', 1, bytes(8)),
                box(b'dinf', full(b'dref', 0, struct.pack('>I', 1), full(b'url ', 1))), table))
        track = box(
            b'trak', full(b'tkhd', 3, struct.pack('>5I', 0, 0, 1, 0, length), bytes(16), matrix,
                          struct.pack('>2I', SIDE << 16, SIDE << 16)), media)
        return box(b'moov', full(b'mvhd', 0, struct.pack('>4I', 0, 0, 1000, length),
                                 struct.pack('>IH', 0x10000, 0x100), bytes(10), matrix, bytes(24),
                                 struct.pack('>I', 2)), track)

    first = len(kind) + len(movie(0)) + 8
    return kind + movie(first) + box(b'mdat', *pictures)
