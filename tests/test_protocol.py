"""The protocol `released`, rule by rule: indices computed by hand, and a literal extraction beside the fast one."""

import ast, csv, json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av, numpy as np, pandas as pd, pytest, torch
from transformers import Qwen2Tokenizer

from mirage.features.backbones import Schedule, frame_times, get_protocol, load_backbone, picture_pairs, rounded_frames
from mirage.core import TR, Contexts
from mirage.features.inputs import WordTokens
from mirage.features.selection import newest_tokens, tower_pick
from mirage.data.stimuli import RATE, Movie

torch.set_num_threads(1)
RELEASED, ALIGNED = get_protocol('released'), get_protocol('aligned')
QWEN = json.loads((Path(__file__).parent / 'data' / 'qwen' / 'words.json').read_text())


# ---- files


def pictures(seconds, size, fps=10):
    "Blobs that wander, so that no two pictures are alike."
    y, x = np.mgrid[: size[0], : size[1]]
    for k in range(round(seconds * fps)):
        red = 127 + 120 * np.sin(x / 9 + k / 3)
        green = 127 + 120 * np.sin(y / 7 - k / 5)
        blue = np.full(size, 8 * k % 255)
        yield np.stack([red, green, blue], -1).astype(np.uint8)


def write_movie(path, seconds, size=(64, 64), channels=1, fps=10):
    "Lossless, with noise for sound: one channel, or the same noise in two."
    rng = np.random.default_rng(0)
    n = round(seconds * RATE)
    loudness = np.repeat(rng.uniform(600, 6000, 100), RATE // 4)[:n]
    wave = (loudness * rng.standard_normal(n)).astype(np.int16)
    with av.open(str(path), 'w') as out:
        video = out.add_stream('ffv1', rate=fps, width=size[1], height=size[0], pix_fmt='bgr0')
        audio = out.add_stream('flac', rate=RATE, layout='mono' if channels == 1 else 'stereo')
        for picture in pictures(seconds, size, fps):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, 'rgb24')))
        for k in range(0, len(wave), 4096):
            samples = np.repeat(wave[k : k + 4096], channels)[None]
            frame = av.AudioFrame.from_ndarray(samples, 's16', 'mono' if channels == 1 else 'stereo')
            frame.rate, frame.pts, frame.time_base = RATE, k, Fraction(1, RATE)
            out.mux(audio.encode(frame))
        out.mux(audio.encode())
        out.mux(video.encode())
    return path


