# The one definition of the pipeline: figure → notebook → inputs, from laptop to cluster.
#   snakemake -s nbs/paper.smk --cores 2 paper                     the embedded cohort
#   snakemake -s nbs/paper.smk --cores 8 paper --config cohort=algonauts2025 preset=paper     the real data
#   snakemake -s nbs/paper.smk --profile profiles/slurm paper --config …     on a SLURM cluster; --dry-run: its jobs
#   snakemake -s nbs/paper.smk --cores 1 cost --config …           what it would ask for, compute and store
#   snakemake -s nbs/paper.smk --cores 2 profile --config cohort=… backbone=text=…,audio=ready
#                                                                  models of your own (chapter 02i): ridge to depth
# Options after --config: cohort, preset, backbone (of `profile`), shards (of every extraction: 64 for the real data
# on a cluster), revisions (backbone → commit on the hub, or latest: '{qwen3-omni-thinking: latest}'), tflops
# (of `cost`: what the jobs' device does in an extraction; without it, what the machine that is asked would do, named).
# A job is one papermill line; its executed notebook is its log. A job runs again when the code of its notebook, of the
# modules that the notebook imports, its parameters or its inputs change. Prose does not count, nor the defaults of
# parameters that the line passes. Before it begins, the pipeline looks over the runs that are there: one that is not as
# asked (other settings, or inputs that changed since) is named and made again.
import ast, functools, hashlib, importlib.util, json, math, os, re, shlex, subprocess, sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, os.getcwd())  # this checkout's package, wherever another one is installed
from mirage.processes import begin_pipeline, end_group_with


def unlock():
    print('The last pipeline here was killed; its lock is removed.', file=sys.stderr)
    done = subprocess.run(
        [sys.executable, '-m', 'snakemake', '-s', workflow.main_snakefile, '--unlock', '--cores', '1'],
        env=os.environ | {'MIRAGE_UNLOCKS': '1'},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(
            f'the lock of a killed pipeline could not be removed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}'
        )


if workflow.is_main_process and 'MIRAGE_UNLOCKS' not in os.environ:
    for other in begin_pipeline(os.getcwd(), unlock):
        print(
            f'Another pipeline is at work here: process {other["pid"]} on {other["host"]} since {other["since"]}.',
            file=sys.stderr,
        )
    if builder := os.environ.pop('MIRAGE_BUILD', ''):
        end_group_with(int(builder))
    os.environ['MIRAGE_PIPELINE'] = str(os.getpid())
# papermill through an encrypted channel, and ended when the pipeline has ended: chapter 00a
shell.prefix(f'papermill() {{{{ {shlex.quote(sys.executable)} -m mirage.processes "$@"; }}}}; ')

from mirage.core import cohort_id, cohort_name, find_cohort, get_preset, own_preset
from mirage.features.backbones import backbone_id, extractions_of, is_given

NAMED = cohort_name(str(config.get('cohort', 'embedded')))  # what opens it: a name or a path
COHORT = cohort_id(NAMED)  # what features, results and figures go by


def opens(w):
    "What opens the cohort of a job."
    return NAMED if w.cohort == COHORT else w.cohort


def brings_features(w):
    "Whether a cohort's features came with it: then nothing is extracted."
    from mirage.data.cohort import read_about

    folder = find_cohort(NAMED) if w.cohort == COHORT else None
    return bool(folder and (folder / 'cohort.yaml').is_file() and read_about(folder / 'cohort.yaml')['features'])


SIMULATED = 'embedded|smoke'
GIVEN = str(config.get('backbone', ''))  # models given by id or folder: what `profile` draws
if GIVEN and not is_given(GIVEN):
    raise ValueError(f'backbone is {GIVEN!r}, expected models, text=…,audio=…,vision=…, or laptop')
GIVEN_ID = backbone_id(GIVEN)  # what their features and runs go by
SHARDS = int(config.get('shards', 1))
REVISIONS = config.get('revisions', {})
TFLOPS = float(config['tflops']) if 'tflops' in config else None
for name, commit in REVISIONS.items():
    if not re.fullmatch('latest|[0-9a-f]{40}', str(commit)):
        raise ValueError(f'revisions: {name} is {commit!r}, expected the 40 digits of a commit, or latest')
NEEDS = dict(
    extract=(120_000, 480, 1, 8),
    ridge=(64_000, 720, 0, 16),
    train=(128_000, 720, 1, 8),
    ensemble=(64_000, 240, 0, 4),
    attribute=(128_000, 480, 1, 8),
    figure=(32_000, 120, 0, 2),
)  # of real data: MB, minutes, GPUs (80 GB each), cores


def preset(w):
    "The preset of a job: the one asked for, or the cohort's own."
    return config.get('preset', own_preset(w.cohort))


def revision(w):
    "The commit of a backbone as words of a shell line, which quotes what it is given."
    return ['-r', 'revision', REVISIONS[w.backbone]] if w.backbone in REVISIONS else []


def simulated(w):
    return bool(re.fullmatch(f'(control-)?({SIMULATED})', w.cohort))


def needs(stage):  # for a cluster; on one machine nothing but the cores counts

    def ask(i, small):
        return lambda w: small if simulated(w) else NEEDS[stage][i]

    return dict(mem_mb=ask(0, 4000), runtime=ask(1, 60), gpu=ask(2, 0))


def cores(stage, small=1):
    return lambda w: small if simulated(w) else NEEDS[stage][3]


localrules:
    paper,
    profile,
    overview,
    results,
    cost,


wildcard_constraints:
    cohort=r'[^\W_][\w.-]*',
    backbone=r'[\w.-]+?',
    fusion='native|tower',
    protocol='released|aligned|streaming',
    model='mirage|encoder',
    seed=r'\d+',
    item=r'(?!claims\b)\w+',
    k=r'\d+',
    n=r'\d+',
    run=r'(mirage|encoder|mean)-[\w.-]+',


@functools.cache
def plain(source):
    "Code without comments, docstrings and line numbers."
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, 'body', None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(getattr(body[0], 'value', None), ast.Constant)
        ):
            node.body = body[1:]
    return ast.dump(tree)


