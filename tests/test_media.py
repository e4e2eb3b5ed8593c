"Sound, texts, silent movies and pictures with times, from file to predicted BOLD; what is doubtful is refused."

import shutil
from dataclasses import replace

import h5py, numpy as np, pytest, soundfile, torch
from PIL import Image

from mirage.data.media import open_stimulus
from mirage.data.stimuli import RATE, Movie
from mirage.features.backbones import load_backbone
from mirage.interpretation.attribute import subset_predictions
from mirage.models.model import Mirage
from mirage.prediction.predict import make, movie_features, predict, prepare
from test_predict import RECIPE, SAID, SHAPE, SRT, clip, everything, speech

SECONDS = 8.0


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    "A movie, its sound, its pictures alone, its words; pictures with times; weights of both kinds."
    d = tmp_path_factory.mktemp('parts')
    clip(d / 'clip.mkv', SECONDS)
    clip(d / 'silent.mkv', SECONDS, sound=False)
    soundfile.write(d / 'clip.wav', speech(SECONDS), RATE, subtype='PCM_16')
    (d / 'clip.srt').write_text(SRT)
    (d / 'story.txt').write_text(SAID)
    for k, colour in enumerate(('red', 'green', 'blue')):
        Image.new('RGB', (96, 64), colour).save(d / f'{k}.png')
    (d / 'pictures.csv').write_text('file,onset,duration\n0.png,0,3\n1.png,3,3\n2.png,7,1\n')
    torch.manual_seed(0)
    for fusion in ('native', 'tower'):
        widths = load_backbone(RECIPE.backbone).streams(fusion)
        model = Mirage(replace(SHAPE, streams={m: D for m, (_, D) in widths.items()}))
        for token in model.null_tokens.values():
            torch.nn.init.normal_(token)
        model.save_pretrained(d / fusion)
        replace(RECIPE, fusion=fusion).write(d / fusion / 'recipe.yaml')
    return d


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'root'))
    monkeypatch.setenv('IN_TEST', '1')
    (tmp_path / 'root').mkdir()


def without_others(job, stream):  # of figure 3: what the encoder predicts from one stream of the whole movie
    features, split = movie_features(job)
    x = {m: torch.from_numpy(features.read(m, split, -9, 51))[None] for m in features.streams}
    return subset_predictions(job.weights.model, x)[stream][0, :, : job.n_tr].numpy()


# ---- a movie and its parts


def test_the_sound_file_of_a_movie_predicts_what_audio_only_predicts_where_each_modality_has_its_tower(parts):
    whole = prepare(parts / 'clip.mkv', parts / 'clip.srt', parts / 'tower', device='cpu')
    sound = predict(parts / 'clip.wav', None, parts / 'tower', device='cpu')
    assert np.array_equal(np.stack(list(sound.bold.values())), without_others(whole, 'audio'))
    assert sound.streams == ('audio',) and 'text and vision absent' in sound.absent


@pytest.mark.parametrize('fusion', ['native', 'tower'])
@pytest.mark.parametrize('stream', ['audio', 'vision', 'text'])
def test_one_stream_of_a_movie_predicts_what_figure_3_predicts_from_it(parts, fusion, stream):
    whole = prepare(parts / 'clip.mkv', parts / 'clip.srt', parts / fusion, device='cpu')
    alone = predict(parts / 'clip.mkv', parts / 'clip.srt', parts / fusion, device='cpu', streams=stream)
    assert np.array_equal(np.stack(list(alone.bold.values())), without_others(whole, stream))


@pytest.mark.parametrize('stream, given', [('vision', 'silent.mkv'), ('text', 'clip.srt')])
def test_the_other_parts_of_a_movie_predict_what_figure_3_predicts_from_them_tower_by_tower(parts, stream, given):
    whole = prepare(parts / 'clip.mkv', parts / 'clip.srt', parts / 'tower', device='cpu')
    part = predict(parts / given, None, parts / 'tower', device='cpu')
    bold, wanted = np.stack(list(part.bold.values())), without_others(whole, stream)
    n = min(bold.shape[1], wanted.shape[1])  # words alone last until the last word ends
    assert n > 2 and np.array_equal(bold[:, :n], wanted[:, :n])


