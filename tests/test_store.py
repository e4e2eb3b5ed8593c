"""Stores under faults: kills, two writers, many readers, stale and foreign files; ready-made arrays; the one door."""

import functools, os, signal, subprocess, time, warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import h5py, numpy as np, pandas as pd, pytest

from mirage.core import DELAY, get_preset, hardware
from mirage.data.cohort import Cohort
from owncohorts import write_own
from mirage.processes import machine
from mirage.features.backbones import FAMILIES
import mirage.features.store
from mirage.features.extract import report_elsewhere
from mirage.features.store import (
    ArrayFeatures,
    Joined,
    Store,
    from_int8,
    open_features,
    rows_after,
    store_path,
    to_int8,
)

STREAMS = dict(text=(5, 8), vision=(3, 4))


def states(seed=0, shape=(40, 5, 8)):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


FORK = get_context('fork')  # no second import of everything


@functools.cache
def _movies():
    return [states(i, (900, 16, 64)) for i in range(12)]


def _write_all(folder):
    store = Store.create(folder, dict(a=1), dict(text=(16, 64)))
    for i, movie in enumerate(_movies()):
        if not store.has('text', f's{i}', 'movie', verify=True):
            store.write('text', f's{i}', movie, source='movie')


def _content(folder):
    return {file.name: file.read_bytes() for file in sorted((folder / 'text').iterdir())}


def _dies(path, after):  # seconds of its own work, whatever else the machine does
    signal.setitimer(signal.ITIMER_PROF, after)  # the signal ends the process where it is, as SIGKILL would
    _write_all(path)


def test_killed_at_twenty_moments_and_resumed_the_store_is_the_same_bit_for_bit(tmp_path):
    _movies()
    t = time.process_time()
    _write_all(tmp_path / 'whole')
    lasts = time.process_time() - t
    rng, stopped, partial = np.random.default_rng(0), 0, 0
    for _ in range(200):
        if stopped >= 20 and partial:
            break
        p = FORK.Process(target=_dies, args=(tmp_path / 'killed', rng.uniform(0.1, 0.6) * lasts))
        p.start()
        p.join()
        stopped += p.exitcode == -signal.SIGPROF
        if not (tmp_path / 'killed' / 'store.json').is_file():
            continue
        store = Store.open(tmp_path / 'killed')
        for f in (tmp_path / 'killed' / 'text').glob('s*.h5'):
            assert store.has('text', f.stem, 'movie', verify=True)
        partial += len([*(tmp_path / 'killed' / 'text').glob('.*')])
        for f in list((tmp_path / 'killed' / 'text').glob('s*.h5')):
            if rng.random() < 0.6:
                f.unlink()  # so that there is always something left to do
    _write_all(tmp_path / 'killed')
    whole, killed = _content(tmp_path / 'whole'), _content(tmp_path / 'killed')
    # and nothing is left of what was cut off
    assert stopped >= 20 and partial and len(whole) == 12 and whole == killed


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    store = Store.create(tmp_path, {}, STREAMS)
    (tmp_path / 'text').mkdir()
    dead = subprocess.Popen(['true'])
    dead.wait()
    gone, kept = (tmp_path / 'text' / f'.a.{machine()}.{pid}-1.tmp.h5' for pid in (dead.pid, os.getppid()))
    elsewhere = tmp_path / 'text' / f'.a.another-node-0.{dead.pid}-1.tmp.h5'
    for f in (gone, kept, elsewhere):
        f.write_bytes(b'')
    store.write('text', 'a', states())
    assert not gone.exists() and kept.exists() and elsewhere.exists() and store.has('text', 'a')


def _same(path, seed):  # one of many readers
    store, rng = Store.open(path), np.random.default_rng(seed)
    for _ in range(50):
        a = int(rng.integers(-20, 45))
        b = a + int(rng.integers(0, 40))
        got = store.read('text', 'a', a, b)
        want = np.zeros((b - a, 5, 8), np.float16)
        lo, hi = max(a, 0), max(min(b, 40), max(a, 0))
        if hi > lo:
            want[lo - a : hi - a] = states()[lo:hi]
        assert got.dtype == np.float16 and (got == want).all()
    return True


