"""Damaged files of every kind: whatever is wrong with one, the error is a ValueError or OSError that names the file,
and nothing hangs or takes the memory."""

import io, os, random, re, struct

import h5py, numpy as np, pandas as pd, pytest, torch, yaml

from mirage.data.cohort import Cohort
from mirage.core import Contexts, finish_run, open_run, start_run, write_sealed
from mirage.data.manifest import load_manifest
from mirage.models.model import Mirage, ModelConfig
from mirage.plotting.overview import read_account
from mirage.prediction.predict import read_movies
from mirage.prediction.recipe import Recipe, open_weights
from mirage.data.release import read_lengths
from mirage.features.store import ArrayFeatures, Store
from mirage.evaluation.submission import read_submission, write_submission

TINY = 'tiny-qwen3-omni-thinking'
SHAPE = ModelConfig(
    streams=dict(text=48, audio=48, vision=48),
    subjects=('a', 'b'),
    n_output=20,
    queries=2,
    pool_heads=2,
    hidden=24,
    depth=1,
    heads=2,
)
X = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def shared_model(d, kind):
    torch.manual_seed(0)
    Mirage(SHAPE).save_pretrained(d / 'm')
    Recipe(TINY, protocol='aligned', contexts=Contexts(words=8), cohort='nobody', simulated=True).write(
        d / 'm/recipe.yaml'
    )
    return d / 'm' / kind, lambda: open_weights(d / 'm')


def store_of_ours(d, kind):
    store = Store.create(d / 's', dict(a=1), dict(text=(3, 2)))
    store.write('text', 'a', X.astype(np.float16))

    def read():
        return Store.open(d / 's').read('text', 'a', -1, 6)

    return (d / 's/store.json' if kind == 'store.json' else d / 's/text/a.h5'), read


def ready_features(d, kind):
    (d / 'f/text').mkdir(parents=True, exist_ok=True)
    path = d / 'f/text' / f'a{kind[8:]}'
    if kind[8:] == '.npy':
        np.save(path, X)
    else:
        with h5py.File(path, 'w') as f:
            f['x'] = X
    return path, lambda: ArrayFeatures(d / 'f', dict(text=3.0), ['a']).read('text', 'a', 0, 3)


def cohort_of_ones_own(d, kind):
    c = d / 'c'
    (c / 'features/text').mkdir(parents=True, exist_ok=True)
    np.save(c / 'features/text/s.npy', X)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 3))
    np.save(c / 'bold.npy', x)
    pd.DataFrame(x, columns=['p1', 'p2', 'p3']).to_csv(c / 'bold.csv', index=False)
    with h5py.File(c / 'bold.h5', 'w') as f:
        f['k'] = x
    name = kind if kind.startswith('bold') else 'bold.npy'
    (c / 'cohort.yaml').write_text('tr: 1.49\nparcels: 3\nfeatures: {text: 2}\n')
    (c / 'runs.csv').write_text(f'subject,split,set,bold,key\na,s,train,{name},{"k" if name[-2:] == "h5" else ""}\n')
    return c / kind, lambda: Cohort.open(c).check()


def table_of_movies(d, kind):
    (d / kind).write_text('video,transcript,name\na.mkv,,one\nb.mkv,b.srt,\n')
    return d / kind, lambda: read_movies(d / kind)


def manifest(d, kind):
    about = dict.fromkeys('table name provider source revision licence licence_read_in citation'.split(), 'x')
    files = dict(files={'x/y': dict(bytes=3, md5='0' * 32)}, groups=dict(all=dict(files=['*'])))
    (d / kind).write_text(yaml.safe_dump(dict(a=about | files)))
    return d / kind, lambda: load_manifest(d / kind)


def run_folder(d, kind):
    run = start_run(d / 'r', dict(seed=1, model=dict(a=[1, 2])))
    finish_run(run, dict(r=0.5))

    def read():
        run = open_run(d / 'r')
        return run.config, run.metrics

    return d / 'r' / kind, read


def account(d, kind):
    folder = d / 'results/toy/figures'
    folder.mkdir(parents=True, exist_ok=True)
    about = dict(item='item', title='t', caption='c', cohort='toy', simulated=True, command='x', files={}, faults=[])
    claims = [dict(paper='p', here='h', number='1', note='', verdict='holds')]
    write_sealed(folder / kind, about | dict(claims=claims))
    return folder / kind, lambda: read_account('toy', 'item')