def without_values(source, passed):
    "A parameters cell without the defaults of what the pipeline passes."
    keep = [line for line in source.splitlines() if line.partition(':')[0].strip() not in passed]
    return '\n'.join(keep + sorted(passed))


def cells(notebook, passed=()):
    "The code of a notebook, without IPython's own commands and without directives."
    code = []
    for c in json.loads(Path(notebook).read_text())['cells']:
        source = ''.join(c['source'])
        if 'parameters' in c['metadata'].get('tags', []):
            source = without_values(source, passed)
        if c['cell_type'] == 'code':
            code.append(source)
    return '\n'.join(re.sub(r'^\s*(%|!(?!=)).*$', '', c, flags=re.M) for c in code)


def module_file(name):
    "The file of a mirage module or package; None where there is none."
    path = Path(name.replace('.', '/'))
    return next((p for p in (path.with_suffix('.py'), path / '__init__.py') if p.is_file()), None)


@functools.cache
def imports(source, package=''):
    "The mirage modules that a source imports, dotted or relative to its package, or names as adaptors, module:class."
    from mirage import WHERE

    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name('.' * node.level + (node.module or ''), package)
            members = [alias.name for alias in node.names]
            names |= {base, *(f'{base}.{name}' for name in members)}
            if base == 'mirage':
                names |= {WHERE[name] for name in members if name in WHERE}
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r'mirage(\.\w+)+:\w+', node.value)
        ):
            names.add(node.value.partition(':')[0])
    return {name for name in names if name.startswith('mirage.') and module_file(name)}


def modules(source):
    "The mirage modules that a source imports, and theirs."
    found, todo = set(), imports(source)
    while todo:
        found |= todo
        todo = set().union(*(imports(module_file(name).read_text(), name.rpartition('.')[0]) for name in todo)) - found
    return found


def code(notebook, passed=''):  # names of parameters
    "A digest of everything that a notebook executes."
    source = cells(notebook, passed.split())
    parts = [plain(source)] + [plain(module_file(m).read_text()) for m in sorted(modules(source))]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:12]


def cohort_of(w):
    "A simulated cohort is made first; a real one is there or its chapter says what is missing."
    return [f'data/{w.cohort}/truth/truth.h5'] if simulated(w) else []


def extraction(cohort, backbone, fusion, protocol):
    return f'results/{cohort.removeprefix("control-")}/extract/{backbone}-{fusion}-{protocol}/provenance.json'


def features_of(w, fusion=None):
    "The extraction that a stage reads; a control cohort saw the movies of the one it is named after."
    if brings_features(w):
        return []
    p = get_preset(preset(w))
    return extraction(w.cohort, p.backbone, fusion or w.fusion, p.protocol)