def write_transcript(path, words, rows):
    "As the release's tables: one row per TR, the words of each in the order in which they are given."
    lines = ['text_per_tr\twords_per_tr\tonsets_per_tr\tdurations_per_tr']
    for i in range(rows):
        mine = [w for w in words if i == min(rows - 1, int(w[1] // TR))]
        columns = [list(column) for column in zip(*mine)] or [[], [], []]
        lines.append('\t'.join(['', *map(repr, columns)]))
    path.write_text('\n'.join(lines) + '\n')
    return path


def described(rows, **more):  # word, onset, duration
    words = pd.DataFrame(rows, columns=['word', 'onset', 'duration'])
    words['offset'] = words.onset + words.duration
    return SimpleNamespace(transcript_words=words, words=words.sort_values('offset', ignore_index=True), **more)


# ---- rule by rule


@pytest.mark.parametrize(
    'onset, duration, steps, frames',
    [
        (10.3, 0.3, 60, [21]),
        (0.473, 0.363, 60, [1]),  # the two that made it visible
        (2.25, 1.25, 60, [4, 5]),
        (2.75, 0.75, 60, [6, 7]),  # 4.5 → 4, 2.5 → 2; 5.5 → 6, 1.5 → 2
        (0.25, 0.25, 60, [0]),
        (0.75, 0.25, 60, [2]),
        (1.25, 0.25, 60, [2]),  # .5 → 0, 1.5 → 2, 2.5 → 2
        (3.1, 0.0, 60, [6]),
        (3.1, 0.1, 60, [6]),
        (3.1, 0.74, 60, [6]),
        (3.1, 0.76, 60, [6, 7]),  # one frame at least
        (2.8, 0.8, 7, [5, 6]),
        (3.4, 0.2, 7, [6]),
        (9.0, 1.0, 7, [5, 6]),  # moved back into a stream of seven frames
        (0.0, 9.0, 7, [0, 1, 2, 3, 4, 5, 6]),
        (1.0, 60.0, 7, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_rule_1_a_word_lies_on_frames_from_its_rounded_onset(onset, duration, steps, frames):
    words = pd.DataFrame(dict(onset=[onset], duration=[duration], offset=[onset + duration]))
    assert rounded_frames(words, steps)[:, 1].tolist() == frames


def test_rule_1_durations_are_taken_as_the_table_gives_them_not_as_end_minus_onset(tmp_path):
    onset, duration = 0.36, 0.75
    assert round(2 * duration) == 2 and round(2 * ((onset + duration) - onset)) == 1  # the difference has lost a bit
    write_transcript(tmp_path / 'w.tsv', [('so', onset, duration)], 5)
    words = Movie.open(write_movie(tmp_path / 'm.mkv', 7.0), tmp_path / 'w.tsv').transcript_words
    assert words.duration.tolist() == [0.75] and rounded_frames(words, 20)[:, 1].tolist() == [1, 2]


@pytest.mark.parametrize('rows, last_end, frames', [(5, 6.9, 15), (5, 7.6, 15), (5, 7.9, 16), (4, 5.96, 13)])
def test_rule_1_the_text_stream_reaches_to_the_last_row_or_word_or_the_end(tmp_path, rows, last_end, frames):
    "5 rows are 7.45 s, 14.9 frames; 7.6 s are 15.2, 7.9 s are 15.8; the movie itself has 13 frames."
    write_transcript(tmp_path / 'w.tsv', [('one', 1.0, 0.4), ('last', last_end - 0.4, 0.4)], rows)
    movie = Movie.open(write_movie(tmp_path / 'm.mkv', 6.4), tmp_path / 'w.tsv')
    plan = Schedule(movie, RELEASED)
    text = plan.on_grid(np.ones((2, 1, 1), np.float32)).ravel()
    assert len(text) == plan.text_steps == frames and plan.steps == 13 and text.sum() == 2


def test_rule_2_mono_sound_is_3_dB_quieter_and_nothing_else_is(tmp_path):
    mono, stereo = (Movie.open(write_movie(tmp_path / f'{n}.mkv', 2.0, channels=n)) for n in (1, 2))
    assert (mono.channels, stereo.channels) == (1, 2)
    as_it_is, quieter = Schedule(mono, ALIGNED).sound(), Schedule(mono, RELEASED).sound()
    assert np.array_equal(as_it_is, mono.sound())
    assert np.allclose(quieter, as_it_is * 2**-0.5, atol=1e-7) and quieter.std() > 0.01
    assert np.array_equal(Schedule(stereo, RELEASED).sound(), stereo.sound())


@pytest.fixture(scope='module')
def qwen():
    "Qwen's tokeniser for the words of the file: the real class, and those of the real merges that can occur in them."
    merges = [tuple(m.split(' ')) for m in QWEN['merges']]
    tok = Qwen2Tokenizer(vocab=QWEN['vocab'] | {'<|endoftext|>': 151643}, merges=merges)
    ids = tok(' '.join(QWEN['words']), add_special_tokens=False).input_ids
    assert ids == QWEN['ids']  # as the whole vocabulary has it
    return tok


def test_rule_3_the_tokens_of_a_word_are_those_that_overlap_its_characters(qwen):
    at, tokens, place = 0, WordTokens(qwen), 0
    for i, (word, ids) in enumerate(zip(QWEN['words'], tokens(QWEN['words']))):
        start, stop = at, at + len(word)
        overlap = [k for k, (a, b) in enumerate(QWEN['offsets']) if a < stop and b > start]
        place, at = place + len(ids), stop + 1
        for which, expected in (('own', overlap), ('spaced', list(range(place - len(ids), place)))):
            assert list(range(place - tokens.read(word, i == 0, which), place)) == expected, (word, which)


@pytest.mark.parametrize(
    'word, all_of_it, own',
    [
        ('never', ['Ġnever'], ['Ġnever']),
        ("river's", ['Ġriver', "'s"], ['Ġriver', "'s"]),
        ('...', ['Ġ...'], ['Ġ...']),
        ('20', ['Ġ', '2', '0'], ['2', '0']),
        ('3rd', ['Ġ', '3', 'rd'], ['3', 'rd']),
        ('x2', ['Ġx', '2'], ['Ġx', '2']),
        ('你好', ['Ġ', 'ä½łå¥½'], ['ä½łå¥½']),
        ('\xa0why', ['Ġ', 'Âł', 'why'], ['Âł', 'why']),
    ],
)
def test_rule_3_a_space_that_is_a_token_of_its_own_is_left_out(qwen, word, all_of_it, own):
    tokens = WordTokens(qwen)
    ids = qwen.convert_ids_to_tokens(tokens([word], first=False)[0])
    assert ids == all_of_it and tokens.read(word, False, 'spaced') == len(all_of_it)
    assert ids[-tokens.read(word, False, 'own') :] == own


@pytest.mark.parametrize('name', ['tiny-qwen3-omni-thinking', 'tiny-qwen2.5-omni-7b'])
def test_rule_4_marks_follow_the_segment_that_ends_last_as_the_models_own_positions_do(name):
    "For every length of sound up to two seconds and pictures with more columns than it has tokens."
    model = load_backbone(name)
    t, rate, core = model.tok, model.per_second, model.model.model
    closing = set()
    for frames in (*range(20, 60, 7), 100, 101, 113, 150, 197):
        for steps in (1, 2):
            n, h, w = model.sound_tokens(frames), 9, 16
            ids, pos = model.layout.media(n, np.arange(steps) * 1.0 * rate, h, w)
            ids, pos, _ = model.layout.add_words(ids, pos, ['so'])
            given = dict(
                input_ids=torch.tensor(ids)[None],
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                image_grid_thw=None,
                video_grid_thw=torch.tensor([[steps, 2 * h, 2 * w]]),
                use_audio_in_video=True,
                audio_seqlens=torch.tensor([frames]),
                second_per_grids=torch.tensor([1.0]),
            )
            theirs, _ = core.get_rope_index(**given)
            assert np.array_equal(theirs[:, 0].numpy(), pos), (frames, steps)
            closing.add(pos[0, list(ids).index(t.audio_eos_token_id)] < pos.max(1).max() - 3)
    assert True in closing  # rows or columns did reach further than the marks


def test_rule_4_one_picture_step_of_9_by_16_and_6_sound_tokens_first_mark_at_8():
    ids, pos = load_backbone('tiny-qwen3-omni-thinking').layout.media(6, np.array([0.0]), 9, 16)
    assert pos[:, -2:].tolist() == [[8, 9]] * 3 and pos.max() == 17


EIGHT = np.arange(8) / 2


@pytest.mark.parametrize(
    'time_point, times',
    [
        (1.3, [0.0, 0.5, 1.0]),
        (0.836, [0.0, 0.5]),
        (0.2, [0.0]),
        (0.5, [0.0]),
        (0.51, [0.0, 0.5]),
        (1.0, [0.0, 0.5]),
        (3.9, EIGHT),
        (4.0, EIGHT),
        (4.3, EIGHT + 0.3),
        (10.1, EIGHT + 6.1),
    ],
)
def test_rule_5_pictures_are_counted_from_the_beginning_of_the_context(time_point, times):
    assert np.allclose(frame_times(time_point, Contexts(), 'forth'), times, atol=1e-9)
    ours = frame_times(time_point, Contexts(), 'back')
    assert time_point < 0.5 or ours[-1] == pytest.approx(
        time_point - 0.5
    )  # aligned: the newest is always half a second old


def test_rule_5_the_last_of_an_odd_number_of_pictures_is_repeated():
    assert picture_pairs(1.3, Contexts(), 'forth') == [(0.0, 0.5), (1.0, 1.0)]
    assert picture_pairs(0.2, Contexts(), 'forth') == [(0.0, 0.0)]


def test_rules_6_and_8_words_are_read_at_their_own_ends_in_the_transcripts_order():
    rows = [('oh', 0.1, 0.2), ('never', 1.0, 1.5), ('mind', 1.2, 0.8), ('you', 2.6, 0.2), ('late', 6.0, 0.9)]
    movie = described(rows, seconds=6.4, steps=13, transcript_seconds=7.45)
    ours, theirs = Schedule(movie, ALIGNED), Schedule(movie, RELEASED)
    assert np.allclose(theirs.ends, [0.3, 2.5, 2.0, 2.8, 6.9]) and ours.ends[0] == 0.5
    assert theirs.texts == ['oh', 'never', 'mind', 'you', 'late']
    assert ours.texts == ['oh', 'mind', 'never', 'you', 'late']
    assert [theirs.context(i).tolist() for i in range(5)] == [[0], [0, 1], [0, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
    few = Schedule(movie, RELEASED, Contexts(words=2))
    contexts = [few.context(i).tolist() for i in range(5)]
    assert contexts == [[0], [1], [0, 2], [2, 3], [3, 4]]  # 'mind' ended before 'never', and takes a place behind it


@pytest.mark.parametrize(
    'time_point, native, tower',
    [
        (0.5, 0, 0),
        (1.0, 6, 6),
        (30.0, 383, 383),
        (60.0, 773, 773),
        (64.5, 773, 773),
        (65.0, 773, 774),
        (120.0, 773, 776),
        (389.5, 773, 778),
        (390.0, 773, 779),
        (2000.0, 773, 779),
    ],
)
def test_rule_7_the_towers_token_is_counted_on_the_whole_movie(time_point, native, tower):
    n = min(780, int(13 * time_point + 0.5))
    movie = described([], seconds=3000.0, steps=6000, transcript_seconds=0.0)
    step = SimpleNamespace(time=time_point, kind='step')
    plan = Schedule(movie, RELEASED)
    assert newest_tokens(n, plan.heard(time_point), 0.0).tolist() == [native]
    assert tower_pick(plan, step)(n).tolist() == [tower]
    spread = tower_pick(Schedule(movie, ALIGNED), step)(n)
    assert np.array_equal(spread, newest_tokens(n, plan.heard(time_point), 1.0))  # aligned: tower and native alike


@pytest.mark.parametrize(
    'seconds, steps, last',
    [
        (6.4, 13, 6.4),
        (6.2, 12, 6.0),
        (6.25, 12, 6.0),
        (6.75, 14, 6.75),
        (6.0, 12, 6.0),
        (9.2501, 19, 9.2501),
        (0.3, 1, 0.3),
    ],
)
def test_rule_9_steps_are_rounded_and_the_last_one_ends_with_the_movie(seconds, steps, last):
    plan = Schedule(described([], seconds=seconds, steps=int(np.ceil(2 * seconds)), transcript_seconds=0.0), RELEASED)
    assert plan.steps == steps and [c.time for c in plan.points] == [*(np.arange(1, steps) / 2), last]
    assert Schedule(plan.movie, ALIGNED).points[-1].time == np.ceil(2 * seconds) / 2


# ---- a literal extraction, one forward per time point


class Literal:
    "The rules word by word: one movie, one time point after the other, through transformers' own processor and model."

    def __init__(self, model, movie, table, contexts):
        self.net, self.processor, self.contexts = model.model.model, model.processor, contexts
        self.tok, self.pixels, self.movie = model.processor.tokenizer, model.pixels, movie
        self.length = movie.seconds
        self.wave = movie.sound() * np.float32(0.5**0.5)  # the movie is mono: rule 2
        rows = list(csv.DictReader(open(table), delimiter='\t'))

        def column(name):  # the lists of all rows, joined
            return sum((ast.literal_eval(row[name]) for row in rows), [])

        self.words = list(zip(column('words_per_tr'), column('onsets_per_tr'), column('durations_per_tr')))
        self.rows = len(rows)

    def prompt(self, time_point):
        "The last words that ended at or before it, in the transcript's order, and their places in the text."
        words = [(i, w) for i, (w, onset, duration) in enumerate(self.words) if onset + duration <= time_point]
        words = words[-self.contexts.words :]
        text, spans = '', {}
        for i, w in words:
            text += ' ' if text else ''
            spans[i] = (len(text), len(text) + len(w))
            text += w
        return text, spans

    def own(self, text, span):  # tokens of a text that overlap a span of characters, counted from the first
        offsets = self.tok(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        return [k for k, (a, b) in enumerate(offsets) if a < span[1] and b > span[0]]

    def inputs(self, time_point):
        begins = max(0.0, time_point - self.contexts.audio)
        wave = self.wave[round(begins * RATE) : round(time_point * RATE)]
        times = [time_point - self.contexts.video + k / 2 for k in range(round(2 * self.contexts.video))]
        if time_point < self.contexts.video:
            times = [k / 2 for k in range(1000) if k / 2 < time_point]
        frames = torch.from_numpy(self.movie.frames(times)).permute(0, 3, 1, 2)
        text, _ = self.prompt(time_point)
        prompt = '<|vision_start|><|video_pad|><|vision_end|>\n' + text
        given = self.processor(
            text=[prompt],
            videos=[frames],
            audio=[wave],
            fps=2,
            return_tensors='pt',
            load_audio_from_video=True,
            audio_from_video_indices=[0],
            videos_kwargs=dict(size=self.pixels, do_sample_frames=False, cap_pixels_per_frame=False),
        )
        given['video_second_per_grid'] = torch.as_tensor(given['video_second_per_grid'])
        for k in ('input_features', 'pixel_values_videos'):
            given[k] = given[k].to(self.net.dtype)
        return given, min(time_point, self.length) - begins if time_point > self.length else time_point - begins

    def states(self, given):  # (L, tokens, D)
        return torch.cat(self.net(**given, use_audio_in_video=True, output_hidden_states=True).hidden_states)

    def tower(self, layers, run):  # (L, tokens, D): what enters the first layer, and what each returns
        kept = []

        def entering(module, args, named):
            kept.append(args[0] if args else named['hidden_states'])

        def leaving(module, args, out):
            kept.append(out[0] if isinstance(out, tuple) else out)

        hooks = [layers[0].register_forward_pre_hook(entering, with_kwargs=True)]
        hooks += [layer.register_forward_hook(leaving) for layer in layers]
        run()
        for hook in hooks:
            hook.remove()
        return torch.stack([x.reshape(-1, x.shape[-1]) for x in kept])

    def steps(self):
        "Native sound and pictures, tower sound and pictures."
        out = {k: [] for k in ('native audio', 'native vision', 'tower audio', 'tower vision')}
        for k in range(round(2 * self.length)):
            time_point = min(self.length, (k + 1) / 2)
            given, heard = self.inputs(time_point)
            ids, states = given['input_ids'][0], self.states(given)
            grid = given['video_grid_thw'][0]
            sound = torch.nonzero(ids == self.tok.audio_token_id)[:, 0]
            picture = torch.nonzero(ids == self.tok.video_token_id)[:, 0]
            n = max(1, round(2 * heard))
            out['native audio'].append(states[:, sound[(n - 1) * len(sound) // n]])
            out['native vision'].append(states[:, picture[-int(grid[1] * grid[2]) // 4 :]].mean(1))
            mel = given['input_features'][0][:, given['feature_attention_mask'][0].bool()]
            heard = dict(feature_lens=torch.tensor([mel.shape[1]]))
            sound = self.tower(self.net.audio_tower.layers, lambda: self.net.audio_tower(mel, **heard))
            n = max(1, round(2 * time_point))
            out['tower audio'].append(sound[:, min((n - 1) * sound.shape[1] // n, sound.shape[1] - 1)])
            pictures, where = given['pixel_values_videos'], given['video_grid_thw']
            picture_states = self.tower(self.net.visual.blocks, lambda: self.net.visual(pictures, grid_thw=where))
            out['tower vision'].append(picture_states.mean(1))
        return {k: torch.stack(v).numpy() for k, v in out.items()}

    def text(self, fused):
        length = round(2 * max(self.rows * TR, *(onset + duration for _, onset, duration in self.words)))
        out = None
        for i, (_word, onset, duration) in enumerate(self.words):
            time_point = onset + duration
            text, spans = self.prompt(time_point)
            if fused:
                given, _ = self.inputs(time_point)
                states, tail = self.states(given), self.tok(text, add_special_tokens=False).input_ids
                assert given['input_ids'][0, -len(tail) :].tolist() == tail
                first = states.shape[1] - len(tail)
            else:
                given = torch.tensor([self.tok(text, add_special_tokens=False).input_ids])
                read = self.net.language_model(input_ids=given, output_hidden_states=True)
                states, first = torch.cat(read.hidden_states), 0
            state = states[:, [first + k for k in self.own(text, spans[i])]].mean(1).numpy()
            if out is None:
                out = np.zeros((length, *state.shape), np.float32)
            n = max(1, round(2 * duration))
            start = max(0, min(round(2 * onset), length - n))
            out[start : start + n] += state
        return out


WORDS = [
    ('oh', 0.05, 0.15),
    ('20', 0.3, 0.4),
    ('你好', 0.473, 0.363),
    ('never', 0.9, 1.2),
    ('mind', 1.0, 0.75),
    ('the', 1.25, 0.5),
    ('\xa0why', 2.25, 1.25),
    ('so', 3.1, 0.0),
    ("river's", 3.3, 0.41),
    ('half', 4.25, 0.25),
    ('x2', 5.0, 0.9),
    ('late', 6.0, 0.39),
    ('beyond', 6.1, 0.8),
]


def double(model, monkeypatch):
    "In double precision no token's experts are so nearly tied that rounding decides."
    monkeypatch.setattr(type(model), 'dtype', torch.float64)
    model.model.double()
    if model.spec.name.startswith('tiny-qwen3'):
        model.model.set_experts_implementation('eager')
    return model


def wide_movie(model, folder, monkeypatch):
    "With pictures of four by eight tokens, which the tiny random model is made to see whole."
    size = (4 * model.factor, 8 * model.factor)
    monkeypatch.setattr(type(model), 'pixels', dict(shortest_edge=model.factor**2, longest_edge=size[0] * size[1]))
    return Movie.open(write_movie(folder / 'm.mkv', 6.4, size), write_transcript(folder / 'w.tsv', WORDS, 5))


@pytest.mark.parametrize('name', ['tiny-qwen3-omni-thinking', 'tiny-qwen2.5-omni-7b'])
@torch.inference_mode()
def test_all_six_streams_are_those_of_a_literal_extraction(name, tmp_path, monkeypatch):
    "6.4 s, mono; pictures with more columns than a first word has sound tokens; full contexts; a word beyond the end."
    model, contexts = double(load_backbone(name), monkeypatch), Contexts(words=6, audio=3.0, video=2.0)
    movie = wide_movie(model, tmp_path, monkeypatch)
    assert model.grid(movie.size) == (4, 8)
    literal = Literal(model, movie, tmp_path / 'w.tsv', contexts)
    expected = literal.steps() | {'native text': literal.text(True), 'tower text': literal.text(False)}
    for fusion in ('native', 'tower'):
        for m, ours in model.extract(movie, fusion, 'released', contexts).items():
            theirs = expected[f'{fusion} {m}']
            assert ours.shape == theirs.shape == (15 if m == 'text' else 13, *model.streams(fusion)[m])
            difference = np.abs(ours - theirs).max((0, 2)) / np.abs(theirs).max((0, 2))  # of each layer
            assert difference.max() < 1e-5, (fusion, m, difference)


@torch.inference_mode()
def test_a_literal_extraction_tells_every_rule_apart(tmp_path, monkeypatch):
    "Undo one rule at a time: the stream that it concerns moves far beyond rounding."
    model, contexts = load_backbone('tiny-qwen3-omni-thinking'), Contexts(words=6, audio=3.0, video=2.0)
    movie = wide_movie(model, tmp_path, monkeypatch)
    streams = {fusion: model.extract(movie, fusion, 'released', contexts) for fusion in ('native', 'tower')}
    changes = [
        ('word_frames=overlap', 'native', 'text'),
        ('mono_gain=1', 'native', 'audio'),
        ('word_tokens=spaced', 'tower', 'text'),
        ('picture_times=back', 'native', 'text'),
        ('first_word=.5', 'native', 'text'),
        ('tower_sound=window', 'tower', 'audio'),
        ('word_order=ends', 'tower', 'text'),
        ('last_step=whole', 'native', 'audio'),
    ]
    for change, fusion, m in changes:
        other = model.extract(movie, fusion, f'released,{change}', contexts)[m]
        n = min(len(other), len(streams[fusion][m]))
        assert np.abs(other[:n] - streams[fusion][m][:n]).max() > 0.02 * np.abs(other).max(), change


# ---- one modality


@torch.inference_mode()
def test_llama_as_released_has_no_opening_token_and_averages_as_many_tokens_as_the_word_has_characters():
    model = load_backbone('tiny-llama-3.2-3b')
    movie = described(
        [('never', 1.0, 1.5), ('mind', 1.2, 0.8), ('you', 2.6, 0.2)], seconds=3.0, steps=6, transcript_seconds=3.0
    )
    text = model.extract(movie, protocol='released')['text']
    ids = model.processor('never mind you', add_special_tokens=False).input_ids
    states = torch.stack(model.model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states)[:, 0]
    assert text.shape[0] == 6
    assert np.allclose(text[5], states[:, -3:].mean(1), atol=1e-4)  # 'you', frame round(5.2); 3 characters
    ids = model.processor('mind', add_special_tokens=False).input_ids  # 'never' has not ended yet
    states = torch.stack(model.model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states)[:, 0]
    first = model.processor('never', add_special_tokens=False).input_ids
    alone = torch.stack(model.model.model(torch.tensor([first]), output_hidden_states=True).hidden_states)[:, 0]
    both = states[:, -4:].mean(1) + alone[:, -5:].mean(1)
    assert np.allclose(text[2], both, atol=1e-4)  # both lie on frame 2
    ours = model.extract(movie, protocol='aligned')['text']
    assert np.abs(ours[5] - text[5]).max() > 0.01


@pytest.mark.parametrize(
    'seconds, chunks',
    [(60.0, [60]), (89.0, [89]), (90.0, [60, 30]), (119.9, [60, 59.9]), (130.0, [60, 70]), (29.0, [29])],
)
def test_wav2vec_bert_as_released_joins_a_short_tail_to_the_chunk_before(seconds, chunks):
    model = load_backbone('tiny-wav2vec-bert-2.0')
    movie = described([], seconds=seconds, steps=int(np.ceil(2 * seconds)), transcript_seconds=0.0)
    lengths = [(b - a) / RATE for a, b in model.chunks(Schedule(movie, RELEASED))]
    assert np.allclose(lengths, chunks)
    ours = [(b - a) / RATE for a, b in model.chunks(Schedule(movie, ALIGNED))]
    assert max(ours) <= 60 and np.isclose(sum(ours), movie.steps / 2)


@torch.inference_mode()
def test_wav2vec_bert_as_released_reads_the_nearest_state_of_each_step(tmp_path):
    model = load_backbone('tiny-wav2vec-bert-2.0')
    movie = Movie.open(write_movie(tmp_path / 'm.mkv', 6.4))
    audio = model.extract(movie, protocol='released')['audio']
    inputs = model.processor(movie.sound() * np.float32(0.5**0.5), sampling_rate=RATE, return_tensors='pt')
    states = torch.stack(model.model(**inputs, output_hidden_states=True).hidden_states)[:, 0]
    n = int(inputs['attention_mask'].sum())
    assert len(audio) == 13 and np.allclose(audio, np.stack([states[:, k * n // 13] for k in range(13)]), atol=1e-4)


def test_vjepa_as_released_sees_the_picture_at_the_cut():
    model = load_backbone('tiny-vjepa2')
    n = model.config.frames_per_clip
    times = model.times(9.0, Contexts(), 0)
    assert np.allclose(times, 9 - 4 + 4 / n * np.arange(1, n + 1)) and times[-1] == 9.0
    assert 4 - 4 / 64 == 3.9375  # with the real model's 64 pictures they begin 3.94 s before the time point
    assert model.times(9.0, Contexts())[-1] == 9 - 4 / n