def submission(d, kind):
    predicted = {'sub-01': {'wot1': np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)}}
    write_submission(d / kind, predicted, {'sub-01': {'wot1': 20}}, 3)
    return d / kind, lambda: read_submission(d / kind)


def run_lengths(d, kind):
    np.save(d / kind, dict(wot1=300, wot2=200), allow_pickle=True)
    return d / kind, lambda: read_lengths(d / kind)


MAKERS = {
    shared_model: ('config.json', 'recipe.yaml', 'model.safetensors'),
    store_of_ours: ('store.json', 'states.h5'),
    ready_features: ('features.npy', 'features.h5'),
    cohort_of_ones_own: ('cohort.yaml', 'runs.csv', 'bold.npy', 'bold.csv', 'bold.h5'),
    table_of_movies: ('movies.csv',),
    manifest: ('manifest.yaml',),
    run_folder: ('config.yaml', 'metrics.json', 'provenance.json'),
    account: ('item.json',),
    submission: ('submission.zip',),
    run_lengths: ('lengths.npy',),
}


def make(kind, d):  # (file to damage, how it is read)
    "A good file of a kind in a folder of its own."
    d.mkdir(exist_ok=True)
    os.environ['MIRAGE_ROOT'] = str(d)
    maker = next(maker for maker, kinds in MAKERS.items() if kind in kinds)
    return maker(d, kind)


KINDS = [
    'config.json',
    'recipe.yaml',
    'model.safetensors',
    'store.json',
    'states.h5',
    'features.npy',
    'features.h5',
    'cohort.yaml',
    'runs.csv',
    'bold.npy',
    'bold.csv',
    'bold.h5',
    'movies.csv',
    'manifest.yaml',
    'config.yaml',
    'metrics.json',
    'provenance.json',
    'item.json',
    'submission.zip',
    'lengths.npy',
]
# each stands for other files, which may be the ones that no longer fit
TOGETHER = ('store.json', 'provenance.json', 'config.json')
TEXT = {'json', 'yaml', 'csv'}
DEEP = {'json': '[' * 200_000 + ']' * 200_000, 'yaml': '[' * 3000 + ']' * 3000}
BOMB = '\n'.join(['a0: &a0 [x, x]', *(f'a{i}: &a{i} [' + ', '.join(8 * [f'*a{i - 1}']) + ']' for i in range(1, 12))])


WORDS = (
    '1' * 5000,
    '1e999',
    '-1',
    'null',
    'true',
    '[]',
    '{}',
    '""',
    '.inf',
    '0x' + 'f' * 9000,
    '"\\ud800"',
    "!!python/object/apply:os.system ['touch ran']",
    '!!timestamp x',
    '!!int ""',
    '!!binary ====',
    '&a [*a]',
    '99999999999999999999',
)  # in the place of a number
STRANGE = b'\0' * 100, b'\xff\xfe' + b'\x41' * 7, b'\x80\x81', b'{}', b'null', b'3', b'"text"'
ODD_YAML = (
    b'? [a, b]\n: 1\n',
    b'? {a: 1}\n: 1\n',
    b'--- a\n--- b\n',
    b'<<: [1, 2]\n',
    b'=: 1\n',
    b'a: *b\n',
    b'%YAML 9.9\n---\na\n',
)


