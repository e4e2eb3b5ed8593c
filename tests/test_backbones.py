"""Backbones beyond their chapters: loading as from the hub, bfloat16, causality, and inputs that a chapter would not
try."""

from types import SimpleNamespace

import numpy as np, pandas as pd, pytest, torch

from mirage.features import backbones
from mirage.features.backbones import (
    Schedule,
    Spec,
    time_points,
    frame_times,
    get_protocol,
    load_backbone,
    picture_pairs,
)
from mirage.features.backbones import context_words, word_ends
from mirage.core import Contexts, get_preset
from mirage.data.release import stimulus_paths
from mirage.data.simulate import make_stimulus
from mirage.features.extract import extract_splits

torch.set_num_threads(1)
TINY = get_preset('tiny').contexts
NAMES = [n for n in backbones.SPECS if n.startswith('tiny-')]


class Clip:
    "A movie in memory: 25 pictures per second, noise, words. `after` changes everything from that second on."

    def __init__(self, seconds=9.0, after=None, words=True):
        self.seconds, self.steps, self.size, self.path, self.after = (
            seconds,
            int(np.ceil(seconds * 2)),
            (64, 64),
            'clip',
            after,
        )
        onset = np.arange(0.2, max(seconds - 0.5, 0.3), 0.7)
        self.words = pd.DataFrame(
            dict(word=[f'word{i}' for i in range(len(onset))], onset=onset, offset=np.minimum(onset + 0.3, seconds))
        )
        if not words:
            self.words = self.words.iloc[:0]
        self.transcript_words, self.transcript_seconds, self.channels = (
            self.words,
            float(self.words.offset.max()) if words else 0.0,
            1,
        )

    def sound(self):
        x = np.random.default_rng(0).normal(size=round(self.seconds * 16_000)).astype(np.float32) * 0.1
        if self.after is not None:
            x[round(self.after * 16_000) :] *= -0.7
        return x

    def iter_frames(self, times):
        for t in times:
            k = int(np.floor(t * 25 + 1e-6))
            yield np.random.default_rng([k, int(self.after is not None and t >= self.after - 1e-6)]).integers(
                0, 255, (64, 64, 3), dtype=np.uint8
            )

    def frames(self, times):
        return np.stack([*self.iter_frames(times)])


def first_words(words, limit):  # (words,) the first word of each word's context
    ends = word_ends(words)
    return np.array([context_words(i, ends, limit)[0] for i in range(len(ends))])


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('protocol', ['released', 'aligned', 'streaming,chunk=4'])
def test_every_tiny_model_gives_its_streams_for_any_movie(name, protocol):
    model = load_backbone(name)
    for clip in (Clip(), Clip(0.3), Clip(5.2, words=False)):  # ordinary; shorter than one step; without words
        for fusion in ('native', 'tower'):
            out = model.extract(clip, fusion, protocol, TINY)
            assert set(out) == set(model.streams(fusion))
            plan = Schedule(clip, get_protocol(protocol))
            for m, x in out.items():
                assert (
                    x.shape == (plan.text_steps if m == 'text' else plan.steps, *model.streams(fusion)[m])
                    and np.isfinite(x).all()
                )
                if m != 'text':
                    assert x.any((1, 2)).all()
            work = model.work(clip, fusion, protocol, TINY)
            assert work.tokens >= work.forwards >= (len(clip.words) > 0) and np.isfinite(work.flop)


@pytest.mark.parametrize('name', ['tiny-qwen3-omni-thinking', 'tiny-qwen2.5-omni-7b'])
def test_nothing_after_a_cut_is_seen(name):
    model, change = load_backbone(name), 6.0
    # streaming hears half a second ahead, at most
    for protocol, allowed in (('aligned', 0.0), ('released', 0.0), ('streaming,chunk=4', 0.5)):
        a, b = (model.extract(Clip(after=t), 'native', protocol, TINY) for t in (None, change))
        before = int((change - allowed) * 2)
        for m in a:
            late = [
                Clip().words.index[i] for i in range(len(Clip().words)) if Clip().words.offset[i] > change - allowed
            ]
            stop = min(before, int(Clip().words.onset[late[0]] * 2)) if m == 'text' else before
            # the floor of the spectrogram and its last frames may carry a trace of what comes
            close = np.abs(a[m][:stop] - b[m][:stop]).max() / np.abs(a[m]).max()
            assert close < (2e-2 if allowed else 1e-6), (protocol, m, close)
            assert (
                np.abs(a[m][-1 if m != 'text' else slice(None)] - b[m][-1 if m != 'text' else slice(None)]).max() > 1e-2
            )


