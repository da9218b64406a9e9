"""Progressive JPEGs become baseline without a changed pixel, and rare codings are not lost."""
import errno
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor

import jpeglib
import numpy as np
import pytest
import simplejpeg

from preprocess.images import normalize as normal_form
from preprocess.images.decode import Rejected
from preprocess.images.normalize import normalize
from tests.icc_profiles import SRGB
from tests.pictures import encoded, exif_of, pixels, strict, texture

PHOTO = texture(161, 119)


def progressive(**options) -> bytes:
    return encoded(PHOTO, **{"quality": 88, "subsampling": "4:2:0", "progressive": True, **options})


@pytest.mark.parametrize("options", [
    {}, {"quality": 40}, {"restart_marker_blocks": 5}, {"exif": exif_of(1), "comment": b"words", "icc_profile": SRGB}],
    ids=["plain", "coarse", "restart markers", "metadata"])
@pytest.mark.parametrize("short_side", [None, 119])
def test_progressive_becomes_baseline_with_equal_pixels(options, short_side):
    data = progressive(**options)
    packed = normalize(data, short_side, 50)
    assert np.array_equal(simplejpeg.decode_jpeg(packed.data), simplejpeg.decode_jpeg(data))
    assert pixels(packed.data).shape == (119, 161, 3)
    assert b"\1\x22\0\2\x11\1\3\x11\1" in packed.data  # component ids of JFIF, and the tables of the source
    assert packed.data[:2] + packed.data[6:11] == b"\xff\xd8JFIF\0" and packed.data.count(b"JFIF") == 1
    assert not any(words in packed.data for words in (b"Exif", b"words", b"ICC_PROFILE"))
    assert normalize(packed.data, short_side, 50) == packed


