"""Extraction under faults: kills, two shards at once, movies that fail, stores of another identity."""

import signal, time
from multiprocessing import get_context

import numpy as np, pandas as pd, pytest, soundfile, torch

from mirage.features import backbones
from mirage.features.backbones import load_backbone
from mirage.features.selection import MovieBlocks
from mirage.data.release import stimulus_paths
from mirage.core import Contexts
from mirage.features.extract import ExtractionError, check_states, estimate, extract_splits, my_share, movie_of_run
from mirage.data.owndata import looked_at
from mirage.data.simulate import make_stimulus
from mirage.data.stimuli import RATE
from mirage.features.store import Store

torch.set_num_threads(1)
FORK = get_context('fork')  # no second import of everything
NAME, CONTEXTS = 'tiny-qwen3-omni-thinking', Contexts(words=8, audio=2.0, video=1.0)
SPLITS = ['s01e01a', 's01e01b', 's02e01a', 's02e01b', 'chaplin1']


@pytest.fixture(scope='module')
def movies(tmp_path_factory):
    folder = tmp_path_factory.mktemp('movies')
    for i, s in enumerate(SPLITS):
        make_stimulus(folder, s, 'chaplin' if s == 'chaplin1' else s[:3], n_tr=5 + i, seed=0)
    return pd.DataFrame([(s, *stimulus_paths(folder, s)) for s in SPLITS], columns=['split', 'video', 'transcript'])


def run(movies, path, **kw):
    return extract_splits(
        movies,
        path,
        NAME,
        fusion='native',
        protocol=kw.pop('protocol', 'aligned'),
        contexts=kw.pop('contexts', CONTEXTS),
        **kw,
    )


def content(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob('*')) if f.is_file()}


@pytest.fixture(scope='module')
def whole(movies, tmp_path_factory):
    path = tmp_path_factory.mktemp('store') / 'whole'
    run(movies, path)
    return path


def dies(movies, path, after):  # seconds of its own work, whatever else the machine does
    signal.setitimer(signal.ITIMER_PROF, after)  # the signal ends the process where it is, as SIGKILL would
    run(movies, path)


@pytest.mark.promise('extract', 'kill')
def test_killed_at_twenty_random_moments_the_store_ends_the_same_bit_for_bit(movies, whole, tmp_path):
    began = time.process_time()
    run(movies, tmp_path / 'timed')
    lasts = time.process_time() - began
    path, rng, stopped = tmp_path / 'killed', np.random.default_rng(0), 0
    for _ in range(20):
        p = FORK.Process(target=dies, args=(movies, path, rng.uniform(0.05, 0.6) * lasts))
        p.start()
        p.join()
        stopped += p.exitcode == -signal.SIGPROF
        if (path / 'store.json').is_file():
            store = Store.open(path)
            for m in store.streams:
                for f in (path / m).glob('[!.]*.h5'):
                    assert store.has(m, f.stem, verify=True)  # what has its name is whole
        for f in list(path.rglob('[!.]*.h5')):
            if rng.random() < 0.3:
                f.unlink()  # so that there is always something left to do
    run(movies, path)
    kept = {k: v for k, v in content(path).items() if not k.split('/')[-1].startswith('.')}
    assert stopped >= 10 and kept == content(whole)


@pytest.mark.promise('extract', 'two at once')
def test_two_shards_at_once_make_what_one_run_makes(movies, whole, tmp_path):
    shards = [FORK.Process(target=run, args=(movies, tmp_path / 'store'), kwargs=dict(shard=f'{k}/2')) for k in (1, 2)]
    for p in shards:
        p.start()
    for p in shards:
        p.join()
    assert [p.exitcode for p in shards] == [0, 0] and content(tmp_path / 'store') == content(whole)


def test_workers_change_nothing_but_the_time(movies, whole, tmp_path, monkeypatch):
    monkeypatch.setattr('mirage.processes.multiprocessing.get_context', lambda kind: FORK)
    run(movies.iloc[:2], tmp_path / 'store', workers=2)
    ours, theirs = content(tmp_path / 'store'), content(whole)
    assert len(ours) == 7 and all(v == theirs[k] for k, v in ours.items())