def damaged(data, end):  # yields bytes
    rng = random.Random(len(data))
    for cut in {0, 1, 2, len(data) // 3, len(data) // 2, len(data) - 1}:
        yield data[:cut]
    for _ in range(60):
        flipped = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            flipped[rng.randrange(min(len(data), 4096))] = rng.randrange(256)
        yield bytes(flipped)
    yield from STRANGE
    yield data + b'\0'
    yield rng.randbytes(500)
    if end in TEXT:
        yield from damaged_text(data.decode(), end, rng)


def damaged_text(text, end, rng):  # yields bytes
    for encoding in ('utf-16', 'utf-16-le', 'utf-32', 'latin-1'):
        yield (text + 'é').encode(encoding)
    for word in WORDS:
        numbers = [m for m in re.finditer(r'\b\d[\d.]*\b', text)] or [None]
        for m in rng.sample(numbers, min(4, len(numbers))):
            yield (text[: m.start()] + word + text[m.end() :] if m else word).encode()
        yield word.encode()
    yield DEEP.get(end, ',"' * 5000).encode()
    if end == 'yaml':
        yield BOMB.encode()
        yield (text + text).encode()
        yield from ODD_YAML


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', KINDS)
def test_whatever_is_wrong_with_a_file_the_error_names_it(kind, tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path, read = make(kind, tmp_path / 'd')
    read()
    refused, end = 0, kind.rsplit('.')[-1]
    for data in damaged(path.read_bytes(), end):
        path.write_bytes(data)
        try:
            read()
        except (ValueError, OSError, OverflowError) as e:  # values that float16 cannot hold are an OverflowError
            named = path.parent if kind in TOGETHER else path.name
            assert str(named) in str(e), (data[:80], type(e), str(e)[:300])
            refused += 1
    assert refused > 15 and not (tmp_path / 'ran').exists()


def header_of(shape, descr='<f4', data=b''):  # a .npy whose header claims what it likes
    text = repr(dict(descr=descr, fortran_order=False, shape=shape)).encode()
    text += b' ' * (-(len(text) + 11) % 64) + b'\n'
    return b'\x93NUMPY\x01\0' + struct.pack('<H', len(text)) + text + data


@pytest.mark.parametrize(
    'shape, descr',
    [
        ((10**9, 3, 2), '<f4'),
        ((10**18, 10**18, 2), '<f4'),
        ((4, 3, 2), '|O'),
        ((4, 3, 2), '<U9'),
        ((-4, 3, 2), '<f4'),
        ((4, 3), '<f4'),
        ((), '<f4'),
        ((0, 3, 2), '<f4'),
        ((4, 3, 2), [('a', '<f4')]),
        ((4, 3, 2), '<c8'),
        ((4, 3, 2), 'nonsense'),
    ],
)
def test_a_header_that_claims_something_else_is_refused_by_name(shape, descr, tmp_path):
    (tmp_path / 'text').mkdir()
    (tmp_path / 'text/a.npy').write_bytes(header_of(shape, descr, b'x' * 96))
    with pytest.raises(ValueError, match='a.npy'):
        ArrayFeatures(tmp_path, dict(text=2.0), ['a'])
    (tmp_path / 'text/a.npy').unlink()
    (tmp_path / 'text/a.npy').mkdir()
    with pytest.raises(FileNotFoundError, match='holds 0 of a.npy'):
        ArrayFeatures(tmp_path, dict(text=2.0), ['a'])


def claim(f, secret):
    f.create_dataset('x', (10**9, 300, 200), 'f4', chunks=(1, 300, 200))


def link(f, secret):
    f['x'] = h5py.ExternalLink(str(secret), 'x')


def soft(f, secret):
    f['x'] = h5py.SoftLink('/y')
    f.create_group('g')


def virtual(f, secret):
    layout = h5py.VirtualLayout((4, 3, 2), 'f4')
    layout[:] = h5py.VirtualSource(str(secret), 'x', (4, 3, 2))
    f.create_virtual_dataset('x', layout)


def external(f, secret):
    f.create_dataset('x', (4, 3, 2), 'f4', external=[('/etc/passwd', 0, 96)])


def test_an_hdf5_file_that_claims_a_billion_rows_or_points_elsewhere_is_refused(tmp_path):
    folder = tmp_path / 'text'
    folder.mkdir()
    path = folder / 'a.h5'
    secret = tmp_path / 'secret.h5'
    with h5py.File(secret, 'w') as f:
        f['x'] = X
    for write in (claim, link, soft, virtual, external):
        with h5py.File(path, 'w') as f:
            write(f, secret)
        with pytest.raises((ValueError, OSError), match='a.h5'):
            ArrayFeatures(tmp_path, dict(text=2.0), ['a'])
    store = Store.create(tmp_path / 's', {}, dict(text=(3, 2)))
    good = store.write('text', 'a', X.astype(np.float16))
    for write in (link, virtual):
        keep = good.read_bytes()
        with h5py.File(good, 'r+') as f:
            del f['states']
            write(f, secret)
            f.move('x', 'states')
        with pytest.raises(ValueError, match='a.h5'):
            Store.open(tmp_path / 's').read('text', 'a', 0, 4)
        good.write_bytes(keep)


def test_features_may_be_linked_to_a_plain_file_and_to_nothing_else(tmp_path):
    (tmp_path / 'text').mkdir()
    np.save(tmp_path / 'elsewhere.npy', X)
    link = tmp_path / 'text/a.npy'
    link.symlink_to(tmp_path / 'elsewhere.npy')
    assert ArrayFeatures(tmp_path, dict(text=2.0), ['a']).read('text', 'a', 0, 4).any()
    for target in ('/dev/zero', tmp_path, tmp_path / 'gone'):
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(FileNotFoundError, match='holds 0 of a.npy'):
            ArrayFeatures(tmp_path, dict(text=2.0), ['a'])
