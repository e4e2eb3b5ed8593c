"""Cohorts of numbers, without movies: one that is quick to train on, and two with finished runs that figures are drawn
from. Cohorts in files, as other people bring them, are in owncohorts.py."""

import json
from dataclasses import asdict
from pathlib import Path

import h5py, numpy as np, pandas as pd, torch

from mirage.core import MODALITIES, TR, digest, finish_run, get_preset, run_path, seal, start_run
from mirage.data.cohort import Cohort
from mirage.evaluation.statistics import map_runs, resample
from mirage.features.store import FeatureSet, inputs_of
from mirage.interpretation.attribute import STAGES, AttentionMean, subsets, write_bootstraps
from mirage.models.model import Mirage, ModelConfig
from mirage.training.runs import asked_settings, backbone_sweep, identity_of, parameters_of, query_sweep
from mirage.training.runs import sensitivity_sweeps, variant


def rng_of(*key):
    return np.random.default_rng(int(digest(key, 8), 16))


# ---- to train on

TRAINED_STREAMS = {'text': (4, 16), 'audio': (3, 16), 'vision': (5, 16)}
TRAINED_LENGTHS = {'a': 45, 'b': 38, 'c': 52, 'v': 41, 't': 30}  # TRs
TRAINED_SETS = {'v': 'val', 't': 's7'}


class TrainedFeatures(FeatureSet):
    "Noise on the 2 Hz grid; `poison` puts a NaN into one stream of one movie."

    streams, hz, poison = TRAINED_STREAMS, 2.0, None

    def steps(self, split):
        return int(TRAINED_LENGTHS[split] * TR * 2)

    def _fill(self, stream, split, start, out):
        states = rng_of(stream, split).normal(size=(self.steps(split), *TRAINED_STREAMS[stream])).astype(np.float16)
        if (stream, split) == self.poison:
            states[70, 1, 3] = np.nan
        out[:] = states[start : start + len(out)]


class TrainedCohort:
    """Three people, one of whom missed movie b and left c early; c was shown twice to the first. BOLD follows the
    features."""

    name, tr, parcels, simulated, ceiling = 'toy', TR, 6, False, None

    def __init__(self, subjects='all'):
        self.subjects = ('sub-01', 'sub-02', 'sub-03') if subjects == 'all' else tuple(subjects.split(','))
        rows = [
            dict(
                subject=s,
                split=f,
                repeat=r,
                set=TRAINED_SETS.get(f, 'train'),
                n_tr=n - 7 * ((s, f) == ('sub-03', 'c')),
                onset=0.0,
                bold=None if f == 't' and s == 'sub-02' else Path(__file__),
            )
            for s in self.subjects
            for f, n in TRAINED_LENGTHS.items()
            for r in (1, 2)
            if (s, f) != ('sub-03', 'b') and (r == 1 or (s, f) == ('sub-01', 'c'))
        ]
        self.runs = pd.DataFrame(rows, dtype=object).astype({'repeat': int, 'n_tr': int})

    @property
    def splits(self):
        return self.runs[['split']].drop_duplicates()

    @property
    def measured(self):
        return np.ones((len(self.subjects), self.parcels), bool)

    def bold_window(self, row, start, stop):
        driven = np.concatenate(
            [TrainedFeatures().read(m, row.split, 0, 150).astype(np.float32).mean(1) for m in TRAINED_STREAMS], 1
        )
        driven = driven[np.maximum((np.arange(row.n_tr) * TR * 2).astype(int) - 9, 0)] @ rng_of('weights').normal(
            size=(48, 6)
        )
        bold = driven + rng_of(row.subject, row.split, row.repeat).normal(size=driven.shape)
        return ((bold - bold.mean(0)) / bold.std(0)).astype(np.float32)[start:stop]


# ---- to draw from

SUBJECTS, LAYERS = ('sub-01', 'sub-02'), 13
VAL_SPLITS, VAL_ROWS = ('s06e01a', 's06e01b'), 160
RUNS = {s: dict(zip(VAL_SPLITS, VAL_SPLITS)) for s in SUBJECTS}  # {subject: {split: its name}}


class Planted:
    "What both have: a name, two subjects, and a truth."

    name, tr, simulated, subjects, rates, labels = 'toy', 1.49, True, SUBJECTS, {}, ()
    names, regions, imported, labels_digest = None, None, {}, ''
    named = Cohort.named

    def write_truth(self, columns, loadings):  # (parcels, columns)
        (self.root / 'truth').mkdir(parents=True)
        with h5py.File(self.root / 'truth' / 'truth.h5', 'w') as f:
            f.attrs['columns'] = json.dumps(columns)
            for s in SUBJECTS:
                f[f'weights/{s}'] = loadings
            for m in MODALITIES:
                f[f'bands/{m}'] = np.eye(LAYERS)[6]
        seal(self.root / 'truth' / 'truth.h5')


