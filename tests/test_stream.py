"Prediction while a stimulus plays: what was shown never changes, whatever comes."

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest, torch

from mirage.core import Contexts, run_path, unfinished
from mirage.data.stimuli import Movie, Transcript
from mirage.features.backbones import load_backbone
from mirage.models.model import Mirage
from mirage.prediction.predict import compute, prepare
from mirage.prediction.stream import Arriving, mean_r, real_time_factors, stream, streamed, write_stream
from test_predict import RECIPE, SHAPE, SRT, clip, of_slabs  # noqa: F401


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    d = tmp_path_factory.mktemp('given')
    clip(d / 'clip.mkv', seconds=24.0, fps=5)
    (d / 'clip.srt').write_text(SRT)
    torch.manual_seed(0)
    Mirage(SHAPE).save_pretrained(d / 'ours')
    RECIPE.write(d / 'ours' / 'recipe.yaml')
    return d


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))


def job_of(given: Path, video='clip.mkv', **how):
    return prepare(given / video, given / 'clip.srt', given / 'ours', 'sub-01,sub-03', device='cpu', **how)


class Otherwise(Movie):
    "The same until 12 seconds, and then another movie."

    def iter_frames(self, times, size=None):
        for t, picture in zip(times, super().iter_frames(times, size)):
            yield picture if t <= 12 else 255 - picture

    def sound(self):
        wave = super().sound()
        wave[12 * 16_000 :] *= -0.3
        return wave


@pytest.mark.parametrize('look_ahead', [0.0, 3.0])
def test_what_was_shown_never_changes_whatever_comes_and_however_much(given, look_ahead):
    job = job_of(given)
    other = replace(job, movie=Otherwise(**{k: getattr(job.movie, k) for k in Movie.__dataclass_fields__}))
    longer, changed, shorter = (
        list(stream(j, chunk=4.0, look_ahead=look_ahead))
        for j in (job, other, replace(job, movie=replace(job.movie, seconds=16.0)))
    )
    assert [p.arrived for p in longer] == [4, 8, 12, 16, 20, 24] and longer[0].bold
    for a, b in [*zip(longer[:3], changed), *zip(longer[:3], shorter)]:
        n = len(b.bold['sub-01'])  # of a movie that ends sooner, those that belong to it
        assert a.first == b.first and n > 1 and all(np.array_equal(a.bold[s][:n], b.bold[s]) for s in job.subjects)
    assert not np.array_equal(longer[4].bold['sub-01'], changed[4].bold['sub-01'])  # what comes is seen then
    for part in longer[:4]:
        last = part.first + len(part.bold['sub-01']) - 1
        assert last * 1.49 - 4.47 + look_ahead <= part.arrived < (last + 1) * 1.49 - 4.47 + look_ahead


def test_what_is_streamed_bears_names_and_places_of_its_atlas(given, of_slabs):  # noqa: F811
    job = prepare(given / 'clip.mkv', given / 'clip.srt', of_slabs, 'sub-01', device='cpu')
    p, table = streamed(job, chunk=24.0)
    assert replace(p, bold={}) == replace(compute(job), bold={}) and p.places is job.weights.places
    run = write_stream(job, p, table, settings={})
    assert pd.read_csv(run.path / 'parcels.csv').net.tolist() == ['deep', 'wide'] * 6


def test_what_arrives_at_once_is_predicted_as_the_whole_and_pieces_nearly_so(given):
    job = job_of(given)
    offline = compute(job)
    whole, table = streamed(job, chunk=24.0, look_ahead=0.0)
    assert len(table) == 1 and all(np.allclose(whole.bold[s], offline.bold[s], atol=1e-6) for s in job.subjects)
    pieces, table = streamed(job, chunk=7.0, look_ahead=1.0)
    assert real_time_factors(table).notna().tolist() == [True, True, True, False]  # of 24 s, three are left
    pieces, table = streamed(job, chunk=3.0, look_ahead=1.0)
    assert real_time_factors(table).notna().all()
    assert {s: y.shape for s, y in pieces.bold.items()} == {s: y.shape for s, y in offline.bold.items()}
    assert mean_r(offline.bold, offline.bold) == pytest.approx(1) and 0 < mean_r(pieces.bold, offline.bold) < 1
    run = write_stream(job, pieces, table, settings=dict(chunk=3.0, look_ahead=1.0))
    assert not unfinished(run_path('movies', 'stream', job.name)) and run.metrics['real_time_factor'] > 0


def test_words_and_sound_alone_can_be_streamed(given):
    for streams in ('audio', 'text'):
        job = job_of(given, streams=streams)
        p, _ = streamed(job, chunk=8.0, look_ahead=2.0)
        assert p.streams == (streams,) and p.bold['sub-01'].shape == (17, 1000) and np.isfinite(p.bold['sub-01']).all()


@pytest.mark.parametrize(
    'pace, says',
    [
        (dict(chunk=0.3), 'chunk, seconds,'),
        (dict(chunk=4.2), 'reads 0.5 s at a time'),
        (dict(look_ahead=-1.0), 'look_ahead, seconds,'),
        (dict(look_ahead=20.0), 'more than half of the window of 29.8 s'),
    ],
)
def test_a_pace_that_cannot_be_kept_is_refused(given, pace, says):
    with pytest.raises(ValueError, match=says):
        next(stream(job_of(given), **pace))


def test_words_after_a_pause_keep_their_time(tmp_path):
    table = tmp_path / 'words.tsv'
    table.write_text('word\tonset\toffset\none\t0.5\t0.9\ntwo\t1.0\t1.4\nthree\t40.0\t40.4\nfour\t41.0\t41.4\n')
    words, tiny = Transcript(table), load_backbone('tiny-qwen3-omni-thinking', 'cpu')
    recipe = SimpleNamespace(protocol='aligned', fusion='native', contexts=Contexts())
    job = SimpleNamespace(
        movie=words, given=('text',), backbones=dict(tiny=tiny), weights=SimpleNamespace(recipe=recipe)
    )
    arriving = Arriving(job)
    for stop in (10.0, 20.0, 30.0, 40.0, words.seconds):
        arriving.extend(stop)
    whole = tiny.extract(words, 'native', 'aligned', Contexts())['text']
    spoken = [np.flatnonzero(np.abs(x).sum((1, 2))) for x in (arriving.states['text'], whole)]
    assert len(spoken[1]) and np.array_equal(*spoken)
