"""The paper can be cited from every place where a reader meets it, and all of them say the same; the methods section
follows the run."""

import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import tomllib
import yaml

from mirage.core import finish_run, get_preset, start_run
from mirage.data.manifest import load_manifest
from mirage.evaluation.methods import methods_paragraph
from mirage.models.model import ModelConfig

ROOT = Path(__file__).resolve().parents[1]
CITED = yaml.load((ROOT / 'CITATION.cff').read_text(), yaml.BaseLoader)
PAPER = CITED['preferred-citation']
ARXIV = PAPER['identifiers'][0]['value']
NAMES = [a['family-names'] for a in PAPER['authors']]


def bibtex():
    "The entry of README as field → value."
    entry = re.search(r'```bibtex\n@\w+\{\w+,\n(.*?)\n\}\n```', (ROOT / 'README.md').read_text(), re.S)[1]
    return dict(re.findall(r'^\s*(\w+)\s*=\s*\{(.*)\},?$', entry, re.M))


def test_the_citation_file_is_valid():
    given = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    schema = json.loads((ROOT / 'tests/data/cff-1.2.0.schema.json').read_text())
    jsonschema.validate(json.loads(json.dumps(given, default=str)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(json.dumps(given | dict(authors=[]), default=str)), schema)


@pytest.mark.long
def test_cffconvert_takes_the_citation_file(tmp_path):
    "In an environment of its own: it wants an older jsonschema than Jupyter."
    subprocess.run([sys.executable, '-m', 'venv', tmp_path / 'env'], check=True)
    got = subprocess.run(
        [tmp_path / 'env/bin/pip', 'install', '-q', 'cffconvert==2.0.0'], capture_output=True, text=True
    )
    if got.returncode:
        pytest.skip(f'cffconvert could not be installed: {got.stderr[-200:]}')
    shutil.copy(ROOT / 'CITATION.cff', tmp_path)
    done = subprocess.run([tmp_path / 'env/bin/cffconvert', '--validate'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and 'valid according to schema version 1.2.0' in done.stdout, done.stdout + done.stderr


def test_every_place_names_the_same_paper():
    meta = json.loads((ROOT / 'codemeta.json').read_text())
    paper, entry = meta['referencePublication'][0], bibtex()
    assert [a['familyName'] for a in paper['author']] == NAMES == ['Gokce', 'AlKhamissi', 'Schrimpf']
    assert paper['name'] == PAPER['title'] == re.sub('[{}]', '', entry['title'])
    assert (
        paper['identifier'] == ARXIV == f'arXiv:{entry["eprint"]}' and paper['datePublished'] == PAPER['date-released']
    )
    assert all(name in entry['author'] for name in NAMES) and entry['year'] == PAPER['year']
    citation = load_manifest()['mirage']['citation']
    assert PAPER['title'] in citation and ARXIV in citation and all(name in citation for name in NAMES)
    readme = (ROOT / 'README.md').read_text()
    assert PAPER['url'] in readme and 'epfl-neuroai/mirage' in readme and 'mirage-brain.epfl.ch' in readme


def test_the_software_says_that_it_is_a_reproduction_and_which_version():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    settings = ConfigParser()
    settings.read(ROOT / 'settings.ini')
    meta = json.loads((ROOT / 'codemeta.json').read_text())
    assert len({project['version'], settings['DEFAULT']['version'], CITED['version'], meta['version']}) == 1
    assert meta['description'] == CITED['abstract'].strip() and meta['name'] == CITED['title']
    for text in (CITED['message'], CITED['abstract'], (ROOT / 'README.md').read_text()):
        assert 'independent reproduction' in text


@pytest.mark.parametrize('notebook', sorted(p.stem for p in (ROOT / 'nbs/figures').glob('*.ipynb')))
def test_each_figure_notebook_links_the_paper_and_names_its_part_of_it(notebook):
    cells = json.loads((ROOT / f'nbs/figures/{notebook}.ipynb').read_text())['cells']
    texts = [''.join(c['source']) for c in cells if c['cell_type'] == 'markdown']
    citation = next((t for t in texts if PAPER['url'] in t), '')
    kind, number = re.match(r'(fig|table|)(\d*)', notebook).groups()
    if not number or 'Beyond the paper' in texts[0]:
        assert citation.startswith('*Beyond the paper, which is A. Gokce')
    else:
        part = rf'Reproduces {dict(fig="Figure", table="Table")[kind]} {number} \((§|App\. )'
        assert re.search(part, citation), citation


# ---- the methods section of a run


def methods(folder, simulated=False, revision='', **changes):
    "The text of a run of the paper's preset with these settings changed."
    own = {k: v for k, v in changes.items() if k in ('seed', 'fusion', 'precision', 'cohort')}
    preset = get_preset('paper', **{k: v for k, v in changes.items() if k not in own and k != 'aggregate'})
    shape = ModelConfig.from_preset(preset, dict(text=8, audio=8, vision=8), ('sub-01', 'sub-02'), 1000)
    shape = replace(shape, aggregate=changes.get('aggregate', 'queries'))
    config = dict(cohort='algonauts2025', seed=33, fusion='native', precision='fp16') | own
    read = dict(tr=1.49, runs={s: {'s01e01a 1': 'train 592 ses-001 0.0'} for s in shape.subjects})
    run = start_run(folder, config | dict(preset=asdict(preset), model=asdict(shape), inputs=read))
    scored = dict(parameters=1000, best_epoch=3, r=dict(val=0.25), per_subject={'sub-01': 0.2, 'sub-02': 0.3})
    about = SimpleNamespace(simulated=simulated, atlas='schaefer1000', revision=revision)
    return methods_paragraph(finish_run(run, scored), about)


CHANGES = dict(
    lr=3e-4, weight_decay=0.07, epochs=9, batch=12, clip=0.6, warmup=0.25, window=60, stride=30, queries=17,
    pool_heads=8, pool_dropout=0.35, hidden=1536, depth=5, heads=6, ff_mult=3, dropout=0.15, modality_dropout=0.45,
    patience=11, seed=77, backbone='qwen2.5-omni-7b', protocol='streaming', fusion='tower', precision='bf16',
    aggregate='groups',
)  # fmt: skip
SHOWN = dict(
    warmup='25% warm-up', hidden='1,536', backbone='Qwen2.5-Omni-7B', fusion='post-hoc', precision='bfloat16',
    aggregate='0.5 to 0.75',
)  # fmt: skip


@pytest.mark.parametrize('parameter', CHANGES)
def test_a_changed_parameter_changes_the_methods_text(tmp_path, parameter):
    plain, changed = methods(tmp_path / 'a'), methods(tmp_path / 'b', **{parameter: CHANGES[parameter]})
    shown = SHOWN.get(parameter, f'{CHANGES[parameter]}')
    assert shown in changed and plain != changed
    assert plain.count(shown) < changed.count(shown)


def test_the_methods_text_says_who_was_scanned_and_what_is_cited(tmp_path):
    text = methods(tmp_path / 'a', revision='0123456789abcdef')
    assert '2 people (sub-01, sub-02)' in text and 'simulated' not in text and '592 TRs per person (15 min)' in text
    assert (
        'commit 0123456789ab' in text and ARXIV in text and 'Qwen3-Omni technical report' in text and 'Schaefer' in text
    )
    assert 'nobody was scanned' in methods(tmp_path / 'b', simulated=True, cohort='embedded')


def test_a_run_that_does_not_say_enough_has_no_methods_text(tmp_path):
    ridge = finish_run(start_run(tmp_path / 'a', dict(cohort='embedded', fusion='native')), {})
    with pytest.raises(ValueError, match='does not say its preset'):
        methods_paragraph(ridge, SimpleNamespace(simulated=True, atlas=None))
