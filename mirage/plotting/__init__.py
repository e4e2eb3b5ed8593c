"The cortex, figures with their numbers, and pages. They come with the extra `plots`; numbers do without."
from importlib.util import find_spec

if missing := [name for name in ('matplotlib', 'nilearn', 'PIL', 'IPython') if not find_spec(name)]:
    raise ModuleNotFoundError(f"pictures need {', '.join(missing)}: pip install 'mirage-encoding[plots]'")