RUNS = dict(  # item → the runs that it draws, stage/name
    fig1_pipeline=[],
    table2_hyperparameters=[],
    table3_licences=[],
    table1_scores=[
        'ridge/linear-challenge',
        'ridge/linear-tower',
        'ridge/linear-native',
        'ridge/banded-native',
        'train/encoder-tower-s0',
        'train/encoder-native-s0',
        'train/mirage-native-s0',
        'ensemble/mirage-native',
    ],
    fig3_modalities=['train/mirage-native-s0', 'attribute/mirage-native-s0'],
    fig4_gains=['ridge/linear-native', 'train/mirage-native-s0', 'attribute/mirage-native-s0'],
    fig5_attention=['attribute/mirage-native-s0'],
    fig7_heads=['attribute/mirage-native-s0'],
    fig2_fusion=[
        'ridge/linear-tower',
        'ridge/linear-native',
        'train/encoder-tower-s0',
        'train/encoder-native-s0',
        'train/mirage-tower-s0',
        'train/mirage-native-s0',
    ],
    fig6_queries=[],
    fig8_maps=['ridge/linear-native', 'train/mirage-native-s0', 'ensemble/mirage-native'],
    fig9_depth=['depth/mirage-native-s0'],
    fig10_ceiling=['train/mirage-native-s0', 'ridge/linear-native'],
    fig11_sensitivity=[],
    fig12_streams=['ridge/banded-native'],
    sanity=['ridge/linear-native'],
)


GIVEN_RUN = f'mirage-{GIVEN_ID}-native-s0'
PROFILE = dict(
    fig5_attention=[f'attribute/{GIVEN_RUN}'],
    fig7_heads=[f'attribute/{GIVEN_RUN}'],
    fig9_depth=[f'depth/{GIVEN_RUN}'],
)


def of_own_features():
    """What a cohort that brought its features can show: nothing that compares extractions, nor sweeps, unless they are
    asked for by name."""
    from mirage.data.cohort import Cohort
    from mirage.features.store import ready_features
    from mirage.plotting.figures import lacking

    shown = {
        item: [run for run in runs if 'tower' not in run and 'challenge' not in run] for item, runs in RUNS.items()
    }
    cohort = Cohort.open(NAMED)
    layers = {m: L for m, (L, _) in ready_features(cohort).streams.items()} if cohort.rates else None
    reasons = {item: lacking(item, cohort, layers) for item in shown}
    if workflow.is_main_process:
        for item, why in reasons.items():
            if why and not (GIVEN and item in PROFILE):
                print(f'{item} is not drawn: {why}', file=sys.stderr)
    return {
        item: runs
        for item, runs in shown.items()
        if not reasons[item] and item not in ('fig6_queries', 'fig11_sensitivity')
    }


if brings_features(SimpleNamespace(cohort=COHORT)):
    RUNS = of_own_features()
if GIVEN:
    RUNS |= PROFILE  # instead of the same figures of what came

CONTRASTS = ['ridge/linear-tower', 'ridge/linear-native', 'train/encoder-tower-s0', 'train/encoder-native-s0']
if re.fullmatch(SIMULATED, COHORT):
    RUNS['control'] = [*CONTRASTS, *(f'../control-{COHORT}/{run}' for run in CONTRASTS)]


def named(run):
    "A training run's name as parameters of chapter 05; given models stand in it by their id."
    from mirage.training.runs import parameters_of

    if GIVEN and run.startswith(f'mirage-{GIVEN_ID}-'):
        return parameters_of(run.replace(f'-{GIVEN_ID}', '', 1)) | dict(backbone=GIVEN)
    return parameters_of(run)


def sweeps_of(w):
    "The training runs that an item compares, beside those of RUNS."
    from mirage.training.runs import backbone_sweep, query_sweep, seed_sweep, sensitivity_sweeps

    p = get_preset(preset(w))

    def two_seeds():
        return [dict([*seed_sweep(p).items()][:2])]

    grids = dict(
        control=two_seeds,
        fig2_fusion=lambda: [backbone_sweep(p)],
        fig6_queries=lambda: [query_sweep(p)],
        fig11_sensitivity=lambda: [seed_sweep(p), *sensitivity_sweeps(p).values()],
    )
    return sorted({f'train/{run}' for grid in grids.get(w.item, list)() for run in grid.values()})


def runs_of(w):
    return [
        os.path.normpath(f'results/{w.cohort}/{run}/provenance.json') for run in sorted({*RUNS[w.item], *sweeps_of(w)})
    ]


