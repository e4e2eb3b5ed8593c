"""README: short enough to be read, every command in it works, and the quick start prints what it says."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mirage.core import find_cohort

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'^```(\w*)\n(.*?)^```$', README, re.M | re.S)


def code_spans():
    "Commands: lines of blocks without a language, and what stands between backticks."
    lines = [line.partition('#')[0].strip() for kind, text in BLOCKS if not kind for line in text.splitlines()]
    return [*lines, *re.findall(r'(?<!`)`([^`\n]+)`(?!`)', re.sub(r'^```.*?^```$', '', README, flags=re.M | re.S))]


COMMANDS = sorted({c for c in code_spans() if re.match(r'(make|papermill|snakemake|jupyter|nbdev_\w+) ?', c)})


def parameters(notebook):
    "What a notebook declares."
    cells = json.loads((ROOT / notebook).read_text())['cells']
    cell = next(c for c in cells if 'parameters' in c['metadata'].get('tags', []))
    return set(re.findall(r'^(\w+): .+? = ', ''.join(cell['source']), re.M))


def test_the_readme_is_read_in_a_few_minutes():
    before, tables = README.split('## Every item', 1)
    assert len(before.split()) < 1000
    assert '| item | notebook | command |' in tables and '| chapter | |' in tables


def test_links_and_pictures_of_the_readme_are_there():
    targets = re.findall(r'\]\(([^)#]+)\)', README)
    local = [t for t in targets if not t.startswith('http')]
    assert local and {'figures/embedded/README.md', 'CITATION.cff', 'LICENSE'} <= set(local)
    # the page of results is made by make figures
    missing = [t for t in local if not (ROOT / t).exists() and t != 'figures/embedded/README.md']
    assert not missing, missing


@pytest.mark.parametrize('command', [c for c in COMMANDS if c.startswith('papermill ')])
def test_each_papermill_command_names_a_notebook_and_parameters_that_it_has(command):
    words = shlex.split(command)
    if len(words) < 3:
        return  # its name in a sentence
    declared = parameters(words[1])
    given = [words[i + 1] for i, w in enumerate(words) if w in ('-p', '-r')]
    assert words[2] == 'out.ipynb' and set(given) <= declared, set(given) - declared


@pytest.mark.parametrize('command', [c for c in COMMANDS if c.startswith('make ')])
def test_each_make_command_has_a_rule(command):
    shown = subprocess.run(
        ['make', '--dry-run', '-o', 'env', *command.split()[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize('command', [c for c in COMMANDS if c.startswith('jupyter ')])
def test_each_jupyter_command_is_there(command):
    words = command.split()
    assert (
        subprocess.run([Path(sys.executable).parent / words[0], words[1], '--version'], capture_output=True).returncode
        == 0
    )
    assert all((ROOT / word).is_file() for word in words if word.endswith('.ipynb'))


@pytest.mark.parametrize('command', [c for c in COMMANDS if c.startswith('snakemake ')])
def test_each_snakemake_command_plans_its_jobs(command):
    "Without the real data it says what is missing; on the smoke cohort the same options plan a whole paper."
    plan = [Path(sys.executable).parent / 'snakemake', *shlex.split(command)[1:], '--dry-run', '--quiet', 'all']
    if find_cohort('algonauts2025') is None:
        plan = [re.sub('cohort=algonauts2025', 'cohort=smoke', str(word)) for word in plan]
        plan = [re.sub('preset=paper', 'preset=smoke', word) for word in plan]
    done = subprocess.run(plan, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_the_quick_start_has_five_lines_and_prints_what_it_says():
    (start,) = [text for kind, text in BLOCKS if kind == 'python']
    assert len([line for line in start.splitlines() if line]) == 5
    shown = README.split(start, 1)[1].partition('\n(')[0]
    done = subprocess.run([sys.executable, '-c', start], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    last = [text.strip().splitlines()[-1].strip() for text in (shown.partition('```')[2], done.stdout)]
    numbers = [list(map(float, re.findall(r'\d+\.?\d*', text))) for text in last]
    assert re.sub(r'\d', '', last[0]) == re.sub(r'\d', '', last[1]) and numbers[0] == pytest.approx(
        numbers[1], abs=0.011
    )


@pytest.mark.long
def test_the_commands_for_one_notebook_run_as_they_stand(tmp_path):
    "On the smoke cohort, with the example of one's own movie replaced by one of its."
    lines = [c for c in COMMANDS if c.startswith(('papermill nbs/05_train', 'papermill nbs/09b_predict'))]
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line.replace('-p transcript movie.srt ', ''))
        if 'movie.mkv' in words:  # the training before it has made the cohort
            words[words.index('movie.mkv')] = str(next((ROOT / 'data/smoke').rglob('*.mkv')))
        words = [word.replace('epfl-neuroai/mirage', 'results/smoke/train/mirage-native-s0') for word in words]
        words[2] = str(tmp_path / 'out.ipynb')
        cohort = ['-p', 'cohort', 'smoke'] if '05_train' in line else []
        done = subprocess.run(
            [Path(sys.executable).parent / words[0], *words[1:], *cohort], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