def test_many_readers_while_the_file_is_written_again(tmp_path):
    store = Store.create(tmp_path, {}, STREAMS)
    store.write('text', 'a', states())
    with ProcessPoolExecutor(2, FORK) as pool:
        jobs = [pool.submit(_same, tmp_path, s) for s in range(4)]
        while not all(j.done() for j in jobs):
            store.write('text', 'a', states())
            time.sleep(0.01)
        assert all(j.result() for j in jobs)


def test_out_is_filled_in_place(tmp_path):
    store = Store.create(tmp_path, {}, STREAMS)
    store.write('text', 'a', states())
    out = np.full((20, 5, 8), np.nan, np.float16)
    assert (
        store.read('text', 'a', -5, 15, out) is out
        and not out[:5].any()
        and (out[5:] == states()[:15].astype(np.float16)).all()
    )


def test_a_reader_notices_a_longer_movie(tmp_path):
    store = Store.create(tmp_path, {}, STREAMS)
    for m in STREAMS:
        store.write(m, 'a', states(shape=(40, *STREAMS[m])))
    assert store.steps('a') == 40
    store.write('text', 'a', states(1, (55, 5, 8)))
    assert (
        store.steps('a') == 55 and not store.read('vision', 'a', 40, 55).any() and store.read('text', 'a', 40, 55).all()
    )


@pytest.mark.parametrize('bad', [np.nan, np.inf, 7e4, -7e4])
def test_values_that_float16_cannot_hold(tmp_path, bad):
    store, x = Store.create(tmp_path, {}, STREAMS), states()
    x[3, 2, 1] = x[4, 2, 1] = bad
    with pytest.raises(OverflowError, match='text of a: 2 of 1600 values'):
        store.write('text', 'a', x)
    assert not [*tmp_path.glob('text/*')]


@pytest.mark.parametrize('x', [states()[0], states()[:0], states()[:, :4], states().swapaxes(0, 1)])
def test_wrong_shapes_are_refused(tmp_path, x):
    store = Store.create(tmp_path, {}, STREAMS)
    with pytest.raises(ValueError, match='shape'):
        store.write('text', 'a', x)
    with pytest.raises(KeyError, match='no stream'):
        store.write('audio', 'a', states())


@pytest.mark.promise('features of ours', ('cut', 'foreign'))
def test_every_cut_and_every_foreign_file_is_recognised(tmp_path):
    store = Store.create(tmp_path, {}, STREAMS)
    path = store.write('text', 'a', states(), source='movie')
    data = path.read_bytes()
    for n in [0, 1, 7, 8, 100, *range(500, len(data), 700), len(data) - 1]:
        path.write_bytes(data[:n])
        assert 'cut short or no feature file' in store.fault('text', 'a')
        with pytest.raises(ValueError, match=r'a\.h5 .*02h_extract'):
            store.read('text', 'a', 0, 3)
    for how in (dict(chunks=(10, 5, 8)), dict(dtype='f4'), dict(data=states()[:, :2])):
        with h5py.File(path, 'w') as f:
            f.create_dataset('states', **{'data': states().astype(how.get('dtype', 'f2')), **how})
        assert 'does not hold float16' in store.fault('text', 'a')
    with h5py.File(path, 'w') as f:
        f['states'] = states().astype(np.float16)
    assert 'another extractor' in store.fault('text', 'a')
    path.write_bytes(data)
    assert store.has('text', 'a', 'movie', verify=True)
    for k in np.random.default_rng(0).integers(2048, len(data), 20):  # one byte of the numbers
        path.write_bytes(data[:k] + bytes([data[k] ^ 16]) + data[k + 1 :])
        assert store.fault('text', 'a', 'movie', verify=True)