def trained_on(w):
    "The extractions that a training reads: its own backbone and protocol where its name gives one, or the preset's."
    p, given = get_preset(preset(w)), named(w.run)
    backbone, protocol = given.get('backbone', p.backbone), given.get('protocol', p.protocol)
    if brings_features(w) and not is_given(backbone):
        return []
    return [extraction(w.cohort, b, given['fusion'], protocol) for b in extractions_of(backbone)[0]]


def asked_of(cohort, items):
    """The runs of a cohort that these items are made of, stage/name, but for those behind attributions and ensembles,
    which say it themselves."""
    runs = {run for item in items for run in [*RUNS[item], *sweeps_of(SimpleNamespace(cohort=cohort, item=item))]}
    runs |= {
        f'train/{Path(member).parent.name}'
        for run in runs
        if run.startswith('ensemble')
        for member in members_of(SimpleNamespace(cohort=cohort, fusion=run.split('-')[-1]))
    }
    runs |= {run.replace(stage, 'train') for run in runs for stage in ('attribute', 'depth') if run.startswith(stage)}
    read = {
        path
        for run in runs
        if run.startswith('train/')
        for path in trained_on(SimpleNamespace(cohort=cohort, run=run.removeprefix('train/')))
    }
    runs |= {f'extract/{Path(path).parent.name}' for path in read}
    return sorted(
        run for run in runs if '..' not in run and not (run.startswith('extract') and cohort.startswith('control-'))
    )


def asked_now():
    """cohort → runs to look over: those of the paper, or of the figures that were asked for. Whoever asks for anything
    else gets that, and nothing is set aside for it."""
    targets = [t for t in sys.argv[1:] if re.match(r'(results|data)/[\w.-]+/', t)]
    if not targets or f'results/{COHORT}/figures/index.html' in targets:
        return {c: asked_of(c, RUNS) for c in (COHORT, f'control-{COHORT}')}
    drawn = [m.groups() for t in targets if (m := re.match(r'results/([\w.-]+)/figures/(\w+)', t))]
    items = {cohort: [] for cohort, _ in drawn}
    for cohort, item in drawn:
        items[cohort] += [item] * (item in RUNS)
    return {cohort: asked_of(cohort, wanted) for cohort, wanted in items.items()}


@functools.cache
def set_aside(cohort):
    """Which runs were found to be other ones than asked for; looked for once, and not by jobs: they must not judge what
    others are writing."""
    from mirage.training import runs

    dry = bool({'-n', '--dry-run', '--dryrun'} & set(sys.argv))
    names = asked_now().get(cohort, []) if workflow.is_main_process and 'MIRAGE_UNLOCKS' not in os.environ else []
    return runs.set_aside(NAMED if cohort == COHORT else cohort, names, config.get('preset', 'auto'), dry)


def another(stage, name):  # of a run, with wildcards
    "Changes when a run that is not as asked was found, so that it is made again."
    return lambda w: set_aside(w.cohort).get(f'{stage}/{name.format(**dict(w.items()))}', '')


def options(w):
    "A run's name as parameters of chapter 05; it may be of another preset than the cohort's own if the pipeline is."
    given = dict(preset=preset(w)) | named(w.run) | dict(name=w.run, overwrite=True)
    return [word for k, v in given.items() for word in ('-p', k, str(v))]


def preset_of(w):
    "A figure that draws runs checks that they are of the preset that the pipeline is of; a profile is told its run."
    run = ['-p', 'run', GIVEN_RUN] if GIVEN and w.item in PROFILE else []
    return (['-p', 'preset', preset(w)] if RUNS[w.item] or sweeps_of(w) else []) + run


def extracted(w):
    return GIVEN if w.backbone == GIVEN_ID else w.backbone  # as chapter 02h is told


def shards_of(w):
    shard = f'results/{w.cohort}/extract/{w.backbone}-{w.fusion}-{w.protocol}-{{}}of{SHARDS}/provenance.json'
    return [shard.format(k) for k in range(1, SHARDS + 1)] if SHARDS > 1 else []


def members_of(w):
    "One training per seed."
    from mirage.training.runs import seed_sweep

    return [
        f'results/{w.cohort}/train/{run}/provenance.json'
        for run in seed_sweep(get_preset(preset(w)), w.fusion).values()
    ]