def baseline_in_three_scans() -> bytes:
    """A component a scan (T.81, A.2.2), put together from three gray JPEGs with the same tables."""
    planes = [plane.resize((-(-161 // n), -(-119 // n))) for plane, n in zip(PHOTO.convert("YCbCr").split(), (1, 2, 2))]
    grays = [encoded(plane, quality=88) for plane in planes]
    frame, scan = grays[0].index(b"\xff\xc0"), grays[0].index(b"\xff\xda")
    size = grays[0][frame + 4:frame + 9]
    components = b"".join(bytes((number, sampling, 0)) for number, sampling in ((1, 0x22), (2, 0x11), (3, 0x11)))
    scans = [b"\xff\xda\0\x08\1" + bytes((number, 0)) + b"\0\x3f\0" + gray[scan + 10:-2]
             for number, gray in enumerate(grays, 1)]
    head = grays[0][:frame] + b"\xff\xc0\0\x11" + size + b"\3" + components + grays[0][frame + 13:scan]
    return head + b"".join(scans) + b"\xff\xd9"


def test_baseline_in_several_scans_becomes_one_scan_with_equal_pixels():
    """Hardware decoders take a single scan."""
    data = baseline_in_three_scans()
    packed = normalize(data, None, 50)
    assert packed.data.count(b"\xff\xda") == 1 and data.count(b"\xff\xda") == 3
    assert np.array_equal(simplejpeg.decode_jpeg(packed.data), simplejpeg.decode_jpeg(data))
    assert np.abs(pixels(packed.data) - np.asarray(PHOTO, float)).mean() < 12


def test_what_cannot_be_recoded_is_encoded_once(monkeypatch):
    data = progressive()
    for answer in (None, data, data[:-500], encoded(texture(161, 119, seed=1), subsampling="4:2:0"), b""):
        monkeypatch.setattr(normal_form, "to_baseline", lambda data: answer)
        packed = normalize(data, None, 95)
        assert np.abs(pixels(packed.data) - simplejpeg.decode_jpeg(data)).mean() < 4


def test_damage_never_reaches_the_recoder(monkeypatch):
    """It crashed on 1 of some thousand damaged files when it was tried without the strict check before it."""
    seen = []
    monkeypatch.setattr(normal_form, "to_baseline", lambda data: seen.append(data))
    draw, rejected = random.Random(0), 0
    for _ in range(300):
        data = bytearray(progressive())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        try:
            normalize(bytes(data), None, 90)
        except Rejected:
            rejected += 1
    assert rejected > 50 and len(seen) > 50 and not any(map(strict, seen))


def test_mutated_scans_give_the_same_pixels_or_are_rejected():
    """Scans dropped, doubled, swapped: what simplejpeg decodes without complaint keeps its pixels or nearly so."""
    draw, kept = random.Random(1), 0
    for _ in range(60):
        data = progressive()
        starts = [at for at in range(len(data)) if data[at:at + 2] == b"\xff\xc4"] + [len(data) - 2]
        scans = [data[a:b] for a, b in zip(starts, starts[1:])]
        draw.choice([scans.pop, lambda: scans.insert(3, draw.choice(scans)), lambda: draw.shuffle(scans)])()
        mutated = data[:starts[0]] + b"".join(scans) + b"\xff\xd9"
        try:
            packed = normalize(mutated, None, 95)
        except Rejected:
            continue
        kept += 1
        assert np.abs(pixels(packed.data) - simplejpeg.decode_jpeg(mutated)).mean() < 6
    assert kept > 5


def test_threads_do_not_mix_photos():
    """Files with 45 comments each between the scans: jpeglib counts to 50 over all threads."""
    files = [encoded(texture(400, 300, seed), subsampling="4:2:0", progressive=True) for seed in range(20)]
    files = [data[:20] + data[20:].replace(b"\xff\xc4", 5 * b"\xff\xfe\0\x06junk" + b"\xff\xc4") for data in files]
    alone = [normalize(data, None, 90) for data in files]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda data: normalize(data, None, 90), files * 5)) == alone * 5
    assert all(np.array_equal(simplejpeg.decode_jpeg(a), simplejpeg.decode_jpeg(b.data)) for a, b in zip(files, alone))


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    normalize(progressive(), None, 90)
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_that_cannot_be_written_is_no_fault_of_the_photo(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OSError, match="No such file"):
        normalize(progressive(), None, 90)


def test_a_full_temporary_folder_is_no_fault_of_the_photo(monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(jpeglib, "read_dct", full)
    with pytest.raises(OSError, match="No space left"):
        normalize(progressive(), None, 90)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.jpg"
    path.write_bytes(encoded(PHOTO, quality=95, subsampling="4:2:0"))
    return path


def test_arithmetic_coding_is_decoded(source, tmp_path):
    jpeglib.read_dct(source).write_dct(tmp_path / "arithmetic.jpg", flags=["+ARITH_CODE"])
    data = (tmp_path / "arithmetic.jpg").read_bytes()
    assert b"\xff\xc9" in data
    assert np.abs(pixels(normalize(data, None, 95).data) - np.asarray(PHOTO, float)).mean() < 12
    with pytest.raises(Rejected, match="Premature end"):  # how much is missing cannot be told
        normalize(data[:-2], None, 95)


@pytest.mark.parametrize("factors", [((1, 1), (2, 2), (2, 2)), ((1, 3), (1, 1), (1, 1)), ((1, 4), (1, 1), (1, 1)),
                                     ((2, 1), (1, 1), (1, 1)), ((2, 2), (2, 1), (1, 2))])
def test_rare_chroma_sampling_is_decoded(source, tmp_path, factors):
    """simplejpeg knows five kinds; Pillow decodes the others."""
    picture = jpeglib.from_spatial(np.asarray(PHOTO))
    picture.samp_factor = np.array(factors)
    picture.write_spatial(tmp_path / "rare.jpg", qt=95)
    packed = normalize((tmp_path / "rare.jpg").read_bytes(), None, 95)
    assert np.abs(pixels(packed.data) - np.asarray(PHOTO, float)).mean() < 12