def test_a_store_says_on_which_hardware_each_of_its_files_was_made(tmp_path, monkeypatch):
    store = Store.create(tmp_path / 's', dict(a=1), dict(text=(3, 2)))
    monkeypatch.setattr(mirage.features.store, 'hardware', lambda: 'arm64 DEFAULT')
    store.write('text', 'a', np.ones((4, 3, 2)))
    monkeypatch.undo()
    store.write('text', 'b', np.ones((4, 3, 2)))
    again = Store.open(store.path)
    assert again.made_elsewhere(['a', 'b', 'missing']) == {'arm64 DEFAULT': 1} and not again.made_elsewhere(['b'])
    with pytest.warns(UserWarning, match='made elsewhere .1 on arm64 DEFAULT; this is .* and are kept'):
        report_elsewhere(again, ['a', 'b'], hardware())


def test_another_identity_another_movie_nothing_reused(tmp_path):
    first = Store.create(tmp_path, dict(words=32), STREAMS)
    first.write('text', 'a', states(), source='movie')
    assert Store.create(tmp_path, dict(words=32), STREAMS).has('text', 'a', 'movie') and not first.has(
        'text', 'a', 'another movie'
    )
    for other in (
        dict(identity=dict(words=64), streams=STREAMS),
        dict(identity=dict(words=32), streams=STREAMS, hz=4.0),
    ):
        second = Store.create(tmp_path, **other)
        assert not second.has('text', 'a') and not Store.open(tmp_path).has('text', 'a')
        with pytest.raises(ValueError, match='another extractor'):
            second.read('text', 'a', 0, 3)
    tiny, paper = (
        store_path('c', 'b', 'native', protocol='aligned', contexts=get_preset(p).contexts) for p in ('tiny', 'paper')
    )
    assert tiny.parent == paper.parent and tiny != paper


def test_a_store_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match='02h_extract'):
        Store.open(tmp_path)
    for text in ('{', '[]', '{"identity": 1}'):
        (tmp_path / 'store.json').write_text(text)
        with pytest.raises(ValueError, match='store.json describes no store'):
            Store.open(tmp_path)


# ready-made arrays


def own(tmp_path, **arrays):
    for m, x in arrays.items():
        (tmp_path / m).mkdir(exist_ok=True)
        np.save(tmp_path / m / 'a.npy', x)
    return tmp_path


@pytest.mark.parametrize('rate', [0.5, 1 / 1.49, 1.0, 1.9, 2.0, 2.5, 4.0, 10.0, 25.0])
def test_resampling_keeps_constants_means_and_cuts(tmp_path, rate):
    T = int(30 * rate)
    x = states(0, (T, 2, 3))
    f = ArrayFeatures(own(tmp_path, one=np.ones((T, 2, 3), 'f4'), x=x), dict(one=rate, x=rate), ['a'])
    n = f.steps('a')
    whole = f.read('x', 'a', 0, n)
    assert n == np.ceil(T / rate * 2 - 1e-6) and (f.read('one', 'a', 0, n) == 1).all()
    assert not f.read('one', 'a', n, n + 3).any() and not f.read('one', 'a', -3, 0).any()
    for a, b in ((0, 7), (5, 6), (11, 30), (n - 4, n + 2)):
        assert (f.read('x', 'a', a, b)[: n - a] == whole[a:b]).all()
    fine = np.repeat(x, 1000, 0)  # by brute force: a thousand points per sample
    times = (np.arange(len(fine)) + 0.5) / (1000 * rate)
    brute = np.stack([fine[(times >= k / 2) & (times < (k + 1) / 2)].mean(0) for k in range(n)])
    assert np.abs(whole - brute).max() < 0.02


