"""Bad movies: each gives the sensible thing, or one error that names file and remedy."""

from fractions import Fraction

import av, numpy as np, pandas as pd, pytest

from mirage.data.stimuli import RATE, Movie, MovieError, frames_in_window, window_mask, window_table


def samples(seconds, rate, channels, turned):  # (channels, samples)
    "A tone from 3 to 4 s; its second channel is upside down until second `turned`."
    t = np.arange(int(seconds * rate)) / rate
    x = np.repeat((0.5 * np.sin(2 * np.pi * 440 * t) * ((t >= 3) & (t < 4)))[None], channels, 0)
    if turned:
        x[1, t < turned] *= -1
    return x


def encode_pictures(out, stream, times):  # grey levels
    for t in times:
        frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 20 + 10 * t, np.uint8), 'rgb24')
        frame.pts, frame.time_base = round(t * 1000), Fraction(1, 1000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode())


def encode_sound(out, stream, x, form, rate, layout):  # x: (channels, samples)
    for k in range(0, x.shape[1], 1024):
        y = x[:, k : k + 1024]
        y = (y * 32767).astype(np.int16) if form == 's16' else y.astype(np.float32)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(y if form == 'fltp' else y.T.reshape(1, -1)), form, layout
        )
        frame.rate, frame.pts, frame.time_base = rate, k, Fraction(1, rate)
        out.mux(stream.encode(frame))
    out.mux(stream.encode())


def picture_stream(out, path):
    codec = 'libx264' if path.suffix != '.avi' else 'mpeg4'
    stream = out.add_stream(codec, rate=25, width=96, height=64, pix_fmt='yuv420p')
    stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
    if path.suffix != '.avi':
        stream.options = dict(g='25', crf='12')
    return stream


def make(
    path,
    seconds=8.0,
    times=None,
    rate=22_050,
    layout='mono',
    codec='flac',
    picture=True,
    sound=True,
    sound_seconds=None,
    turned=None,
):
    "Grey level 20 + 10 × seconds; a 440 Hz tone of amplitude 0.5 from 3 to 4 s."
    form = dict(flac='s16', aac='fltp', ac3='fltp', libopus='flt', pcm_s16le='s16')[codec]
    with av.open(str(path), 'w') as out:
        pictures = picture_stream(out, path) if picture else None
        sounds = out.add_stream(codec, rate=rate, layout=layout) if sound else None
        if picture:
            encode_pictures(out, pictures, np.arange(round(seconds * 25)) / 25 if times is None else times)
        if sound:
            channels = av.AudioLayout(layout).nb_channels
            encode_sound(out, sounds, samples(sound_seconds or seconds, rate, channels, turned), form, rate, layout)
    return path


def grey(movie, times):
    return movie.frames(times)[:, 5, 5, 0].astype(float)


def tone(movie):  # seconds at which the tone begins and ends, its root mean square
    x = movie.sound()
    on = np.flatnonzero(np.abs(x) > 0.1) / RATE
    return on[0], on[-1], np.sqrt((x[int(3.1 * RATE) : int(3.9 * RATE)] ** 2).mean())


@pytest.mark.parametrize(
    'name, how',
    {
        'a.mkv': dict(rate=11_025, codec='pcm_s16le'),
        'b.mkv': dict(rate=44_100, layout='stereo'),
        'c.mkv': dict(rate=48_000, layout='5.1', codec='ac3'),
        'd.mp4': dict(rate=48_000, layout='5.1', codec='aac'),
        'e.mkv': dict(rate=7_350, codec='aac'),
        'f.ts': dict(rate=48_000, codec='aac'),
        'g.avi': dict(rate=48_000, codec='pcm_s16le'),
        'h.mkv': dict(rate=48_000, layout='stereo', codec='libopus'),
    }.items(),
)
def test_every_sound_becomes_mono_16_khz_at_its_own_time(tmp_path, name, how):
    movie = Movie.open(make(tmp_path / name, **how))
    begins, ends, power = tone(movie)
    assert abs(begins - 3) < 0.03 and abs(ends - 4) < 0.03 and abs(power - 0.5 / 2**0.5) < 0.02
    assert len(movie.sound()) == round(movie.seconds * RATE) and np.abs(movie.sound()).max() <= 1
    assert np.abs(grey(movie, np.arange(0, 8, 0.5)) - (20 + 10 * np.arange(0, 8, 0.5))).max() <= 3


