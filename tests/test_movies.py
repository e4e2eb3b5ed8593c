"""Movies as people have them: phones, discs, broadcasts, several tracks, covers, joined pieces, playlists; each is what
a player shows, or refused with the way out."""

import io
import os
import struct
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from mirage.features.extract import movie_of_run
from mirage.data.movies import MovieError, language_code
from mirage.data.stimuli import RATE, Movie

QUARTERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)  # red green / blue yellow
ENGLISH = dict(language='eng', disposition=Disposition.default, tone=3.0)


def picture_track(out, codec='libx264', size=(64, 96), aspect=None, matrix=None, **settings):
    track = out.add_stream(
        codec, rate=10, width=size[1], height=size[0], pix_fmt='yuvj420p' if codec == 'mjpeg' else 'yuv420p'
    )
    if codec == 'libx264':
        track.options = dict(crf='5', bf='0')
    if aspect:
        track.codec_context.sample_aspect_ratio = aspect
    if matrix:
        (a, b), (c, d) = matrix
        track.set_display_matrix([a * 65536, b * 65536, 0, c * 65536, d * 65536, 0, 0, 0, 1 << 30])
    for name, value in settings.items():
        setattr(track, name, value)
    return track


def sound_track(
    out, path, language='eng', disposition=Disposition.default, tone=3.0, title='', layout='mono', rate=16_000
):
    "tone: the second at which a second of 440 Hz begins."
    codec, form = (
        ('flac', 's16') if path.suffix == '.mkv' else ('libopus', 'flt') if path.suffix == '.webm' else ('aac', 'fltp')
    )
    track = out.add_stream(codec, rate=48_000 if codec == 'libopus' else rate, layout=layout)
    track.metadata['language'], track.disposition = language, disposition
    if title:
        track.metadata['title'] = title
    return track, form, tone


def write_pictures(out, track, seconds, shift, colours=QUARTERS, size=(64, 96)):
    image = colours.repeat(size[0] // 2, 0).repeat(size[1] // 2, 1)
    for i in range(round(seconds * 10)):
        frame = av.VideoFrame.from_ndarray(image, 'rgb24')
        frame.pts, frame.time_base = round((i / 10 + shift) * 1000), Fraction(1, 1000)
        out.mux(track.encode(frame))


def write_sound(out, track, form, tone, seconds, shift):
    rate, channels = track.codec_context.sample_rate, track.codec_context.layout.nb_channels
    t = np.arange(round(seconds * rate)) / rate
    wave = np.repeat((0.5 * np.sin(2 * np.pi * 440 * t) * ((t >= tone) & (t < tone + 1)))[None], channels, 0)
    wave = (wave * 32767).astype(np.int16) if form == 's16' else wave.astype(np.float32)
    for k in range(0, len(t), 960):
        piece = wave[:, k : k + 960]
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(piece if form == 'fltp' else piece.T.reshape(1, -1)),
            form,
            track.codec_context.layout.name,
        )
        frame.rate, frame.pts, frame.time_base = rate, k + round(shift * rate), Fraction(1, rate)
        out.mux(track.encode(frame))
    out.mux(track.encode())


def write_movie(
    path, sounds=(ENGLISH,), seconds=6.0, shift=0.0, picture_shift=0.0, sound_shift=0.0, cover=None, **picture
):
    """Four coloured quarters, and sound tracks that are silent but for a second each. cover: a codec; a track of one
    picture in front."""
    with av.open(str(path), 'w') as out:
        if cover:
            first = picture_track(out, cover, (50, 50))
        pictures = picture_track(out, **picture)
        tracks = [sound_track(out, path, **s) for s in sounds]
        if cover:
            write_pictures(out, first, 0.1, 0.0, np.full((2, 2, 3), 128, np.uint8), (50, 50))
            out.mux(first.encode())
        write_pictures(out, pictures, seconds, shift + picture_shift)
        for track, form, tone in tracks:
            write_sound(out, track, form, tone, seconds, shift + sound_shift)
        out.mux(pictures.encode())
    return path


def tones(movie):  # seconds at which tones begin
    loud = np.flatnonzero(np.abs(movie.sound()) > 0.1) / RATE
    return loud[np.r_[True, np.diff(loud) > 0.5]] if len(loud) else loud