def test_arrays_as_h5_and_of_different_lengths(tmp_path):
    own(tmp_path, text=states(0, (10, 1, 3)))
    (tmp_path / 'audio').mkdir()
    with h5py.File(tmp_path / 'audio' / 'a.h5', 'w') as f:
        f['anything'] = states(1, (14, 2, 5))
    f = ArrayFeatures(tmp_path, dict(text=2.0, audio=2.0), ['a'])
    assert f.steps('a') == 14 and f.streams == dict(text=(1, 3), audio=(2, 5))
    assert (f.read('audio', 'a', 0, 14) == states(1, (14, 2, 5)).astype(np.float16)).all() and not f.read(
        'text', 'a', 10, 14
    ).any()


@pytest.mark.parametrize(
    'arrays, says',
    [
        (dict(x=np.zeros((5, 3), 'f4')), r'x.a\.npy holds float32 \(5, 3\), expected'),
        (dict(x=np.zeros((5, 3, 2), int)), 'holds int64'),
        (dict(x=np.zeros((0, 3, 2))), 'holds float64'),
        (dict(), r'holds 0 of a\.npy and a\.h5'),
        (dict(x=np.array([{}], object)), 'is not one array'),
    ],
)
def test_arrays_that_are_not_ours_to_read(tmp_path, arrays, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        ArrayFeatures(own(tmp_path, **arrays), dict(x=2.0), ['a'])


def test_arrays_that_disagree_or_overflow(tmp_path):
    own(tmp_path, x=np.full((5, 3, 2), 1e5, 'f4'))
    with pytest.raises(OverflowError, match=r'a\.npy: 6 of 6'):
        ArrayFeatures(tmp_path, dict(x=2.0), ['a']).read('x', 'a', 2, 3)
    np.save(tmp_path / 'x' / 'b.npy', np.zeros((5, 3, 4), 'f4'))
    with pytest.raises(ValueError, match=r'b\.npy has \(L, D\) = \(3, 4\), others of x have \(3, 2\)'):
        ArrayFeatures(tmp_path, dict(x=2.0), ['a', 'b'])


# the one door


def test_open_features(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    preset = get_preset('tiny')
    cohort = SimpleNamespace(
        name='mine', root=Path('mine'), simulated=True, rates={}, splits=pd.DataFrame(dict(split=['a', 'b']))
    )
    with pytest.raises(FileNotFoundError, match='papermill nbs/02h_extract.ipynb .*-p cohort mine -p preset tiny'):
        open_features(cohort, preset)
    store = Store.create(
        store_path('mine', preset.backbone, 'native', protocol=preset.protocol, contexts=preset.contexts), {}, STREAMS
    )
    for m in STREAMS:
        store.write(m, 'a', states(shape=(40, *STREAMS[m])))
    with pytest.raises(FileNotFoundError, match='b.h5 is missing.* 1 more .*papermill'):
        open_features(cohort, preset)
    for m in STREAMS:
        store.write(m, 'b', states(shape=(40, *STREAMS[m])))
    assert open_features(cohort, preset).steps('b') == 40
    own(tmp_path / 'features', x=np.ones((4, 2, 3), 'f4'))
    cohort.root, cohort.rates, cohort.splits = tmp_path, dict(x=2.0), pd.DataFrame(dict(split=['a']))
    assert open_features(cohort, preset).streams == {'x': (2, 3)}


def test_features_made_by_older_rules_are_refused_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    preset = get_preset('tiny')
    cohort = SimpleNamespace(name='mine', root='mine', simulated=True, rates={}, splits=pd.DataFrame(dict(split=['a'])))
    path = store_path('mine', preset.backbone, 'native', protocol=preset.protocol, contexts=preset.contexts)
    for identity in (dict(protocol=dict(name='aligned')), dict(protocol=dict(name='aligned'), rules=1)):
        store = Store.create(path, identity, STREAMS)
        for m in STREAMS:
            store.write(m, 'a', states(shape=(40, *STREAMS[m])))
        with pytest.raises(
            FileNotFoundError,
            match='version 1 of the rules .* this is version 2; before, .*marks after sound and pictures.*papermill '
            'nbs/02h_extract',
        ):
            open_features(cohort, preset)
    store = Store.create(path, dict(protocol=dict(name='aligned'), rules=2), STREAMS)
    assert not store.has('text', 'a')  # the old file does not count in the new store
    for m in STREAMS:
        store.write(m, 'a', states(shape=(40, *STREAMS[m])))
    assert open_features(cohort, preset).steps('a') == 40


def test_a_family_of_three_stores_reads_as_one(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    preset = get_preset('tiny')
    cohort = SimpleNamespace(
        name='mine', root=Path('mine'), simulated=True, rates={}, splits=pd.DataFrame(dict(split=['a']))
    )
    for i, (m, name) in enumerate(FAMILIES['tiny-tribe'].items()):
        path = store_path('mine', name, 'tower', protocol=preset.protocol, contexts=preset.contexts)
        Store.create(path, dict(name=name), {m: (i + 1, 4)}).write(m, 'a', states(i, (9, i + 1, 4)))
    f = open_features(cohort, preset, backbone='tiny-tribe', fusion='tower')
    assert f.streams == dict(text=(1, 4), audio=(2, 4), vision=(3, 4)) and f.steps('a') == 9
    assert (f.read('vision', 'a', -1, 9)[1:] == states(2, (9, 3, 4)).astype(np.float16)).all()
    other = Store.create(tmp_path / 'other', {}, dict(text=(1, 4)), hz=4.0)
    with pytest.raises(ValueError, match='different grids'):
        Joined(dict(text=other, audio=f.parts['audio']))


def half_store(folder, **given):
    return Store.create(folder, dict(a=1), dict(text=(5, 8)), **given)


def test_int8_takes_half_the_bytes_of_short_movies_too_and_any_window_is_what_was_decoded_by_hand(tmp_path):
    for steps in (101, 900):
        x = states(shape=(steps, 5, 8)) * np.geomspace(1e-3, 100, 8).astype(np.float32)
        x[:, 2, 3] = 0  # a channel that says nothing
        plain, half = half_store(tmp_path / 'exact'), half_store(tmp_path / 'half', stored='int8')
        for store in (plain, half):
            store.write('text', 'm', x, source='movie')
        with h5py.File(plain.file('text', 'm')) as e, h5py.File(half.file('text', 'm')) as f:
            assert f['states'].nbytes + f['scales'].nbytes <= 0.51 * e['states'].nbytes
            byhand = (f['states'][:] * f['scales'][:].astype(np.float64)).astype(np.float16)
        assert not byhand[:, 2, 3].any()
        again = Store.open(tmp_path / 'half')
        assert again.stored == 'int8' and again.has('text', 'm', 'movie', verify=True)
        for a, b in ((0, steps), (63, 65), (-7, 100), (steps - 20, steps + 50)):
            window = np.zeros((b - a, 5, 8), np.float16)
            window[max(-a, 0) : min(steps, b) - a] = byhand[max(a, 0) : min(steps, b)]
            assert (again.read('text', 'm', a, b) == window).all()


@pytest.mark.parametrize('largest', [65504.0, 65300.0, 1.0, 1e-3, 6.1e-5, 3e-6, 6e-8])
def test_int8_is_off_by_half_a_scale_at_most_from_the_smallest_numbers_of_float16_to_the_largest(largest):
    x = (states(shape=(300, 4, 6)) / np.abs(states(shape=(300, 4, 6))).max((0, 1))).astype(np.float64) * largest
    half = x.astype(np.float16)
    whole, scales = to_int8(half)
    back = np.empty_like(half)
    from_int8(whole, scales, back)
    assert scales.dtype == np.float16 and np.isfinite(back).all() and np.abs(whole).max() <= 127
    exact = whole * scales.astype(np.float64)
    assert (np.abs(exact - half) <= scales.astype(np.float64) / 2).all()
    assert (back == exact.astype(np.float16)).all()


def test_the_largest_numbers_of_float16_do_not_overflow_in_int8(tmp_path):
    store = half_store(tmp_path, stored='int8')
    store.write('text', 'm', np.full((3, 5, 8), 65504.0), source='movie')
    assert np.abs(store.read('text', 'm', 0, 3).astype(float) / 65504 - 1).max() < 1e-3


def test_a_stream_in_float16_is_not_read_as_int8(tmp_path):
    store = half_store(tmp_path)
    store.write('text', 'm', states(shape=(9, 5, 8)), source='movie')
    with pytest.raises(TypeError, match='cannot be read as int8'):
        store.read('text', 'm', 0, 3, out=np.empty((3, 5, 8), np.int8))
    with pytest.raises(TypeError, match='it has no scales'):
        store.scales('text', 'm')


def test_int8_and_float16_are_not_mixed(tmp_path):
    plain, half = half_store(tmp_path / 'exact'), half_store(tmp_path / 'half', stored='int8')
    file = plain.write('text', 'm', states(), source='movie')
    half.file('text', 'm').parent.mkdir()
    half.file('text', 'm').write_bytes(file.read_bytes())
    assert plain.id != half.id and 'does not hold int8 states' in half.fault('text', 'm')
    with pytest.raises(ValueError, match='float16 and int8 are not read together'):
        Joined(dict(text=plain, audio=SimpleNamespace(streams=dict(audio=(2, 2)), hz=2.0)) | dict(more=fake(half)))
    with pytest.raises(ValueError, match='it may be float16 or int8'):
        half_store(tmp_path / 'other', stored='int4')
    assert not (tmp_path / 'other').exists()


def fake(store):  # with a stream of another name
    store.streams['more'] = store.streams['text']
    return store


def test_scales_that_are_missing_or_altered_are_found(tmp_path):
    store = half_store(tmp_path, stored='int8')
    file = store.write('text', 'm', states(), source='movie')
    with h5py.File(file, 'r+') as f:
        f['scales'][2, 3] *= 2
    assert 'was altered' in store.fault('text', 'm', verify=True)
    with h5py.File(file, 'r+') as f:
        del f['scales']
    assert 'its scales lie elsewhere' in store.fault('text', 'm')


def test_a_store_of_float16_is_named_as_before(tmp_path):
    assert 'stored' not in (half_store(tmp_path).path / 'store.json').read_text()


def test_a_recording_that_goes_on_after_its_movie_is_reported_with_its_length(tmp_path):
    folder = write_own(tmp_path / 'own', people=2)
    rows = np.load(folder / 'bold/p2-m1.npy')
    np.save(folder / 'bold/p2-m1.npy', np.concatenate([rows, rows]))
    cohort = Cohort.open(folder)
    with pytest.warns(UserWarning, match=r'own-\w+: \d+ rows of 1 runs come after the end.*most: p2 m1, .*Cut them'):
        features = open_features(cohort, get_preset('smoke'))
    late = rows_after(cohort, features)
    seconds = len(rows) * cohort.tr
    ends = np.arange(2 * len(rows)) * cohort.tr - DELAY  # second of the movie that a row answers to
    assert late.rows.tolist() == [int((ends > seconds + 2).sum())] and late.movie.tolist() == [seconds]
    np.save(folder / 'bold/p2-m1.npy', rows)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        open_features(Cohort.open(folder), get_preset('smoke'))


def test_what_is_written_as_int8_is_left_as_it_was_given(tmp_path):
    given = states(shape=(9, 5, 8)).astype(np.float16)
    before = given.copy()
    given.flags.writeable = False
    half_store(tmp_path, stored='int8').write('text', 'm', given, source='movie')
    assert np.array_equal(given, before)


def test_hidden_states_are_not_voided_by_asking_for_another_type(tmp_path):
    half_store(tmp_path).write('text', 'm', states(shape=(9, 5, 8)), source='movie')
    with pytest.raises(ValueError, match='holds these hidden states as float16: extract with -p kept_as float16'):
        half_store(tmp_path, stored='int8')
    assert half_store(tmp_path).has('text', 'm')
