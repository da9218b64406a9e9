"""Decoding gray at 1/8 of the size rejects exactly what decoding the whole picture rejects."""
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.images.decode import Rejected, check
from preprocess.images.normalize import normalize
from tests.pictures import encoded, exif_of, normal_jpeg, strict, texture
from tests.test_transcode import baseline_in_three_scans

JPEGS = {
    "4:2:0": encoded(texture(161, 119), quality=88, subsampling="4:2:0"),
    "restart markers": encoded(texture(93, 61), quality=88, subsampling="4:2:0", restart_marker_blocks=3),
    "optimized": encoded(texture(160, 120), quality=40, subsampling="4:2:0", optimize=True),
    "progressive": encoded(texture(93, 61), quality=88, subsampling="4:2:0", progressive=True),
    "4:4:4": encoded(texture(93, 61), quality=88, subsampling="4:4:4"),
    "4:2:2": encoded(texture(93, 61), quality=88, subsampling="4:2:2"),
    "gray": encoded(texture(93, 61).convert("L")),
    "cmyk": encoded(texture(93, 61).convert("CMYK")),
    "tiny": encoded(texture(5, 3), subsampling="4:2:0"),
}


def flip(data: bytearray, at: int, draw: random.Random) -> None:
    data[at] ^= 1 << draw.randrange(8)


def zero(data: bytearray, at: int, draw: random.Random) -> None:
    end = min(len(data), at + draw.randrange(1, 32))
    data[at:end] = bytes(end - at)


def lose(data: bytearray, at: int, draw: random.Random) -> None:
    del data[at:at + draw.randrange(1, 16)]


def cut(data: bytearray, at: int, draw: random.Random) -> None:
    del data[at:]


def check_complains(data: bytes) -> str | None:
    try:
        check(data)
    except Rejected as reason:
        return str(reason)
    return None


@pytest.mark.parametrize("damage", [flip, zero, lose, cut])
@pytest.mark.parametrize("kind", JPEGS)
def test_the_check_rejects_what_whole_decoding_rejects(kind, damage):
    draw, found, tries = random.Random(kind), 0, 200
    for number in range(tries):
        data = bytearray(JPEGS[kind])
        damage(data, draw.randrange(2 if number % 4 == 0 else data.index(b"\xff\xda"), len(data)), draw)
        whole = strict(bytes(data))
        assert (check_complains(bytes(data)) is None) == (whole is None), (number, whole)
        found += whole is not None
    assert found == tries if damage is cut else 0 < found < tries


@settings(max_examples=300)
@given(kind=st.sampled_from(sorted(JPEGS)), edits=st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5))
def test_the_check_agrees_on_any_bytes(kind, edits):
    data = bytearray(JPEGS[kind])
    for where, value in edits:
        data[int(where * len(data))] = value
    assert (check_complains(bytes(data)) is None) == (strict(bytes(data)) is None)


@pytest.mark.parametrize("tail", [b"junk" * 100, b"\0", b"\xff" * 9, normal_jpeg()],
                         ids=["text", "zero", "fill", "jpeg"])
def test_bytes_behind_the_end_of_the_image_are_kept(tail):
    data = normal_jpeg() + tail
    assert normalize(data, None, 90) == (data, 90, 60)


@pytest.mark.parametrize("data, reason", [
    (normal_jpeg()[:-100], "truncated or corrupt: Premature end of JPEG file"),
    (normal_jpeg()[:-2] + bytes(20) + b"\xff\xd9",
     "truncated or corrupt: Corrupt JPEG data: 16 extraneous bytes before marker 0xd9"),
    (normal_jpeg(progressive=True)[:-100], "truncated or corrupt: Premature end of JPEG file"),
    (normal_jpeg(subsampling="4:4:4")[:-100], "truncated or corrupt: Premature end of JPEG file"),
], ids=["cut", "extraneous", "progressive", "444"])
@pytest.mark.parametrize("short_side", [None, 30])
def test_damage_is_named_whether_or_not_the_photo_must_be_encoded(data, reason, short_side):
    with pytest.raises(Rejected) as rejected:
        normalize(data, short_side, 90)
    assert str(rejected.value)[:60] == reason[:60]


ODD = normal_jpeg(exif=exif_of(1)).replace(b"Exif\0\0MM", b"Exif\0\0XX")  # Pillow decodes it
WHOLE = JPEGS | {"in three scans": baseline_in_three_scans(), "odd header": ODD, "thumbnail": normal_jpeg(
    extra=b"\xff\xe1\x00\x09\xff\xda\xff\xc4\xff\xd9\xff")}


@pytest.mark.parametrize("kind", WHOLE)
def test_only_the_end_marker_may_be_missing(kind):
    """Cut anywhere, and at the end of each scan, where decoders see nothing amiss."""
    data, draw = WHOLE[kind], random.Random(kind)
    scans = [at for at in range(len(data)) if data[at:at + 2] in (b"\xff\xda", b"\xff\xc4")]
    for short_side in (None, 30):
        assert normalize(data[:-2], short_side, 90) == normalize(data[:-1], short_side, 90) \
            == normalize(data, short_side, 90)
    for end in [*scans, *draw.sample(range(scans[0], len(data) - 2), 200)]:
        with pytest.raises(Rejected):
            normalize(data[:end], None, 90)


def test_damage_is_found_behind_an_odd_header():
    """Pillow alone, which decodes such a file, would take most of them."""
    draw, found = random.Random(0), 0
    for _ in range(200):
        data = bytearray(ODD)
        flip(data, draw.randrange(data.index(b"\xff\xda") + 14, len(data)), draw)
        if strict(bytes(data)) is not None:
            found += 1
            with pytest.raises(Rejected, match="^truncated or corrupt: "):
                normalize(bytes(data), None, 90)
    assert found > 20


def test_without_the_check_only_photos_that_keep_their_bytes_go_unseen():
    cut_off = normal_jpeg()[:-100]
    assert normalize(cut_off, None, 90, check=False) == (cut_off, 90, 60)
    for data, short_side in [(cut_off, 30), (normal_jpeg(subsampling="4:4:4")[:-100], None),
                             (normal_jpeg(progressive=True)[:-100], None)]:
        with pytest.raises(Rejected, match="^truncated or corrupt: "):
            normalize(data, short_side, 90, check=False)