def quarters(movie):  # (2, 2, 3): the colours of the quarters of what is shown at 2 s
    image = movie.frames([2.0])[0]
    height, width = image.shape[:2]
    return image[[height // 4, 3 * height // 4]][:, [width // 4, 3 * width // 4]].astype(int)


def is_plain(movie, seconds=6.0, tone=3.0, near=0.1):  # AAC fills its first and last packet
    assert abs(movie.seconds - seconds) < near and abs(tones(movie) - [tone]).max() < near
    assert movie.size == (64, 96) and movie.frames([0.0, 5.0]).shape == (2, 64, 96, 3)
    assert np.abs(quarters(movie) - QUARTERS).max() < 30


# ---- pictures as a player shows them


def shown(a, b, c, d):  # the quarters after the pixel at (x, y) has gone to (ax + cy, bx + dy), by hand
    out = np.zeros((2, 2, 3), int)
    for y in (0, 1):
        for x in (0, 1):
            to_x, to_y = a * (2 * x - 1) + c * (2 * y - 1), b * (2 * x - 1) + d * (2 * y - 1)
            out[(to_y + 1) // 2, (to_x + 1) // 2] = QUARTERS[y, x]
    return out


@pytest.mark.parametrize('kind', ['mp4', 'mkv', 'mov'])
@pytest.mark.parametrize(
    'matrix',
    [
        ((1, 0), (0, 1)),
        ((0, 1), (-1, 0)),
        ((-1, 0), (0, -1)),
        ((0, -1), (1, 0)),
        ((-1, 0), (0, 1)),
        ((1, 0), (0, -1)),
        ((0, 1), (1, 0)),
        ((0, -1), (-1, 0)),
    ],
)
def test_a_phone_was_held_in_any_of_the_eight_ways(tmp_path, kind, matrix):
    (a, b), (c, d) = matrix
    movie = Movie.open(write_movie(tmp_path / f'phone.{kind}', sounds=(), seconds=3.0, matrix=matrix))
    assert movie.size == ((96, 64) if b else (64, 96)) == movie.frames([1.0]).shape[1:3]
    assert np.abs(quarters(movie) - shown(a, b, c, d)).max() < 30
    # a size that is asked for is that of what is shown
    assert movie.frames([1.0], size=(30, 20)).shape == (1, 30, 20, 3)


def test_a_phone_held_upright_sees_the_top_above(tmp_path):
    # turn it clockwise
    movie = Movie.open(write_movie(tmp_path / 'phone.mp4', seconds=3.0, sounds=(), matrix=((0, 1), (-1, 0))))
    assert np.abs(quarters(movie) - np.rot90(QUARTERS, -1)).max() < 30


def test_a_picture_that_stands_askew_is_refused(tmp_path):
    path = tmp_path / 'askew.mp4'
    with av.open(str(path), 'w') as out:
        track = picture_track(out)
        track.set_display_matrix([56756, 32768, 0, -32768, 56756, 0, 0, 0, 1 << 30])
        write_pictures(out, track, 2.0, 0.0)
        out.mux(track.encode())
    with pytest.raises(
        MovieError, match='askew.mp4: its pictures are to be turned by 30 degrees.*ffmpeg -i IN OUT.mp4'
    ):
        Movie.open(path)


@pytest.mark.parametrize(
    'name, aspect, matrix, size',
    [
        ('dvd.mp4', Fraction(4, 3), None, (64, 128)),
        ('dvd.mkv', Fraction(4, 3), None, (64, 128)),
        ('ntsc.mp4', Fraction(8, 9), None, (64, 85)),
        ('old.avi', Fraction(16, 11), None, (64, 140)),
        ('phone.mp4', Fraction(4, 3), ((0, 1), (-1, 0)), (128, 64)),
    ],
)
def test_pixels_that_are_not_square_make_the_shape_that_a_player_shows(tmp_path, name, aspect, matrix, size):
    codec = 'mpeg4' if name == 'old.avi' else 'libx264'
    movie = Movie.open(write_movie(tmp_path / name, sounds=(), seconds=3.0, aspect=aspect, matrix=matrix, codec=codec))
    assert movie.size == size and movie.frames([1.0]).shape == (1, *size, 3)
    assert np.abs(quarters(movie) - (np.rot90(QUARTERS, -1) if matrix else QUARTERS)).max() < 30


# ---- which track is the movie


def with_cover(source, target):
    "An .mp4 with cover art as music and video tools write it: an atom covr, which becomes stream 0."
    jpeg = io.BytesIO()
    Image.new('RGB', (50, 50), (0, 128, 0)).save(jpeg, 'JPEG')

    def atom(kind, *body):
        return struct.pack('>I4s', 8 + sum(map(len, body)), kind) + b''.join(body)

    art = atom(b'ilst', atom(b'covr', atom(b'data', struct.pack('>II', 13, 0), jpeg.getvalue())))
    udta = atom(b'udta', atom(b'meta', bytes(4), atom(b'hdlr', bytes(8) + b'mdirappl' + bytes(9)), art))
    data = source.read_bytes()
    i = data.find(b'moov') - 4
    size = struct.unpack('>I', data[i : i + 4])[0]
    target.write_bytes(data[:i] + struct.pack('>I', size + len(udta)) + data[i + 4 : i + 8] + udta + data[i + 8 :])
    return target


def test_cover_art_is_not_the_movie(tmp_path):
    path = with_cover(write_movie(tmp_path / 'plain.mp4'), tmp_path / 'cover.mp4')
    with av.open(str(path)) as c:
        assert c.streams[0].codec_context.name == 'mjpeg'  # it does come first
    is_plain(Movie.open(path))


@pytest.mark.parametrize('name, codec', [('a.mkv', 'mjpeg'), ('b.mp4', 'mjpeg')])
def test_a_cover_that_nobody_marked_is_not_the_movie_either(tmp_path, name, codec):
    is_plain(Movie.open(write_movie(tmp_path / name, cover=codec)))


def test_a_song_with_a_cover_is_no_movie(tmp_path):
    path = tmp_path / 'song.m4a'
    with av.open(str(path), 'w', format='mp4') as out:
        track = sound_track(out, path)
        write_sound(out, *track, 4.0, 0.0)
    with pytest.raises(MovieError, match='song.m4a has no picture track'):
        Movie.open(path)
    with pytest.raises(
        MovieError, match='art.m4a is a sound file with a cover picture, not a movie; give the movie itself'
    ):
        Movie.open(with_cover(path, tmp_path / 'art.m4a'))


@pytest.mark.parametrize('name', ['photo.png', 'photo.jpg', 'photo%03d.png'])
def test_a_photograph_is_no_movie(tmp_path, name):
    Image.new('RGB', (50, 50)).save(tmp_path / name)
    with pytest.raises(MovieError, match='photo.*movie itself'):
        Movie.open(tmp_path / name)


def test_of_two_movies_in_a_file_the_default_is_taken_then_the_largest_and_it_is_reported(tmp_path):
    def two(path, first, second):
        with av.open(str(path), 'w') as out:
            small, large = picture_track(out, size=(32, 32)), picture_track(out)
            small.disposition, large.disposition = first, second
            write_pictures(out, small, 2.0, 0.0, size=(32, 32))
            write_pictures(out, large, 2.0, 0.0)
            out.mux(small.encode())
            out.mux(large.encode())
        return path

    none, default = Disposition(0), Disposition.default
    with pytest.warns(UserWarning, match=r'2 picture tracks: 1 \(.*32×32.*\); 2 \(.*96×64.*\); number 2 is taken'):
        assert Movie.open(two(tmp_path / 'a.mkv', none, none)).size == (64, 96)
    with pytest.warns(UserWarning, match='number 1 is taken'):
        assert Movie.open(two(tmp_path / 'b.mkv', default, none)).size == (32, 32)


# ---- which sound

TRACKS = [
    dict(language='fra', disposition=Disposition.comment, tone=4.0),
    dict(language='eng', disposition=Disposition.default, tone=1.0),
    dict(language='deu', disposition=Disposition(0), tone=2.0),
]


def test_the_default_sound_is_taken_and_reported(tmp_path):
    with pytest.warns(
        UserWarning,
        match=r'tracks.mkv: it has 3 sound tracks: 1 \(fra.*commentary.*\); 2 \(eng.*default\); 3 \(deu.*\); number 2 '
        r'is taken',
    ):
        movie = Movie.open(write_movie(tmp_path / 'tracks.mkv', TRACKS))
    assert abs(tones(movie) - [1.0]).max() < 0.05 and movie.heard.startswith('sound track 2 of 3 (eng')
    assert any('number 2 is taken' in note for note in movie.notes)


@pytest.mark.parametrize(
    'wanted, tone',
    [
        (1, 4.0),
        ('2', 1.0),
        (3, 2.0),
        ('fra', 4.0),
        ('fre', 4.0),
        ('fr', 4.0),
        ('fr-CA', 4.0),
        ('en', 1.0),
        ('ENG', 1.0),
        ('ger', 2.0),
        ('', 1.0),
        (None, 1.0),
    ],
)
def test_another_sound_is_taken_by_number_or_language(tmp_path, wanted, tone):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore' if not wanted else 'error')  # nothing needs to be reported where it was chosen
        movie = Movie.open(write_movie(tmp_path / 'tracks.mkv', TRACKS), audio_track=wanted)
    assert abs(tones(movie) - [tone]).max() < 0.05


@pytest.mark.parametrize('wanted', ['jpn', 4, 0, -1, 'commentary', 'und', '1.5'])
def test_a_sound_that_is_not_there_is_refused_with_those_that_are(tmp_path, wanted):
    with pytest.raises(
        MovieError,
        match=r'tracks.mkv has no sound track .*there are: 1 \(fra, mono, commentary or description\); 2 \(eng, mono, '
        r'default\); 3 \(deu, mono\)',
    ):
        Movie.open(write_movie(tmp_path / 'tracks.mkv', TRACKS), audio_track=wanted)
    with pytest.raises(MovieError, match='mute.mkv has no sound track .*there are: none'):
        Movie.open(write_movie(tmp_path / 'mute.mkv', ()), audio_track=wanted)


@pytest.mark.parametrize(
    'first',
    [
        dict(disposition=Disposition.comment | Disposition.default),
        dict(disposition=Disposition.visual_impaired),
        dict(disposition=Disposition.hearing_impaired),
        dict(disposition=Disposition(0), title="Director's commentary"),
        dict(disposition=Disposition.default, title='Audio description'),
    ],
)
def test_commentary_and_description_are_not_what_everybody_hears(tmp_path, first):
    with pytest.warns(UserWarning, match='number 2 is taken'):
        movie = Movie.open(
            write_movie(
                tmp_path / 't.mkv',
                [dict(language='eng', tone=4.0) | first, dict(language='eng', disposition=Disposition(0), tone=1.0)],
            )
        )
    assert abs(tones(movie) - [1.0]).max() < 0.05


def test_a_movie_with_nothing_but_commentary_is_heard_with_it(tmp_path):
    is_plain(
        Movie.open(write_movie(tmp_path / 't.mkv', [dict(language='eng', disposition=Disposition.comment, tone=3.0)]))
    )


def test_the_sound_that_was_chosen_is_part_of_what_features_are_made_from(tmp_path):
    path = write_movie(tmp_path / 'tracks.mkv', TRACKS)
    row = type('Row', (), dict(video=path, transcript=None, audio_track='fr'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        usual = Movie.open(path)
        asked = movie_of_run(row)
        gap = type('Row', (), dict(video=path, transcript=None, audio_track=float('nan')))
        assert movie_of_run(gap).digest == usual.digest != asked.digest
    assert abs(tones(asked) - [4.0]).max() < 0.05


@pytest.mark.parametrize(
    'name, layout, channels', [('a.mkv', 'mono', 1), ('b.mkv', 'stereo', 2), ('c.mkv', '5.1', 6), ('d.mp4', '5.1', 6)]
)
def test_a_movie_says_how_many_channels_its_sound_has(tmp_path, name, layout, channels):
    movie = Movie.open(write_movie(tmp_path / name, [ENGLISH | dict(layout=layout)]))
    assert movie.channels == channels and abs(tones(movie) - [3.0]).max() < 0.08
    assert Movie.open(write_movie(tmp_path / ('mute' + name), ())).channels == 0


def test_languages_go_by_any_of_their_codes():
    assert [language_code(x) for x in ('fre', 'fra', 'fr', 'fr-CA', 'ger', 'deu', 'zho', 'chi', 'cmn', 'por')] == [
        'fr'
    ] * 4 + ['de'] * 2 + ['zh'] * 3 + ['pt']
    assert [language_code(x) for x in ('', 'und', '1', 'no language', '..')] == [''] * 5


# ---- time


@pytest.mark.parametrize('name', ['late.mkv', 'late.webm', 'late.ts', 'late.mp4'])
@pytest.mark.parametrize('shift', [3.0, 600.0])
def test_a_recording_whose_clock_does_not_begin_at_zero(tmp_path, name, shift):
    codec = 'libvpx' if name == 'late.webm' else 'libx264'
    movie = Movie.open(write_movie(tmp_path / name, shift=shift, codec=codec))
    is_plain(movie)
    assert np.abs(movie.frames([5.5]) - movie.frames(np.arange(0, 6, 0.5))[11:]).max() == 0  # also after a jump


@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4', 'a.ts'])
def test_sound_that_begins_after_the_pictures(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # no pictures at the end: reported, and not what this is about
        movie = Movie.open(write_movie(tmp_path / name, sound_shift=2.0))
        assert abs(movie.seconds - 8) < 0.1 and abs(tones(movie) - [5.0]).max() < 0.1


@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4', 'a.ts'])
def test_pictures_that_begin_after_the_sound(tmp_path, name):
    movie = Movie.open(write_movie(tmp_path / name, shift=10.0, picture_shift=2.0))
    with pytest.warns(UserWarning, match='no audio at 6.* s'):
        assert abs(movie.seconds - 8) < 0.1 and abs(tones(movie) - [3.0]).max() < 0.1


def test_a_live_recording_without_length_or_index(tmp_path):
    path = tmp_path / 'live.mkv'
    with open(path, 'wb') as target, av.open(target, 'w', format='matroska', options=dict(live='1')) as out:
        pictures, (sound, form, tone) = picture_track(out), sound_track(out, path)
        write_pictures(out, pictures, 6.0, 0.0)
        write_sound(out, sound, form, tone, 6.0, 0.0)
        out.mux(pictures.encode())
    with av.open(str(path)) as c:
        assert c.duration is None
    is_plain(Movie.open(path))


def joined(folder, kind, again=4.0, **how):  # two pieces, byte by byte
    first = write_movie(folder / f'first.{kind}', [ENGLISH | dict(tone=1.0)], seconds=4.0, **how)
    second = write_movie(folder / f'second.{kind}', [ENGLISH | dict(tone=3.0)], seconds=again, **how)
    (folder / f'joined.{kind}').write_bytes(first.read_bytes() + second.read_bytes())
    return folder / f'joined.{kind}'


@pytest.mark.parametrize(
    'kind, way',
    [
        ('ts', 'ffmpeg -i IN OUT.mp4'),
        ('mkv', '-f concat'),
        ('webm', '-f concat'),
        ('mp4', '-f concat'),
        ('mov', '-f concat'),
        ('flv', '-f concat'),
    ],
)
def test_pieces_joined_byte_by_byte_are_refused_with_the_way_out(tmp_path, kind, way):
    codec = dict(webm='libvpx', flv='flv').get(kind, 'libx264')
    with pytest.raises(MovieError, match=f'joined.{kind}: (its time goes back from|a second file begins).*{way}'):
        Movie.open(joined(tmp_path, kind, codec=codec))


@pytest.mark.parametrize('shifts', [(0.0, 500.0), (500.0, 0.0)])
def test_pieces_whose_clock_leaps_are_refused(tmp_path, shifts):
    pieces = [write_movie(tmp_path / f'{k}.ts', seconds=3.0, shift=s).read_bytes() for k, s in enumerate(shifts)]
    (tmp_path / 'joined.ts').write_bytes(b''.join(pieces))
    with pytest.raises(MovieError, match='joined.ts: its time (leaps|goes back) from .*ffmpeg -i IN'):
        Movie.open(tmp_path / 'joined.ts')


def test_segments_of_a_stream_whose_clock_goes_on_are_one_movie(tmp_path):
    pieces = [
        write_movie(tmp_path / f'{k}.ts', [ENGLISH | dict(tone=1.0)], seconds=4.0, shift=4.0 * k).read_bytes()
        for k in (0, 1)
    ]
    (tmp_path / 'whole.ts').write_bytes(b''.join(pieces))
    movie = Movie.open(tmp_path / 'whole.ts')
    assert abs(movie.seconds - 8) < 0.1 and np.abs(tones(movie) - [1.0, 5.0]).max() < 0.1


def test_a_slide_show_whose_pictures_stay_for_a_quarter_of_a_minute(tmp_path):
    path = tmp_path / 'slides.mkv'
    with av.open(str(path), 'w') as out:
        pictures, (sound, form, _) = picture_track(out), sound_track(out, path)
        for k in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 60 * k, np.uint8), 'rgb24')
            frame.pts, frame.time_base = 15_000 * k, Fraction(1, 1000)
            out.mux(pictures.encode(frame))
        out.mux(pictures.encode())
        write_sound(out, sound, form, 50.0, 60.0, 0.0)
    movie = Movie.open(path)
    assert abs(movie.seconds - 60) < 0.1
    with pytest.warns(UserWarning, match='no video at'):
        assert np.abs(movie.frames([7.0, 22.0, 37.0, 52.0])[:, 5, 5, 0].astype(int) - [0, 60, 120, 180]).max() < 6
    assert abs(tones(movie) - [50.0]).max() < 0.05


def test_a_header_that_knows_less_than_the_file_is_reported(tmp_path):
    path = write_movie(tmp_path / 'old.mkv')
    data = bytearray(path.read_bytes())
    at = data.find(b'\x44\x89\x88')  # Duration, a double of eight bytes
    data[at + 3 : at + 11] = struct.pack('>d', 3000.0)
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match='it says it lasts 3.0 s, but it goes on to 6.0 s, and is read to there'):
        is_plain(Movie.open(path))


def test_a_movie_that_lacks_its_last_seconds_says_so(tmp_path):
    path = write_movie(tmp_path / 'old.mkv')
    data = bytearray(path.read_bytes())
    at = data.find(b'\x44\x89\x88')
    data[at + 3 : at + 11] = struct.pack('>d', 9000.0)
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match='it says it lasts 9.0 s, but it ends at 6.0 s: perhaps it was cut short'):
        is_plain(Movie.open(path))


# ---- names and lists


@pytest.mark.parametrize(
    'name',
    [
        'a:b.mkv',
        'file:x.mkv',
        'http:x.mkv',
        'concat:a.mkv|b.mkv',
        '-dash.mkv',
        'weiß 日本.mkv',
        'p%03d.mkv',
        'q?x=1&y#.mkv',
        'new\nline.mkv',
        'pipe:0',
        'no suffix',
        "it's.mkv",
    ],
)
def test_a_name_is_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.rename(write_movie(tmp_path / 'plain.mkv', seconds=3.0, sounds=[ENGLISH | dict(tone=1.0)]), name)
    is_plain(Movie.open(name), 3.0, 1.0)
    os.symlink(name, 'link.mkv')
    is_plain(Movie.open('link.mkv'), 3.0, 1.0)


@pytest.mark.parametrize(
    'name, text',
    [
        ('list.m3u8', '#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nplain.ts\n#EXT-X-ENDLIST\n'),
        ('list.txt', 'ffconcat version 1.0\nfile plain.ts\n'),
        ('list.mkv', "file 'plain.ts'\n"),
        ('list.mpd', '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>\n'),
        ('sly.m3u8', '#EXTM3U\n#EXT-X-TARGETDURATION:6\n#\x01\n#EXTINF:6,\nplain.ts\n#EXT-X-ENDLIST\n'),
        ('page.mp4', '<!doctype html><title>please log in</title>'),
        ('video.sdp', 'v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n'),
    ],
)
def test_a_playlist_or_a_page_is_no_movie_and_opens_nothing(tmp_path, monkeypatch, name, text):
    write_movie(tmp_path / 'plain.ts', seconds=2.0)
    (tmp_path / name).write_text(text)
    before = os.stat(tmp_path / 'plain.ts').st_atime_ns
    with pytest.raises(MovieError, match=f'{name} .*(give one of them|names other files)'):
        Movie.open(tmp_path / name)
    after = os.stat(tmp_path / 'plain.ts').st_atime_ns
    (tmp_path / 'plain.ts').read_bytes()
    if os.stat(tmp_path / 'plain.ts').st_atime_ns != after:  # this disk remembers who was read
        assert after == before


def test_a_folder_a_pipe_and_a_link_to_nothing_are_no_movies(tmp_path):
    (tmp_path / 'folder.mkv').mkdir()
    os.mkfifo(tmp_path / 'pipe.mkv')
    (tmp_path / 'link.mkv').symlink_to('nothing')
    for name in ('folder.mkv', 'pipe.mkv'):
        with pytest.raises(MovieError, match=f'{name} is no plain file'):
            Movie.open(tmp_path / name)
    with pytest.raises(FileNotFoundError, match='there is no movie .*link.mkv'):
        Movie.open(tmp_path / 'link.mkv')
