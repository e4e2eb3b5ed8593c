"""Experiments on predictions: timelines as somebody writes them, planted categories that come back and none that were
not planted, two cuts of a movie."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest, soundfile
from nilearn.glm.first_level import make_first_level_design_matrix
from PIL import Image
from scipy.stats import ttest_1samp

from mirage.core import DELAY, PARCELS, open_run, root
from mirage.data.localizer import LOCALIZERS, pseudowords, scrambled, speak, write_localizer
from mirage.data.movies import MovieError
from mirage.data.parcels import Atlas, Prediction, division_of, packaged_atlas
from mirage.data.stimuli import RATE, Movie
from mirage.data.timeline import counterbalanced, open_shown, open_timeline
from mirage.evaluation.statistics import slow_noise
from mirage.prediction.experiment import answers, arrange, by_region, compare_cuts, contrast, doubts_of, of_networks
from mirage.prediction.experiment import over_clips_and_subjects, per_clip, showing_matrix, sides, spread_of_places
from mirage.prediction.predict import predict, prepare
from owncohorts import execute
from test_media import parts, place as _place  # noqa: F401 (fixtures)
from test_predict import SAID, clip


@pytest.fixture
def sounds(tmp_path):
    "Six short sounds of two kinds, and a table of them."
    rows = []
    for k in range(3):
        for kind, tone in (('low', 200), ('high', 900)):
            wave = 0.3 * np.sin(2 * np.pi * (tone + 30 * k) * np.arange(2 * RATE) / RATE)
            soundfile.write(tmp_path / f'{kind}{k}.wav', wave, RATE)
            rows.append((f'{kind}{k}.wav', kind))
    pd.DataFrame(rows, columns=['clip', 'condition']).to_csv(tmp_path / 'clips.csv', index=False)
    return tmp_path


# ---- timelines


def test_every_clip_is_shown_as_often_and_at_the_same_mean_place(sounds):
    shown = open_timeline(arrange(sounds / 'clips.csv', sounds, repeats=4, rest=3.0, seed=3))
    table = shown.table[shown.table.condition != 'rest'].reset_index(drop=True)
    at = table.assign(place=table.index).groupby('clip').place.mean()
    assert (table['clip'].value_counts() == 4).all() and np.allclose(at, at.iloc[0])
    assert shown.table.lasts.iloc[-1] == 12 and shown.streams == ('audio',)
    other = open_timeline(arrange(sounds / 'clips.csv', sounds, repeats=4, rest=3.0, seed=4))
    assert list(other.table['clip']) != list(table['clip']) and other.source != shown.source


def test_a_timeline_sounds_like_its_clips_where_they_stand_and_like_nothing_between(sounds):
    (sounds / 't.csv').write_text('clip,condition,onset,duration\nlow0.wav,low,1,\nhigh0.wav,high,5,1\n')
    shown = open_shown(sounds / 't.csv')
    wave, low = shown.sound(), soundfile.read(sounds / 'low0.wav', dtype='float32')[0]
    assert shown.seconds == 6 and np.array_equal(wave[RATE : 3 * RATE], low) and not wave[3 * RATE : 5 * RATE].any()
    assert np.abs(wave[5 * RATE :]).max() > 0.2


def test_movies_in_a_timeline_keep_their_pictures_sound_and_words(tmp_path):
    movie = Movie.open(clip(tmp_path / 'clip.mkv', 6.0))
    (tmp_path / 'clip.srt').write_text(f'1\n00:00:02,000 --> 00:00:05,000\n{SAID}\n')
    (tmp_path / 't.csv').write_text(
        'clip,condition,duration,transcript\n,rest,2,\nclip.mkv,a,4,clip.srt\n,rest,2,\nclip.mkv,b,,clip.srt\n'
    )
    shown = open_shown(tmp_path / 't.csv')
    assert shown.streams == ('text', 'audio', 'vision') and shown.size == movie.size
    frames, own = shown.frames([1.0, 3.0, 7.0, 9.0]), movie.frames([1.0])
    assert not frames[0].any() and not frames[2].any() and np.array_equal(frames[1], own[0])
    assert np.array_equal(frames[3], own[0])
    words = movie.__class__.open(tmp_path / 'clip.mkv', tmp_path / 'clip.srt').words
    first = shown.words[shown.words.offset <= 6]
    assert np.allclose(first.onset.iloc[:4], words.onset.iloc[:4] + 2) and len(shown.words) > len(words)


FAULTS = {
    'overlap': ('clip,condition,onset\nlow0.wav,low,0\nhigh0.wav,high,1\n', 'line 3: begins at 1 s, but what is'),
    'missing clip': ('clip,condition\nlow9.wav,low\n', 'line 2: there is no clip'),
    'rest without a length': ('clip,condition,duration\n,rest,\nlow0.wav,low,\n', 'line 2: a rest needs a duration'),
    'no clip and no rest': ('clip,condition,duration\n,low,3\nlow0.wav,low,\n', 'line 2: condition .low. without'),
    'longer than it is': ('clip,condition,duration\nlow0.wav,low,9\n', 'line 2: duration 9 s, but low0.wav ends'),
    'unknown column': ('clip,condition,colour\nlow0.wav,low,red\n', 'has the columns clip, condition, colour'),
    'no clips': ('clip,condition,duration\n,rest,3\n', 'lists no clips'),
    'other streams': ('clip,condition\nlow0.wav,low\nred.csv,high\n', 'low0.wav has audio, red.csv has vision'),
}


@pytest.mark.parametrize('kind', FAULTS)
def test_a_timeline_that_cannot_be_is_refused_by_its_line(sounds, kind):
    Image.new('RGB', (32, 32), 'red').save(sounds / 'red.png')
    (sounds / 'red.csv').write_text('file,onset,duration\nred.png,0,2\n')
    text, says = FAULTS[kind]
    (sounds / 'wrong.csv').write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        open_shown(sounds / 'wrong.csv')


PAIRS = 'low0.wav,low\nlow1.wav,low\nhigh0.wav,high\nhigh1.wav,high\n'
DESIGNS = {
    'a clip that is not there': ('clip,condition\nlow0.wav,low\nlow9.wav,low\n', 'line 3: there is no clip'),
    'one condition': ('clip,condition\nlow0.wav,low\nlow1.wav,low\n', 'has one condition, low; a contrast needs two'),
    'one clip a condition': ('clip,condition\nlow0.wav,low\nhigh0.wav,high\n', 'condition low has one clip'),
    'a clip twice': ('clip,condition\n' + PAIRS + './low0.wav,low\n', 'line 6: has ./low0.wav twice, as line 2 does'),
    'rests of its own': ('clip,condition\n' + PAIRS + ',rest\n', 'line 6: no clip; rests are put between clips'),
    'a clip of no length': ('clip,condition\n' + PAIRS + 'empty.wav,low\n', 'line 6: .*empty.wav'),
    'a clip that is none': ('clip,condition\n' + PAIRS + 'words.wav,low\n', 'line 6: .*words.wav'),
    'a duration of nothing': ('clip,condition,duration\nlow0.wav,low,0\n', "line 2: duration is '0', expected seconds"),
    'a duration as text': ('clip,condition,duration\nlow0.wav,low,long\n', "line 2: duration is 'long', expected"),
    'an onset as text': ('clip,condition,onset\nlow0.wav,low,soon\n', "line 2: onset is 'soon', expected seconds"),
    'an onset before zero': ('clip,condition,onset\nlow0.wav,low,-1\n', "line 2: onset is '-1', expected seconds"),
    'onsets that overlap': (
        'clip,condition,onset\nlow0.wav,low,0\nlow1.wav,low,1\n',
        'line 3: begins at 1 s, but what',
    ),
    'onsets and one clip for all': (
        'clip,condition,onset\nlow0.wav,a,0\nlow1.wav,a,9\nlow0.wav,b,20\nlow1.wav,b,30\n',
        'low0.wav stands under a and b; a clip has one condition',
    ),
    'a condition with a comma': ('clip,condition\nlow0.wav,"low,loud"\n', 'line 2: condition is .low,loud.'),
    'a condition that looks like another': ('clip,condition\nlow0.wav,l\u043ew\n', 'looks like another name'),
    'no condition': ('clip,condition\nlow0.wav,\n', 'line 2: condition is '),
    'no column of conditions': ('clip,kind\nlow0.wav,low\n', 'has the columns clip, kind; expected clip, condition'),
    'a column twice': ('clip,condition,condition\nlow0.wav,low,low\n', "two columns called 'condition'"),
    'a header alone': ('clip,condition\n', 'lists no clips'),
    'nothing': ('', 'has the columns'),
}


@pytest.mark.parametrize('kind', DESIGNS)
def test_a_design_that_cannot_be_is_refused_by_its_own_name_and_line_before_anything_is_written(sounds, kind):
    text, says = DESIGNS[kind]
    soundfile.write(sounds / 'empty.wav', np.zeros(0), RATE)
    (sounds / 'words.wav').write_text('once upon a time')
    (sounds / 'design.csv').write_text(text)
    before = sorted(sounds.rglob('*'))
    with pytest.raises((ValueError, FileNotFoundError, MovieError), match=f'design.csv.*{says}'):
        arrange(sounds / 'design.csv', sounds / 'out')
    assert sorted(sounds.rglob('*')) == before


def test_clips_of_any_name_and_length_are_arranged(sounds):
    "Commas, spaces, other letters; lengths that are no multiple of the repetition time; a table that Excel wrote."
    names = 'ä, b.wav', 'Über das Meer.wav', 'x;y.wav', 'ночь.wav'
    for name, seconds in zip(names, (2.3, 1.0, 0.77, 3.01)):
        soundfile.write(sounds / name, np.sin(np.arange(int(seconds * RATE)) / 9), RATE)
    rows = [f'"{name}";{condition}' for name, condition in zip(names, ('laut', 'laut', 'leise', 'leise'))]
    (sounds / 'design.csv').write_text('\ufeffclip;condition\n' + '\n'.join(rows) + '\n', encoding='utf-8')
    shown = open_timeline(arrange(sounds / 'design.csv', sounds, rest=1.49))
    table = shown.table[shown.table.condition != 'rest']
    assert {Path(c).name for c in table['clip']} == set(names) and set(table.condition) == {'laut', 'leise'}
    assert np.allclose(sorted(table.lasts)[::2], [0.77, 1.0, 2.3, 3.01], atol=0.01)
    matrix = showing_matrix(1.49 * np.arange(int(shown.seconds / 1.49)), shown.table)
    assert matrix.shape[1] == 9 and np.isfinite(matrix.to_numpy()).all()


def test_an_odd_number_of_showings_is_refused(sounds):
    with pytest.raises(ValueError, match='an even number'):
        counterbalanced(pd.read_csv(sounds / 'clips.csv'), repeats=3)


@pytest.mark.parametrize(
    'given, says',
    [
        (('a', 'x'), 'x cannot be contrasted; conditions are a, b, c'),
        (('a,b', 'b'), 'b stands on both sides'),
        (('a', ''), 'say which are contrasted'),
        ((',', 'b'), 'names no condition'),
    ],
)
def test_a_contrast_of_conditions_that_are_not_there_or_on_both_sides_is_refused(given, says):
    with pytest.raises(ValueError, match=says):
        sides(['a', 'b', 'c'], *given)


def test_conditions_at_different_times_and_an_end_too_soon_are_reported(sounds):
    rows = [f'{kind}{k}.wav,{kind},{8 * (k + 3 * (kind == "high"))}' for kind in ('low', 'high') for k in range(3)]
    (sounds / 'blocks.csv').write_text('clip,condition,onset\n' + '\n'.join(rows) + '\n')
    blocks = open_timeline(arrange(sounds / 'blocks.csv', sounds)).table
    drift, end = doubts_of(blocks, ['low'], ['high'])
    assert 'low stands at 8 s on average, high at 32 s' in drift and 'ends 0 s after its last clip' in end
    assert doubts_of(open_timeline(arrange(sounds / 'clips.csv', sounds)).table, ['low'], ['high']) == []


# ---- localizers


@pytest.mark.parametrize('kind', LOCALIZERS)
def test_a_localizer_is_a_design_like_any_other(tmp_path, kind):
    design, synthetic = write_localizer(kind, tmp_path / 'clips', clips=2, seconds=2.0, voice='simulated')
    shown = open_timeline(arrange(design, tmp_path))
    table = shown.table[shown.table.condition != 'rest']
    assert tuple(pd.read_csv(design).condition[:2]) == LOCALIZERS[kind] and synthetic
    assert shown.streams == (dict(speech='audio', words='text', motion='vision')[kind],)
    assert (table['clip'].value_counts() == 2).all() and np.allclose(table.lasts, 2.0, atol=0.05)
    again, _ = write_localizer(kind, tmp_path / 'again', clips=2, seconds=2.0, voice='simulated')
    for file in design.parent.iterdir():
        assert file.read_bytes() == (again.parent / file.name).read_bytes(), file.name


def test_scrambled_speech_keeps_its_spectrum_and_pseudo_words_keep_their_syllables():
    rng = np.random.default_rng(3)
    for samples in (RATE, RATE + 1):
        wave = rng.standard_normal(samples).cumsum()
        wave *= 0.05 / np.sqrt(np.mean(wave**2))
        other = scrambled(wave, rng)
        assert np.allclose(np.abs(np.fft.rfft(wave)), np.abs(np.fft.rfft(other)), rtol=2e-2, atol=0.05)
        assert abs(np.corrcoef(wave - wave.mean(), other - other.mean())[0, 1]) < 0.6
    with pytest.raises(ValueError, match='make no other pairs'):
        pseudowords(['gar-den', 'mo-ment'], np.random.default_rng(0))  # mo-den, but gar-ment is a word


def synthesiser(folder, monkeypatch, script):
    "A program called espeak-ng, first in the path."
    path = folder / 'bin' / 'espeak-ng'
    path.parent.mkdir()
    path.write_text('#!/bin/sh\n' + script)
    path.chmod(0o755)
    monkeypatch.setenv('PATH', f'{path.parent}:/usr/bin:/bin')


def test_where_espeak_is_installed_it_speaks_at_the_rate_of_everything_else(tmp_path, monkeypatch):
    soundfile.write(tmp_path / 'said.wav', 0.2 * np.sin(np.arange(22050) / 5), 22050)
    synthesiser(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked; cp {tmp_path}/said.wav "$4"\n')
    wave = speak('the river takes a stone', 'en-us+f2')
    assert len(wave) == RATE and '-v en-us+f2' in (tmp_path / 'asked').read_text()
    assert (tmp_path / 'asked').read_text().strip().endswith('-- the river takes a stone')


def test_a_voice_that_does_not_speak_or_is_not_there_is_an_error(tmp_path, monkeypatch):
    synthesiser(tmp_path, monkeypatch, 'echo no such voice >&2; exit 1\n')
    with pytest.raises(RuntimeError, match='did not speak with the voice xx: no such voice'):
        speak('hello', 'xx')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(FileNotFoundError, match='espeak-ng is not installed'):
        write_localizer('speech', tmp_path / 'clips', clips=2, voice='espeak-ng')
    with pytest.raises(ValueError, match='localizer is .faces.; there are speech, words, motion'):
        write_localizer('faces', tmp_path / 'clips')


# ---- planted categories


def small_cohort(effect, seed, people=3, clips=10, planted=100):
    "Predicted BOLD of a timeline: known parcels answer to the category, every clip has answers of its own, and noise."
    rng = np.random.default_rng(seed)
    kinds = np.repeat(['a', 'b'], clips)
    table = pd.DataFrame(dict(clip=[f'{c}{k}' for k, c in enumerate(kinds)], condition=kinds))
    table['duration'] = '5'
    shown = counterbalanced(table, repeats=2, rest=7.0, seed=seed)
    shown['lasts'] = shown.duration.astype(float)
    shown['onset'] = shown.lasts.cumsum() - shown.lasts
    times = 1.49 * np.arange(int(shown.lasts.sum() / 1.49))
    real = shown[shown.condition != 'rest'].reset_index(drop=True)
    events = pd.DataFrame(dict(trial_type=real['clip'], onset=real.onset, duration=real.lasts))
    boxes = make_first_level_design_matrix(times, events, drift_model=None)[list(table['clip'])].to_numpy()
    where = rng.permutation(PARCELS)[:planted]
    own = rng.standard_normal((len(table), PARCELS))
    own[:clips, where] += effect
    bold = {}
    for k in range(people):
        mine = own + 0.3 * rng.standard_normal(own.shape)
        bold[f'sub-{k:02d}'] = boxes @ mine + 0.3 * slow_noise(rng, len(times), PARCELS)
    return Prediction('planted', None, bold, 'planted', True), shown, where


def found_in(p, table):
    mean = np.mean(list(answers(p, table).values()), 0)
    clips, beta = per_clip(mean, table)
    return contrast(beta, clips.condition, ['a'], ['b'], draws=2000)


def test_a_planted_category_comes_back_in_its_parcels_and_none_where_none_was_planted():
    p, table, where = small_cohort(2.5, seed=0)
    hit = found_in(p, table).q.to_numpy() < 0.05
    others = np.setdiff1d(np.arange(PARCELS), where)
    assert hit[where].mean() >= 0.8 and hit[others].mean() < 0.05 and hit[others].sum() <= 0.1 * hit.sum()
    control, table, _ = small_cohort(0.0, seed=1)
    assert (found_in(control, table).q < 0.05).sum() == 0


def two_errors(rng, clips=10):
    """Four subjects' answers to clips: planted in 100 parcels, a leak of each subject's own in 100, one clip that is
    unlike all others in 100."""
    table = pd.DataFrame(dict(clip=np.arange(2 * clips).astype(str), condition=np.repeat(['a', 'b'], clips)))
    own = 0.3 * rng.standard_normal((2 * clips, 300))
    own[:clips, :100] += 1.2
    own[0, 200:] += 9.0
    beta = {}
    for k in range(4):
        beta[f'sub-{k}'] = own + 0.05 * rng.standard_normal(own.shape)
        beta[f'sub-{k}'][:clips, 100:200] += 1.0 * rng.standard_normal(100)
    return beta, table


def test_a_difference_that_holds_over_clips_but_not_over_subjects_is_not_found_nor_the_other_way_round():
    beta, table = two_errors(np.random.default_rng(0))
    found = over_clips_and_subjects(beta, table, ['a'], ['b'], draws=2000)
    hit = found.q.to_numpy() < 0.05
    assert hit[:100].mean() >= 0.8 and hit[100:200].mean() < 0.15 and hit[200:].mean() < 0.05
    assert (found.p_clips[100:200] < 0.01).mean() > 0.3 and (found.p_subjects[200:] < 0.01).mean() > 0.3
    assert (found.p == found[['p_clips', 'p_subjects']].max(axis=1)).all()


def test_over_subjects_the_difference_is_tested_as_scipy_does_and_two_subjects_are_too_few():
    beta, table = two_errors(np.random.default_rng(1))
    found = over_clips_and_subjects(beta, table, ['a'], ['b'], draws=500)
    effects = np.stack([y[:10].mean(0) - y[10:].mean(0) for y in beta.values()])
    assert np.allclose(found.p_subjects, ttest_1samp(effects, 0).pvalue)
    few = over_clips_and_subjects(dict(list(beta.items())[:2]), table, ['a'], ['b'], draws=500)
    assert few.p_subjects.isna().all() and (few.p == few.p_clips).all()


def test_the_average_person_is_no_further_subject_over_whom_a_difference_is_tested():
    beta, table = two_errors(np.random.default_rng(2))
    own = over_clips_and_subjects(beta, table, ['a'], ['b'], draws=50)
    more = beta | dict(average=3 * np.mean(list(beta.values()), 0))
    assert over_clips_and_subjects(more, table, ['a'], ['b'], draws=50).equals(own)
    alone = over_clips_and_subjects(dict(average=more['average']), table, ['a'], ['b'], draws=50)
    assert np.allclose(alone.effect, 3 * own.effect) and alone.p_subjects.isna().all()


def test_who_was_not_measured_in_a_parcel_does_not_count_there():
    rng = np.random.default_rng(3)
    table = pd.DataFrame(dict(clip=np.arange(12).astype(str), condition=np.repeat(['a', 'b'], 6)))
    beta = {s: rng.standard_normal((12, 3)) + np.repeat([2.0, 0.0], 6)[:, None] for s in 'pqrs'}
    beta['q'][:, 1] = 0
    for s in 'pq':
        beta[s][:, 2] = 0
    found = over_clips_and_subjects(beta, table, ['a'], ['b'], draws=50)
    three = [beta[s][:6, 1].mean() - beta[s][6:, 1].mean() for s in 'prs']
    assert found.effect[1] == pytest.approx(np.mean(three))
    assert found.p_subjects[1] == pytest.approx(ttest_1samp(three, 0).pvalue) and found.p_subjects[2] == 1


@pytest.mark.long
def test_over_many_control_cohorts_hardly_any_shows_a_parcel():
    shown = [int((found_in(*small_cohort(0.0, seed)[:2]).q < 0.05).sum()) for seed in range(20)]
    assert sum(n > 0 for n in shown) <= 4 and max(shown) < 0.05 * PARCELS


def test_the_contrast_does_not_depend_on_the_order_of_conditions_but_for_its_sign():
    p, table, _ = small_cohort(2.0, seed=2, people=1, clips=4)
    clips, beta = per_clip(answers(p, table)['sub-00'], table)
    there, back = (contrast(beta, clips.condition, [a], [b]) for a, b in ('ab', 'ba'))
    assert np.allclose(there.effect, -back.effect) and np.allclose(there.p, back.p) and there.p.min() >= 2 / 70 - 1e-12


def test_regions_and_networks_add_up_to_the_parcels():
    p, table, _ = small_cohort(2.5, seed=3, people=1)
    found = found_in(p, table)
    regions, networks = by_region(found), of_networks(found, division_of(packaged_atlas().table, PARCELS))
    assert regions.parcels.sum() == networks.parcels.sum() == PARCELS
    assert regions.above.sum() == networks.above.sum() == ((found.q < 0.05) & (found.effect > 0)).sum()
    assert not regions.region.str.contains('_').any()


def test_networks_of_another_atlas_or_what_stands_in_their_place():
    found = pd.DataFrame(dict(parcel=range(1, 5), effect=[1.0, 3, -2, 5], q=[0.01, 0.2, 0.01, 0.01]))
    table = pd.DataFrame(dict(name=list('abcd'), network=['x y', 'x y', '', 'z'], hemi=list('LLRR')))
    networks = of_networks(found, division_of(table, 4))
    assert networks.values.tolist() == [['x y', 2.0, 1, 0, 2], ['none', -2.0, 0, 1, 1], ['z', 5.0, 1, 0, 1]]
    sides = of_networks(found, division_of(table.assign(network=''), 4))
    assert sides.hemi.tolist() == ['L', 'R'] and sides.effect.tolist() == [2.0, 1.5]
    alone = of_networks(found, division_of(None, 4))
    assert alone.group.tolist() == ['all parcels'] and alone.parcels.sum() == 4
    table.insert(0, 'label', range(1, 5))
    atlas = Atlas('own', 'volume', table, {'volume': np.arange(5).reshape(5, 1, 1)}, np.eye(4))
    bold = {s: np.tile(k * np.arange(1.0, 5), (9, 1)) for k, s in enumerate(('sub-01', 'sub-02'), 1)}
    movie = SimpleNamespace(seconds=13.0, streams=('audio',))
    p = Prediction('one', movie, bold, 'planted', True, atlas=None, places=atlas)
    twice = replace(p, bold={s: 2 * y for s, y in bold.items()})
    over = compare_cuts(twice, p).table.groupby('network', sort=False).difference.mean()
    assert over.to_dict() == {'x y': 2.25, 'none': 4.5, 'z': 6.0}


def test_showings_that_cannot_be_told_apart_are_refused():
    p, table, _ = small_cohort(1.0, seed=0, people=1, clips=2)
    table = table.assign(onset=table.onset * 0.01, lasts=table.lasts * 0.01)
    with pytest.raises(ValueError, match='cannot be told apart'):
        answers(p, table)


def test_one_clip_at_twenty_places_has_the_spread_that_was_planted():
    lasts = np.tile([6.0, 4.0], 20)
    table = pd.DataFrame(
        dict(clip=['', 'a'] * 20, condition=['rest', 'a'] * 20, lasts=lasts, onset=lasts.cumsum() - lasts)
    )
    beta = 1 + 0.1 * np.random.default_rng(0).standard_normal((20, 300))
    assert abs(spread_of_places(beta, table).spread[0] - 0.1) < 0.01


def test_a_design_goes_through_the_tiny_model(parts, sounds):  # noqa: F811
    timeline = arrange(sounds / 'clips.csv', sounds, repeats=2, rest=3.0)
    job = prepare(timeline, None, parts / 'tower', 'sub-01,sub-02', device='cpu')
    p = predict(timeline, None, parts / 'tower', 'sub-01,sub-02', device='cpu')
    assert p.streams == ('audio',) and 'text and vision absent' in job.absent
    beta = answers(p, job.movie.table)
    assert beta['sub-01'].shape == (12, 1000) and np.isfinite(beta['sub-02']).all()


@pytest.mark.parametrize(
    'asked, says',
    [
        (dict(positive='low', negative='hgih'), 'hgih cannot be contrasted; conditions are low, high'),
        (dict(positive='low', negative='low'), 'low stands on both sides'),
        (dict(hrf='canonical'), "hrf is 'canonical'; it may be glover or spm"),
        (dict(repeats=3), 'repeats is 3: an even number'),
        (dict(localizer='faces', design=''), "localizer is 'faces'; there are speech, words, motion"),
        (dict(localizer='speech'), 'give one of: design'),
        (
            dict(localizer='motion', design='', positive='a', negative='b'),
            'a cannot be contrasted; conditions are moving',
        ),
    ],
)
def test_the_chapter_refuses_what_cannot_be_asked_before_it_predicts_or_writes(parts, sounds, asked, says):  # noqa: F811
    given = dict(design=str(sounds / 'clips.csv'), weights=str(parts / 'tower'), device='cpu') | asked
    with pytest.raises(ValueError, match=says):
        execute('09f_experiment', **given)
    assert not list(root().rglob('*'))


@pytest.mark.parametrize('kind', ['words', 'motion'])
def test_a_localizer_goes_through_the_chapter_and_says_what_is_synthetic(parts, kind):  # noqa: F811
    space = execute('09f_experiment', localizer=kind, weights=str(parts / 'tower'), subjects='sub-01', draws=100)
    run = open_run(space['path'])
    assert {'contrast.csv', 'regions.csv', 'places.csv', 'figure.png', 'page.html'} <= {
        f.name for f in run.path.iterdir()
    }
    assert run.metrics['clips'] == [2, 2] and run.metrics['notes'][-1].endswith(
        dict(words='pairs', motion='drawn')[kind]
    )
    assert (root() / 'data/localizers' / f'{kind}-s0' / 'clips.csv').is_file()
    assert (space['plus'], space['minus']) == ([LOCALIZERS[kind][0]], [LOCALIZERS[kind][1]])  # whatever is shown first


@pytest.mark.long
def test_what_was_planted_is_found_through_a_trained_model_and_nothing_in_the_control(monkeypatch):
    "The whole way: movies, features, training, new clips, contrast; four minutes of one core."
    monkeypatch.delenv('IN_TEST')
    space = execute('figures/experiment')
    verdicts = {claim.paper: claim.verdict for claim in space['claims']}
    assert len(verdicts) == 7 and set(verdicts.values()) == {'holds'}, verdicts


# ---- two cuts


@pytest.fixture
def cuts(tmp_path):
    "Two predictions of pictures with a black stretch from 12 to 16 s."
    for name, colour in (('grey', (128,) * 3), ('white', (250,) * 3)):
        Image.new('RGB', (32, 18), colour).save(tmp_path / f'{name}.png')
    (tmp_path / 'cut.csv').write_text('file,onset,duration\ngrey.png,0,12\nwhite.png,16,24\n')
    movie, rng = open_shown(tmp_path / 'cut.csv'), np.random.default_rng(0)
    bold = []
    for _ in 'ab':
        bold.append({f'sub-0{k}': rng.standard_normal((27, PARCELS)) for k in range(3)})
    return [Prediction(n, movie, y, 'w', True, streams=('vision',)) for n, y in zip('ab', bold)]


def test_a_cut_compared_with_itself_is_zero_everywhere_and_reversed_is_the_negative(cuts):
    a, b = cuts
    itself, there, back = compare_cuts(a, a), compare_cuts(a, b), compare_cuts(b, a)
    assert (itself.table[['difference', 'low', 'high']] == 0).all(axis=None)
    assert all((y == 0).all() for y in itself.difference.bold.values())
    assert (there.table.difference == -back.table.difference).all() and there.table.difference.abs().max() > 0
    assert np.allclose(there.table.low, -back.table.high) and (there.table.low <= there.table.difference).all()
    assert all((there.difference.bold[s] == -back.difference.bold[s]).all() for s in a.bold)


def test_cuts_to_black_are_flagged_and_nothing_else(cuts):
    table = compare_cuts(*cuts).table.query('network == "Vis"').reset_index(drop=True)
    black = table.movie[table.black]
    assert black.min() >= 12 - 1.49 and black.max() <= 16 + 5 and table.black.sum() >= 4
    assert not table.black[table.movie.between(0, 10)].any() and not table.black[table.movie > 22].any()


def test_cuts_of_other_weights_are_refused_and_of_other_lengths_reported(cuts):
    a, b = cuts
    with pytest.raises(ValueError, match='other weights or subjects'):
        compare_cuts(a, replace(b, source='others'))
    with pytest.raises(ValueError, match='a has vision, b audio'):
        compare_cuts(a, replace(b, streams=('audio',)))
    short = replace(b, bold={s: y[:20] for s, y in b.bold.items()})
    compared = compare_cuts(a, short)
    assert 'the first 20 are compared' in compared.notes[0] and len(compared.difference.times) == 20
    assert compared.difference.movie_times[0] == -DELAY