class OneSet(Planted):
    "Two subjects, two short movies; every parcel mixes three known signals."

    def __init__(self, folder, parcels=1000, atlas='schaefer1000', planted=True, lost=False):
        self.rng = rng = np.random.default_rng(0)
        self.root, self.parcels, self.atlas = folder, parcels, atlas
        self.runs = pd.DataFrame(
            [(s, k, 'val', 1, Path(__file__), VAL_ROWS) for s in SUBJECTS for k in VAL_SPLITS],
            columns=['subject', 'split', 'set', 'repeat', 'bold', 'n_tr'],
        )
        self.splits = pd.DataFrame(dict(split=VAL_SPLITS, movie='s06'))
        shares = rng.dirichlet([0.3] * 3, parcels)
        self.predicted_shares = shares if planted else rng.permutation(shares)
        self.signal = {k: rng.standard_normal((VAL_ROWS, 3, parcels)) for k in VAL_SPLITS}
        true = np.sqrt(shares)
        self.measured = map_runs(lambda k: self.noisy((true.T * self.signal[k]).sum(1), 1.0), RUNS)
        if lost:  # ten parcels of one person, and three of everybody, were not measured
            for s, first in zip(SUBJECTS, (10, 0)):
                for y in self.measured[s].values():
                    y[:, first:10] = y[:, -3:] = np.nan
        self.ceiling = pd.DataFrame(
            dict(subject=np.repeat(SUBJECTS, parcels), parcel=np.tile(np.arange(parcels) + 1, 2), ceiling=0.7)
        )
        self.write_truth([*MODALITIES, 'text×audio'], np.c_[true, np.full(parcels, 0.1)])

    def noisy(self, y, noise):
        return (y + noise * self.rng.standard_normal(y.shape)).astype(np.float32)

    def predicted(self, noise, given=MODALITIES):
        "Of every run, from some of the modalities."
        columns = [MODALITIES.index(m) for m in given]

        def run(k):
            return self.noisy(sum(np.sqrt(self.predicted_shares[:, i]) * self.signal[k][:, i] for i in columns), noise)

        return map_runs(run, RUNS)

    def bold(self, row):
        return self.measured[row.subject][row.split]

    def write(self):
        "Finished train, ridge and attribution runs."
        for stage, name, noise in (('train', 'mirage-native-s0', 0.3), ('ridge', 'linear-native', 1.0)):
            run = start_run(
                run_path('toy', stage, name),
                asked_settings('toy', stage, name)
                | dict(cohort='toy', model=dict(streams=list(MODALITIES)), inputs=inputs_of(self)),
            )
            with h5py.File(run.path / 'predictions.h5', 'w') as f:
                for s, movies_of in self.predicted(noise).items():
                    for k, y in movies_of.items():
                        f[f'val/{s}/{k}'] = y
            (run.path / 'weights.safetensors').write_bytes(b'weights')
            trained = finish_run(run, {})
            if stage == 'train':
                of = {f'train/{name}': identity_of(trained)}
        self.write_attribution(of)
        return self

    def write_attribution(self, of):  # identity of the training run
        def score(predicted):
            return resample(predicted, self.measured, dict.fromkeys(VAL_SPLITS, 's06'), draws=20)

        found = {f'subset/{s}': score(self.predicted(0.3, s.split('+'))) for s in subsets(MODALITIES)}
        found |= {f'stage/{s}': score(self.predicted(noise)) for s, noise in zip(STAGES, (1.0, 0.9, 0.8, 0.4, 0.3))}
        out = start_run(
            run_path('toy', 'attribute', 'mirage-native-s0'),
            dict(cohort='toy', streams=list(MODALITIES), inputs=inputs_of(self) | dict(of=of)),
        )
        mean, start = AttentionMean(), AttentionMean()
        a, b = (torch.softmax(torch.randn(2, 8, 4, 5, LAYERS) + pull * torch.eye(LAYERS)[6], -1) for pull in (3, 0))
        for kept, x in ((mean, a), (start, b)):
            kept.update(dict.fromkeys(MODALITIES, x), torch.ones(2, 8, dtype=bool))
        mean.table().to_parquet(out.path / 'attention.parquet')
        start.table().to_parquet(out.path / 'attention_start.parquet')
        mean.in_window().to_parquet(out.path / 'attention_in_window.parquet')
        write_bootstraps(out.path / 'bootstrap.h5', found)
        pd.concat([
            pd.DataFrame(dict(subject=s, parcel=np.arange(self.parcels) + 1, set='val', condition=c, r=b.r[i]))
            for c, b in found.items()
            for i, s in enumerate(SUBJECTS)
        ]).to_parquet(out.path / 'scores.parquet')
        finish_run(out, {})


ALL_ROWS, WINDOWS, PRESET = 120, 6, get_preset('smoke')
ALL_SPLITS = dict(
    val=('s06e01a', 's06e01b'),
    s7=('s07e01a', 's07e01b'),
    ood=('wot1', 'wot2', 'chaplin1', 'chaplin2'),
    train=('life01', 'figures01'),
)


def steps(stage, name):
    "How many steps a run is from the best one, by the paper's account."
    if stage != 'train':
        return {'ensemble': 0, 'ridge': 3}[stage] + ('tower' in name)
    given = parameters_of(name)
    changed = set(given) - {'aggregate', 'fusion', 'seed'}
    return 1 + (given['aggregate'] == 'groups') + (given['fusion'] == 'tower') + bool(changed)


