"""The environment hash: the same for definitions that mean the same, the key of every image cache.

PURE. SHA-256 (64 lower-case hex digits) over the definition's normal form as compact JSON:

- **base image**: as written, without surrounding space. A tag is text: `:latest` is not looked up.
- **docker steps**: each instruction in order (a later layer stands on the earlier ones), keyword in
  capitals; comments, blank lines and indentation dropped, but kept inside a heredoc.
- **conda**: packages as `channel::name spec build` in lower case, sorted, each once; spaces and the
  order of a range's parts (`>=1,<2`) dropped. `name:` and `prefix:` are not part of it. Channels keep
  their order, because conda takes a package from the first channel that has it: swapping
  two channels can change what is installed, so it changes the hash. A channel named again is dropped.
- **pip**, both conda's `pip:` list and the requirements field, each for itself: requirements normalised
  by `packaging` (PEP 503 names, sorted extras and specifiers, markers and URLs kept), sorted, each
  once; index options in order, because the first index can win.
- Environment variables, the environment's name and its version are not part of it.

So order and comments do not change the hash, and a version does. Versions are compared as text: `1.5`
and `1.5.0` have two hashes, which costs a second build and nothing else.
"""

import hashlib
import json
from typing import Any

from deployments.environments.definition import Definition, parse
from deployments.environments.pip import PipDefinition

# Part of what is hashed: a change of the rules above must change every hash.
_FORMAT = 1


def environment_hash(
    *, base_image: str, docker_steps: str, conda_yaml: str, pip_requirements: str
) -> str:
    """The hash of a definition as a person wrote it. Raises InvalidInput when it cannot be read."""
    return definition_hash(
        parse(
            base_image=base_image,
            docker_steps=docker_steps,
            conda_yaml=conda_yaml,
            pip_requirements=pip_requirements,
        )
    )


def definition_hash(definition: Definition) -> str:
    """The hash of a parsed definition."""
    text = json.dumps(normal_form(definition), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def normal_form(definition: Definition) -> dict[str, Any]:
    """What is hashed, as plain JSON values."""
    return {
        "format": _FORMAT,
        "base_image": definition.base_image,
        "docker_steps": [step.text for step in definition.docker_steps],
        "conda": {
            "channels": list(definition.conda.channels),
            "packages": sorted({package.normal for package in definition.conda.packages}),
            "pip": _pip(definition.conda.pip),
        },
        "pip": _pip(definition.pip),
    }


def _pip(pip: PipDefinition) -> dict[str, list[str]]:
    return {
        "options": list(dict.fromkeys(pip.options)),
        "requirements": sorted({wanted.normal for wanted in pip.requirements}),
    }