def draw_again():
    "Items that were drawn from other recordings or runs than are there now count no longer."
    targets = [t for t in sys.argv[1:] if re.match(r'(results|data)/[\w.-]+/', t)]
    pages = f'results/{COHORT}/figures/index.html', f'results/{COHORT}/figures/README.md'
    wanted = RUNS if not targets or set(pages) & set(targets) else {Path(t).stem for t in targets}
    items = [item for item in RUNS if item in wanted and Path(f'results/{COHORT}/figures/{item}.json').is_file()]
    if items:
        from mirage.plotting.overview import set_aside_items

        set_aside_items(NAMED, items, bool({'-n', '--dry-run', '--dryrun'} & set(sys.argv)))


if workflow.is_main_process and 'MIRAGE_UNLOCKS' not in os.environ:
    for cohort in asked_now():  # before the jobs are chosen
        set_aside(cohort)
    draw_again()


rule paper:
    input:
        f'results/{COHORT}/figures/index.html',
        f'results/{COHORT}/figures/README.md',


rule overview:
    input:
        expand('results/{{cohort}}/figures/{item}.json', item=RUNS),
        notebook=ancient('nbs/08d_overview.ipynb'),
    output:
        'results/{cohort}/figures/index.html',
    log:
        'results/{cohort}/notebooks/overview.ipynb',
    params:
        cohort=opens,
        code=code('nbs/08d_overview.ipynb'),
        shown=','.join(RUNS),
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} -p items {params.shown:q}'


rule results:
    "What git may keep: a page of Markdown and the claims as a table. make figures copies them."
    input:
        expand('results/{{cohort}}/figures/{item}.json', item=RUNS),
        notebook=ancient('nbs/08e_results.ipynb'),
    output:
        'results/{cohort}/figures/README.md',
        'results/{cohort}/figures/claims.csv',
    log:
        'results/{cohort}/notebooks/results.ipynb',
    params:
        cohort=opens,
        code=code('nbs/08e_results.ipynb', 'cohort items'),
        shown=','.join(RUNS),
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} -p items {params.shown:q}'


rule profile:
    "From words to depth: what a cohort's regions read from models that were given, by ridge and by MIRAGE."
    input:
        expand(f'results/{COHORT}/figures/{{item}}.json', item=PROFILE),
        f'results/{COHORT}/ridge/linear-{GIVEN_ID}-native/provenance.json' if GIVEN else [],


rule simulate:
    input:
        notebook=ancient('nbs/01i_simulate.ipynb'),
    output:
        'data/{cohort}/truth/truth.h5',
    log:
        'results/{cohort}/notebooks/simulate.ipynb',
    wildcard_constraints:
        cohort=SIMULATED,
    threads: lambda w: 1 if w.cohort == 'smoke' else 2  # its movies are shorter than a process takes to start
    params:
        code=code('nbs/01i_simulate.ipynb', 'cohort workers'),
        other=another('data', 'truth'),
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {wildcards.cohort:q} -p workers {threads}'


rule control:
    "The same movies, other brains: what the paper claims is not planted in them."
    input:
        'data/{cohort}/truth/truth.h5',
        'results/{cohort}/extract/tiny-qwen3-omni-thinking-tower-aligned/provenance.json',
        notebook=ancient('nbs/01i_simulate.ipynb'),
    output:
        'data/control-{cohort}/truth/truth.h5',
    log:
        'results/control-{cohort}/notebooks/simulate.ipynb',
    wildcard_constraints:
        cohort=SIMULATED,
    params:
        code=code('nbs/01i_simulate.ipynb', 'cohort interactions planted'),
        other=another('data', 'truth'),
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort control-{wildcards.cohort:q} -p interactions False'
        ' -p planted tower'


rule shard:
    input:
        cohort_of,
        notebook=ancient('nbs/02h_extract.ipynb'),
    output:
        'results/{cohort}/extract/{backbone}-{fusion}-{protocol}-{k}of{n}/provenance.json',
    log:
        'results/{cohort}/notebooks/extract-{backbone}-{fusion}-{protocol}-{k}of{n}.ipynb',
    threads: cores('extract')
    resources:
        **needs('extract'),
    params:
        cohort=opens,
        code=code('nbs/02h_extract.ipynb', 'cohort preset backbone fusion protocol workers shard'),
        preset=preset,
        revision=revision,
        backbone=extracted,
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} -p preset {params.preset:q}'
        ' -p backbone {params.backbone:q}'
        ' -p fusion {wildcards.fusion:q} -p protocol {wildcards.protocol:q} -p workers {threads}'
        ' -p shard {wildcards.k:q}/{wildcards.n:q} {params.revision:q}'


