"""Any movie, whole chain: a clip with speech to BOLD, page and movie; weights in every form; movies, words, weights and
tables that are not what they should be."""

import html, http.server, json, os, queue, re, shutil, subprocess, sys, tempfile, threading, time
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import av, h5py, numpy as np, pandas as pd, pytest, soundfile, torch, yaml
from safetensors.torch import save_file

import mirage.models.model, mirage.plotting.page, mirage.prediction.recipe, test_atlases, test_model
from owncohorts import execute
from mirage.features.backbones import load_backbone
from mirage.prediction.card import card, evaluation_of, places_in_words, share
from mirage.core import Contexts, file_digest, finish_run, get_preset, run_path, start_run, unfinished, write_sealed
from mirage.features.extract import identity
from mirage.models.model import Mirage, ModelConfig, TemporalEncoder, save_weights
from mirage.data.cohort import SET_TITLES
from mirage.data.parcels import ATLAS_FILE, MEANING, SIMULATED_MEANING, Atlas, Prediction, write_atlas
from mirage.plotting.animation import HEIGHTS, MAP, animation_mp4, place_of
from mirage.plotting.atlases import make_map, map_of_prediction
from mirage.plotting.figures import faults
from mirage.plotting.page import courses, map_colours, page_html, stencil, strip
from mirage.prediction.predict import Job, PredictionError, predict_bold, make, open_input, predict, predict_movies
from mirage.prediction.predict import compute, drawer, forecast, subtract, write_difference
from mirage.prediction.predict import prepare, read_movies, stop_if_failed, transcribe, write_prediction
from mirage.prediction.recipe import Recipe, open_backbones, open_weights, places_of_run
from mirage.data.stimuli import RATE, Movie
from mirage.features.store import Store

ROOT = Path(__file__).resolve().parents[1]
TINY = 'tiny-qwen3-omni-thinking'
SAID = 'the quick brown fox jumps over the lazy dog'
SRT = f'1\n00:00:02,000 --> 00:00:05,000\n{SAID}\n'


def speech(seconds):  # (samples,) int16: the sentence spoken from 2 s on, or tones where there is no voice
    wave = np.zeros(int(seconds * RATE), np.int16)
    t = np.arange(3 * RATE) / RATE
    voice = (8000 * np.sin(2 * np.pi * 220 * t) * (np.sin(2 * np.pi * 3 * t) > 0)).astype(np.int16)
    if shutil.which('espeak-ng'):
        with tempfile.TemporaryDirectory() as d:
            subprocess.run(['espeak-ng', '-w', f'{d}/speech.wav', SAID], check=True)
            voice, rate = soundfile.read(f'{d}/speech.wav', dtype='int16')
        voice = np.interp(np.arange(0, len(voice) / rate, 1 / RATE), np.arange(len(voice)) / rate, voice).astype(
            np.int16
        )
    n = min(len(voice), len(wave) - 2 * RATE)
    if n > 0:
        wave[2 * RATE : 2 * RATE + n] = voice[:n]
    return wave


def clip(path, seconds=12.0, picture=True, sound=True, fps=10):
    "A square that wanders over a slope of colours."
    with av.open(str(path), 'w') as out:
        if picture:
            video = out.add_stream('libx264', rate=fps, width=128, height=72, pix_fmt='yuv420p')
        if sound:
            audio = out.add_stream('flac', rate=RATE, layout='mono')
        for i in range(int(seconds * fps) if picture else 0):
            y, x = np.mgrid[:72, :128]
            image = np.stack([y * 3, x * 2, 0 * x + 20 * i % 255], -1).astype(np.uint8)
            k = int(4 * i) % 100
            image[20:44, k : k + 24] = 255 - image[20:44, k : k + 24]
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
        if sound:
            wave = speech(seconds)
            for k in range(0, len(wave), 4096):
                frame = av.AudioFrame.from_ndarray(wave[None, k : k + 4096], 's16', 'mono')
                frame.rate, frame.pts, frame.time_base = RATE, k, Fraction(1, RATE)
                out.mux(audio.encode(frame))
            out.mux(audio.encode())
        if picture:
            out.mux(video.encode())
    return path


RECIPE = Recipe(
    TINY, protocol='aligned', contexts=Contexts(words=8, audio=4.0, video=2.0), cohort='nobody', simulated=True
)
SHAPE = ModelConfig(
    streams=dict(text=48, audio=48, vision=48), n_output=20, queries=2, pool_heads=2, hidden=24, depth=1, heads=2
)


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    "A clip, its words, weights in our form and in the published one."
    d = tmp_path_factory.mktemp('given')
    clip(d / 'clip.mkv')
    (d / 'clip.srt').write_text(SRT)
    torch.manual_seed(0)
    Mirage(SHAPE).save_pretrained(d / 'ours')
    RECIPE.write(d / 'ours' / 'recipe.yaml')
    state = {
        k: torch.randn(s) * (0.1 if k.endswith('.g') else s[-1] ** -0.5 if len(s) > 1 else 0.2)
        + (k.endswith('.g') or 'scale' in k or 'norm.weight' in k)
        for k, s in test_model.published_shapes(d=48, p=1000, positions=64).items()
    }
    state['temporal_encoder.encoder.rotary_pos_emb.inv_freq'] = 10000.0 ** -(torch.arange(3) / 3)
    (d / 'published').mkdir()
    save_file(state, d / 'published' / 'model.safetensors')
    (d / 'published' / 'config.yaml').write_text(yaml.safe_dump(test_model.published_config(20)))
    return d


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp('root')


@pytest.fixture(autouse=True)
def place(shared, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(shared))
    monkeypatch.setenv('IN_TEST', '1')


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob('*') if p.is_file())


# ---- numbers


def test_the_published_layout_predicts_what_a_plain_reimplementation_predicts(given, shared, monkeypatch):
    p = predict(given / 'clip.mkv', given / 'clip.srt', given / 'published', preset='smoke', device='cpu')
    job = prepare(given / 'clip.mkv', given / 'clip.srt', given / 'published', preset='smoke', device='cpu')
    # released, native
    assert job.weights.recipe == Recipe(TINY, contexts=Contexts(words=8, audio=4.0, video=2.0)) and not p.simulated
    movie = Movie.open(given / 'clip.mkv', given / 'clip.srt')
    states = load_backbone(TINY).extract(movie, 'native', 'released', job.weights.recipe.contexts)
    padded = {m: torch.zeros(60, *x.shape[1:]) for m, x in states.items()}
    for m, x in states.items():
        # frame −9 is the first of the window
        padded[m][9 : 9 + len(x)] = torch.from_numpy(x.astype(np.float16).astype(np.float32))
    monkeypatch.setattr(test_model, 'D', 48)
    from safetensors.torch import load_file

    # 12 s are 8.05 TRs
    expected = test_model.plain_mirage(load_file(given / 'published' / 'model.safetensors'), padded, 'old', 20)[:, :8]
    assert list(p.bold) == ['sub-01', 'sub-02', 'sub-03', 'sub-05'] and p.bold['sub-01'].shape == (8, 1000)
    assert test_model.close(torch.from_numpy(np.stack(list(p.bold.values()))), expected, 1e-4) and expected.std() > 0.01


@pytest.mark.parametrize(
    'seconds, released, aligned', [(12.0, 8, 9), (12.67, 9, 9), (11.9, 8, 8), (3.5, 2, 3), (0.5, 1, 1)]
)
def test_a_movie_has_as_many_samples_as_the_release_counts(given, seconds, released, aligned):
    "8.05, 8.503, 7.987, 2.349 and 0.336 TRs: rounded under `released`, every one that began under `aligned`."
    movie = Movie.open(given / 'clip.mkv', given / 'clip.srt')
    for protocol, n in (('released', released), ('aligned', aligned)):
        weights = SimpleNamespace(recipe=replace(RECIPE, protocol=protocol))
        assert Job('clip', replace(movie, seconds=seconds), weights, (), {}, 'cpu').n_tr == n


def test_weights_are_not_fed_features_of_another_protocol(given, tmp_path):
    w = open_weights(given / 'ours')

    def features(rules=2, **changes):
        r = replace(RECIPE, **changes)
        made = identity(load_backbone(TINY), r.fusion, r.protocol, r.contexts) | dict(rules=rules)
        store = Store.create(tmp_path / 'store', made, {m: (13, 48) for m in ('text', 'audio', 'vision')})
        for m in store.streams:
            store.write(m, 'clip', np.ones((60, 13, 48), np.float32))
        return store

    assert predict_bold(w, features(), 'clip', 9, subjects=['sub-01'])['sub-01'].shape == (9, 1000)
    for wrong, says in (
        (dict(protocol='released'), 'read features whose protocol is aligned, those at .*store have released'),
        (dict(fusion='tower'), 'fusion is native.*have tower'),
        (dict(protocol='aligned,audio_span=2'), 'have aligned,audio_span=2'),
        (dict(contexts=Contexts(words=9, audio=4.0, video=2.0)), "contexts is .*'words': 8"),
        (dict(rules=1), 'version 1 of the rules'),
    ):
        with pytest.raises(ValueError, match=says):
            predict_bold(w, features(**wrong), 'clip', 9, subjects=['sub-01'])


