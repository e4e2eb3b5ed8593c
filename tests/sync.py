"Notebooks and package agree, and the notebooks are clean: judged on a copy, so nothing here is touched."

import filecmp, importlib, json, re, shutil, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def exported(copy):
    "The package and the notebooks as nbdev would write them now."
    for name in ('nbs', 'settings.ini', 'pyproject.toml'):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    for source in (ROOT / 'mirage').rglob('__init__.py'):
        target = copy / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (copy / '.git').mkdir()
    for command in ('nbdev_export', 'nbdev_clean'):
        subprocess.run([Path(sys.executable).parent / command], cwd=copy, check=True, capture_output=True)
    return copy


def files(base, folder, pattern):
    "Name, seen from the base → path of all files that are not hidden."
    found = sorted((base / folder).rglob(pattern))
    return {path.relative_to(base): path for path in found if not path.name.startswith('.')}


def drift():
    "What differs between the tree and a fresh export of it."
    with tempfile.TemporaryDirectory() as d:
        fresh = exported(Path(d))
        for folder, pattern in (('mirage', '*.py'), ('nbs', '*.ipynb')):
            here, there = files(ROOT, folder, pattern), files(fresh, folder, pattern)
            for name in sorted(here.keys() | there.keys()):
                if name not in here:
                    yield f'{name} is not in the package: run nbdev_export and commit it'
                elif name not in there:
                    yield f'{name} has no notebook: delete it or restore its notebook'
                elif not filecmp.cmp(here[name], there[name], shallow=False):
                    yield (
                        f'{name} differs from its notebook: run nbdev_export'
                        if pattern == '*.py'
                        else f'{name} is not clean: run nbdev_clean'
                    )


def dirty():
    "Executed copies, and outputs in notebooks that papermill runs."
    for path in sorted((ROOT / 'nbs').rglob('*.ipynb')):
        cells = json.loads(path.read_text())['cells']
        tags = [t for c in cells for t in c['metadata'].get('tags', [])]
        ids = [c['id'] for c in cells]
        if twice := sorted({i for i in ids if ids.count(i) > 1}):
            yield f'{path.name} has two cells with the id {twice[0]}: give one another, or a merge may lose it'
        if 'injected-parameters' in tags:
            yield f'{path.name} is an executed copy: move it out of nbs/, or delete it'
        if tags.count('parameters') > 1:
            yield f'{path.name} has {tags.count("parameters")} cells tagged parameters'
        if 'parameters' in tags and any(c.get('outputs') for c in cells):
            yield (
                f'{path.name} is run by papermill and must be stored without outputs: jupyter nbconvert '
                f'--clear-output --inplace {path.relative_to(ROOT)}'
            )
        if any(o['output_type'] == 'error' for c in cells for o in c.get('outputs', [])):
            yield (
                f'{path.name} stores an error: mend it and run it again, or jupyter nbconvert --clear-output '
                f'--inplace {path.relative_to(ROOT)}'
            )


def undefined():
    "Names that an exported module takes from a star import which does not have them."
    found = subprocess.run(
        [sys.executable, '-m', 'ruff', 'check', '--select', 'F405', '--output-format', 'json', 'mirage'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    for issue in json.loads(found.stdout):
        name = re.match(r'`(\w+)`', issue['message'])[1]
        module = importlib.import_module('.'.join(Path(issue['filename']).relative_to(ROOT).with_suffix('').parts))
        if not hasattr(module, name):
            yield f'{module.__name__} uses {name}, which no import brings (line {issue["location"]["row"]})'


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    problems = [*drift(), *dirty(), *undefined()]
    print('\n'.join(problems) or 'notebooks and package agree, and the notebooks are clean')
    sys.exit(bool(problems))