def test_what_is_there_is_not_made_again_and_what_changed_is(movies, tmp_path, monkeypatch):
    path = tmp_path / 'store'
    run(movies.iloc[:2], path)
    stamp = {f: f.stat().st_mtime_ns for f in path.rglob('*.h5')}
    run(pd.concat([movies.iloc[:2]] * 2), path)  # every repeat has a row of its own
    with monkeypatch.context() as m:
        m.setattr('mirage.features.extract.worker_pool', None)
        run(movies.iloc[:2], path, workers=2)  # no process starts for nothing
    assert stamp == {f: f.stat().st_mtime_ns for f in path.rglob('*.h5')}
    run(movies.iloc[:2], path, contexts=Contexts(words=7, audio=2.0, video=1.0))  # another identity in the same folder
    assert all(f.stat().st_mtime_ns != t for f, t in stamp.items())
    other = movies.iloc[:1].assign(video=movies.video[1])  # another movie under the same name
    before = content(path)
    run(other, path, contexts=Contexts(words=7, audio=2.0, video=1.0))
    assert {k for k, v in content(path).items() if v != before[k]} == {
        f'{m}/s01e01a.h5' for m in ('text', 'audio', 'vision')
    }


def test_movies_that_fail_are_named_at_the_end_and_the_others_are_stored(movies, tmp_path):
    (tmp_path / 'broken.mkv').write_bytes(b'no movie at all')
    bad = movies.iloc[:3].copy()
    bad.loc[0, 'video'] = tmp_path / 'broken.mkv'
    bad.loc[2, 'video'] = tmp_path / 'missing.mkv'
    with pytest.raises(ExtractionError, match='2 of 3') as e:
        run(bad, tmp_path / 'store')
    assert 's01e01a' in str(e.value) and 'missing.mkv' in str(e.value)
    store = Store.open(tmp_path / 'store')
    assert store.has('audio', 's01e01b') and not (tmp_path / 'store' / 'audio' / 's01e01a.h5').exists()


def test_a_stream_that_overflows_float16_is_refused_and_nothing_of_it_is_kept(movies, tmp_path, monkeypatch):
    model = load_backbone(NAME)
    extract = type(model).extract
    monkeypatch.setattr(
        type(model),
        'extract',
        lambda self, *a, **k: {m: x * (1e6 if m == 'vision' else 1) for m, x in extract(self, *a, **k).items()},
    )
    with pytest.raises(ExtractionError, match='vision of s01e01a: [0-9]+ of [0-9]+ values are not finite in float16'):
        run(movies.iloc[:1], tmp_path / 'store')
    assert not (tmp_path / 'store' / 'vision' / 's01e01a.h5').exists()


def test_states_that_cannot_be_right_are_refused(movies):
    model, movie = load_backbone(NAME), movie_of_run(movies.iloc[0])
    good = {m: np.ones((movie.steps, *s), np.float32) for m, s in model.streams().items()}
    check_states(good, model, movie, fusion='native')
    nan = good['audio'].copy()
    nan[3] = np.nan
    for wrong, why in ((good['audio'][1:], 'has shape'), (nan, 'not finite'), (good['audio'] * 0, 'zero throughout')):
        with pytest.raises(ValueError, match=why):
            check_states(good | dict(audio=wrong), model, movie, fusion='native')


def test_every_backbone_goes_through_the_same_door(movies, tmp_path):
    for name in ('tiny-qwen2.5-omni-7b', 'tiny-llama-3.2-3b', 'tiny-wav2vec-bert-2.0', 'tiny-vjepa2'):
        store = extract_splits(
            movies.iloc[3:], tmp_path / name, name, fusion='tower', protocol='aligned', contexts=CONTEXTS
        )
        for m in store.streams:
            assert (
                store.has(m, 'chaplin1', verify=True) and store.steps('s02e01b') == movie_of_run(movies.iloc[3]).steps
            )
        cost = estimate(movies.iloc[3:], load_backbone(name), 'tower', protocol='aligned', contexts=CONTEXTS)
        assert cost['stimuli'] == 2 and np.isclose(
            cost['GB on disk'] * 1e9,
            sum(store.read(m, s, 0, store.steps(s)).nbytes for m in store.streams for s in movies.split[3:]),
        )


