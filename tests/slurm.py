"""A stand-in for SLURM on one machine: one script under the names sbatch, srun, sacct, scancel, sinfo and scontrol, its
state in the folder $STANDIN.

sbatch starts the job in the background and writes <id>.json: what it was asked for, the state, the log. A file `oom` in
the folder that holds a regular
expression and a path makes the job whose comment matches die as for memory, once, as soon as that path is there."""

import json, os, re, signal, subprocess, sys, time
from pathlib import Path

NAMES = 'sbatch srun sacct scancel sinfo scontrol'.split()


def install(folder):
    "Put the commands into a folder that goes on PATH."
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} {name} "$@"\n')
        (folder / name).chmod(0o755)


def jobs(state):
    return {p.stem: json.loads(p.read_text()) for p in sorted(Path(state).glob('*.json'), key=lambda p: int(p.stem))}


def note(path, **changes):
    job = (json.loads(path.read_text()) if path.exists() else {}) | changes
    tmp = path.with_suffix(f'.{os.getpid()}')
    tmp.write_text(json.dumps(job))
    tmp.rename(path)


def options(args, short):
    "--name value, --name=value, and some short ones with their long names."
    out, rest, i = {}, [], 0
    while i < len(args):
        a = args[i]
        if a.startswith('--') and '=' in a:
            k, v = a[2:].split('=', 1)
            out[k] = v
        elif a in ('--parsable', '--requeue', '--no-requeue'):
            out[a[2:]] = True
        elif a.startswith('--'):
            out[a[2:]] = args[i + 1]
            i += 1
        elif a in short:
            out[short[a]] = args[i + 1]
            i += 1
        else:
            rest.append(a)
        i += 1
    return out, rest


def sbatch(state, args):
    asked, rest = options(args, {'-t': 'time', '-D': 'chdir', '-A': 'account', '-p': 'partition', '-C': 'constraint'})
    if rest or 'wrap' not in asked:
        sys.exit(f'sbatch: error: not understood: {rest or args}')
    number = max([100, *map(int, jobs(state))]) + 1
    while True:
        try:
            os.close(os.open(state / f'{number}.taken', os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            number += 1
    log = Path(asked['output'].replace('%j', str(number)))
    note(state / f'{number}.json', asked=asked, state='PENDING', log=str(log))
    subprocess.Popen(
        [sys.executable, __file__, 'supervise', str(number)],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(number)


def supervise(state, args):
    "The node on which the job runs."
    path = state / f'{args[0]}.json'
    asked = json.loads(path.read_text())['asked']
    log = Path(json.loads(path.read_text())['log'])
    environment = os.environ | {'SLURM_JOB_ID': args[0], 'SLURM_CPUS_PER_TASK': asked.get('cpus-per-task', '1')}
    with open(log, 'wb') as out:
        job = subprocess.Popen(
            ['bash', '-c', asked['wrap']],
            cwd=asked['chdir'],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    note(path, state='RUNNING', pid=job.pid)
    doom = json.loads((state / 'oom').read_text()) if (state / 'oom').exists() else dict(match='(?!)', when='')
    while (code := job.poll()) is None:
        if re.search(doom['match'], asked['comment']) and Path(doom['when']).exists():
            (state / 'oom').unlink()
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
            return note(path, state='OUT_OF_MEMORY')
        time.sleep(0.05)
    if json.loads(path.read_text())['state'] == 'RUNNING':
        note(path, state='COMPLETED' if code == 0 else 'FAILED')


def srun(state, args):
    command = [a for a in args if not a.startswith('-')]
    first = args.index(command[0])
    if not os.environ.get('SLURM_JOB_ID'):
        sys.exit('srun: error: not in a job')
    os.execvp(args[first], args[first:])


def sacct(state, args):
    if any('Account' in a for a in args):
        return print('none')
    if '-j' in args:
        return  # reasons and nodes: none known
    name = args[args.index('--name') + 1]
    for number, job in jobs(state).items():
        if job['asked']['job-name'] == name:
            print(f'{number}|{job["state"]}')


def scancel(state, args):
    for number in filter(str.isdigit, args):
        job = jobs(state)[number]
        if job['state'] not in ('PENDING', 'RUNNING'):
            continue
        note(state / f'{number}.json', state='CANCELLED')
        if job.get('pid'):
            os.killpg(job['pid'], signal.SIGKILL)


def sinfo(state, args):
    print('PARTITION\nlong\nmain*')


def scontrol(state, args):
    print('MinJobAge               = 300 sec\nMaxArraySize            = 1001')


if __name__ == '__main__':
    globals()[sys.argv[1]](Path(os.environ['STANDIN']), sys.argv[2:])