@pytest.mark.parametrize('name, codec', [('v.mkv', 'flac'), ('v.mp4', 'aac')])
def test_stereo_whose_channels_cancel_each_other_is_refused_and_a_stretch_of_it_is_reported(tmp_path, name, codec):
    movie = Movie.open(make(tmp_path / name, layout='stereo', codec=codec, turned=8.0))
    with pytest.raises(
        MovieError, match=rf'{name}: the two channels of its sound cancel each other at [23].\d–4.*pan=mono'
    ):
        movie.sound()
    with pytest.warns(UserWarning, match=r'cancel each other at [23].\d–3.\d s and are silent there'):
        tone(Movie.open(make(tmp_path / name, layout='stereo', codec=codec, turned=3.3)))


def test_variable_frame_rate_shows_the_newest_frame(tmp_path):
    times = np.unique(np.random.default_rng(0).uniform(0, 8, 60).round(2))
    times[0] = 0
    movie = Movie.open(make(tmp_path / 'v.mkv', times=times))
    asked = np.arange(0.005, 7.9, 0.13)
    shown = times[np.searchsorted(times, asked, 'right') - 1]
    assert np.abs(grey(movie, asked) - (20 + 10 * shown)).max() <= 3
    with pytest.raises(ValueError, match='ascending'):
        movie.frames([2.0, 1.0])


def test_shorter_than_one_step(tmp_path):
    movie = Movie.open(make(tmp_path / 's.mkv', seconds=0.2))
    assert movie.steps == 1 and movie.frames([0.0]).shape == (1, 64, 96, 3) and len(movie.sound()) == round(0.2 * RATE)


def blank(path, kind, since, until):
    "Zero the packets of that stretch; the container stays whole."
    data, k = bytearray(path.read_bytes()), 0
    with av.open(str(path)) as c:
        packets = [(float(p.pts * p.time_base), bytes(p)) for p in c.demux(**{kind: 0}) if p.size]
    for t, p in packets:
        k = data.find(p, k)
        if since <= t < until:
            data[k : k + len(p)] = bytes(len(p))
        k += len(p)
    path.write_bytes(data)


def test_damaged_packets_are_held_and_silent_and_nothing_after_them_moves(tmp_path):
    path = make(tmp_path / 'c.mkv', seconds=12.0, layout='stereo', rate=44_100)
    clean = Movie.open(path)
    whole, before = clean.sound(), clean.digest
    blank(path, 'video', 5.0, 8.0)
    blank(path, 'audio', 3.3, 3.7)
    movie = Movie.open(path)
    with pytest.warns(UserWarning, match=r'c\.mkv: no audio at 3\.3–3\.[78] s'):
        sound = movie.sound()
    with pytest.warns(UserWarning, match=r'c\.mkv: no video at 5\.0–8\.0 s'):
        pictures = grey(movie, np.arange(0, 12, 0.5))
    assert len(sound) == len(whole) and not sound[int(3.4 * RATE) : int(3.7 * RATE)].any()
    assert (sound[: int(3.3 * RATE)] == whole[: int(3.3 * RATE)]).all()
    ends = [np.flatnonzero(np.abs(x) > 0.1)[-1] / RATE for x in (sound, whole)]
    assert abs(ends[0] - ends[1]) < 0.002  # the container counts milliseconds
    times = np.arange(0, 12, 0.5)
    shown = np.where((times >= 5) & (times < 8), 4.96, times)
    assert np.abs(pictures - (20 + 10 * shown)).max() <= 3 and movie.seconds == clean.seconds and movie.digest != before


