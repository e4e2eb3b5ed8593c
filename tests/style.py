"""No function of more than 40 lines, in notebooks and tests. A cell of a notebook defines at most three functions or
classes. No comprehension inside another one. No public name is defined in two modules of the package. At most four
arguments by position, but for what a library calls. Lines of the pipeline, which ruff does not read, have at most 120
characters."""

import ast
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES = 40
DEFINITIONS = 3
POSITIONS = 4
CALLED = 'MixLayers.forward', '_Recorder.draw_text', 'FeatureSet.read'  # by torch, by matplotlib, for the inner loop
DEFINED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
WIDTH = 120


def pieces():
    "Each piece of code with its name: cells of notebooks, files of tests."
    for path in sorted((ROOT / 'nbs').rglob('*.ipynb')):
        if path.name.startswith('.'):
            continue
        for cell in json.loads(path.read_text())['cells']:
            if cell['cell_type'] == 'code':
                yield path, re.sub(r'^\s*(%|!(?!=)).*$', '', ''.join(cell['source']), flags=re.M)
    for path in sorted((ROOT / 'tests').glob('*.py')):
        yield path, path.read_text()


def functions(tree, within=''):
    "Name and number of lines of every function, methods with their class."
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield within + node.name, node.end_lineno - node.lineno + 1
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from functions(node, f'{within}{node.name}.' if named else within)


def long_functions():
    for path, source in pieces():
        for name, lines in functions(ast.parse(source)):
            if lines > LINES:
                yield f'{path.relative_to(ROOT)} {name} has {lines} lines, at most {LINES} are allowed: divide it'


def nested(node):
    "Whether a comprehension has another one inside."
    inner = [n for child in ast.iter_child_nodes(node) for n in ast.walk(child)]
    return isinstance(node, COMPREHENSIONS) and any(isinstance(n, COMPREHENSIONS) for n in inner)


def nested_comprehensions():
    "Where a comprehension has another one inside."
    for path, source in pieces():
        for node in filter(nested, ast.walk(ast.parse(source))):
            first = ast.unparse(node)[:60]
            yield f'{path.relative_to(ROOT)} has a comprehension inside another one, {first} …: name the inner one'


def crowded_cells():
    "Cells of notebooks with too many definitions."
    for path, source in pieces():
        named = [n.name for n in ast.parse(source).body if isinstance(n, DEFINED)] if path.suffix == '.ipynb' else []
        if len(named) > DEFINITIONS:
            yield (
                f'{path.relative_to(ROOT)} defines {len(named)} functions or classes in one cell, {", ".join(named)}; '
                f'at most {DEFINITIONS} are allowed: divide the cell'
            )


def top_names(tree):
    "What a module defines, but for names that begin with _ and `main`, which is what a command calls."
    for node in tree.body:
        targets = getattr(node, 'targets', [getattr(node, 'target', node)])
        named = [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        names = (
            [node.name] if isinstance(node, DEFINED) else named if isinstance(node, ast.Assign | ast.AnnAssign) else []
        )
        yield from (name for name in names if not name.startswith('_') and name != 'main')


def names_defined_twice():
    modules = [path for path in sorted((ROOT / 'mirage').rglob('*.py')) if not path.name.startswith('_')]
    homes = {}
    for path in modules:
        for name in set(top_names(ast.parse(path.read_text()))):
            homes.setdefault(name, []).append(str(path.relative_to(ROOT)))
    for name, where in sorted(homes.items()):
        if len(where) > 1:
            yield f'{name} is defined in {" and ".join(where)}: give one another name, or keep it in one place'


def by_position(node):
    "How many arguments a function takes by position, its own object not counted."
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    return len(names) - (names[:1] in (['self'], ['cls']))


def many_positions():
    for path in sorted((ROOT / 'mirage').rglob('*.py')):
        tree = ast.parse(path.read_text())
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for home in (tree, *classes):
            for node in home.body:
                called = '.'.join(filter(None, (getattr(home, 'name', ''), getattr(node, 'name', ''))))
                if isinstance(node, ast.FunctionDef) and called not in CALLED and by_position(node) > POSITIONS:
                    yield (
                        f'{path.relative_to(ROOT)} {called} takes {by_position(node)} arguments by position, at most '
                        f'{POSITIONS} are allowed: put * before those that are better given by name'
                    )


def long_lines():
    path = ROOT / 'nbs/paper.smk'
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if len(line) > WIDTH:
            yield f'{path.relative_to(ROOT)}, line {number} has {len(line)} characters, at most {WIDTH} are allowed'


if __name__ == '__main__':
    wrong = [*long_functions(), *nested_comprehensions(), *crowded_cells(), *names_defined_twice()]
    wrong += [*many_positions(), *long_lines()]
    print('\n'.join(wrong) or f'no function has more than {LINES} lines, no cell more than {DEFINITIONS} definitions')
    sys.exit(bool(wrong))