def test_chunks_of_any_length_agree_where_contexts_do():
    "With contexts longer than the movie, the length of a chunk changes nothing but what is computed together."
    model, long = load_backbone('tiny-qwen3-omni-thinking'), Contexts(words=100, audio=30.0, video=30.0)
    a, b = (model.extract(Clip(), 'native', f'streaming,chunk={h}', long) for h in (3, 9))
    for m in a:
        assert np.allclose(a[m], b[m], atol=2e-3 * np.abs(a[m]).max()), m


def test_a_change_of_anything_that_shapes_states_changes_the_identity():
    from mirage.features.extract import identity

    model, identities = load_backbone('tiny-qwen3-omni-thinking'), []
    for fusion, protocol, contexts in [
        ('native', 'aligned', TINY),
        ('tower', 'aligned', TINY),
        ('native', 'released', TINY),
        ('native', 'aligned,audio_span=2', TINY),
        ('native', 'streaming', TINY),
        ('native', 'streaming,chunk=20', TINY),
        ('native', 'aligned', Contexts(words=32, audio=4.0, video=2.0, fps=4.0)),
        ('native', 'aligned', Contexts(words=31, audio=4.0, video=2.0)),
    ]:
        identities.append(str(identity(model, fusion, protocol, contexts)))
    identities.append(str(identity(load_backbone('tiny-qwen3-omni-instruct'), 'native', 'aligned', TINY)))
    assert len(set(identities)) == len(identities)