rule extract:
    "Everything; what shards have stored is found, not made again."
    input:
        cohort_of,
        shards_of,
        notebook=ancient('nbs/02h_extract.ipynb'),
    output:
        'results/{cohort}/extract/{backbone}-{fusion}-{protocol}/provenance.json',
    log:
        'results/{cohort}/notebooks/extract-{backbone}-{fusion}-{protocol}.ipynb',
    threads: cores('extract')
    resources:
        **needs('figure' if SHARDS > 1 else 'extract'),
    params:
        cohort=opens,
        code=code('nbs/02h_extract.ipynb', 'cohort preset backbone fusion protocol workers'),
        other=another('extract', '{backbone}-{fusion}-{protocol}'),
        preset=preset,
        revision=revision,
        backbone=extracted,
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} -p preset {params.preset:q}'
        ' -p backbone {params.backbone:q}'
        ' -p fusion {wildcards.fusion:q} -p protocol {wildcards.protocol:q} -p workers {threads} {params.revision:q}'


rule ridge:
    input:
        cohort_of,
        features_of,
        notebook=ancient('nbs/03d_ridge.ipynb'),
    output:
        'results/{cohort}/ridge/linear-{fusion}/provenance.json',
    log:
        'results/{cohort}/notebooks/linear-{fusion}.ipynb',
    threads: cores('ridge')
    resources:
        **needs('ridge'),
    params:
        cohort=opens,
        code=code('nbs/03d_ridge.ipynb', 'cohort preset fusion name overwrite'),
        other=another('ridge', 'linear-{fusion}'),
        preset=preset,
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} -p preset {params.preset:q}'
        ' -p fusion {wildcards.fusion:q}'
        ' -p name linear-{wildcards.fusion:q} -p overwrite True'


rule given_ridge:
    input:
        cohort_of,
        lambda w: extraction(w.cohort, w.backbone, w.fusion, get_preset(preset(w)).protocol),
        notebook=ancient('nbs/03d_ridge.ipynb'),
    output:
        'results/{cohort}/ridge/linear-{backbone}-{fusion}/provenance.json',
    log:
        'results/{cohort}/notebooks/linear-{backbone}-{fusion}.ipynb',
    threads: cores('ridge')
    resources:
        **needs('ridge'),
    params:
        cohort=opens,
        code=code('nbs/03d_ridge.ipynb', 'cohort preset backbone fusion name overwrite'),
        preset=preset,
        backbone=extracted,
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} -p preset {params.preset:q}'
        ' -p backbone {params.backbone:q}'
        ' -p fusion {wildcards.fusion:q} -p name linear-{wildcards.backbone:q}-{wildcards.fusion:q} -p overwrite True'


rule challenge:
    input:
        cohort_of,
        lambda w: features_of(w, 'tower'),
        notebook=ancient('nbs/03d_ridge.ipynb'),
    output:
        'results/{cohort}/ridge/linear-challenge/provenance.json',
    log:
        'results/{cohort}/notebooks/linear-challenge.ipynb',
    threads: cores('ridge')
    resources:
        **needs('ridge'),
    params:
        cohort=opens,
        code=code('nbs/03d_ridge.ipynb', 'cohort preset fusion variant name overwrite'),
        other=another('ridge', 'linear-challenge'),
        preset=preset,
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} -p preset {params.preset:q}'
        ' -p fusion tower -p variant challenge'
        ' -p name linear-challenge -p overwrite True'


rule banded:
    "A penalty per stream, and what each of them explains alone."
    input:
        cohort_of,
        features_of,
        notebook=ancient('nbs/03f_banded.ipynb'),
    output:
        'results/{cohort}/ridge/banded-{fusion}/provenance.json',
    log:
        'results/{cohort}/notebooks/banded-{fusion}.ipynb',
    threads: cores('ridge')
    resources:
        **needs('ridge'),
    params:
        cohort=opens,
        code=code('nbs/03f_banded.ipynb', 'cohort preset fusion name overwrite'),
        other=another('ridge', 'banded-{fusion}'),
        preset=preset,
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} -p preset {params.preset:q}'
        ' -p fusion {wildcards.fusion:q}'
        ' -p name banded-{wildcards.fusion:q} -p overwrite True'


rule train:
    input:
        cohort_of,
        trained_on,
        notebook=ancient('nbs/05_train.ipynb'),
    output:
        'results/{cohort}/train/{run}/provenance.json',
    log:
        'results/{cohort}/notebooks/{run}.ipynb',
    threads: cores('train')
    resources:
        **needs('train'),
    params:
        cohort=opens,
        code=code('nbs/05_train.ipynb', 'cohort preset seed fusion aggregate name overwrite'),
        options=options,
        other=another('train', '{run}'),
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} {params.options:q}'


