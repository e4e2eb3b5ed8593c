"""Functions of more than 40 lines and comprehensions inside comprehensions, in notebooks and tests: what is left of
both is listed, and the lists only shrink. Lines of the pipeline, which ruff does not read, have at most 120."""

import ast
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES = 40
LIST = Path(__file__).with_name('long_functions.txt')
NESTED = Path(__file__).with_name('nested_comprehensions.txt')
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
    "'path function' → lines, of those over the limit."
    return {
        f'{path.relative_to(ROOT)} {name}': lines
        for path, source in pieces()
        for name, lines in functions(ast.parse(source))
        if lines > LINES
    }


def nested(node):
    "Whether a comprehension has another one inside."
    inner = [n for child in ast.iter_child_nodes(node) for n in ast.walk(child)]
    return isinstance(node, COMPREHENSIONS) and any(isinstance(n, COMPREHENSIONS) for n in inner)


def nested_comprehensions():
    "path → how many comprehensions have another one inside."
    found = {}
    for path, source in pieces():
        if count := sum(map(nested, ast.walk(ast.parse(source)))):
            name = str(path.relative_to(ROOT))
            found[name] = found.get(name, 0) + count
    return found


def problems(found, listed, limit, what, file):
    "What is more than the list allows, and what the list allows without need."
    for key in sorted(found.keys() | listed.keys()):
        have, may = found.get(key, 0), listed.get(key, 0)
        if have > max(may, limit):
            yield f'{key} has {have} {what}, at most {max(may, limit)} are allowed: divide it'
        elif have < may:
            yield f'{key} has {have or f"{limit} or fewer"} {what} now: say so in {file.name}, or strike it out'


def long_lines():
    path = ROOT / 'nbs/paper.smk'
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if len(line) > WIDTH:
            yield f'{path.relative_to(ROOT)}, line {number} has {len(line)} characters, at most {WIDTH} are allowed'


def read_list(file):
    lines = [line.rsplit(' ', 1) for line in file.read_text().splitlines() if line and not line.startswith('#')]
    return {key: int(n) for key, n in lines}


def write_list(file, head, found):
    file.write_text(
        f'# {head}; this list only gets shorter\n' + ''.join(f'{k} {n}\n' for k, n in sorted(found.items()))
    )


if __name__ == '__main__':
    found, inside = long_functions(), nested_comprehensions()
    if sys.argv[1:] == ['list']:
        write_list(LIST, f'functions of more than {LINES} lines and how many they have', found)
        write_list(NESTED, 'comprehensions inside comprehensions, by file', inside)
    wrong = [
        *problems(found, read_list(LIST), LINES, 'lines', LIST),
        *problems(inside, read_list(NESTED), 0, 'comprehensions with another one inside', NESTED),
        *long_lines(),
    ]
    done = (
        f'{len(found)} functions have more than {LINES} lines, {sum(inside.values())} comprehensions another one inside'
    )
    print('\n'.join(wrong) or f'{done}, all of them listed')
    sys.exit(bool(wrong))