def test_cuts_and_frames_move_forward():
    rng = np.random.default_rng(0)
    ends = np.sort(rng.uniform(0, 60, 200)).round(2)
    words = pd.DataFrame(dict(onset=ends - 0.01, offset=ends))
    points = time_points(words, 120)
    assert all(a.time <= b.time for a, b in zip(points, points[1:])) and len(points) == 320
    last = -1.0
    for c in (c for c in points if c.kind == 'step'):
        f = frame_times(c.time, Contexts())
        assert (np.diff(f) > 0).all() and f[-1] < c.time and f[-1] > last
        last = f[-1]
        assert len(picture_pairs(c.time, Contexts())) == -(-len(f) // 2)
    first = first_words(words, 16)
    assert (np.diff(first) >= 0).all() and (np.arange(200) - first <= 15).all()


def test_equal_word_ends_share_one_context():
    words = pd.DataFrame(dict(onset=[0.0, 0.0, 1.0], offset=[0.8, 0.8, 2.0]))
    assert first_words(words, 2).tolist() == [0, 0, 1] and first_words(words, 1).tolist() == [0, 1, 2]


def test_the_thinker_loads_from_a_whole_checkpoint_in_bfloat16_and_extracts(tmp_path, monkeypatch):
    """What the hub holds is thinker and talker together; the thinker alone is read from it, at a pinned commit, without
    code."""
    from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration

    tiny = load_backbone('tiny-qwen3-omni-thinking')
    whole = Qwen3OmniMoeForConditionalGeneration._from_config(
        Qwen3OmniMoeConfig(thinker_config=tiny.config.to_dict(), enable_audio_output=False)
    )
    whole.thinker.load_state_dict(tiny.model.state_dict())
    whole.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    monkeypatch.setitem(backbones.SPECS, 'local', Spec('local', 'mirage.features.selection:Qwen3Omni', str(tmp_path)))
    model = load_backbone('local', revision='0' * 40)
    monkeypatch.setattr(type(model), 'pixels', tiny.pixels)
    assert model.model.dtype == torch.bfloat16 and model.identity()['revision'] == '0' * 40
    assert all(torch.equal(w.bfloat16(), model.model.state_dict()[k]) for k, w in tiny.model.state_dict().items())
    for fusion in ('native', 'tower'):
        ours = model.extract(Clip(4.0), fusion, 'aligned', TINY)
        exact = tiny.extract(Clip(4.0), fusion, 'aligned', TINY)
        for m in ours:
            assert np.corrcoef(ours[m][:, 1].ravel(), exact[m][:, 1].ravel())[0, 1] > 0.97, (fusion, m)


def test_real_models_need_a_commit_and_unknown_names_say_what_there_is():
    with pytest.raises(ValueError, match='40 digits'):
        load_backbone('llama-3.2-3b', revision='v1.0')
    with pytest.raises(ValueError, match='tiny-vjepa2'):
        load_backbone('clip')
    with pytest.raises(ValueError, match='native, tower'):
        load_backbone('tiny-qwen2.5-omni-7b').extract(Clip(1.0), 'early', 'aligned', TINY)
    with pytest.raises(ValueError, match='released, aligned, streaming'):
        get_protocol('old')
    with pytest.raises(ValueError, match='word_order=size in protocol .*: choose ends or transcript'):
        get_protocol('aligned,word_order=size')
    with pytest.raises(ValueError, match='video_at=oldest in protocol .released,chunk=10.: in chunks it is newest'):
        get_protocol('released,chunk=10')


# ---- revision=latest


COMMIT, NEWER = 'ab' * 20, 'cd' * 20


@pytest.fixture
def hub(monkeypatch, tmp_path):
    "A hub that says which commit is the newest, or why not, and counts how often it was asked."
    hub = SimpleNamespace(answer=COMMIT, asked=[])

    class Client:
        def model_info(self, repo, **how):
            hub.asked.append(repo)
            if isinstance(hub.answer, Exception):
                raise hub.answer
            return SimpleNamespace(sha=hub.answer)

    monkeypatch.setattr(backbones, 'HfApi', Client)
    monkeypatch.setattr(backbones.constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    backbones.latest_commit.cache_clear()
    yield hub
    backbones.latest_commit.cache_clear()


@pytest.fixture
def loudness(monkeypatch):
    "A backbone that comes from the hub, and is not fetched."

    class Still(backbones.Backbone):
        def real(self):
            return None, None

        def streams(self, fusion='native'):
            return dict(audio=(2, 4))

        def extract(self, movie, fusion='native', protocol='aligned', contexts=TINY):
            return dict(audio=np.ones((movie.steps, 2, 4), np.float32))

    monkeypatch.setattr(backbones, 'Still', Still, raising=False)
    monkeypatch.setitem(backbones.SPECS, 'still', Spec('still', 'mirage.features.backbones:Still', 'some/model'))
    return 'still'


def test_latest_becomes_a_commit_that_is_shown_and_asked_for_once(hub, loudness, capsys):
    assert load_backbone(loudness, revision='latest').revision == COMMIT
    assert f'some/model: the latest revision is {COMMIT}' in capsys.readouterr().out
    hub.answer = NEWER  # pushed in the middle of our work
    assert load_backbone(loudness, revision='latest').identity()['revision'] == COMMIT and hub.asked == ['some/model']


def test_latest_of_a_tiny_random_model_asks_nobody(hub):
    load_backbone('tiny-vjepa2', revision='latest')
    assert not hub.asked


@pytest.mark.parametrize(
    'answer, says',
    [
        (backbones.HTTPError('no network'), 'cannot be reached .*none of its files'),
        (ConnectionError('offline'), 'Give a commit instead'),
        ('main', "gave 'main' as the newest commit"),
        (None, 'gave None as the newest commit'),
    ],
)
def test_without_an_answer_of_the_hub_nothing_is_guessed(hub, loudness, answer, says):
    hub.answer = answer
    with pytest.raises(ConnectionError, match=says):
        load_backbone(loudness, revision='latest')


def test_without_a_network_the_commits_on_this_machine_are_named(hub, loudness, tmp_path):
    for name in (COMMIT, 'refs'):
        (tmp_path / 'cache/models--some--model/snapshots' / name).mkdir(parents=True)
    hub.answer = backbones.HTTPError('no network')
    with pytest.raises(ConnectionError, match=f'this machine holds {COMMIT}$'):
        load_backbone(loudness, revision='latest')


def test_features_keep_the_commit_that_they_were_begun_with(hub, loudness, tmp_path, capsys):
    make_stimulus(tmp_path, 's01e01a', 's01', n_tr=5, seed=0)
    movies = pd.DataFrame([('s01e01a', *stimulus_paths(tmp_path, 's01e01a'))], columns=['split', 'video', 'transcript'])
    store = extract_splits(movies, tmp_path / 'store', loudness, revision='latest')
    assert store.identity['backbone']['revision'] == COMMIT
    backbones.latest_commit.cache_clear()
    hub.answer = NEWER
    again = extract_splits(movies, tmp_path / 'store', loudness, revision='latest')
    assert again.identity == store.identity and f'latest stays {COMMIT}' in capsys.readouterr().out
    assert hub.asked == ['some/model']
    newer = extract_splits(movies, tmp_path / 'store', loudness, revision=NEWER)
    assert newer.identity['backbone']['revision'] == NEWER


@pytest.mark.parametrize(
    'change', ['vision_span=4', 'tower_span=4', 'tower_sound=movie', 'word_tokens=own', 'first_word=3', 'audio_span=0']
)
def test_a_choice_that_means_nothing_in_chunks_is_refused_rather_than_ignored(change):
    with pytest.raises(ValueError, match=f'{change}(.0)? in protocol .streaming,{change}.: in chunks'):
        get_protocol(f'streaming,{change}')


def test_no_word_is_read_before_there_is_a_token_of_sound():
    with pytest.raises(ValueError, match='first_word=0 in protocol .*no model has a token of sound before 0.03 s'):
        get_protocol('released,first_word=0')