rule ensemble:
    input:
        cohort_of,
        members_of,
        notebook=ancient('nbs/06c_ensemble.ipynb'),
    output:
        'results/{cohort}/ensemble/mirage-{fusion}/provenance.json',
    log:
        'results/{cohort}/notebooks/ensemble-mirage-{fusion}.ipynb',
    threads: cores('ensemble')
    resources:
        **needs('ensemble'),
    params:
        cohort=opens,
        code=code('nbs/06c_ensemble.ipynb', 'cohort preset name members overwrite'),
        members=lambda w: f'mirage-{w.fusion}-s*',
        preset=preset,
        other=another('ensemble', 'mirage-{fusion}'),
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} -p preset {params.preset:q}'
        ' -p name mirage-{wildcards.fusion:q}'
        ' -p members {params.members:q} -p overwrite True'


rule attribute:
    input:
        cohort_of,
        'results/{cohort}/train/{run}/provenance.json',
        notebook=ancient('nbs/07a_attribute.ipynb'),
    output:
        'results/{cohort}/attribute/{run}/provenance.json',
    log:
        'results/{cohort}/notebooks/attribute-{run}.ipynb',
    threads: cores('attribute')
    resources:
        **needs('attribute'),
    params:
        cohort=opens,
        code=code('nbs/07a_attribute.ipynb', 'cohort run overwrite'),
        other=another('attribute', '{run}'),
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} -p run {wildcards.run:q} -p overwrite True'


rule depth:
    input:
        cohort_of,
        'results/{cohort}/train/{run}/provenance.json',
        notebook=ancient('nbs/07b_depth.ipynb'),
    output:
        'results/{cohort}/depth/{run}/provenance.json',
    log:
        'results/{cohort}/notebooks/depth-{run}.ipynb',
    threads: cores('attribute')
    resources:
        **needs('attribute'),
    params:
        cohort=opens,
        code=code('nbs/07b_depth.ipynb', 'cohort run overwrite'),
        other=another('depth', '{run}'),
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} -p run {wildcards.run:q} -p overwrite True'


rule figure:
    input:
        cohort_of,
        runs_of,
        notebook=ancient('nbs/figures/{item}.ipynb'),
    output:
        'results/{cohort}/figures/{item}.json',
        'results/{cohort}/figures/{item}.png',
        'results/{cohort}/figures/{item}.pdf',
        'results/{cohort}/figures/{item}.csv',
    log:
        'results/{cohort}/notebooks/{item}.ipynb',
    threads: cores('figure')
    resources:
        **needs('figure'),
    params:
        cohort=opens,
        code=lambda w: code(f'nbs/figures/{w.item}.ipynb', 'cohort preset'),
        preset=preset_of,
    shell:
        'papermill {input.notebook:q} {log:q} -p cohort {params.cohort:q} {params.preset:q}'


def dry_run():
    "What snakemake would do, as it prints it."
    given = [f'{k}={json.dumps(v)}' for k, v in config.items()]
    line = [sys.executable, '-m', 'snakemake', '-s', 'nbs/paper.smk', '--cores', '1', '--dry-run', 'paper']
    done = subprocess.run([*line, *(['--config', *given] if given else [])], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'the dry run failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}')
    return done.stdout + done.stderr


def limits(printed):
    "Jobs and the limits that they ask for, by rule."
    import pandas as pd

    columns, rows = ['rule', 'mem_mb', 'runtime', 'gpu'], []
    for rule, text in re.findall(r'^(?:local)?rule (\w+):(.*?)(?=^\[|\Z)', printed, re.M | re.S):
        asked = re.findall(r'\b(mem_mb|runtime|gpu)=(\d+)', text)
        rows.append(dict(rule=rule, **{k: float(v) for k, v in asked}))
    jobs = pd.DataFrame(rows, columns=columns).fillna(0)
    jobs = jobs.assign(gb=jobs.mem_mb / 1000, hours=jobs.runtime / 60, gpu_hours=jobs.gpu * jobs.runtime / 60)
    each = {'jobs': ('rule', 'size'), 'GB each': ('gb', 'max'), 'hours each': ('hours', 'max')}
    table = jobs.groupby('rule', sort=False).agg(**each, **{'GPU-hours': ('gpu_hours', 'sum')})
    table.loc['together'] = {'jobs': len(jobs), 'GPU-hours': jobs.gpu_hours.sum()}
    return table