def test_published_weights_mean_released_and_ours_without_a_recipe_mean_nothing(given, tmp_path):
    assert open_weights(given / 'published', preset='smoke').recipe.protocol == 'released'
    shutil.copytree(given / 'published', tmp_path / 'p')
    RECIPE.write(tmp_path / 'p' / 'recipe.yaml')
    with pytest.raises(
        ValueError, match='published form, which read features cut as released, but its recipe.yaml says aligned'
    ):
        open_weights(tmp_path / 'p')
    replace(RECIPE, protocol='released').write(tmp_path / 'p' / 'recipe.yaml')
    assert open_weights(tmp_path / 'p').recipe.protocol == 'released'
    shutil.copytree(given / 'ours', tmp_path / 'o')
    (tmp_path / 'o' / 'recipe.yaml').unlink()
    for preset in ('auto', 'smoke'):
        with pytest.raises(ValueError, match='nothing says with which protocol'):
            open_weights(tmp_path / 'o', preset=preset)


def test_a_run_trained_on_features_of_older_rules_says_so(given):
    w = open_weights(given / 'ours')
    old = identity(load_backbone(TINY), 'native', 'aligned', RECIPE.contexts)
    old.pop('rules')
    with pytest.raises(ValueError, match='version 1 of the rules .* Train it again'):
        open_backbones(replace(w, recipe=replace(w.recipe, made={TINY: json.loads(json.dumps(old))})), 'cpu')


def test_four_subjects_cost_one_extraction_and_one_pass(given, tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    counts = dict(extract=0, encoder=0, windows=0)
    extract, forward = type(load_backbone(TINY)).extract, TemporalEncoder.forward

    def counted(self, *a, **k):
        counts['extract'] += 1
        return extract(self, *a, **k)

    def passed(self, x):
        counts['encoder'] += 1
        counts['windows'] += len(x)
        return forward(self, x)

    monkeypatch.setattr(type(load_backbone(TINY)), 'extract', counted)
    monkeypatch.setattr(TemporalEncoder, 'forward', passed)
    w = open_weights(given / 'ours')
    four = predict(given / 'clip.mkv', given / 'clip.srt', w, device='cpu')
    assert len(four.bold) == 4 and counts == dict(extract=1, encoder=1, windows=1)
    shutil.copy(given / 'clip.mkv', tmp_path / 'renamed.mkv')
    # the same movie under another name
    one = predict(tmp_path / 'renamed.mkv', given / 'clip.srt', w, 'sub-03', device='cpu')
    assert counts['extract'] == 1 and np.array_equal(one.bold['sub-03'], four.bold['sub-03'])
    other = predict(given / 'clip.mkv', None, w, 'sub-03', device='cpu')  # without words it is another stimulus
    assert counts['extract'] == 2 and not np.allclose(other.bold['sub-03'], one.bold['sub-03'], atol=1e-5)


def test_a_training_run_says_how_its_features_are_made_and_is_held_to_it(given, tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    config = dict(
        cohort='embedded',
        seed=0,
        fusion='native',
        model=asdict(SHAPE),
        preset=dict(backbone=TINY, protocol='aligned', contexts=asdict(RECIPE.contexts)),
    )
    run = start_run(run_path('embedded', 'train', 'r'), config)
    torch.manual_seed(0)
    save_weights(Mirage(SHAPE), run.path / 'weights.safetensors')
    finish_run(run, {})
    w = open_weights('results/embedded/train/r')
    assert w.recipe == replace(RECIPE, cohort='embedded')
    assert np.allclose(
        predict(given / 'clip.mkv', given / 'clip.srt', w, 'sub-01', device='cpu').bold['sub-01'],
        predict(given / 'clip.mkv', given / 'clip.srt', given / 'ours', 'sub-01', device='cpu').bold['sub-01'],
        atol=1e-6,
    )
    path = mirage.prediction.recipe.store_path('embedded', TINY, 'native', protocol='aligned', contexts=RECIPE.contexts)
    path.mkdir(parents=True)
    like = json.loads(
        (
            mirage.prediction.recipe.store_path('movies', TINY, 'native', protocol='aligned', contexts=RECIPE.contexts)
            / 'store.json'
        ).read_text()
    )
    (path / 'store.json').write_text(json.dumps(like))
    open_backbones(open_weights(run.path))
    like['identity']['backbone']['weights'] = 'others'
    (path / 'store.json').write_text(json.dumps(like))
    with pytest.raises(ValueError, match='made with another backbone'):
        open_backbones(open_weights(run.path))
    with pytest.raises(ValueError, match='leave preset at auto'):
        open_weights(run.path, preset='paper')
    (run.path / 'weights.safetensors').write_bytes(b'cut')
    with pytest.raises(FileNotFoundError, match='altered or cut short'):
        open_weights(run.path)


def test_the_names_of_the_parcels_travel_with_the_weights(given, tmp_path):
    names = tuple(f'Région {k}' for k in range(SHAPE.parcels))
    replace(RECIPE, atlas=None, parcels=names).write(tmp_path / 'recipe.yaml')
    assert Recipe.read(tmp_path / 'recipe.yaml').parcels == names
    torch.manual_seed(0)
    Mirage(SHAPE).save_pretrained(tmp_path)
    p = predict(given / 'clip.mkv', given / 'clip.srt', tmp_path, 'sub-01', device='cpu')
    write_prediction(p, tmp_path / 'out')
    assert tuple(pd.read_csv(tmp_path / 'out' / 'parcels.csv').name) == names
    with h5py.File(tmp_path / 'out' / 'predictions.h5') as f:
        assert f['parcel'][3].decode() == 'Région 3'
    replace(RECIPE, atlas=None, parcels=names[1:]).write(tmp_path / 'recipe.yaml')
    with pytest.raises(ValueError, match=f'names {len(names) - 1} parcels; the model has {len(names)}'):
        open_weights(tmp_path)
    for wrong in (('a', 'a'), ('a\nb',), (3,), 'abc'):
        with pytest.raises(ValueError, match='parcels is .* expected names'):
            replace(RECIPE, parcels=wrong)


def test_words_after_the_end_of_the_movie_are_left_out_and_reported(given, tmp_path):
    (tmp_path / 'w.srt').write_text(SRT + '\n2\n00:00:40,000 --> 00:00:41,000\nbye\n')
    with pytest.warns(UserWarning, match='w.srt: 1 words begin after the .* ends .* and are left out'):
        late = predict(given / 'clip.mkv', tmp_path / 'w.srt', given / 'ours', 'sub-01', device='cpu')
    plain = predict(given / 'clip.mkv', given / 'clip.srt', given / 'ours', 'sub-01', device='cpu')
    assert np.allclose(late.bold['sub-01'], plain.bold['sub-01'], atol=1e-6)


COMMIT = 'ab' * 20


def test_the_latest_backbone_of_published_weights_is_recorded_as_a_commit(given, monkeypatch):
    monkeypatch.setattr(mirage.features.extract, 'latest_commit', lambda repo: COMMIT)
    assert open_weights(given / 'published', revision='latest').recipe.revision == COMMIT
    assert open_weights(given / 'ours', revision='latest').recipe.revision == ''  # tiny: there is no hub to ask


def test_an_id_on_the_hub_is_fetched_at_its_commit(given, monkeypatch):
    asked = []

    def fetched(repo, name, revision=None, **k):
        asked.append((repo, name, revision))
        path = given / 'ours' / name
        if not path.is_file():
            raise mirage.prediction.recipe.EntryNotFoundError(name)
        return str(path)

    for module in (mirage.prediction.recipe, mirage.models.model):
        monkeypatch.setattr(module, 'hf_hub_download', fetched)
    w = open_weights('someone/encoder@abc123')
    assert w.recipe == RECIPE and {(r, v) for r, n, v in asked} == {('someone/encoder', 'abc123')}

    def of_commit(repo, name, revision=None, **k):
        asked.append((repo, name, revision))
        path = given / 'hub' / COMMIT / name
        if not path.is_file():
            raise mirage.prediction.recipe.EntryNotFoundError(name)
        return str(path)

    asked.clear()
    shutil.copytree(given / 'ours', given / 'hub' / COMMIT, dirs_exist_ok=True)
    for module in (mirage.prediction.recipe, mirage.models.model):
        monkeypatch.setattr(module, 'hf_hub_download', of_commit)
    for given_as in ('someone/encoder', 'someone/encoder@latest'):
        w = open_weights(given_as)
        assert w.source.startswith(f'someone/encoder@{COMMIT}, ')
        assert asked[0] == ('someone/encoder', 'model.safetensors', None)
        assert {v for *_, v in asked[1:]} == {COMMIT}
        asked.clear()

    def unreachable(*a, **k):
        raise mirage.prediction.recipe.LocalEntryNotFoundError('no network')

    monkeypatch.setattr(mirage.prediction.recipe, 'hf_hub_download', unreachable)
    with pytest.raises(FileNotFoundError, match='give its folder'):
        open_weights('someone/encoder')


# ---- what is refused, before anything is written


def bad_movie(given, d, kind):  # movie, transcript, what the error says
    path, words = d / 'v.mkv', given / 'clip.srt'
    if kind == 'nothing to hear':
        clip(path, 2.0, picture=False)
        return path, None, 'nothing sounds in it'
    if kind == 'no length':
        clip(path, 0.0)
        return path, words, 'holds no pictures|cannot be decoded'
    if kind == 'no movie':
        path.write_text('a letter')
        return path, words, 'cannot be decoded'
    assert kind == 'missing movie'
    return path, words, 'there is no movie'


LATE = SRT + '\n2\n00:00:40,000 --> 00:00:41,000\n' + 90 * 'bye ' + '\n'
BAD_WORDS = {  # name of the file, its text, what the error says
    'missing words': ('w.srt', None, 'there is no transcript'),
    'words are no subtitles': ('w.srt', 'Dear all,', 'not subtitles'),
    'time runs backwards': ('w.vtt', 'WEBVTT\n\n00:05.000 --> 00:02.000\nso\n', 'is no stretch of time'),
    'words are no table': ('w.csv', 'a,b\n1,2\n', 'has the columns a, b'),
    'words of another movie': ('w.srt', LATE, 'words begin after .* ends .*belongs to another movie'),
}
BAD_ARGUMENTS = {
    'unknown subject': (dict(subjects='sub-04'), "no subject 'sub-04'; there are: sub-01"),
    'unknown weights': (dict(weights='nothing/at/all'), 'there are no weights'),
    'unknown device': (dict(device='tpu'), 'device is auto, cpu or cuda'),
    'bad name': (dict(name='../up'), 'Use letters, digits'),
}
OTHER_STREAMS = {
    'other widths': (dict(text=48, audio=32, vision=48), 'audio 32.*gives text 48, audio 48'),
    'other streams': (dict(text=48, smell=48), 'smell 48'),
}


def bad_weights(given, d, kind):  # arguments, what the error says
    if kind == 'published widths':
        return dict(weights=given / 'published'), 'pin it with revision'
    if kind in OTHER_STREAMS:
        streams, says = OTHER_STREAMS[kind]
        Mirage(replace(SHAPE, streams=streams)).save_pretrained(d / 'w')
        RECIPE.write(d / 'w' / 'recipe.yaml')
        return dict(weights=d / 'w'), says
    assert kind == 'broken recipe'
    shutil.copytree(given / 'ours', d / 'w')
    (d / 'w' / 'recipe.yaml').write_text('backbone: [x\n')
    return dict(weights=d / 'w'), 'is no recipe'


def bad(given, d, kind):  # movie, transcript, arguments, what the error says
    video, words, how = given / 'clip.mkv', given / 'clip.srt', {}
    if kind in ('nothing to hear', 'no length', 'no movie', 'missing movie'):
        video, words, says = bad_movie(given, d, kind)
    elif kind in BAD_WORDS:
        name, text, says = BAD_WORDS[kind]
        words = d / name
        if text is not None:
            words.write_text(text)
    elif kind in BAD_ARGUMENTS:
        how, says = BAD_ARGUMENTS[kind]
    else:
        how, says = bad_weights(given, d, kind)
    return video, words, dict(weights=given / 'ours', device='cpu') | how, says


@pytest.mark.parametrize(
    'kind',
    [
        'nothing to hear',
        'no length',
        'no movie',
        'missing movie',
        'missing words',
        'words are no subtitles',
        'time runs backwards',
        'words are no table',
        'words of another movie',
        'unknown subject',
        'unknown weights',
        'other widths',
        'other streams',
        'published widths',
        'broken recipe',
        'unknown device',
        'bad name',
    ],
)
def test_bad_input_is_refused_with_a_remedy_before_anything_is_written(given, tmp_path, monkeypatch, kind):
    video, words, how, says = bad(given, tmp_path, kind)
    (tmp_path / 'root').mkdir()
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'root'))
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        predict(video, words, **how)
    assert not everything(tmp_path / 'root')


