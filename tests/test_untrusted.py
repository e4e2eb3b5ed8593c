"""What strangers send does nothing: files that would run code, take the memory or the machine, or place something
elsewhere are refused, and what is real stays readable."""

import io, pickle, resource, struct, subprocess, sys, zipfile
from pathlib import Path

import numpy as np, pytest

from mirage.data.release import read_lengths
from mirage.evaluation.submission import dump_npy, read_submission

ROOT = Path(__file__).resolve().parents[1]
X = {
    'sub-01': {
        'wot1': np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32),
        'wot2': np.asfortranarray(np.ones((4, 3), '>f8')),
        'empty': np.zeros((0, 3), np.float32),
    }
}


def npy(body):  # bytes of a .npy file around a pickle
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, dict(descr='|O', fortran_order=False, shape=()))
    return file.getvalue() + body


def zipped(path, *members, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', kind) as z:
        for k, data in enumerate(members):
            z.writestr(f'{k}.npy', data)
    return path


def boxed(value):
    box = np.empty((), object)
    box[()] = value
    return box


def word(text):
    return b'X' + struct.pack('<I', len(text)) + text.encode()


def number(n):
    return b'J' + struct.pack('<i', n)


def raw(data):
    return b'B' + struct.pack('<I', len(data)) + data


DTYPE = (
    b'cnumpy\ndtype\n('
    + word('f4')
    + number(0)
    + number(1)
    + b'tR('
    + number(3)
    + word('<')
    + b'NNN'
    + number(-1)
    + number(-1)
    + number(0)
    + b'tb'
)


def array(shape, data, dtype=DTYPE):
    return (
        b'cnumpy\nndarray\n(K\x00\x85'
        + dtype
        + b'tR('
        + number(1)
        + b'('
        + b''.join(map(number, shape))
        + b't'
        + dtype
        + b'\x89'
        + data
        + b'tb'
    )


# ---- what is real stays readable


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('core', [b'numpy.core', b'numpy._core'])
def test_arrays_of_either_numpy_in_every_protocol_are_read(protocol, core, tmp_path):
    data = pickle.dumps(boxed(X), protocol)
    if core == b'numpy.core' and protocol > 3:  # a longer name would break the lengths and frames
        pytest.skip('names of protocols 4 and 5 are counted; the older NumPy is tried in 2 and 3')
    back = read_submission(zipped(tmp_path / 'x.zip', npy(data.replace(b'numpy._core', core))))
    for split, x in X['sub-01'].items():
        assert (
            np.array_equal(back['sub-01'][split], x)
            and back['sub-01'][split].dtype == x.dtype
            and back['sub-01'][split].flags.writeable
        )


def test_a_file_by_numpy_save_and_a_deflated_one_are_read(tmp_path):
    file = io.BytesIO()
    np.save(file, X)
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert np.array_equal(
            read_submission(zipped(tmp_path / 'x.zip', file.getvalue(), kind=kind))['sub-01']['wot1'],
            X['sub-01']['wot1'],
        )


# ---- what is not, is refused, in little memory and without a crash


class Runs:
    def __reduce__(self):
        return Path.touch, (Path('ran'),)


OBJECT_IN_VOID = (
    b'cnumpy\ndtype\n('
    + word('V8')
    + number(0)
    + number(1)
    + b'tR('
    + number(3)
    + word('|')
    + b'N('
    + word('a')
    + b't}'
    + word('a')
    + b'('
    + b'cnumpy\ndtype\n('
    + word('O')
    + number(0)
    + number(1)
    + b'tR'
    + number(0)
    + b'ts'
    + number(8)
    + number(1)
    + number(0)
    + b'tb'
)
HOSTILE = {
    'a dtype whose object field is not counted as one': b'\x80\x03'
    + array((), raw(b'AAAAAA\0\0'), OBJECT_IN_VOID)
    + b'.',
    'a dtype that is replaced after it was used': b'\x80\x03'
    + array((1,), raw(b'AAAAAAAA'))
    + b'('
    + number(1)
    + b'(K\x01t'
    + OBJECT_IN_VOID
    + b'\x89'
    + raw(b'AAAAAAAA')
    + b'tb.',
    'an array of objects made of bytes': b'\x80\x03'
    + array((1,), raw(b'AAAAAAAA'), DTYPE.replace(word('f4'), word('O8')))
    + b'.',
    'fewer bytes than the shape says': b'\x80\x03' + array((1000, 1000), raw(b'abcd')) + b'.',
    'a shape whose product overflows': b'\x80\x03' + array((2**31 - 1,) * 6, raw(b'')) + b'.',
    'a negative shape': b'\x80\x03' + array((-1, -4), raw(b'x' * 16)) + b'.',
    'two gigabytes of a bytearray': b'\x80\x05\x96' + struct.pack('<Q', 2 * 10**9) + b'.',
    'two gigabytes of bytes': b'\x80\x04\x8e' + struct.pack('<Q', 2 * 10**9) + b'.',
    'two gigabytes of text': b'\x80\x04\x8d' + struct.pack('<Q', 2 * 10**9) + b'.',
    'a frame of exabytes': b'\x80\x04\x95' + struct.pack('<Q', 2**62) + b'N.',
    'a number of two billion digits': b'\x80\x03\x8b' + struct.pack('<i', 2**31 - 1) + b'.',
    'a number of negative length': b'\x80\x03\x8b' + struct.pack('<i', -5) + b'.',
    'a place in the memo at four billion': b'\x80\x03Nr\xff\xff\xff\xff.',
    'many million instructions': b'\x80\x03' + b']' * 5_000_000 + b'.',
    'the same megabyte as a hundred thousand arrays': b'\x80\x03'
    + raw(b'x' * 2**20)
    + b'q\x01'
    + b''.join(array((2**18,), b'h\x01') for _ in range(1000))
    + b'.',
    'a list within itself as the shape': b'\x80\x03]q\x00h\x00a' + b'.',
    'deep nesting': b'\x80\x03' + b'(' * 10**5 + b't' * 10**5 + b'.',
    'another name': b'\x80\x03cos\nsystem\n(' + word('touch ran') + b'tR.',
    'a name through the stack': b'\x80\x04' + word('builtins') + word('eval') + b'\x93' + word('1') + b'\x85R.',
    'a class of its own': b'\x80\x02cmirage.core\nRun\n)\x81.',
    'a persistent id': b'\x80\x03' + word('x') + b'Q.',
    'an extension': b'\x80\x02\x82\x01.',
    'a dtype called as an array': b'\x80\x03cnumpy\nndarray\n(' + number(10**9) + b'\x85tR.',
    'an array of a billion': b'\x80\x03cnumpy\nndarray\n(' + number(10**9) + b'\x85' + DTYPE + b'tR.',
    'nothing': b'',
    'no end': b'\x80\x03N',
    'an empty stack': b'\x80\x03.',
    'a mark too few': b'\x80\x03t.',
    'no pickle': b'Dear all,',
    'numbers as names of subjects': b'\x80\x03}K\x01K\x02s.',
}


@pytest.mark.parametrize('what', HOSTILE)
def test_a_hostile_pickle_is_refused_by_the_name_of_its_file(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body = npy(HOSTILE[what])
    (tmp_path / 'sub-01_ood_fmri_samples.npy').write_bytes(body)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match='x.zip is no submission'):
        read_submission(zipped(tmp_path / 'x.zip', body))
    with pytest.raises(ValueError, match='fmri_samples.npy is not a plain table'):
        read_lengths(tmp_path / 'sub-01_ood_fmri_samples.npy')
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000 and not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_an_object_that_would_act_is_not_asked(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in (Runs(), boxed(Runs()), {'sub-01': Runs()}):
        with pytest.raises(ValueError, match='which no array needs'):
            read_submission(zipped(tmp_path / 'x.zip', npy(pickle.dumps(boxed(value), protocol))))
    assert not (tmp_path / 'ran').exists()


def encrypted(data):
    data[6] |= 1
    data[data.index(b'PK\1\2') + 8] |= 1


def claims_more_than_it_has(data, size):
    at = data.index(b'PK\1\2')
    data[at + 24 : at + 28] = struct.pack('<I', size + 2**19)


def claims_exabytes(data):
    at = data.index(b'PK\1\2')
    data[at + 20 : at + 28] = struct.pack('<II', 2**32 - 2, 2**32 - 2)


def members(good, inner):  # what → members of an archive that is no submission, and how they are packed
    return {
        'two members': ([good, good], {}),
        'ten thousand members': ([b''] * 10_000, {}),
        'no member': ([], {}),
        'bzip2': ([good], dict(kind=zipfile.ZIP_BZIP2)),
        'lzma': ([good], dict(kind=zipfile.ZIP_LZMA)),
        'an archive in the archive': ([inner], {}),
        'a text': ([b'Dear all,'], {}),
        'a header of gigabytes': ([b'\x93NUMPY\2\0' + struct.pack('<I', 2**32 - 1) + b"{'descr': '|O'"], {}),
        'a header that computes': ([b'\x93NUMPY\1\0' + struct.pack('<H', 4000) + b'-' * 4000], {}),
        'an array of numbers': ([npy(b'').replace(b'|O', b'f4') + b'x' * 4], {}),
    }


def archive(tmp_path, what):  # a .zip that is no submission
    path, good = tmp_path / 'x.zip', io.BytesIO()
    dump_npy(good, X)
    good = good.getvalue()
    whole = zipped(path, good).read_bytes()
    changed = {
        'encrypted': encrypted,
        'a member that claims more than it has': lambda data: claims_more_than_it_has(data, len(good)),
        'a member that claims exabytes': claims_exabytes,
    }
    contents = {'no archive': b'PK\3\4' + b'x' * 100, 'nothing': b'', 'a cut one': whole[:-30]}
    if what in contents:
        path.write_bytes(contents[what])
    elif what in changed:
        data = bytearray(whole)
        changed[what](data)
        path.write_bytes(data)
    elif what == 'a bomb':
        zipped(path, npy(b'\x80\x03' + raw(b'\0' * 2**28) + b'.'), kind=zipfile.ZIP_DEFLATED)
    else:
        packed, how = members(good, zipped(tmp_path / 'inner.zip', good).read_bytes())[what]
        zipped(path, *packed, **how)
    return path


@pytest.mark.parametrize(
    'what',
    [
        'no archive',
        'nothing',
        'two members',
        'ten thousand members',
        'no member',
        'a bomb',
        'bzip2',
        'lzma',
        'an archive in the archive',
        'a cut one',
        'a text',
        'a header of gigabytes',
        'a header that computes',
        'an array of numbers',
        'encrypted',
        'a member that claims more than it has',
        'a member that claims exabytes',
    ],
)
def test_an_archive_that_is_no_submission_is_refused_by_name(what, tmp_path):
    path = archive(tmp_path, what)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match='x.zip is no submission that can be read'):
        read_submission(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_thousand_damaged_submissions_crash_nothing(tmp_path):
    "In a process of its own, so that a crash would be seen."
    code = """
import io, random, sys, zipfile
sys.path.insert(0, 'tests')
import test_untrusted as t
from mirage.evaluation.submission import dump_npy, read_submission
good, draw = io.BytesIO(), random.Random(0); dump_npy(good, t.X)
bodies = [good.getvalue(), *(t.npy(t.pickle.dumps(t.boxed(t.X), p)) for p in (2, 4, 5))]; refused = 0
for k in range(1000):
    data = bytearray(draw.choice(bodies))
    for _ in range(draw.randint(1, 4)): data[draw.randrange(len(data))] = draw.randrange(256)
    if draw.random() < .3: del data[draw.randrange(len(data)):]
    try: read_submission(t.zipped(sys.argv[1], bytes(data)))
    except ValueError as e: refused += 1; assert sys.argv[1] in str(e)
print(refused)"""
    done = subprocess.run([sys.executable, '-c', code, tmp_path / 'x.zip'], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and 100 < int(done.stdout) < 1000, done.stderr[-2000:]
