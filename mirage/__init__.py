"Whole-brain fMRI from movies. `from mirage import Cohort, Mirage, adapt, predict, train`: each is imported when it is first asked for."
import importlib

__version__ = "0.1.0"

WHERE = {
    'Cohort': 'mirage.data.cohort',
    'Mirage': 'mirage.models.model',
    'adapt': 'mirage.prediction.adapt',
    'predict': 'mirage.prediction.predict',
    'train': 'mirage.training.train',
}
__all__ = list(WHERE)


def __getattr__(name):
    if name not in WHERE:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(WHERE[name]), name)


def __dir__():
    return sorted([*globals(), *WHERE])