def test_a_damaged_container_is_survived(tmp_path):
    path = make(tmp_path / 'c.mkv', seconds=12.0, layout='stereo', rate=44_100)
    data = bytearray(path.read_bytes())
    k = len(data) * 6 // 10
    data[k : k + 1500] = np.random.default_rng(0).integers(0, 256, 1500, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    movie = Movie.open(path)
    with pytest.warns(UserWarning, match=r'c\.mkv'):
        sound = movie.sound()
    assert len(sound) == 12 * RATE and abs(grey(movie, [11.5])[0] - 135) <= 3


def test_sound_that_ends_early_is_silent_to_the_end(tmp_path):
    movie = Movie.open(make(tmp_path / 'e.mkv', sound_seconds=5.0))
    with pytest.warns(UserWarning, match='no audio at 5.0–8.0 s'):
        sound = movie.sound()
    assert sound[: 5 * RATE].any() and not sound[5 * RATE :].any()


@pytest.mark.parametrize(
    'case, message',
    [
        ('missing', 'there is no movie .*x.mkv; fetch it'),
        ('text', "x.mkv cannot be decoded .*text.*'a movie.* fetch it again"),
        ('empty', 'x.mkv cannot be decoded'),
        ('sound only', 'x.mkv has no picture track'),
        ('cut', r'x.mkv says it lasts 30.0 s but ends at .* fetch it again'),
    ],
)
def test_what_is_no_movie_is_refused_at_once(tmp_path, case, message):
    path = tmp_path / 'x.mkv'
    if case == 'text':
        path.write_bytes(b'a movie?' * 1000)
    if case == 'empty':
        path.write_bytes(b'')
    if case == 'sound only':
        make(path, picture=False)
    if case == 'cut':
        data = make(path, seconds=20, times=np.arange(0, 20, 0.5), sound_seconds=30).read_bytes()
        path.write_bytes(data[: len(data) * 4 // 10])
    with pytest.raises((MovieError, FileNotFoundError), match=message):
        Movie.open(path)


def test_pictures_that_cannot_be_decoded(tmp_path):
    path = make(tmp_path / 'x.mkv', sound=False)
    blank(path, 'video', 0, 99)
    with (
        pytest.warns(UserWarning),
        pytest.raises(MovieError, match='x.mkv: its video cannot be decoded; fetch it again'),
    ):
        Movie.open(path).frames([0.0])


def test_a_movie_without_sound_says_how_to_mend_it(tmp_path):
    movie = Movie.open(make(tmp_path / 'm.mkv', sound=False))
    assert not movie.has_sound and movie.frames([1.0]).shape[0] == 1 and movie.words.empty
    with pytest.raises(MovieError, match='m.mkv has no sound.*anullsrc'):
        movie.sound()


def test_everything_that_was_damaged_is_reported_once(tmp_path):
    path = make(tmp_path / 'c.mkv')
    blank(path, 'video', 2.0, 2.5)
    with pytest.warns(UserWarning) as warned:
        Movie.open(path).frames([0.0, 7.0])
    assert [str(w.message) for w in warned] == [f'{path}: 13 pieces of the video are damaged']


# the transcript beside the movie


def written(path, text):
    path.write_text(text)
    return path


def test_words_enter_in_the_order_in_which_they_end(tmp_path):
    lines = 'word\tonset\tduration\nlong\t.3\t1.4\nshort\t.5\t.1\nalso\t.2\t1.5\n'
    movie = Movie.open(make(tmp_path / 'w.mkv'), written(tmp_path / 'w.tsv', lines))
    assert movie.words.word.tolist() == ['short', 'also', 'long']


def test_words_beyond_the_end(tmp_path):
    video, head = make(tmp_path / 'w.mkv'), 'word\tonset\tduration\n'
    with pytest.warns(UserWarning, match='1 words begin after the movie ends'):
        words = Movie.open(video, written(tmp_path / 'w.tsv', head + 'in\t1\t1\nover\t7.8\t3\nout\t9\t1\n')).words
    assert words.word.tolist() == ['in', 'over'] and words.offset.tolist() == [2.0, 8.0]
    with pytest.raises(ValueError, match='w.tsv: 2 of 3 words .* not in seconds'):
        _ = Movie.open(video, written(tmp_path / 'w.tsv', head + 'a\t1\t1\nb\t1500\t1\nc\t2000\t1\n')).words


# windows


@pytest.mark.parametrize(
    'n, window, stride', [(452, 100, 100), (60, 100, 100), (100, 100, 100), (101, 100, 50), (7, 3, 2), (1, 1, 1)]
)
def test_windows_cover_every_sample(n, window, stride):
    runs = pd.DataFrame(dict(split=['a', 'a'], n_tr=[n, max(n - 5, 1)]))
    table = window_table(runs, window, stride, 1.49)
    covered = np.zeros(n, int)
    for s in table.start:
        assert window_mask(n, s, window).any()
        covered[s : s + window] += 1
    assert covered.min() == 1 and (stride < window or covered.max() == 1)
    assert table.start.iloc[-1] == 0 or table.start.iloc[-2] + window < n  # no window that adds nothing
    assert frames_in_window(window, 1.49) == round(window * 2.98)


def test_a_stride_that_leaves_gaps_is_refused():
    with pytest.raises(ValueError, match='stride 101'):
        window_table(pd.DataFrame(dict(split=['a'], n_tr=[9])), 100, 101, 1.49)