class EverySet(Planted):
    "Two subjects who saw every set, and two movies twice; parcels mix three modalities and have known ceilings."

    def __init__(self, folder, parcels=60, atlas=None, good=True):
        self.root, self.parcels, self.atlas, self.good, rng = folder, parcels, atlas, good, rng_of('toy')
        rows = [
            (s, k, k.rstrip('12').removesuffix('0'), which, r, Path(__file__), ALL_ROWS)
            for s in SUBJECTS
            for which, ks in ALL_SPLITS.items()
            for k in ks
            for r in ((1, 2) if which == 'train' else (1,))
        ]
        self.runs = pd.DataFrame(rows, columns=['subject', 'split', 'movie', 'set', 'repeat', 'bold', 'n_tr']).assign(
            movie=lambda t: t.movie.where(t.set == 'ood', t.split.str[:3])
        )
        self.splits = self.runs[['split', 'movie', 'set']].drop_duplicates('split')
        self.signal = {k: rng.standard_normal((ALL_ROWS, parcels)) for ks in ALL_SPLITS.values() for k in ks}
        self.known = rng.uniform(0.3, 0.9, parcels)
        self.ceiling = pd.DataFrame(
            dict(
                subject=np.repeat(SUBJECTS, parcels),
                parcel=np.tile(np.arange(parcels) + 1, 2),
                ceiling=np.tile(self.known if good else self.known[::-1], 2),
            )
        )
        self.shares = rng.dirichlet([0.3] * 3, parcels)
        self.write_truth(list(MODALITIES), np.sqrt(self.shares))

    def bold(self, row):
        y = self.known * self.signal[row.split] + np.sqrt(1 - self.known**2) * rng_of(
            row.subject, row.split, row.repeat
        ).standard_normal((ALL_ROWS, self.parcels))
        return y.astype(np.float32)

    def write(self):
        "Every run that the figures draw."
        grids = backbone_sweep(PRESET), query_sweep(PRESET), *sensitivity_sweeps(PRESET).values()
        train = {'encoder-tower-s0', 'encoder-native-s0', *(variant(PRESET, s) for s in range(PRESET.members))}
        train |= {run for grid in grids for run in grid.values()}
        others = [('ridge', 'linear-tower'), ('ridge', 'linear-native'), ('ensemble', 'mirage-native')]
        for stage, name in [*others, *(('train', n) for n in sorted(train))]:
            done = self.write_run(stage, name)
            if name == 'mirage-native-s0':
                of = {f'train/{name}': identity_of(done)}
        self.write_depth(of)
        return self

    def write_run(self, stage, name):  # the finished Run
        n = steps(stage, name)
        noise = 0.4 + 0.4 * n if self.good else 2.4 - 0.4 * n
        queries = parameters_of(name).get('queries', PRESET.queries) if stage == 'train' else PRESET.queries
        widths = dict.fromkeys(MODALITIES, 12)
        shape = ModelConfig.from_preset(PRESET, widths, SUBJECTS, self.parcels, queries=queries)
        run = start_run(
            run_path('toy', stage, name),
            dict(preset=asdict(PRESET), fusion='native')
            | asked_settings('toy', stage, name)
            | dict(cohort='toy', model=asdict(shape), inputs=inputs_of(self)),
        )
        with h5py.File(run.path / 'predictions.h5', 'w') as f:
            for which, s, k in ((w, s, k) for w in ('val', 's7', 'ood') for s in SUBJECTS for k in ALL_SPLITS[w]):
                error = noise * rng_of(name, s, k).standard_normal((ALL_ROWS, self.parcels))
                f[f'{which}/{s}/{k}'] = (self.signal[k] + error).astype(np.float32)
        (run.path / 'weights.safetensors').write_bytes(name.encode())
        with torch.device('meta'):
            return finish_run(run, dict(parameters=sum(p.numel() for p in Mirage(shape).parameters())))

    def write_depth(self, of):  # identity of the training run
        out = start_run(
            run_path('toy', 'depth', 'mirage-native-s0'),
            dict(cohort='toy', streams=list(MODALITIES), inputs=inputs_of(self) | dict(of=of)),
        )
        shares = self.shares if self.good else np.roll(self.shares, 1, axis=1)
        profile = np.exp(-((np.arange(LAYERS) - (6 if self.good else 1)) ** 2) / 2)
        profile /= profile.sum()
        with h5py.File(out.path / 'parts.h5', 'w') as f:
            for i, m in enumerate(MODALITIES):
                f[f'parts/{m}'] = (
                    0.4 / WINDOWS * profile[:, None] * shares[:, i] * rng_of(m).uniform(0.8, 1.2, (WINDOWS, 1, 1))
                )
            f['rest'] = np.zeros((WINDOWS, self.parcels))
        finish_run(out, dict(error=0.0))


class DrawnFeatures:
    "What Figure 6 needs to know of the features: their shapes."

    streams = dict.fromkeys(MODALITIES, (LAYERS, 12))
