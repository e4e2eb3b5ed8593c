"The chain as a user runs it: papermill refuses what it should, and the pipeline runs, rests, reruns and resumes."

import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
ENV = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | {
    'PATH': f'{BIN}:{os.environ["PATH"]}',
    'OMP_NUM_THREADS': '1',
    'PYTHONWARNINGS': 'ignore',
}


def sh(*command, cwd=ROOT, **kw):
    return subprocess.run([str(c) for c in command], cwd=cwd, env=ENV, capture_output=True, text=True, **kw)


@pytest.mark.parametrize(
    'parameter, value, says',
    [
        ('sead', '3', ('sead', 'seed', 'preset', 'cohort')),
        ('cohort', 'embeded', ('embeded', 'embedded')),
        ('preset', 'papre', ('papre', 'paper', 'tiny', 'smoke')),
        ('subjects', 'sub-04', ('sub-04', 'sub-01', 'sub-05')),
    ],
)
def test_bad_parameters_are_refused(tmp_path, parameter, value, says):
    "The error names what was given and what there is; nothing is written."
    given = {'cohort': 'smoke', 'preset': 'smoke'} | {parameter: value}
    before = sorted((ROOT / 'results').rglob('*'))
    done = sh(
        BIN / 'papermill',
        'nbs/05_train.ipynb',
        tmp_path / 'out.ipynb',
        *(x for k, v in given.items() for x in ('-p', k, v)),
    )
    assert done.returncode != 0
    for word in says:
        assert word in done.stderr.rsplit('Error', 1)[-1], done.stderr[-2000:]
    assert sorted((ROOT / 'results').rglob('*')) == before


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A copy of the project in which the first results are built from nothing, at smoke size."
    d = tmp_path_factory.mktemp('paper')
    for name in ('nbs', 'mirage'):
        shutil.copytree(ROOT / name, d / name, ignore=shutil.ignore_patterns('__pycache__', '.*'))
    for name in ('settings.ini', 'data_manifest.yaml', 'pyproject.toml'):
        shutil.copy(ROOT / name, d / name)
    return d


FIRST = 'results/smoke/figures/fig4_gains.json'  # from movies to maps: a backbone, a ridge, a model, its attribution


def paper(copy, *options, **kw):
    return sh(
        BIN / 'snakemake',
        FIRST,
        '-s',
        'nbs/paper.smk',
        '--cores',
        '2',
        '--rerun-incomplete',
        *options,
        '--config',
        'cohort=smoke',
        cwd=copy,
        **kw,
    )


def jobs(copy):
    "The rules that a dry run would execute."
    dry = paper(copy, '--dry-run', '--quiet', 'progress')
    assert dry.returncode == 0, dry.stderr[-3000:]
    return {
        line.split()[1].rstrip(':')
        for line in (dry.stdout + dry.stderr).splitlines()
        if line.strip().startswith(('rule ', 'localrule '))
    }


def edit(notebook, change, kind):
    "Change the last cell of that kind in a notebook."
    nb = json.loads(notebook.read_text())
    cell = [c for c in nb['cells'] if c['cell_type'] == kind][-1]
    cell['source'] = [change(''.join(cell['source']))]
    notebook.write_text(json.dumps(nb, indent=1))


def test_pipeline(copy):
    """Killed in the middle it resumes by the same command; finished it rests; prose reruns nothing; code reruns what
    depends on it; a revert reruns nothing."""
    job = subprocess.Popen(
        [BIN / 'snakemake', FIRST, '-s', 'nbs/paper.smk', '--cores', '2', '--config', 'cohort=smoke'],
        cwd=copy,
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 1200
    while not list(copy.glob('results/smoke/extract/*/provenance.json')):
        assert time.monotonic() < deadline and job.poll() is None, 'nothing was extracted'
        time.sleep(0.2)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    truth = (copy / 'data/smoke/truth/truth.h5').stat().st_mtime_ns

    done = paper(copy)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert (copy / 'data/smoke/truth/truth.h5').stat().st_mtime_ns == truth, (
        'what was finished before the kill was made again'
    )
    assert (copy / 'results/smoke/figures/fig4_gains.png').stat().st_size > 10_000

    figure, model = copy / 'nbs/figures/fig4_gains.ipynb', copy / 'mirage/models/model.py'
    kept = figure.read_text(), model.read_text()
    edit(figure, lambda s: s + '\n\nOne more sentence.', 'markdown')
    model.write_text(kept[1] + '\n# a remark\n')
    assert jobs(copy) == set(), 'finished it rests, and prose reruns nothing'
    edit(figure, lambda s: s + '\nx = 1', 'code')
    assert jobs(copy) == {'figure'}
    figure.write_text(kept[0])
    model.write_text(kept[1] + '\nextra = 1\n')
    assert 'train' in (again := jobs(copy)) and not again & {'simulate', 'extract'}
    model.write_text(kept[1])
    assert jobs(copy) == set()
