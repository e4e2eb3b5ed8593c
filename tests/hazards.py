"A child process in which something happens in the middle of its work."

import contextlib
import errno
import io
import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context

import torch

FORK = get_context('fork')  # a copy of this process as it stands
FRESH = get_context('forkserver')  # a copy of one that has trained nothing: torch does not go on training in a copy
FRESH.set_forkserver_preload(['mirage.training.crossvalidate'])


@dataclass(frozen=True)
class Training:
    "What trains, for a child that knows nothing of this process."

    train: Callable
    root: str
    parameters: dict

    def __call__(self):
        os.environ.update(MIRAGE_ROOT=self.root, IN_TEST='1')
        torch.set_num_threads(1)
        warnings.simplefilter('ignore')
        self.train(**self.parameters)


def happens(hazard, at):
    "From now on, in this process, something happens when the `at`-th file is to get its name."
    plain, replaced = os.replace, []

    def replace(source, target):
        replaced.append(target)
        if len(replaced) == at and hazard == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        if len(replaced) == at and hazard == 'signal':
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.raise_signal(signal.SIGINT)  # as Jupyter's stop button
        if len(replaced) == at and hazard == 'full disk':
            raise OSError(errno.ENOSPC, 'No space left on device')
        return plain(source, target)

    os.replace = replace


def work(act, hazard, at, note):  # in a child
    happens(hazard, at)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            act()
    except BaseException as e:
        note.write_text(f'{type(e).__name__}: {e}')
        os._exit(3)
    os._exit(0)


def begun(act, note, hazard='', at=0):
    note.unlink(missing_ok=True)
    context = FRESH if isinstance(act, Training) else FORK
    child = context.Process(target=work, args=(act, hazard, at, note))
    child.start()
    return child