def dubbed(path):  # a movie with two sound tracks: French commentary with a tone at 4 s, English with one at 1 s
    with av.open(str(path), 'w') as out:
        video = out.add_stream('libx264', rate=10, width=128, height=72, pix_fmt='yuv420p')
        t = np.arange(8 * RATE) / RATE
        tracks = [(out.add_stream('flac', rate=RATE, layout='mono'), tone) for tone in (4, 1)]
        for (track, _), language, mark in zip(tracks, ('fra', 'eng'), ('comment', 'default')):
            track.metadata['language'], track.disposition = language, getattr(av.stream.Disposition, mark)
        for i in range(80):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.full((72, 128, 3), 3 * i, np.uint8), 'rgb24')))
        for track, tone in tracks:
            wave = (16_000 * np.sin(2 * np.pi * 440 * t) * ((t >= tone) & (t < tone + 1))).astype(np.int16)
            for k in range(0, len(wave), 4096):
                frame = av.AudioFrame.from_ndarray(wave[None, k : k + 4096], 's16', 'mono')
                frame.rate, frame.pts, frame.time_base = RATE, k, Fraction(1, RATE)
                out.mux(track.encode(frame))
            out.mux(track.encode())
        out.mux(video.encode())
    return path


def test_another_sound_track_is_another_prediction_and_what_was_taken_is_reported(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    path, w = dubbed(tmp_path / 'dubbed.mkv'), open_weights(given / 'ours')
    with pytest.warns(UserWarning, match='2 sound tracks.*number 2 is taken'):
        usual = predict(path, None, w, 'sub-01', device='cpu')
    asked = {k: predict(path, None, w, 'sub-01', device='cpu', audio_track=k) for k in ('fr', 2)}
    assert np.array_equal(asked[2].bold['sub-01'], usual.bold['sub-01']) and not np.allclose(
        asked['fr'].bold['sub-01'], usual.bold['sub-01'], atol=1e-5
    )
    (tmp_path / 'movies.csv').write_text('video,name,audio_track\ndubbed.mkv,french,fr\ndubbed.mkv,german,de\n')
    state, done = predict_movies(
        read_movies(tmp_path / 'movies.csv'), w, 'sub-01', device='cpu', page=False, animation=False
    )
    assert state.state.tolist() == ['predicted', 'failed'] and np.array_equal(
        done['french'].bold['sub-01'], asked['fr'].bold['sub-01']
    )
    assert (
        "no sound track 'de'; there are: 1 (fra" in state.error[1]
        and 'french: sound track 1 of 2 (fra' in capsys.readouterr().out
    )


def test_a_movie_of_three_seconds_says_that_there_is_nothing_to_draw(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    (tmp_path / 'movies.csv').write_text(f'video\n{clip(tmp_path / "short.mkv", 3.0)}\n')
    state, done = predict_movies(
        read_movies(tmp_path / 'movies.csv'), open_weights(given / 'ours'), 'sub-01', device='cpu'
    )
    assert state.state.tolist() == ['predicted'] and done['short'].bold['sub-01'].shape == (3, 1000)
    assert (
        'short: numbers only, no page and no animation of the map: its last sample is taken at 2.98 s, and BOLD '
        'answers 4.47 s late' in capsys.readouterr().out
    )
    assert not [f for f in everything(tmp_path / 'results') if f.endswith(('.html', '.mp4'))]


# ---- many movies


def test_a_table_of_movies_goes_on_after_failures_and_resumes(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'root'))
    (tmp_path / 'root').mkdir()
    clip(tmp_path / 'mute.mkv', 2.0, picture=False)
    (tmp_path / 'movies.csv').write_text(
        f'video,transcript,name\nmute.mkv,,\n{given / "clip.mkv"},{given / "clip.srt"},good\ngone.mkv,,\n'
    )
    w, table = open_weights(given / 'ours'), read_movies(tmp_path / 'movies.csv')
    state, done = predict_movies(table, w, device='cpu', page=False, animation=False)
    assert (
        state.state.tolist() == ['failed', 'predicted', 'failed']
        and list(done) == ['good']
        and not unfinished(run_path('movies', 'predict', 'good'))
    )
    with pytest.raises(
        PredictionError, match='2 of 3 movies failed(.|\n)*mute: MovieError(.|\n)*gone: FileNotFoundError'
    ):
        stop_if_failed(state)
    assert not run_path('movies', 'predict', 'mute').exists()
    stamp = (run_path('movies', 'predict', 'good') / 'predictions.h5').stat().st_mtime_ns
    clip(tmp_path / 'mute.mkv', 3.0)
    monkeypatch.setattr(
        mirage.prediction.predict,
        'compute',
        lambda job, real=mirage.prediction.predict.compute: (
            real(job) if job.name == 'mute' else pytest.fail('computed again')
        ),
    )
    state, done = predict_movies(table, w, device='cpu', page=False, animation=False)
    assert (
        state.state.tolist() == ['predicted', 'there', 'failed']
        and (run_path('movies', 'predict', 'good') / 'predictions.h5').stat().st_mtime_ns == stamp
    )


def test_other_subjects_of_a_movie_that_is_there_are_another_result(given, tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'root'))
    monkeypatch.setenv('IN_TEST', '1')
    (tmp_path / 'root').mkdir()
    w = open_weights(given / 'ours')
    _, _, there = make(
        prepare(given / 'clip.mkv', given / 'clip.srt', w, 'sub-02', name='good', device='cpu'),
        page=False,
        animation=False,
    )
    assert not there
    job = prepare(given / 'clip.mkv', given / 'clip.srt', w, 'sub-01', name='good', device='cpu')
    p, run, there = make(job, page=False, animation=False)
    assert not there and list(p.bold) == ['sub-01'] and not (run.path / 'bold_sub-02.npy').exists()
    (tmp_path / 'movies.csv').write_text(f'video,transcript,name\n{given / "clip.mkv"},,good\n')
    with pytest.raises(ValueError, match='no subject'):
        predict_movies(read_movies(tmp_path / 'movies.csv'), w, 'sub-09', device='cpu')


def test_two_movies_of_the_same_name_keep_both_predictions(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'root'))
    (tmp_path / 'root').mkdir()
    (tmp_path / 'other').mkdir()
    clip(tmp_path / 'other' / 'clip.mkv', 3.0)
    w, how = open_weights(given / 'ours'), dict(page=False, animation=False)
    _, first, _ = make(prepare(given / 'clip.mkv', None, w, device='cpu'), **how)
    kept = (first.path / 'predictions.h5').read_bytes()
    _, second, _ = make(prepare(tmp_path / 'other' / 'clip.mkv', None, w, device='cpu'), **how)
    assert (
        first.path.name == 'clip'
        and re.fullmatch('clip-[0-9a-f]{6}', second.path.name)
        and (first.path / 'predictions.h5').read_bytes() == kept
    )
    assert 'is the prediction of another movie, and stays' in capsys.readouterr().out
    for video, run in ((given / 'clip.mkv', first), (tmp_path / 'other' / 'clip.mkv', second)):  # both are found again
        _, again, there = make(prepare(video, None, w, device='cpu'), **how)
        assert there and again.path == run.path
    with pytest.raises(FileExistsError, match='movie: .*overwrite=True'):
        make(prepare(tmp_path / 'other' / 'clip.mkv', None, w, name='clip', device='cpu'), **how)
    assert (first.path / 'predictions.h5').read_bytes() == kept


