"""What pip installs: a small wheel that predicts, extras for the rest, versions with digests, and a configuration that
nbdev 2 and 3 read alike."""

import configparser, json, os, re, shutil, subprocess, sys, tomllib, zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
EXTRAS = PROJECT['project']['optional-dependencies']
# what a small installation goes without
ABSENT = (
    'matplotlib nilearn IPython ridge_utils tables seaborn nbconvert bleach papermill snakemake jupyter_client nbdev'
)


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built of a copy: nothing is left behind in the tree."
    copy = tmp_path_factory.mktemp('copy')
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / 'mirage', copy / 'mirage', ignore=shutil.ignore_patterns('__pycache__'))
    command = [sys.executable, '-m', 'build', '--wheel', '--no-isolation', copy, '--outdir', copy / 'dist']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (made,) = (copy / 'dist').glob('*.whl')
    return made


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    "A folder into which pip put the wheel and nothing else."
    target = tmp_path_factory.mktemp('installed')
    command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--target', target, wheel]
    subprocess.run(command, check=True, capture_output=True)
    return target


def test_the_wheel_has_the_package_the_atlas_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith('mirage_encoding-')
    assert {n.partition('/')[0] for n in names if '.dist-info/' not in n} == {'mirage'}
    assert {'mirage/prediction/predict.py', 'mirage/atlas/schaefer1000_7n_lut.csv', 'mirage/atlas/LICENSE'} <= names
    assert sum(i.file_size for i in zipfile.ZipFile(wheel).infolist()) < 3e6


BLOCK = """
from importlib.machinery import PathFinder
found = PathFinder.find_spec
def find_spec(cls, name, path=None, target=None):
    return None if name.partition('.')[0] in {absent} else found(name, path, target)
PathFinder.find_spec = classmethod(find_spec)
"""


def python(source: str, installed, cwd, absent=ABSENT):
    "What a program prints that has the installed package and lacks the extras."
    env = {k: v for k, v in os.environ.items() if k not in ('MIRAGE_ROOT', 'PYTHONPATH', 'IN_TEST')}
    env |= dict(PYTHONPATH=str(installed), OMP_NUM_THREADS='1', PYTHONSAFEPATH='1')
    program = BLOCK.format(absent=absent.split()) + source
    return subprocess.run([sys.executable, '-c', program], cwd=cwd, env=env, capture_output=True, text=True)


def test_an_installed_wheel_without_extras_predicts_a_clip_in_three_lines(installed, tmp_path):
    done = python((ROOT / 'tests/first_prediction.py').read_text(), installed, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    shape, source = re.search(r'\((\d+), 1000\) (.*)', done.stdout).groups()
    assert int(shape) in (8, 9) and source == 'an untrained model: noise', done.stdout
    assert (tmp_path / 'features').is_dir()  # beside the clip, where the program ran: not in the package


PAGE = """
from mirage.plotting.page import courses, page_html
courses(p).savefig('courses.png')
page_html(p, 'page.html')
"""


def test_with_plots_alone_the_prediction_becomes_a_picture_and_a_page(installed, tmp_path):
    first = (ROOT / 'tests/first_prediction.py').read_text()
    rest = 'ridge_utils tables seaborn nbconvert bleach papermill snakemake jupyter_client nbdev'
    done = python(first + PAGE, installed, tmp_path, absent=rest)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'courses.png').read_bytes().startswith(b'\x89PNG')
    assert 'an untrained model: noise' in (tmp_path / 'page.html').read_text()


def test_without_extras_every_module_but_pictures_can_be_imported_and_those_name_their_extra(installed, tmp_path):
    modules = sorted(
        '.'.join(p.relative_to(installed).with_suffix('').parts)
        for p in (installed / 'mirage').rglob('*.py')
        if p.stem not in ('__init__', '_modidx') and p.parent.name != 'plotting'
    )
    source = f"""
import importlib, mirage
for name in {modules}:
    importlib.import_module(name)
assert mirage.__file__.startswith({str(installed)!r}), mirage.__file__
import mirage.plotting.page
"""
    done = python(source, installed, tmp_path)
    assert "pictures need matplotlib, nilearn, IPython: pip install 'mirage-encoding[plots]'" in done.stderr, (
        done.stderr
    )


def test_what_is_installed_for_numbers_is_small_and_has_no_exact_versions():
    project = PROJECT['project']
    given = project['dependencies'] + [d for name, extra in EXTRAS.items() if name != 'dev' for d in extra]
    assert not [d for d in given if '==' in d]
    asked = {canonicalize_name(Requirement(d).name) for d in project['dependencies']}
    drawing = {Requirement(d).name for name in ('plots', 'notebooks', 'pipeline', 'dev', 'site') for d in EXTRAS[name]}
    assert len(asked) <= 22 and not asked & {canonicalize_name(name) for name in drawing}


