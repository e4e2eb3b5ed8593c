# The one definition of the pipeline: figure → notebook → inputs, from laptop to cluster.
#   snakemake -s nbs/paper.smk --cores 2 paper                                              the embedded cohort
#   snakemake -s nbs/paper.smk --cores 8 paper --config cohort=algonauts2025 preset=paper   the real data
# A job is one papermill line; its executed notebook is its log. A job runs again when the code of its notebook, of the modules
# that the notebook imports, its parameters or its inputs change. Prose does not count.
import ast, hashlib, json, re
from pathlib import Path

COHORT = config.get('cohort', 'embedded')
SIMULATED = 'embedded|smoke'
PRESET = lambda w: config.get('preset', 'smoke' if w.cohort == 'smoke' else 'tiny')

wildcard_constraints:
    cohort=r'[\w.-]+', backbone=r'[\w.-]+?', fusion='native|tower', protocol='released|aligned|streaming', model='mirage|encoder', seed=r'\d+', item=r'\w+', run=r'(mirage|encoder|mean)-[\w.-]+'


def plain(source):
    "Code without comments, docstrings and line numbers."
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, 'body', None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(getattr(body[0], 'value', None), ast.Constant):
            node.body = body[1:]
    return ast.dump(tree)


def cells(notebook):
    "The code of a notebook, without IPython's own commands and without directives."
    code = [''.join(c['source']) for c in json.loads(Path(notebook).read_text())['cells'] if c['cell_type'] == 'code']
    return '\n'.join(re.sub(r'^\s*[%!].*$', '', c, flags=re.M) for c in code)


def modules(source, seen=()):
    "The mirage modules that a source imports, and theirs."
    names = set(re.findall(r'^\s*from (?:mirage\.|\.)(\w+) import', source, re.M)) - set(seen)
    for name in sorted(names): names |= modules(Path(f'mirage/{name}.py').read_text(), names | set(seen))
    return names


def code(notebook):
    "A digest of everything that a notebook executes."
    source = cells(notebook)
    parts = [plain(source)] + [plain(Path(f'mirage/{m}.py').read_text()) for m in sorted(modules(source))]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:12]


def cohort_of(w):
    "A simulated cohort is made first; a real one is there or its chapter says what is missing."
    return [f'data/{w.cohort}/truth/truth.h5'] if re.fullmatch(SIMULATED, w.cohort) else []


def features_of(w, fusion=None):
    "The extraction that a stage reads."
    from mirage.core import get_preset
    p = get_preset(PRESET(w))
    return f'results/{w.cohort}/extract/{p.backbone}-{fusion or w.fusion}-{p.protocol}/provenance.json'


RUNS = dict(   # item → the runs that it draws, stage/name
    fig1_pipeline=[], table2_hyperparameters=[], table3_licences=[],
    table1_scores=['ridge/linear-challenge', 'ridge/linear-tower', 'ridge/linear-native', 'train/encoder-tower-s0', 'train/encoder-native-s0',
                   'train/mirage-native-s0', 'ensemble/mirage-native'],
    fig3_modalities=['train/mirage-native-s0', 'attribute/mirage-native-s0'],
    fig4_gains=['ridge/linear-native', 'train/mirage-native-s0', 'attribute/mirage-native-s0'],
    fig5_attention=['attribute/mirage-native-s0'], fig7_heads=['attribute/mirage-native-s0'],
    fig2_fusion=['ridge/linear-tower', 'ridge/linear-native', 'train/encoder-tower-s0', 'train/encoder-native-s0', 'train/mirage-tower-s0', 'train/mirage-native-s0'],
    fig6_queries=[], fig8_maps=['ridge/linear-native', 'train/mirage-native-s0', 'ensemble/mirage-native'],
    fig9_depth=['depth/mirage-native-s0'], fig10_ceiling=['train/mirage-native-s0', 'ridge/linear-native'], fig11_sensitivity=[])


def sweeps_of(w):
    "The training runs that an item compares, beside those of RUNS."
    from mirage.core import get_preset
    from mirage.runs import backbone_sweep, query_sweep, sensitivity_sweeps
    p = get_preset(PRESET(w))
    grids = dict(fig2_fusion=lambda: [backbone_sweep(p)], fig6_queries=lambda: [query_sweep(p)], fig11_sensitivity=lambda: sensitivity_sweeps(p).values())
    return sorted({f'train/{run}' for grid in grids.get(w.item, list)() for run in grid.values()})


def runs_of(w): return [f'results/{w.cohort}/{run}/provenance.json' for run in sorted({*RUNS[w.item], *sweeps_of(w)})]


def trained_on(w):
    "The extractions that a training run reads: its own backbone and protocol where its name gives one, else the preset's."
    from mirage.core import get_preset
    from mirage.runs import parameters_of
    from mirage.store import FAMILIES
    p, given = get_preset(PRESET(w)), parameters_of(w.run)
    backbone, protocol = given.get('backbone', p.backbone), given.get('protocol', p.protocol)
    return [f'results/{w.cohort}/extract/{b}-{given["fusion"]}-{protocol}/provenance.json' for b in FAMILIES.get(backbone, {0: backbone}).values()]


def options(w):
    "A run's name as parameters of chapter 05."
    from mirage.runs import parameters_of
    return ' '.join(f'-p {k} {v}' for k, v in parameters_of(w.run).items())


