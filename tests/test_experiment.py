"""Experiments on predictions: timelines as somebody writes them, planted categories that come back and none that were
not planted, two cuts of a movie."""

from dataclasses import replace

import numpy as np, pandas as pd, pytest, soundfile
from nilearn.glm.first_level import make_first_level_design_matrix
from PIL import Image

from mirage.core import DELAY, PARCELS
from mirage.data.parcels import Prediction
from mirage.data.stimuli import RATE, Movie
from mirage.data.timeline import counterbalanced, open_shown, open_timeline
from mirage.evaluation.statistics import slow_noise
from mirage.prediction.experiment import answers, arrange, by_region, compare_cuts, contrast, of_networks, per_clip
from mirage.prediction.experiment import spread_of_places
from mirage.prediction.predict import predict, prepare
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


@pytest.mark.parametrize(
    'rows, says',
    [
        ('low0.wav,low\nlow1.wav,low\n', 'a contrast needs two'),
        ('low0.wav,low\nhigh0.wav,high\n', 'condition low has one clip'),
        ('low0.wav,low\nlow0.wav,low\nhigh0.wav,high\nhigh1.wav,high\n', 'low0.wav twice'),
    ],
)
def test_a_design_that_shows_nothing_is_refused(sounds, rows, says):
    (sounds / 'design.csv').write_text('clip,condition\n' + rows)
    with pytest.raises(ValueError, match=says):
        arrange(sounds / 'design.csv', sounds)


def test_an_odd_number_of_showings_is_refused(sounds):
    with pytest.raises(ValueError, match='an even number'):
        counterbalanced(pd.read_csv(sounds / 'clips.csv'), repeats=3)


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
    regions, networks = by_region(found), of_networks(found)
    assert regions.parcels.sum() == networks.parcels.sum() == PARCELS
    assert regions.above.sum() == networks.above.sum() == ((found.q < 0.05) & (found.effect > 0)).sum()
    assert not regions.region.str.contains('_').any()


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