def test_altered_features_of_a_predicted_movie_are_made_again(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'root'))
    (tmp_path / 'root').mkdir()
    w = open_weights(given / 'ours')
    p = predict(given / 'clip.mkv', given / 'clip.srt', w, device='cpu')
    for file in (tmp_path / 'root' / 'features').rglob('*.h5'):
        with h5py.File(file, 'r+') as f:
            f['states'][...] = 0
    q = predict(given / 'clip.mkv', given / 'clip.srt', w, device='cpu')
    assert all(np.array_equal(p.bold[s], q.bold[s]) for s in p.bold)


def test_a_changed_transcript_of_the_same_name_is_another_prediction(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'root'))
    (tmp_path / 'root').mkdir()
    w = open_weights(given / 'ours')
    words = tmp_path / 'words.srt'
    words.write_text(SRT)
    make(prepare(given / 'clip.mkv', words, w, name='c', device='cpu'), False, False)
    words.write_text(SRT.replace(',', '.'))
    _, _, there = make(prepare(given / 'clip.mkv', words, w, name='c', device='cpu'), False, False)
    assert not there and 'inputs.transcript: ' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['model.safetensors', 'config.json', 'recipe.yaml'])
def test_a_shared_model_that_was_altered_is_refused(given, tmp_path, name):
    from mirage.core import file_digest, write_sealed

    folder = tmp_path / 'shared'
    shutil.copytree(given / 'ours', folder)
    write_sealed(
        folder / 'digests.json',
        dict(files={k: file_digest(folder / k) for k in ('model.safetensors', 'config.json', 'recipe.yaml')}),
    )
    open_weights(folder)
    whole = (folder / name).read_bytes()
    at = len(whole) - 9
    (folder / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(ValueError, match=f'{name} was altered or cut short since it was shared'):
        open_weights(folder)


def test_a_movie_without_words_and_one_heard_by_a_recogniser(given, shared):
    from tiny_whisper import tiny_whisper

    quiet = open_input(given / 'clip.mkv')
    assert not len(quiet.words)
    ears = str(tiny_whisper(shared / 'whisper'))
    path = transcribe(quiet, ears, 'cpu')
    assert path == transcribe(quiet, ears, 'cpu') and json.loads(path.read_text())['recogniser'] == ears
    heard = open_input(given / 'clip.mkv', path).words
    assert len(heard) and (heard.offset <= quiet.seconds).all() and (heard.onset <= heard.offset).all()
    p = predict(given / 'clip.mkv', None, given / 'ours', asr=ears, device='cpu')
    q = predict(given / 'clip.mkv', None, given / 'ours', device='cpu')
    assert not np.allclose(p.bold['sub-01'], q.bold['sub-01'], atol=1e-5)
    with pytest.raises(ValueError, match='recogn'):
        transcribe(replace(quiet), str(given / 'ours'), 'cpu')  # no recogniser


# ---- what one sees


@pytest.fixture(scope='module')
def made(given, shared):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MIRAGE_ROOT', str(shared))
        yield make(prepare(given / 'clip.mkv', given / 'clip.srt', given / 'ours', name='clip', device='cpu'))


def test_what_is_wrong_with_a_movie_is_told_once_in_a_prediction(given, tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    with av.open(str(clip(tmp_path / 'whole.mkv'))) as whole, av.open(str(tmp_path / 'hole.mkv'), 'w') as out:
        sound = whole.streams.audio[0]
        copies = {s: out.add_stream_from_template(s) for s in whole.streams.get(audio=0, video=0)}
        for packet in whole.demux(*copies):
            if packet.dts is None or packet.stream == sound and 4 < packet.pts * sound.time_base < 7:
                continue
            packet.stream = copies[packet.stream]
            out.mux(packet)
    for _ in range(2):  # and in the next prediction again
        shutil.rmtree(tmp_path / 'results', ignore_errors=True)
        shutil.rmtree(tmp_path / 'features', ignore_errors=True)
        with pytest.warns(UserWarning) as told:
            job = prepare(tmp_path / 'hole.mkv', given / 'clip.srt', given / 'ours', 'sub-01', name='h', device='cpu')
            forecast(job)
            make(prepare(tmp_path / 'hole.mkv', given / 'clip.srt', job.weights, 'sub-01', name='h', device='cpu'))
        assert sum('no audio at' in str(w.message) for w in told) == 1


def test_a_real_movie_becomes_numbers_a_page_and_an_animation(made):
    p, run, _ = made
    assert set(everything(run.path)) >= {
        'predictions.h5',
        'page.html',
        'map.mp4',
        'bold_sub-05.npy',
        'parcels.csv',
        'times.csv',
    }
    with h5py.File(run.path / 'predictions.h5') as f:
        assert (
            np.array_equal(f['bold/sub-02'][()], p.bold['sub-02'])
            and f['seconds'].shape == (9,)
            and f.attrs['simulated']
            and f.attrs['meaning'] == SIMULATED_MEANING
        )
        assert f['parcel'][0] == b'7Networks_LH_Vis_1' and len(f['parcel']) == 1000
    assert np.array_equal(np.load(run.path / 'bold_sub-05.npy'), p.bold['sub-05'])
    times = pd.read_csv(run.path / 'times.csv')
    assert np.allclose(times.seconds, 1.49 * np.arange(9)) and np.allclose(times.movie, times.seconds - 4.47)
    movie = Movie.open(run.path / 'map.mp4')
    top, left, width = MAP
    top += HEIGHTS[0]
    a, b = movie.frames([1.0, 7.0])[:, top : top + 240, left : left + width].astype(int)
    assert abs(movie.seconds - p.movie.seconds) < 0.5 and np.abs(a - b).mean() > 2 and movie.has_sound
    assert movie.fps == p.movie.fps == 10  # the movie's own rate
    top, left, h, w = place_of(p)
    for t in (1.0, 7.3):
        shown, own = movie.frames([t])[0, top : top + h, left : left + w], p.movie.frames([t], (h, w))[0]
        assert np.abs(shown.astype(int) - own).mean() < 12  # the movie itself, above the map


BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
ALONE = (
    '--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()
)
ALONE.append('--host-resolver-rules=MAP * ~NOTFOUND')
SEEK = """<!doctype html><canvas id="c" width="640" height="544"></canvas><script>
const v = document.createElement('video'), x = document.getElementById('c').getContext('2d', {willReadFrequently: true});
const when = (name, does) => new Promise((done, no) => { v['on' + name] = done; v.onerror = () => no(v.error.message); does() });
(async () => { const seen = [], film = await (await fetch('film.mp4')).blob(); v.muted = true;
await when('loadeddata', () => v.src = URL.createObjectURL(film));
for (const t of TIMES) { await when('seeked', () => v.currentTime = t); x.drawImage(v, 0, 0); const p = x.getImageData(0, 0, 640, 544).data; seen.push(Array.from({length: Math.ceil(p.length/148)}, (_, k) => p[148*k + 1])) }
return seen })().catch(e => String(e)).then(seen => fetch('/', {method: 'POST', body: JSON.stringify(seen)}))
</script>"""  # noqa: E501
PROBE = """<script>addEventListener('load', () => setTimeout(() => { const at = i => { $('t').value = i; $('t').dispatchEvent(new Event('input')); return pixels.reduce((h, v) => (h*31 + v) % 2147483647, 7) };
const a = at(4), b = at(7), c = at(4), r = map.getBoundingClientRect(), hit = HIT;
map.dispatchEvent(new PointerEvent('pointermove', {clientX: r.left + (hit % D.width + .5)/D.width*r.width, clientY: r.top + (Math.floor(hit/D.width) + .5)/D.height*r.height}));
const tip = $('tip').textContent, value_ = value(699, 4); $('who').value = 'sub-03'; $('who').dispatchEvent(new Event('change')); other = at(4); $('who').value = AVERAGE; const average = value(699, 4), summed = own.reduce((sum, k) => sum + valueOf(k, 699, 4), 0)/own.length; $('who').value = 'sub-03'; $('who').dispatchEvent(new Event('change'));
const keys = k => { document.body.dispatchEvent(new KeyboardEvent('keydown', {key: k, bubbles: true})); return now };
const right = (at(4), keys('ArrowRight')), home = keys('Home'), end = keys('End'); keys(' '); const began = $('play').getAttribute('aria-label'); keys(' ');
at(4); speak(2.5, true); const spoken = $('said').textContent; $('regions').value = '0'; $('regions').dispatchEvent(new Event('change')); const pinned = $('pins').textContent;
const rows = mapTable(), wide = document.documentElement.scrollWidth - innerWidth, asked = courseTable();
document.body.dataset.found = JSON.stringify({right, home, end, began, ended: $('play').getAttribute('aria-label'), spoken, pinned, rows: rows.length, columns: asked[0].length, wide, movie: [media.duration, media.videoWidth, media.currentTime, D.sounds], lost, average, summed, unnamed: [...document.querySelectorAll('button,select,input')].filter(e => !(e.getAttribute('aria-label') || e.textContent || (e.labels && e.labels.length))).length, moves: a !== b, returns: a === c, other: other !== a, tip, value: value_, when: $('when').textContent, lines: document.querySelectorAll('#courses polyline').length}) }, 300))</script>"""  # noqa: E501


@pytest.mark.skipif(not BROWSER, reason='no Chromium: the interactive page is not opened')
def test_the_animation_can_be_sought_in_a_browser(made, tmp_path):
    _, run, _ = made
    with av.open(str(run.path / 'map.mp4')) as film:
        rate = film.streams.video[0].average_rate
        frames = [f.to_ndarray(format='rgb24').reshape(-1, 3)[::37, 1].astype(int) for f in film.decode(video=0)]
    jumps = [len(frames) - 1, 3, len(frames) // 2, len(frames) // 2 + 1, 0]  # to and fro, between key frames
    (tmp_path / 'film.mp4').write_bytes((run.path / 'map.mp4').read_bytes())
    times = [float((k + 0.5) / rate) for k in jumps]
    (tmp_path / 'seek.html').write_text(SEEK.replace('TIMES', json.dumps(times)))
    found = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self):
            found.put(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *told):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page, profile = f'http://127.0.0.1:{server.server_port}/seek.html', f'--user-data-dir={tmp_path / "profile"}'
        how = ['--headless', '--no-sandbox', '--disable-gpu', *ALONE[:-1], profile, '--remote-debugging-port=0']
        browser = subprocess.Popen([BROWSER, *how, page], stderr=subprocess.DEVNULL)
        try:
            seen = found.get(timeout=60)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    assert isinstance(seen, list), seen  # a text: what the player says
    for k, picture in zip(jumps, seen):
        off = [np.abs(frame - picture).mean() for frame in frames]
        assert np.argmin(off) == k and off[k] < 2  # this video frame, and no other


@pytest.mark.skipif(not BROWSER, reason='no Chromium: the interactive page is not opened')
def test_the_slider_moves_the_map_in_a_browser(made, tmp_path):
    p, run, _ = made
    page = tmp_path / 'page.html'
    page.write_text(
        (run.path / 'page.html')
        .read_text()
        .replace('</body>', PROBE.replace('HIT', str(int((stencil().labels == 700).argmax()))) + '</body>')
    )
    done = subprocess.run(
        [
            BROWSER,
            '--headless',
            '--no-sandbox',
            '--disable-gpu',
            *ALONE,
            f'--user-data-dir={tmp_path / "profile"}',
            '--enable-logging=stderr',
            '--window-size=1300,900',
            '--virtual-time-budget=5000',
            '--dump-dom',
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not re.search(r'CONSOLE.*(Uncaught|[Ee]rror)', done.stderr), done.stderr[-2000:]
    found = json.loads(re.search(r'data-found="([^"]*)"', done.stdout)[1].replace('&quot;', '"'))
    assert found['moves'] and found['returns'] and found['other'] and found['lines'] == 9 and not found['lost']
    assert abs(found['movie'][0] - p.movie.seconds) < 0.2 and found['movie'][1] == 128 and found['movie'][3]
    assert abs(found['movie'][2] - (4 * 1.49 - 4.47)) < 0.01  # the movie stands where the map does
    assert abs(found['average'] - found['summed']) < 1e-9 and found['average'] != found['value']
    assert (found['right'], found['home'], found['end']) == (5, 0, 8) and found['began'] == 'pause'
    assert found['ended'] == 'play' and 'the quick brown' in found['spoken'] and not found['unnamed']
    assert ' cortex' in found['pinned'] and found['rows'] == 1001 and found['columns'] == 9 and found['wide'] <= 0
    assert pd.read_csv(run.path / 'parcels.csv').name[699] in found['tip'] and 'right hemisphere' in found['tip']
    assert abs(found['value'] - p.bold['sub-01'][4, 699]) <= np.abs(p.bold['sub-01']).max() / 254 + 1e-6 and found[
        'when'
    ].startswith('TR 4, BOLD at 0:06.0, movie at 0:01.5')
    assert 'simulated: the model was trained on simulated BOLD' in done.stdout


def test_ten_minutes_for_four_subjects_fit_in_eight_megabytes(tmp_path):
    rng = np.random.default_rng(0)

    class Long:  # pictures of the grain of a real movie, at high definition
        seconds, size, fps, has_sound = 600.0, (360, 640), 25.0, True

        def sound(self):
            return rng.normal(0, 0.1, 600 * RATE).astype(np.float32)

        def iter_frames(self, times, size):
            h, w = size
            blocks = rng.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:h, :w]
            base = np.clip(blocks + rng.normal(0, 6, (h, w, 3)), 0, 255).astype(np.uint8)
            for k, _ in enumerate(times):
                yield np.roll(base, 3 * k, 1)

    p = Prediction(
        'long',
        Long(),
        {f'sub-{i}': rng.standard_normal((403, 1000)).astype(np.float32) for i in range(4)},
        'noise',
        False,
    )
    size = page_html(p, tmp_path / 'long.html').stat().st_size
    assert 3e6 < size <= 8e6 and 'simulated:' not in (tmp_path / 'long.html').read_text()[:6000]


def test_what_lies_nowhere_has_a_page_of_tables_and_time_courses_and_no_animation(tmp_path):
    p = Prediction('own', Silent(), {'a': np.ones((9, 60), np.float32)}, 'w', False, atlas=None)
    with pytest.raises(ValueError, match='own: no map: nothing says where its parcels are; its page has tables'):
        animation_mp4(p, tmp_path / 'x')
    assert not everything(tmp_path)
    page = page_html(p, tmp_path / 'x.html').read_text()
    assert 'No map: nothing says where its parcels are.' in page and '"parcel 60"' in page and '"map":""' in page
    with pytest.raises(ValueError, match='a map needs the 1000 parcels of schaefer1000, this prediction has'):
        page_html(replace(p, atlas='schaefer1000'), tmp_path / 'y.html')


class Silent:  # a stimulus of words alone
    streams, seconds, has_sound = ('text',), 20.0, False


SLABS = 12


def slabs(space='MNI152NLin6Asym'):  # from left to right; the last one is a voxel of white matter
    x = np.zeros((46, 55, 46), np.int32)
    for k in range(SLABS - 1):
        x[6 + k * 34 // 11 : 6 + (k + 1) * 34 // 11] = k + 1
    x[16, 26, 24] = SLABS
    grid = np.array([[4.0, 0, 0, -90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])
    names = [f'slab <{k}>' for k in range(1, SLABS + 1)]
    table = pd.DataFrame(dict(label=range(1, SLABS + 1), name=names, network=['deep', 'wide'] * 6, hemi='L'))
    return Atlas('slabs', 'volume', table, {'volume': x}, grid, space=space)


@pytest.fixture(scope='module')
def of_slabs(tmp_path_factory):
    "A shared model of another atlas."
    folder, atlas = tmp_path_factory.mktemp('slabs'), slabs()
    torch.manual_seed(0)
    Mirage(replace(SHAPE, parcels=SLABS)).save_pretrained(folder)
    replace(RECIPE, atlas=None, parcels=tuple(atlas.table.name)).write(folder / 'recipe.yaml')
    write_atlas(atlas, folder / ATLAS_FILE)
    return folder


def test_a_shared_model_of_another_atlas_draws_page_and_animation_with_its_names(given, of_slabs, tmp_path):
    job = prepare(given / 'clip.mkv', given / 'clip.srt', of_slabs, 'sub-01', name='slabs', device='cpu')
    assert not job.undrawn and not job.unmapped
    p, run, there = make(job)
    assert not there and make(job)[2]
    table = pd.read_csv(run.path / 'parcels.csv')
    assert table.name.tolist() == list(slabs().table.name) and table.net.tolist() == ['deep', 'wide'] * 6
    text = (run.path / 'page.html').read_text()
    assert 'not shown: 1 of 12 parcels' in text and '"groups":["deep","wide"]' in text and '<12>' not in text
    drawn = map_of_prediction(p)[0]
    left, right = (set(np.unique(drawn.patches[side].labels)) - {-1, 0} for side in ('left', 'right'))
    assert max(left) <= 7 and min(right) >= 5  # projected, and each on its own side
    top, at, width = MAP
    top, found = top + HEIGHTS[0], stencil(drawn, width, 84)
    picture = Movie.open(run.path / 'map.mp4').frames([8.0])[0][top : top + len(found.labels), at : at + width]
    wanted = found.paint(map_colours(p.bold['sub-01'][round((8 + 4.47) / 1.49)], p.limit))
    assert np.abs(picture.astype(int) - wanted).mean() < 6
    assert not faults(strip(p)) and not faults(courses(p))


def test_another_atlas_is_another_prediction_and_one_that_is_lost_is_said(given, of_slabs, tmp_path, capsys):
    copy = tmp_path / 'model'
    shutil.copytree(of_slabs, copy)
    how = dict(name='moved', device='cpu', subjects='sub-01')
    first = prepare(given / 'clip.mkv', given / 'clip.srt', copy, **how)
    write_atlas(slabs('elsewhere'), copy / ATLAS_FILE)
    other = prepare(given / 'clip.mkv', given / 'clip.srt', copy, **how)
    assert first.config != other.config and not other.unmapped
    assert make_map(other.weights.places).missing == 'no flat map: the space elsewhere is not that of the surface'
    (copy / ATLAS_FILE).unlink()
    lost = prepare(given / 'clip.mkv', given / 'clip.srt', copy, **how)
    assert lost.unmapped == 'the shared model has no atlas.safetensors, which says where its parcels are'
    _, run, _ = make(lost)
    assert f'No map: {lost.unmapped}' in (run.path / 'page.html').read_text()
    assert not (run.path / 'map.mp4').exists() and run.metrics['unmapped'] == lost.unmapped
    renamed = slabs()
    table = renamed.table.assign(name=[*renamed.table.name[:-1], 'other'])
    write_atlas(Atlas('a', 'volume', table, renamed.parcels, renamed.grid), copy / ATLAS_FILE)
    said = open_weights(copy)
    assert said.places is None and "number 12 is 'other', and was 'slab <12>'" in said.unplaced


def test_a_page_whose_numbers_leave_its_movie_no_room_says_so_and_their_size_is_told_before(
    given, of_slabs, tmp_path, monkeypatch
):
    job = prepare(given / 'clip.mkv', given / 'clip.srt', of_slabs, 'sub-01', name='crowded', device='cpu')
    assert np.isclose(job.cost()['numbers in page.html, MB'], SLABS * job.n_tr * 4 / 3 / 1e6)
    p = Prediction('p', job.movie, {'sub-01': np.ones((job.n_tr, SLABS))}, 'x', True, atlas=None, places=slabs())
    assert 'no room' not in page_html(p, tmp_path / 'page.html').read_text()
    monkeypatch.setattr(mirage.plotting.page, 'MEGABYTES', 0.001)
    says = f'The movie has no room in this page: the numbers of 12 parcels, {job.n_tr} samples and 1 subjects take'
    assert says in page_html(p, tmp_path / 'page.html').read_text()


def test_a_listed_atlas_that_was_taken_away_costs_the_maps_and_nothing_else(of_slabs, tmp_path):
    copy = tmp_path / 'model'
    shutil.copytree(of_slabs, copy)
    files = ['model.safetensors', 'config.json', 'recipe.yaml', ATLAS_FILE]
    write_sealed(copy / 'digests.json', dict(files={name: file_digest(copy / name) for name in files}))
    assert open_weights(copy).places is not None
    (copy / ATLAS_FILE).write_bytes(b'nothing')
    with pytest.raises(ValueError, match='was altered or cut short'):
        open_weights(copy)
    (copy / ATLAS_FILE).unlink()
    opened = open_weights(copy)
    assert opened.places is None and 'digests.json lists it: fetch it again to have maps' in opened.unplaced
    (copy / 'recipe.yaml').unlink()
    with pytest.raises(FileNotFoundError, match='no recipe.yaml'):
        open_weights(copy)


def damaged_atlas(kind, path):
    atlas = slabs()
    if kind == 'no file of tensors':
        return path.write_bytes(b'nothing')
    if kind == 'labels beyond':
        atlas.parcels['volume'][0, 0, 0] = SLABS + 1
    if kind == 'too few regions':
        atlas = Atlas('a', 'volume', atlas.table[:-1], atlas.parcels, atlas.grid)
    if kind == 'a name of two lines':
        names = ['a\nb', *atlas.table.name[1:]]
        atlas = Atlas('a', 'volume', atlas.table.assign(name=names), atlas.parcels, atlas.grid)
    if kind == 'voxels without size':
        atlas = Atlas('a', 'volume', atlas.table, atlas.parcels, np.zeros((4, 4)))
    if kind == 'one hemisphere':
        atlas = Atlas('a', 'surface', atlas.table, {'left': np.arange(SLABS + 1)})
    write_atlas(atlas, path)


@pytest.mark.parametrize(
    'kind',
    [
        'no file of tensors',
        'labels beyond',
        'too few regions',
        'a name of two lines',
        'voxels without size',
        'one hemisphere',
    ],
)
def test_an_atlas_that_cannot_be_that_of_a_shared_model_is_refused(of_slabs, tmp_path, kind):
    shutil.copytree(of_slabs, tmp_path / 'model')
    damaged_atlas(kind, tmp_path / 'model' / ATLAS_FILE)
    with pytest.raises(ValueError, match='atlas.safetensors is no atlas of 12 parcels: .*Take it away'):
        open_weights(tmp_path / 'model')


def test_a_training_run_takes_the_atlas_from_its_cohort_or_says_what_is_wrong_with_it(tmp_path):
    folder = test_atlases.write_cohort(tmp_path / 'mine', 'mine.nii.gz', 12)
    test_atlases.slabs(12, folder)
    names = [f'region {k}' for k in range(1, 13)]
    found, why = places_of_run(dict(cohort=str(folder), inputs=dict(parcels=names)))
    assert not why and found.size == 12 and found.table.network.tolist() == ['net1', 'net0'] * 6
    _, why = places_of_run(dict(cohort=str(folder), inputs=dict(parcels=['x', *names[1:]])))
    assert "number 1 is 'region 1', and was 'x'" in why
    (folder / 'mine.nii.gz').unlink()
    _, why = places_of_run(dict(cohort=str(folder), inputs=dict(parcels=names)))
    assert 'cannot be opened' in why and 'mine.nii.gz' in why
    recipe = replace(RECIPE, atlas=None)
    assert 'atlas slabs. `atlas.safetensors` says' in places_in_words(recipe, slabs(), '')
    assert 'No map of its predictions can be drawn: it is gone' in places_in_words(recipe, None, 'it is gone')


OWN_PROBE = """<script>addEventListener('load', () => setTimeout(() => { const r = map.getBoundingClientRect(), hit = labels.indexOf(3), rows = mapTable(); go(5);
map.dispatchEvent(new PointerEvent('pointermove', {clientX: r.left + (hit % D.width + .5)/D.width*r.width, clientY: r.top + (Math.floor(hit/D.width) + .5)/D.height*r.height}));
document.body.dataset.found = JSON.stringify({head: rows[0], row: rows[3], rows: rows.length, tip: $('tip').textContent, value: value(2, 5), courses: courseTable()[0], listed: $('regions').options.length, wide: document.documentElement.scrollWidth - innerWidth, missing: $('missing').textContent, canvas: getComputedStyle($('cortex')).display}) }, 300))</script>"""  # noqa: E501


@pytest.mark.skipif(not BROWSER, reason='no Chromium: the interactive page is not opened')
@pytest.mark.parametrize(('kind', 'width'), [('flat', 1300), ('slices', 500), ('nothing', 1300)])
def test_the_page_of_another_atlas_says_names_and_what_is_missing(tmp_path, kind, width):
    bold = np.random.default_rng(0).standard_normal((9, SLABS)).astype(np.float32)
    places = None if kind == 'nothing' else slabs('MNI152NLin6Asym' if kind == 'flat' else 'elsewhere')
    p = Prediction('own', Silent(), {'a': bold}, 'w', False, atlas=None, places=places)
    page = tmp_path / 'page.html'
    text = page_html(p, page).read_text()
    page.write_text(text.replace('</body>', OWN_PROBE + '</body>'))
    profile, size = f'--user-data-dir={tmp_path / "profile"}', f'--window-size={width},900'
    command = [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', *ALONE, profile, size]
    command += ['--enable-logging=stderr', '--virtual-time-budget=3000', '--dump-dom', page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert not re.search(r'CONSOLE.*(Uncaught|[Ee]rror)', done.stderr), done.stderr[-2000:]
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', done.stdout)[1]))
    assert found['rows'] == SLABS + 1 and found['wide'] <= 0 and found['listed'] == SLABS + 1
    if kind == 'nothing':
        assert found['head'] == ['parcel', 'name', 'value'] and found['courses'] == ['seconds', 'all parcels']
        assert found['canvas'] == 'none' and found['missing'].startswith('No map: nothing says where')
        return
    assert found['head'] == ['parcel', 'name', 'network', 'hemisphere', 'value'] and found['canvas'] != 'none'
    assert found['row'][:4] == [3, 'slab <3>', 'deep', 'L'] and found['courses'] == ['seconds', 'deep', 'wide']
    assert found['tip'].startswith('slab <3>, deep network, left hemisphere\npredicted BOLD ')
    assert f'{bold[5, 2]:.1f}' in f'{found["value"]:.1f}'
    assert found['missing'].startswith('not shown: 1 of 12' if kind == 'flat' else 'no flat map: the space elsewhere')


MEAN_PROBE = """<script>addEventListener('load', () => setTimeout(() => { document.body.dataset.found = JSON.stringify({
who: [...$('who').options].map(o => o.value),
mean: everyone.includes(AVERAGE) ? valueOf(AVERAGE, 2, 5) : null })}, 300))</script>"""


@pytest.mark.skipif(not BROWSER, reason='no Chromium: the interactive page is not opened')
@pytest.mark.parametrize('people', [('a', 'b'), ('a',)])
def test_the_average_person_does_not_count_among_those_whom_a_page_averages(tmp_path, people):
    bold = {s: np.full((9, SLABS), size, np.float32) for s, size in zip((*people, 'average'), (1.0, 0.5, 0.25))}
    page = page_html(Prediction('own', Silent(), bold, 'w', False, atlas=None, places=None), tmp_path / 'page.html')
    page.write_text(page.read_text().replace('</body>', MEAN_PROBE + '</body>'))
    command = [
        BROWSER,
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        *ALONE,
        f'--user-data-dir={tmp_path / "profile"}',
    ]
    command += ['--virtual-time-budget=3000', '--dump-dom', page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', done.stdout)[1]))
    assert found['who'] == [*people, 'average', *['average of the subjects'] * (len(people) > 1)]
    assert found['mean'] == (0.75 if len(people) > 1 else None)


def test_the_notebook_refuses_what_it_does_not_know(tmp_path):
    env = os.environ | {
        'MIRAGE_ROOT': str(tmp_path),
        'PYTHONPATH': f'{ROOT}:{os.environ.get("PYTHONPATH", "")}',
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
    }
    done = subprocess.run(
        [
            Path(sys.executable).parent / 'papermill',
            ROOT / 'nbs/09b_predict.ipynb',
            tmp_path / 'out.ipynb',
            '-p',
            'vidoe',
            'movie.mkv',
        ],
        env=env,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (
        done.returncode
        and 'unknown parameter vidoe' in done.stdout + done.stderr
        and everything(tmp_path) == ['out.ipynb']
    )


def notebook(**given):
    return execute('09b_predict', **given)


def test_the_notebook_predicts_a_movie_and_a_table(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    clip(tmp_path / 'mute.mkv', 2.0, picture=False)
    how = dict(weights=str(given / 'ours'), device='cpu', animation=False)
    one = dict(video=str(given / 'clip.mkv'), transcript=str(given / 'clip.srt')) | how
    notebook(**one, estimate_only=True)
    assert not (tmp_path / 'results').exists() and not (tmp_path / 'features').exists()
    notebook(**one, subjects='sub-02')
    assert (
        {'bold_sub-02.npy', 'page.html'} <= set(everything(tmp_path / 'results/movies/predict/clip'))
        and len(list((tmp_path / 'features/movies').rglob('*.h5'))) == 3
        and SIMULATED_MEANING in capsys.readouterr().out
    )
    (tmp_path / 'movies.csv').write_text(f'video,transcript\nmute.mkv,\n{given / "clip.mkv"},{given / "clip.srt"}\n')
    with pytest.raises(Exception, match='1 of 2 movies failed(.|\n)*mute: MovieError'):
        notebook(movies=str(tmp_path / 'movies.csv'), **how, page=False, minus='clip')
    assert {'bold_sub-05.npy', 'minus-clip.html'} <= set(everything(tmp_path / 'results/movies/predict/clip'))
    for wrong, says in ((dict(movies='a.csv', video='b.mkv'), 'either movies'), (dict(transcript='a.srt'), 'no video')):
        with pytest.raises(ValueError, match=says):
            notebook(**how, **wrong)


# ---- sharing

SHOWN = dict(tr=1.49, runs={s: {'s01e01a 1': 'train 592 ses-001 0.0'} for s in ('sub-01', 'sub-05')})
PRESET = replace(get_preset('paper'), contexts=RECIPE.contexts, epochs=7, lr=1e-3)
SCORED = dict(val_r=0.15, ceiling=0.6, parameters=9, best_epoch=5, r=dict(val=0.15), per_subject={'sub-01': 0.15})


def write_scored():
    "A training run of the embedded cohort with scores."
    people = ('sub-01', 'sub-02')
    config = dict(
        cohort='embedded',
        seed=0,
        fusion='native',
        precision='no',
        model=asdict(SHAPE),
        inputs=SHOWN,
        preset=asdict(replace(get_preset('tiny'), backbone=TINY, contexts=RECIPE.contexts)),
    )
    run = start_run(run_path('embedded', 'train', 'mirage-native-s0'), config)
    save_weights(Mirage(SHAPE), run.path / 'weights.safetensors')
    pd.DataFrame(dict(subject=people, parcel=1, set='val', r=[0.57, 0.58])).to_parquet(run.path / 'scores.parquet')
    return finish_run(run, SCORED | dict(val_r=0.575))


def test_the_card_of_an_evaluated_run_passes_its_own_check(tmp_path, monkeypatch):
    """Chapter 06b cuts the ends of every movie and training does not, so that the two scores differ: the notebook must
    look for the one that it prints."""

    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    shutil.copy(ROOT / 'data_manifest.yaml', tmp_path)
    run = write_scored()
    execute('09c_card', cohort='embedded')  # never evaluated: the card prints the score of training
    found = start_run(run_path('embedded', 'evaluate', 'mirage-native-s0'), dict(runs='train/mirage-native-s0'))
    pd.DataFrame([
        dict(movie='all', set='val', subject=s, score=v, low=v - 0.02, high=v + 0.02)
        for s, v in (('mean', 0.587), ('sub-01', 0.58), ('sub-02', 0.594))
    ]).to_csv(found.path / 'intervals.csv', index=False)
    finish_run(found, dict(val=dict(estimate=0.587)), inputs=run.provenance['files'])
    space = execute('09c_card', cohort='embedded')
    assert '| validation | mean | 0.587 |' in (space['folder'] / 'README.md').read_text() and space['score'] == 0.587


def trained(cohort):
    "A finished training of random weights, with scores."
    run = start_run(
        run_path(cohort, 'train', 'r'),
        dict(
            cohort=cohort,
            seed=3,
            fusion='native',
            precision='no',
            model=asdict(SHAPE),
            inputs=SHOWN,
            preset=asdict(replace(PRESET, backbone=TINY if cohort == 'embedded' else 'qwen3-omni-thinking')),
        ),
    )
    torch.manual_seed(0)
    save_weights(Mirage(SHAPE), run.path / 'weights.safetensors')
    pd.DataFrame(
        [
            (s, k + 1, which, 0.1 * i + 0.05 * (which == 'ood'))
            for i, s in enumerate(SHAPE.subjects)
            for k in range(2)
            for which in ('val', 'ood')
        ],
        columns=['subject', 'parcel', 'set', 'r'],
    ).to_parquet(run.path / 'scores.parquet')
    return finish_run(run, SCORED | dict(ceiling=0.6 if cohort == 'embedded' else None))


def test_a_card_says_what_the_run_says(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    run = trained('embedded')
    folder = share(run, tmp_path / 'hub')
    text = (folder / 'README.md').read_text()
    front = yaml.safe_load(text.split('---')[1])
    assert front['license'] == 'mit' and 'simulated' in front['tags'] and '**Simulated.**' in text
    assert (
        '| validation | mean | 0.150 | not computed |' in text
        and f'| {SET_TITLES["ood"]} | sub-05 | 0.350 |' in text
        and '7 (best 5)' in text
        and SIMULATED_MEANING in text
        and MEANING not in text
    )
    back = open_weights(folder)
    assert back.recipe == replace(RECIPE, cohort='embedded') and all(
        torch.equal(a, b)
        for a, b in zip(back.model.state_dict().values(), open_weights(run.path).model.state_dict().values())
    )
    found = start_run(run_path('embedded', 'evaluate', 'r'), {})
    pd.DataFrame(
        [('mean', 'all', 0.15, 0.12, 0.18, 'val')], columns=['subject', 'movie', 'score', 'low', 'high', 'set']
    ).to_csv(found.path / 'intervals.csv')
    finish_run(found, {}, inputs=run.provenance['files'])
    assert '| validation | mean | 0.150 | 0.120 to 0.180 |' in card(run, 'mit', back.recipe)
    assert '## Methods' in text and 'independent reproduction' in text and 'arXiv:2605.29850' in text
    assert 'learning rate 0.001,' in text and 'over 7 epochs' in text and '592 TRs per person (15 min)' in text
    finish_run(found, {}, inputs={'weights.safetensors': dict(sha256='of other weights')})
    assert evaluation_of(run) is None


def test_a_card_of_real_bold_says_whose_it_is_and_under_which_licences(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    real = trained('algonauts2025')
    with pytest.raises(ValueError, match='choose a licence'):
        share(real, tmp_path / 'real')
    text = (share(real, tmp_path / 'real', 'cc-by-4.0') / 'README.md').read_text()
    front = yaml.safe_load(text.split('---')[1])
    assert (
        front['base_model'] == ['Qwen/Qwen3-Omni-30B-A3B-Thinking']
        and 'simulated' not in front['tags']
        and 'CC0' in text
        and 'Apache-2.0' in text
        and 'Simulated' not in text
        and MEANING in text
    )


# ---- a model that somebody shared

EVIL = '</title></script><img src=x onerror="document.title=\'RAN\'"><script>document.title="RAN"</script><!--<script>'


def shared_model(d, config=None, recipe=None):
    "A folder as on the hub, in which somebody has changed config.json or recipe.yaml by hand."
    torch.manual_seed(0)
    Mirage(SHAPE).save_pretrained(d)
    RECIPE.write(d / 'recipe.yaml')
    (d / 'config.json').write_text(json.dumps(json.loads((d / 'config.json').read_text()) | (config or {})))
    (d / 'recipe.yaml').write_text(yaml.safe_dump(yaml.safe_load((d / 'recipe.yaml').read_text()) | (recipe or {})))
    return d


WRONG_CONFIG = [
    dict(subjects=['../../../../outside', 'sub-02']),
    dict(subjects=[EVIL]),
    dict(subjects='sub-01'),
    dict(subjects=['a', 'a']),
    dict(subjects=[]),
    dict(subjects=[1, 2]),
    dict(subjects={'a': 1}),
    dict(subjects=['_']),
    dict(subjects=['a' * 200]),
    dict(depth=1e9),
    dict(depth=10**9),
    dict(depth=True),
    dict(depth='1'),
    dict(depth=[1]),
    dict(depth=None),
    dict(depth=0),
    dict(depth=-1),
    dict(depth=1.5),
    dict(heads=0),
    dict(heads=10**9),
    dict(hidden=10**12),
    dict(hidden=1e-9),
    dict(n_output=10**9),
    dict(n_output=0),
    dict(n_output='20'),
    dict(queries=10**9),
    dict(pool_heads=10**9),
    dict(ff_mult=10**9),
    dict(positions=10**12),
    dict(parcels=10**9),
    dict(pool_dropout=float('nan')),
    dict(pool_dropout='x'),
    dict(pool_start=1e300),
    dict(modality_dropout=[]),
    dict(modality_dropout=True),
    dict(rotary=10**9),
    dict(rotary='half'),
    dict(null_tokens='yes'),
    dict(aggregate=['queries']),
    dict(streams={}),
    dict(streams=[1]),
    dict(streams={'text': 10**12}),
    dict(streams={'../x': 48}),
    dict(streams={'text': True}),
    dict(streams={'a.b': 48}),
    dict(streams={'pop': 48}),
    dict(streams={f's{k}': 4 for k in range(99)}),
    dict(more=1),
    dict(depth=3),
    dict(parcels=999),
    dict(subjects=['a', 'b']),
]
WRONG_RECIPE = [
    dict(cohort='../up'),
    dict(cohort=EVIL),
    dict(cohort=''),
    dict(cohort=3),
    dict(backbone='../x'),
    dict(backbone=['a']),
    dict(backbone=EVIL),
    dict(fusion='native/../..'),
    dict(fusion=None),
    dict(protocol='aligned,video_at=/../../../../outside_store'),
    dict(protocol='aligned,speechless=../x'),
    dict(protocol='streaming,chunk=1e9'),
    dict(protocol='streaming,chunk=nan'),
    dict(protocol='streaming,chunk=-1'),
    dict(protocol='aligned,tower_span=1e-'),
    dict(protocol=['aligned']),
    dict(protocol='aligned\n'),
    dict(contexts=dict(fps=1e9)),
    dict(contexts=dict(fps=1e-9)),
    dict(contexts=dict(fps=0)),
    dict(contexts=dict(fps=True)),
    dict(contexts=dict(fps='2')),
    dict(contexts=dict(fps=float('inf'))),
    dict(contexts=dict(words=10**9)),
    dict(contexts=dict(words=8.5)),
    dict(contexts=dict(audio=1e9)),
    dict(contexts=dict(audio=-1)),
    dict(contexts=dict(video=1e9)),
    dict(contexts=dict(video=3600, fps=60)),
    dict(contexts=[]),
    dict(contexts=None),
    dict(contexts=dict(more=1)),
    dict(tr=1e-9),
    dict(tr=1e9),
    dict(tr=True),
    dict(tr='1.49'),
    dict(tr=float('nan')),
    dict(tr=0),
    dict(simulated='no'),
    dict(simulated=1),
    dict(atlas='../x'),
    dict(atlas=7),
    dict(revision='--upload'),
    dict(revision='main'),
    dict(revision=7),
    dict(made=[]),
    dict(made={'../x': {}}),
    dict(made={TINY: 3}),
    dict(more=1),
]


@pytest.mark.parametrize('config', WRONG_CONFIG, ids=lambda c: str(c)[:40])
def test_a_shared_model_whose_config_cannot_be_is_refused_before_anything_is_made(config, tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'root'))
    (tmp_path / 'root').mkdir()
    with pytest.raises(ValueError, match='config.json|model.safetensors'):
        open_weights(shared_model(tmp_path / 'm', config=config))
    assert not everything(tmp_path / 'root')


@pytest.mark.parametrize('recipe', WRONG_RECIPE, ids=lambda c: str(c)[:40])
def test_a_shared_recipe_that_cannot_be_is_refused_before_anything_is_made(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'root'))
    (tmp_path / 'root').mkdir()
    with pytest.raises(ValueError, match='recipe.yaml is no recipe'):
        open_weights(shared_model(tmp_path / 'm', recipe=recipe))
    assert not everything(tmp_path / 'root')


def test_tensors_are_held_against_the_config_before_memory_is_taken(tmp_path, monkeypatch):
    import struct

    def written(header, size):  # a sparse file: its header claims what it likes, its numbers take no room
        text = json.dumps(header).encode()
        folder = shared_model(tmp_path / 'm')
        path = folder / 'model.safetensors'
        with open(path, 'wb') as f:
            f.write(struct.pack('<Q', len(text)) + text)
            f.truncate(8 + len(text) + size)
        return folder

    monkeypatch.setattr(mirage.models.model, 'read_weights', lambda path: pytest.fail('numbers were read'))
    whole = {k: dict(dtype='F32', shape=list(v.shape)) for k, v in Mirage(SHAPE).state_dict().items()}
    for header, size in (
        ({'x': dict(dtype='F32', shape=[10**9], data_offsets=[0, 4 * 10**9])}, 4 * 10**9),
        ({'x': dict(dtype='F32', shape=[10**9], data_offsets=[0, 4])}, 4),
        ({'head.weights': dict(dtype='F32', shape=[10**9, 0, 1], data_offsets=[0, 0])}, 0),
        ({'x': dict(dtype='I64', shape=[1], data_offsets=[0, 8])}, 8),
        ({'x': dict(dtype='F32', shape=[2**62, 0, 2**62], data_offsets=[0, 0])}, 0),
        ({}, 0),
        ({k: v | dict(data_offsets=[0, 4]) for k, v in whole.items()}, 4),
    ):
        with pytest.raises(ValueError, match='model.safetensors'):
            open_weights(written(header, size))


def after_five_seconds(page, home):  # the finished browser, with what became of the page
    line = [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', *ALONE, f'--user-data-dir={home / "profile"}']
    line += ['--virtual-time-budget=5000', '--dump-dom', page.as_uri()]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, env=os.environ | {'HOME': str(home)})


def test_names_of_a_shared_model_do_nothing_in_the_page(tmp_path):
    "Also where the check of names would be passed by: what is written into a page is escaped."
    rng = np.random.default_rng(0)

    class Short:
        seconds, size = 30.0, (9, 16)

        def iter_frames(self, times, size=None):
            return (np.zeros((*(size or self.size), 3), np.uint8) for _ in times)

    p = Prediction(
        EVIL,
        Short(),
        {
            EVIL: rng.standard_normal((20, 1000)).astype(np.float32),
            '__DATA__': rng.standard_normal((20, 1000)).astype(np.float32),
        },
        '__DATA____TITLE__' + EVIL,
        True,
    )
    text = page_html(p, tmp_path / 'page.html').read_text()
    assert (
        text.count('<script') == 1
        and text.count('</script') == 1
        and '<!--' not in text
        and '<img src=x' not in text
        and text.count('const D = {') == 1
    )
    if BROWSER:
        done = after_five_seconds(tmp_path / 'page.html', tmp_path)
        people = re.search('<select id="who">(.*?)</select>', done.stdout)[1].count('<option')
        assert ('<title>RAN' in done.stdout, people, ', BOLD at' in done.stdout) == (False, 3, True)


# ---- what it will take, and the difference of two


def test_what_a_prediction_takes_is_told_within_a_factor_of_two(given, tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    clip(tmp_path / 'clip.mkv', seconds=40.0, fps=25)
    clock = time.process_time  # whatever else the machine does
    job = prepare(tmp_path / 'clip.mkv', given / 'clip.srt', given / 'ours', name='told', device='cpu')
    told = forecast(job, clock=clock)
    assert not (tmp_path / 'results').exists() and not (tmp_path / 'features').exists()
    began = clock()
    p = compute(job)
    extracted = clock()
    drawer()(p, tmp_path)
    drawn = clock()
    assert 0.5 < (told['extraction, s'] + told['encoder, s']) / (extracted - began) < 2
    assert 0.5 < told['drawing, s'] / (drawn - extracted) < 2
    there = forecast(job, page=False, animation=False, clock=clock)
    assert there['in all, s'] - there['writing, s'] < 0.1  # it is there already


@pytest.mark.parametrize('seconds, drawn', [(2.0, True), (8.0, True), (8.0, False)])
def test_of_a_short_stimulus_what_is_written_counts_too(given, tmp_path, monkeypatch, seconds, drawn):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    clip(tmp_path / 'short.mkv', seconds=seconds)
    clock, how = time.process_time, dict(page=drawn, animation=drawn)
    job = prepare(tmp_path / 'short.mkv', None, given / 'ours', name='short', device='cpu')
    told = forecast(job, clock=clock, **how)
    began = clock()
    make(job, **how)
    took = clock() - began
    assert 0.5 * took < told['in all, s'] < 2 * took + 0.5  # what a process does once may come in the one or the other
    assert told['writing, s'] > 0 and np.isclose(told.drop('in all, s').sum(), told['in all, s'])


def test_the_difference_of_two_predictions_is_a_page_and_says_what_differs(given, tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    how, people = dict(weights=open_weights(given / 'ours'), device='cpu'), 'sub-01,sub-02'
    silent = prepare(given / 'clip.mkv', None, name='silent', **how)
    assert 'no words: the text stream is silence' in silent.summary
    make(silent, animation=False)
    assert 'no words' in (run_path('movies', 'predict', 'silent') / 'page.html').read_text()
    job = prepare(given / 'clip.mkv', given / 'clip.srt', name='spoken', subjects=people, **how)
    spoken, run, _ = make(job, page=False, animation=False)
    page = write_difference(spoken, 'silent').read_text()
    assert 'silent: no words' in page and 'difference of predicted BOLD' in page and not unfinished(run.path)
    d, nothing = subtract(spoken, 'silent'), subtract(spoken, 'spoken')
    theirs = np.load(run_path('movies', 'predict', 'silent') / 'bold_sub-02.npy')
    assert list(d.bold) == ['sub-01', 'sub-02'] and np.array_equal(d.bold['sub-02'], spoken.bold['sub-02'] - theirs)
    assert d.bold['sub-02'].any() and not np.stack(list(nothing.bold.values())).any()
    with pytest.raises(FileNotFoundError, match='there is no .*nowhere'):
        subtract(spoken, 'nowhere')
    with pytest.raises(ValueError, match='other subjects'):
        subtract(replace(spoken, bold={'somebody': spoken.bold['sub-01']}), 'silent')
    with pytest.raises(ValueError, match='other TR'):
        subtract(replace(spoken, tr=2.0), 'silent')