def members_of(w):
    "One training run a seed."
    from mirage.core import get_preset
    return [f'results/{w.cohort}/train/mirage-{w.fusion}-s{seed}/provenance.json' for seed in range(get_preset(PRESET(w)).members)]


rule paper:
    input: expand('results/{cohort}/figures/{item}.json', cohort=COHORT, item=RUNS)

rule simulate:
    input: notebook=ancient('nbs/01a_simulate.ipynb')
    output: 'data/{cohort}/truth/truth.h5'
    params: code=code('nbs/01a_simulate.ipynb')
    log: 'results/{cohort}/notebooks/simulate.ipynb'
    wildcard_constraints: cohort=SIMULATED
    threads: 2
    shell: 'papermill {input.notebook} {log} -p cohort {wildcards.cohort}'

rule extract:
    input: cohort_of, notebook=ancient('nbs/02c_extract.ipynb')
    output: 'results/{cohort}/extract/{backbone}-{fusion}-{protocol}/provenance.json'
    params: code=code('nbs/02c_extract.ipynb'), preset=PRESET
    log: 'results/{cohort}/notebooks/extract-{backbone}-{fusion}-{protocol}.ipynb'
    threads: 2
    shell: 'papermill {input.notebook} {log} -p cohort {wildcards.cohort} -p preset {params.preset} -p backbone {wildcards.backbone}'
           ' -p fusion {wildcards.fusion} -p protocol {wildcards.protocol}'

rule ridge:
    input: cohort_of, features_of, notebook=ancient('nbs/04_ridge.ipynb')
    output: 'results/{cohort}/ridge/linear-{fusion}/provenance.json'
    params: code=code('nbs/04_ridge.ipynb'), preset=PRESET
    log: 'results/{cohort}/notebooks/linear-{fusion}.ipynb'
    shell: 'papermill {input.notebook} {log} -p cohort {wildcards.cohort} -p preset {params.preset} -p fusion {wildcards.fusion}'

rule challenge:
    input: cohort_of, lambda w: features_of(w, 'tower'), notebook=ancient('nbs/04_ridge.ipynb')
    output: 'results/{cohort}/ridge/linear-challenge/provenance.json'
    params: code=code('nbs/04_ridge.ipynb'), preset=PRESET
    log: 'results/{cohort}/notebooks/linear-challenge.ipynb'
    shell: 'papermill {input.notebook} {log} -p cohort {wildcards.cohort} -p preset {params.preset} -p fusion tower -p recipe challenge'

rule train:
    input: cohort_of, trained_on, notebook=ancient('nbs/05_train.ipynb')
    output: 'results/{cohort}/train/{run}/provenance.json'
    params: code=code('nbs/05_train.ipynb'), preset=PRESET, options=options
    log: 'results/{cohort}/notebooks/{run}.ipynb'
    shell: 'papermill {input.notebook} {log} -p cohort {wildcards.cohort} -p preset {params.preset} {params.options}'

rule ensemble:
    input: cohort_of, members_of, notebook=ancient('nbs/07_ensemble.ipynb')
    output: 'results/{cohort}/ensemble/mirage-{fusion}/provenance.json'
    params: code=code('nbs/07_ensemble.ipynb'), preset=PRESET
    log: 'results/{cohort}/notebooks/ensemble-mirage-{fusion}.ipynb'
    shell: 'papermill {input.notebook} {log} -p cohort {wildcards.cohort} -p preset {params.preset} -p name mirage-{wildcards.fusion}'
           ' -p members "mirage-{wildcards.fusion}-s*"'

rule attribute:
    input: cohort_of, 'results/{cohort}/train/{model}-{fusion}-s{seed}/provenance.json', notebook=ancient('nbs/08_attribute.ipynb')
    output: 'results/{cohort}/attribute/{model}-{fusion}-s{seed}/provenance.json'
    params: code=code('nbs/08_attribute.ipynb')
    log: 'results/{cohort}/notebooks/attribute-{model}-{fusion}-s{seed}.ipynb'
    shell: 'papermill {input.notebook} {log} -p cohort {wildcards.cohort} -p run {wildcards.model}-{wildcards.fusion}-s{wildcards.seed}'

rule depth:
    input: cohort_of, 'results/{cohort}/train/{run}/provenance.json', notebook=ancient('nbs/08b_depth.ipynb')
    output: 'results/{cohort}/depth/{run}/provenance.json'
    params: code=code('nbs/08b_depth.ipynb')
    log: 'results/{cohort}/notebooks/depth-{run}.ipynb'
    shell: 'papermill {input.notebook} {log} -p cohort {wildcards.cohort} -p run {wildcards.run}'

rule figure:
    input: cohort_of, runs_of, notebook=ancient('nbs/figures/{item}.ipynb')
    output: 'results/{cohort}/figures/{item}.json', 'figures/{cohort}/{item}.png', 'figures/{cohort}/{item}.pdf', 'figures/{cohort}/{item}.csv'
    params: code=lambda w: code(f'nbs/figures/{w.item}.ipynb')
    log: 'results/{cohort}/notebooks/{item}.ipynb'
    shell: 'papermill {input.notebook} {log} -p cohort {wildcards.cohort}'