def test_where_sound_is_heard_beside_pictures_its_states_are_others_and_alone_they_depend_on_nothing_else(parts):
    backbone = load_backbone(RECIPE.backbone)
    for protocol in ('aligned', 'released', 'streaming'):
        how = dict(protocol=protocol, contexts=RECIPE.contexts)
        whole = backbone.extract(Movie.open(parts / 'clip.mkv'), **how)
        alone = backbone.extract(open_stimulus(parts / 'clip.wav'), **how)
        silent = backbone.extract(open_stimulus(parts / 'silent.mkv'), **how)
        assert list(alone) == ['audio'] and list(silent) == ['vision']
        for m, states in (('audio', alone['audio']), ('vision', silent['vision'])):
            assert states.shape == whole[m].shape and np.abs(states).max(axis=(1, 2)).min() > 0
            assert not np.allclose(states, whole[m], atol=1e-3)


# ---- four kinds by one call, and what is said of them


@pytest.mark.parametrize(
    'given, how, streams, absent',
    [
        ('clip.wav', {}, ('audio',), 'text and vision absent: their learned null tokens'),
        ('clip.wav', dict(transcript='clip.srt'), ('text', 'audio'), 'vision absent: its learned null token'),
        ('silent.mkv', dict(transcript='clip.srt'), ('text', 'vision'), 'audio absent'),
        ('pictures.csv', {}, ('vision',), 'text and audio absent'),
        ('story.txt', dict(reading_rate=120.0), ('text',), 'audio and vision absent'),
    ],
)
def test_what_one_has_is_predicted_and_says_what_is_absent(parts, given, how, streams, absent):
    how = how | {k: str(parts / v) for k, v in how.items() if k == 'transcript'}
    words = how.pop('transcript', None)
    job = prepare(parts / given, words, parts / 'native', device='cpu', **how)
    p, run, there = make(job)
    assert p.streams == streams and absent in p.absent and absent in job.summary and not there
    assert p.bold['sub-01'].shape == (job.n_tr, 1000) and np.isfinite(p.bold['sub-01']).all()
    with h5py.File(run.path / 'predictions.h5') as f:
        assert f.attrs['streams'] == ' '.join(streams) and absent in f.attrs['absent']
    assert absent in (run.path / 'page.html').read_text() and absent in str(run.metrics['notes'])
    assert (run.path / 'map.mp4').is_file() == (not job.undrawn)
    again, _, there = make(prepare(parts / given, words, parts / 'native', device='cpu', **how))
    assert there and again.absent == p.absent and again.name == p.name


def test_weights_without_null_tokens_say_what_stands_in_their_place(parts, tmp_path):
    torch.manual_seed(1)
    Mirage(replace(SHAPE, null_tokens=False)).save_pretrained(tmp_path / 'plain')
    RECIPE.write(tmp_path / 'plain' / 'recipe.yaml')
    job = prepare(parts / 'clip.wav', None, tmp_path / 'plain', device='cpu')
    assert 'text and vision absent: zeros, for these weights have no null tokens' in job.absent


def test_a_story_read_more_slowly_is_another_prediction(parts):
    fast, slow = (
        predict(parts / 'story.txt', None, parts / 'native', 'sub-01', device='cpu', reading_rate=rate)
        for rate in (120.0, 60.0)
    )
    assert len(slow.bold['sub-01']) > len(fast.bold['sub-01'])
    assert not np.allclose(slow.bold['sub-01'][: len(fast.bold['sub-01'])], fast.bold['sub-01'], atol=1e-5)


def test_a_text_without_spaces_has_a_word_for_each_character_and_says_so(tmp_path):
    spaced, unspaced = tmp_path / 'a.txt', tmp_path / 'b.txt'
    spaced.write_text('one two three four')
    unspaced.write_text('春眠不觉晓，处处闻啼鸟。')
    plain = open_stimulus(spaced, reading_rate=60.0)
    assert list(plain.words.word) == ['one', 'two', 'three', 'four'] and plain.source.endswith('rate 60')
    with pytest.warns(UserWarning, match='each character is a word .10.'):
        words = open_stimulus(unspaced, reading_rate=60.0).words
    assert len(words) == 10 and ''.join(words.word) == unspaced.read_text() and words.offset.iloc[-1] == 10


def test_another_picture_under_the_same_name_is_another_prediction(parts, tmp_path):
    shutil.copytree(parts, tmp_path / 'mine')
    one = predict(tmp_path / 'mine/pictures.csv', None, parts / 'native', 'sub-01', device='cpu')
    Image.new('RGB', (96, 64), 'white').save(tmp_path / 'mine/1.png')
    other = predict(tmp_path / 'mine/pictures.csv', None, parts / 'native', 'sub-01', device='cpu')
    assert not np.allclose(one.bold['sub-01'], other.bold['sub-01'], atol=1e-5)