def pins(text: str) -> dict:  # name → version
    lines = re.findall(r'^([A-Za-z0-9._-]+)==([^\s;\\]+)', text, re.M)
    return {canonicalize_name(name): version for name, version in lines}


def test_the_lock_has_the_versions_of_the_constraints_a_digest_for_each_and_all_that_is_asked_for():
    lock, constraints = (ROOT / 'requirements.lock').read_text(), (ROOT / 'constraints.txt').read_text()
    assert pins(lock) == pins(constraints), 'run make lock, and correct constraints.txt'
    blocks = re.split(r'^(?=[A-Za-z0-9])', lock, flags=re.M)[1:]
    assert len(blocks) == len(pins(lock)) and all('--hash=sha256:' in block for block in blocks)
    wanted = PROJECT['project']['dependencies'] + sum(EXTRAS.values(), [])
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name == PROJECT['project']['name']:
            continue
        assert name in pins(lock), f'{name} is not in requirements.lock: run make lock'
        assert requirement.specifier.contains(pins(lock)[name]), f'{name}: run make lock'


# ---- nbdev 2 reads settings.ini, nbdev 3 pyproject.toml


def test_nbdev_3_is_reported_the_same_as_nbdev_2():
    file = configparser.ConfigParser(interpolation=None)
    file.read(ROOT / 'settings.ini')
    old, new = file['DEFAULT'], PROJECT['tool']['nbdev']
    assert new['allowed_cell_metadata_keys'] == old['allowed_cell_metadata_keys'].split() == ['tags']  # a list
    for key in ('lib_path', 'nbs_path', 'branch', 'tst_flags', 'title', 'recursive', 'black_formatting', 'clean_ids'):
        if key in old and key in new:
            given = new[key] if isinstance(new[key], str) else str(new[key])
            assert given == old[key].replace('%(lib_name)s', 'mirage'), key
    assert PROJECT['project']['version'] == old['version'] == re.search(
        r'__version__ = "(.*)"', (ROOT / 'mirage/__init__.py').read_text()
    )[1]  # fmt: skip
    assert PROJECT['project']['description'] == old['description']


def test_every_notebook_that_checks_its_parameters_has_one_cell_tagged_so_and_no_other_notebook_has():
    for path in sorted((ROOT / 'nbs').rglob('*.ipynb')):
        if path.name.startswith('.'):
            continue
        cells = json.loads(path.read_text())['cells']
        runs = any(re.search(r'^params = check_parameters\(', ''.join(c['source']), re.M) for c in cells)
        tagged = [c for c in cells if 'parameters' in c['metadata'].get('tags', [])]
        assert len(tagged) == runs, f'{path.name}: {len(tagged)} cells are tagged parameters, {int(runs)} expected'


@pytest.mark.long
def test_nbdev_3_exports_the_same_modules_and_cleans_nothing_away(tmp_path):
    "In an environment of its own, for nbdev 2 and 3 exclude each other."
    subprocess.run([sys.executable, '-m', 'venv', tmp_path / 'venv'], check=True)
    pip = subprocess.run(
        [tmp_path / 'venv/bin/pip', 'install', '--quiet', 'nbdev==3.3.26'], capture_output=True, text=True
    )
    if pip.returncode:
        pytest.skip(f'nbdev 3 could not be installed: {pip.stderr[-200:]}')
    check_nbdev_3(tmp_path / 'venv/bin', tmp_path / 'copy')


def check_nbdev_3(bin_: Path, copy: Path):
    names = ('nbs', 'mirage', 'settings.ini', 'pyproject.toml', 'README.md')
    copy.mkdir()
    for name in names:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns('__pycache__', '.*'))
        else:
            shutil.copy(source, copy / name)
    git = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b']
    for command in (['init', '-q'], ['add', '-A'], ['commit', '-qm', 'before']):
        subprocess.run([*git, *command], cwd=copy, check=True)
    for path in (copy / 'mirage').rglob('*.py'):
        if path.name != '__init__.py':
            path.unlink()
    for command in ('nbdev-export', 'nbdev-clean'):
        done = subprocess.run([bin_ / command], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    changed = subprocess.run(['git', 'status', '--porcelain'], cwd=copy, capture_output=True, text=True).stdout
    assert changed == '', changed