def test_a_cohort_of_stories_is_extracted_with_models_of_what_there_is_and_refused_by_others(movies, tmp_path):
    movie = movie_of_run(movies.iloc[3])
    soundfile.write(tmp_path / 'story.wav', movie.sound(), RATE)
    told = pd.DataFrame(dict(split=['story'], video=[tmp_path / 'story.wav'], transcript=[movie.transcript]))
    for name, m in (('tiny-wav2vec-bert-2.0', 'audio'), ('tiny-llama-3.2-3b', 'text')):
        store = extract_splits(told, tmp_path / name, name, fusion='tower', contexts=CONTEXTS)
        assert store.has(m, 'story', verify=True) and store.steps('story') == movie.steps
    for name, lacks in ((NAME, 'a movie of what was on the screen'), ('tiny-vjepa2', 'a movie of what was')):
        with pytest.raises(ExtractionError, match=f'story.wav has text and audio only, but .*audio=MODEL.*{lacks}'):
            extract_splits(told, tmp_path / name, name, fusion='tower', contexts=CONTEXTS)
    mixed = pd.concat([told, movies.iloc[3:4]])[['split', 'video', 'transcript']]
    store = extract_splits(mixed, tmp_path / 'mixed', 'tiny-wav2vec-bert-2.0', fusion='tower', contexts=CONTEXTS)
    assert [store.steps(s) for s in mixed.split] == 2 * [movie.steps]
    with pytest.raises(
        ExtractionError, match=r'1 of 2 [^\n]*\n.*where some runs have more, for each stream that every run has'
    ):
        extract_splits(mixed, tmp_path / 'seen', 'tiny-vjepa2', fusion='tower', contexts=CONTEXTS)
    silent = told.assign(transcript=None)
    with pytest.raises(ExtractionError, match='has audio only, but .* its words in the column transcript'):
        extract_splits(silent, tmp_path / 'other', 'tiny-llama-3.2-3b', fusion='tower', contexts=CONTEXTS)
    seen = looked_at(tmp_path / 'story.wav', movie.transcript, 1.49)
    assert seen['streams'] == 'text+audio' and abs(seen['movie'] - movie.seconds) < 0.01


class Bar:
    "What a progress bar is told."

    def __init__(self, items, total):
        self.items, self.total, self.done = items, total, 0

    def __iter__(self):
        for item in self.items:
            yield item
            self.done += 1


@pytest.mark.parametrize('protocol', ['aligned', 'streaming,chunk=2'])
def test_every_backbone_tells_how_far_it_is_inside_a_movie(protocol, movies, monkeypatch):
    bars = []

    def bar(items, what, total):
        bars.append(Bar(items, total))
        return bars[-1]

    monkeypatch.setattr(backbones, 'progress', bar)
    monkeypatch.setattr(MovieBlocks, 'block', 4)
    movie = movie_of_run(movies.iloc[3])
    for name in (NAME, 'tiny-llama-3.2-3b', 'tiny-wav2vec-bert-2.0', 'tiny-vjepa2'):
        model = load_backbone(name)
        model.tokens = 60
        bars.clear()
        model.extract(movie, 'tower', protocol, CONTEXTS)
        assert bars and all(b.done == b.total >= 3 for b in bars), (name, [(b.done, b.total) for b in bars])


@pytest.mark.parametrize('shard', ['0/2', '3/2', 'a/b', '2', ''])
def test_a_shard_that_is_none_says_so(shard):
    with pytest.raises(ValueError, match='k/n'):
        my_share(pd.DataFrame(dict(split=['a'])), shard)


def test_a_shard_without_stimuli_says_so():
    with pytest.raises(ValueError, match='shard 3/3 is empty: there are 2 stimuli'):
        my_share(pd.DataFrame(dict(split=['a', 'a', 'b'])), '3/3')