# ---- what is doubtful is refused, before anything is written


def doubtful(parts, d, kind):
    how, says, path = {}, '', d / 'given'
    if kind == 'silence':
        path = d / 'silence.wav'
        soundfile.write(path, np.zeros(3 * RATE), RATE)
        says = 'nothing sounds'
    if kind == 'no sound at all':
        path = d / 'empty.wav'
        soundfile.write(path, np.zeros(0), RATE)
        says = 'holds no sound|no time stamps|cannot be decoded'
    if kind == 'text without words':
        path, how, says = d / 'empty.txt', dict(reading_rate=200.0), 'holds no words'
        path.write_text(' \n')
    if kind == 'subtitles without words':
        path, says = d / 'empty.srt', 'no words'
        path.write_text('')
    return (path, how, says) if path.exists() else doubtful_use(parts, d, kind)


def doubtful_use(parts, d, kind):
    how = {}
    if kind == 'text without a rate':
        path, says = parts / 'story.txt', 'say how fast it is read'
    if kind == 'rate of a text with times':
        path, how, says = parts / 'clip.srt', dict(reading_rate=200.0), 'leave reading_rate out'
    if kind == 'subtitles called text':
        path, how, says = d / 'words.txt', dict(reading_rate=200.0), 'holds words with times'
        path.write_text(SRT)
    if kind == 'a rate that nobody reads at':
        path, how, says = parts / 'story.txt', dict(reading_rate=1e6), 'reading_rate'
    if kind == 'one still picture':
        path, says = parts / '0.png', 'say in a table when it is shown'
    if kind == 'two texts':
        path, how, says = parts / 'clip.srt', dict(transcript=parts / 'clip.srt'), 'not both'
    if kind == 'a recogniser for pictures':
        path, how, says = parts / 'pictures.csv', dict(asr='openai/whisper-tiny'), 'no sound that it could hear'
    if kind == 'a stream that is not there':
        path, how, says = parts / 'clip.wav', dict(streams='vision'), "streams is 'vision'"
    if kind == 'a sound track of a silent movie':
        path, how, says = parts / 'silent.mkv', dict(audio_track='2'), "no sound track '2'"
    if kind in TABLES:
        rows, says = TABLES[kind]
        path = parts / f'{kind.replace(" ", "-")}.csv'
        path.write_text(rows)
    return path, how, says


TABLES = {
    'pictures that overlap': ('file,onset,duration\n0.png,0,4\n1.png,3,1\n', 'next picture comes after 3 s'),
    'pictures out of order': ('file,onset,duration\n0.png,3,1\n1.png,1,1\n', 'not after the picture before it'),
    'a picture that is missing': ('file,onset,duration\n9.png,3,1\n', 'there is no picture'),
    'a picture that is none': ('file,onset,duration\nclip.srt,3,1\n', 'no picture that can be read'),
    'a column that nobody reads': ('file,onset,offset\n0.png,0,1\n', 'has the columns file, onset, offset'),
    'no pictures': ('file,onset,duration\n', 'lists no pictures'),
    'a time before the beginning': ('file,onset,duration\n0.png,-1,1\n', "onset is '-1'"),
    'a picture without an end': ('file,onset\n0.png,0\n', 'how long its only picture stays'),
}
DOUBTS = [
    'silence',
    'no sound at all',
    'text without words',
    'subtitles without words',
    'text without a rate',
    'rate of a text with times',
    'subtitles called text',
    'a rate that nobody reads at',
    'one still picture',
    'two texts',
    'a recogniser for pictures',
    'a stream that is not there',
    'a sound track of a silent movie',
    *TABLES,
]


@pytest.mark.parametrize('kind', DOUBTS)
def test_what_leaves_a_doubt_is_refused_with_its_name_before_anything_is_written(parts, tmp_path, kind):
    path, how, says = doubtful(parts, tmp_path, kind)
    with pytest.raises((ValueError, FileNotFoundError), match=says) as refused:
        predict(path, how.pop('transcript', None), parts / 'native', device='cpu', **how)
    assert path.name in str(refused.value) or kind.startswith(('a picture that is', 'a rate'))
    assert not everything(tmp_path / 'root')