def extractions(printed):
    "What the extractions among the jobs compute and store."
    import pandas as pd
    from mirage.data.cohort import Cohort
    from mirage.features.backbones import load_backbone
    from mirage.features.extract import estimate

    data, p = Cohort.open(COHORT), get_preset(preset(SimpleNamespace(cohort=COHORT)))
    wanted = sorted(set(re.findall(r'wildcards: cohort=\S+, backbone=(\S+), fusion=(\w+), protocol=(\w+)', printed)))
    backbones = {b: load_backbone(b, revision=REVISIONS.get(b, '')) for b, *_ in wanted}
    costs = {}
    for backbone, fusion, protocol in wanted:
        model = backbones[backbone]
        costs[f'{backbone} {fusion} {protocol}'] = estimate(
            data.splits, model, fusion, protocol=protocol, contexts=p.contexts, tflops=TFLOPS, tr=data.tr
        )
    return pd.DataFrame(costs).T


def parameters_of(shape):
    import torch
    from mirage.models.model import Mirage

    with torch.device('meta'):
        return sum(p.numel() for p in Mirage(shape).parameters())


def streams_of(data, backbone):
    "Layers and width of each stream, from ready features or from the backbones."
    from mirage.features.backbones import load_backbone
    from mirage.features.store import ready_features

    if ready := ready_features(data):
        return dict(ready.streams)
    models = [load_backbone(name) for name in extractions_of(backbone)[0]]
    return {m: shape for model in models for m, shape in model.streams('native').items()}


def sizes_here():
    "What the cost of a fit to the cohort depends on, as the terms of benchmarks/growth name it."
    from mirage.data.cohort import Cohort
    from mirage.models.model import ModelConfig
    from mirage.models.ridge import chosen_design

    data, p = Cohort.open(NAMED), get_preset(preset(SimpleNamespace(cohort=COHORT)))
    streams = streams_of(data, p.backbone)
    layers, widths = zip(*streams.values())
    design, shown = chosen_design(data), data.runs[data.runs['set'] == 'train'].drop_duplicates('split')
    columns, trs = sum(widths) * len(design.delays), int(shown.n_tr.sum())
    shape = ModelConfig.from_preset(p, dict(zip(streams, widths)), data.subjects, data.parcels)
    sizes = dict(once=1, parcels=data.parcels, subjects=len(data.subjects), layers=max(layers), width=max(widths))
    sizes |= dict(queries=p.queries, hidden=p.hidden, depth=p.depth, parameters=parameters_of(shape))
    sizes |= dict(hours=trs * data.tr / 3600, columns=min(columns, design.width or columns))
    each = p.window * data.tr / 3600  # hours of a window
    windows, per_step = p.epochs * trs / p.stride, max(1, p.batch // len(data.subjects))
    training = sizes | dict(hours=windows * each, steps=windows / per_step)
    prediction = sizes | dict(steps=sizes['hours'] / each / per_step)
    return dict(ridge=sizes, training=training, prediction=prediction)


def fits():
    "Processor hours of a ridge, a training and a prediction by the laws that were measured here; empty without them."
    import pandas as pd

    measured = Path('results/benchmarks/laws.csv')
    if not measured.is_file():
        return {}
    sizes, hours = sizes_here(), {}
    for law in pd.read_csv(measured).itertuples():
        product = math.prod(float(sizes[law.kind][name]) for name in law.term.split())
        hours[law.kind] = hours.get(law.kind, 0) + law.seconds * product / 3600
    return hours


rule cost:
    "What all that is still to be made asks of a cluster at most, and what extraction computes and stores."
    run:
        printed = dry_run()
        table = limits(printed).to_string(na_rep='', float_format='{:.0f}'.format)
        print(f'Still to be made for {COHORT}: jobs and the limits that they ask for\n{table}\n')
        costs = extractions(printed)
        if len(costs):
            table = costs.map('{:,.3g}'.format).to_string()
            print(f'Extractions among them, counted from movies, transcripts and the models\n{table}')
        if hours := fits():
            said = ', '.join(f'{kind} {value:.2g}' for kind, value in hours.items())
            print(f'Processor hours of one fit here, extrapolated by results/benchmarks/laws.csv: {said}')
        else:
            print('How long a fit takes here: papermill nbs/benchmarks/growth.ipynb out.ipynb, then this again')
