"""Read a replica's output and exit, and say in plain words why it failed.

PURE. The texts looked for are those of `azureml-inference-server-http`, gunicorn and the shim; the
tests hold this module to output of the real ones. `code` is Azure's word where Azure has one.
"""

import re

from deployments.types import Cause, Exit, RevisionSpec

# Names that are imported under another name than they are installed by.
_PACKAGES = {
    "sklearn": "scikit-learn",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "PyYAML",
    "skimage": "scikit-image",
    "bs4": "beautifulsoup4",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "azureml": "azureml-core",
    "google.protobuf": "protobuf",
}
_LOADING = ("Found user script at", "Invoking user's init function", "Initializing logger")
_INIT_CALLED = "Invoking user's init function"
_INIT_DONE = "Users's init has completed successfully"
_INIT_FAILED = "User's init function failed"
_IMPORT_FAILED = "Failed to import user script because it raised an unhandled exception"
_BETWEEN = "The above exception was the direct cause of the following exception:"
_TRACE = "Traceback (most recent call last):"
_NO_MODULE = re.compile(r"^(?:ModuleNotFoundError|ImportError): No module named '([^']+)'")
_CONTRACT = re.compile(r"UserScriptError: (.+)$", re.MULTILINE)
_WORKER_DIED = re.compile(r"Worker \(pid:\d+\) (was sent SIG\w+!?[^\n]*|exited with code (\d+))")
_CONFIGURATION = re.compile(r"=+Configuration Error=+\s*\n(.+?)\n=+", re.DOTALL)
_SPACE = ("No space left on device", "Disk quota exceeded", "no space left on device")
# What the agent writes of a container that its Engine could not start, before the Engine's words.
NOT_STARTED = "slipway: the container could not be started: "
REMOVED = "slipway: the container was removed, and not by Slipway"
_READ_ONLY = "Read-only file system"
_NO_PROGRAM = ("executable file not found", "no such file or directory", "exec format error")
_NO_GPU = ("could not select device driver", "nvidia-container", "unknown device")
_NOT_THERE = ("not found", "manifest unknown", "name unknown", "does not exist", "No such image")
_NOT_LET_IN = ("unauthorized", "denied", "authentication required", "no basic auth")
_EVIDENCE_LINES = 60
_NO_EVIDENCE = "(it wrote nothing)"


def is_loading(log: str) -> bool:
    """The scoring server has begun with the entry script."""
    return any(text in log for text in _LOADING)


def of_end(log: str, exit_: Exit | None, revision: RevisionSpec, was_ready: bool) -> Cause:
    """Why a run ended by itself."""
    if exit_ is not None and exit_.oom:
        return _out_of_memory(revision, _last_lines(log))
    if REMOVED in log:
        return Cause(
            "ContainerRemoved",
            f"A container of {revision.service} was removed by somebody else. It is started again.",
            _last_lines(log),
        )
    if was_ready:
        return _end_in_use(log, exit_, revision)
    return _of_start(log, revision) or _end_unexplained(log, exit_, revision)


def of_start_timeout(log: str, revision: RevisionSpec) -> Cause:
    """Why a run had not answered in time. It is being ended."""
    seconds = revision.start_timeout_seconds
    known = _of_start(log, revision)
    if known is not None:
        return known
    if _INIT_CALLED in log and _INIT_DONE not in log:
        message = (
            f"init() in {revision.entry_script} had not returned after {seconds} s, the start timeout. "
            "Make it do less, or raise the start timeout (livenessProbe initial_delay_seconds)."
        )
    elif is_loading(log):
        message = (
            f"The replica was not ready after {seconds} s, the start timeout, though the "
            f"scoring server was running. Importing {revision.entry_script} may take long: see its log."
        )
    else:
        message = (
            f"The scoring server did not begin within {seconds} s, the start timeout. "
            "See its log; the machine may be overloaded."
        )
    return Cause("StartTimedOut", message, _last_lines(log))


def of_silence(log: str, seconds: float, *, refused: bool) -> Cause:
    """Why a replica that was ready counts as dead. It is being ended."""
    if refused:
        message = "The replica's sockets are gone. It is started again."
    else:
        message = (
            f"The replica gave no sign of life for {seconds:.0f} s, longer than a request may take. "
            "It is started again. A run() that never returns does this."
        )
    return Cause("Unresponsive", message, _last_lines(log))


def never_began() -> Cause:
    return Cause(
        "StartFailed",
        "The replica's process could not be started by the agent. See the agent's log; "
        "it is tried again.",
    )


def not_staged(revision: RevisionSpec) -> Cause:
    return Cause(
        "FilesMissing",
        f"The files of revision {revision.number} of {revision.service} are not on this cluster. "
        "Deploy it again.",
    )


def of_preparing(error: OSError, revision: RevisionSpec) -> Cause:
    """Why the working copy could not be made."""
    if any(text in str(error) for text in _SPACE):
        return _disk_full(f"preparing a replica of {revision.service}", str(error))
    return Cause(
        "StartFailed",
        f"The working copy of a replica of {revision.service} could not be made: {error}.",
        str(error),
    )


def of_pull(words: str, revision: RevisionSpec) -> Cause:
    """Why an Engine has no image to start a container from. `words` are its own, or the registry's."""
    image = image_of(revision)
    if any(text in words for text in _SPACE):
        return _disk_full(f"pulling the image {image}", words)
    if image.startswith("sha256:"):
        hint = "It was removed, and no registry has it: deploy again, and it is built anew."
    elif any(text in words for text in _NOT_LET_IN):
        hint = "Give this registry's user name and password under Registries."
    elif any(text in words for text in _NOT_THERE):
        hint = "Look at its name and tag, or deploy again, and it is built anew."
    else:
        hint = "The Engine must reach that registry; it is tried again."
    said = words.strip().rstrip(".")
    return Cause(
        "ImagePullBackOff", f"The image {image} could not be pulled: {said}. {hint}", words
    )


def of_bringing(words: str, revision: RevisionSpec) -> Cause:
    """Why a revision's files are not where an Engine elsewhere could mount them."""
    if any(text in words for text in _SPACE):
        return _disk_full(f"bringing the files of {revision.service} to its machine", words)
    said = words.strip().rstrip(".")
    return Cause(
        "FilesNotBrought",
        f"The files of {revision.service} could not be brought to the Engine's machine: {said}. It is "
        "tried again.",
        words,
    )


def not_far(revision: RevisionSpec) -> Cause:
    """Why a brought image does not run on an Engine elsewhere."""
    return Cause(
        "ImageNotProtected",
        f"{revision.service} is an image of a person's own, and this cluster's Engine is on another "
        "machine: anybody on the network between could reach it past the router, since such an image "
        "asks for no key. Deploy it to a cluster whose Engine is on this machine, or to Kubernetes.",
    )


def image_of(revision: RevisionSpec) -> str:
    """What a container of this revision is made from."""
    return revision.container.image if revision.container else revision.environment.location


def _of_container(log: str, revision: RevisionSpec) -> Cause | None:
    """What an Engine said when it could not start a container."""
    begin = log.rfind(NOT_STARTED)
    if begin < 0:
        return None
    words = log[begin + len(NOT_STARTED) :].strip()
    image = image_of(revision)
    if any(text in words for text in _SPACE):
        return _disk_full(f"starting a container of {revision.service}", words)
    if any(text in words for text in _NO_GPU):
        return Cause(
            "RunContainerError",
            f"The Engine could not give a container of {revision.service} its GPU. Install the "
            "NVIDIA container toolkit there, or ask for none.",
            words,
        )
    if any(text in words for text in _NO_PROGRAM):
        what = "its own program" if revision.container else "`python`"
        return Cause(
            "EnvironmentBroken",
            f"The image {image} cannot run {what}. Build it so that this stands on its PATH.",
            words,
        )
    return Cause(
        "RunContainerError",
        f"The Engine could not start a container of {revision.service}: {words.rstrip('.')}.",
        words,
    )


def _of_start(log: str, revision: RevisionSpec) -> Cause | None:
    """What the output itself says about a start that failed."""
    script = revision.entry_script
    if refused := _of_container(log, revision):
        return refused
    trace = _user_trace(log)
    last = trace.rstrip().rpartition("\n")[2] if trace else ""
    in_init = _INIT_FAILED in log
    code = "UserScriptInitFailed" if in_init else "UserScriptImportError"
    doing = f"init() in {script}" if in_init else f"Importing {script}"
    if last.startswith("MemoryError") or "Perhaps out of memory" in log:
        return _out_of_memory(revision, trace or _last_lines(log))
    if any(text in (last or log) for text in _SPACE):
        return _disk_full(doing, trace or _last_lines(log))
    if trace and _READ_ONLY in last:
        return Cause(
            code,
            f"{doing} writes where nothing may be written: {last}. In a container the project folder "
            "is read-only; write to the folder that TMPDIR names.",
            trace,
        )
    if trace and (in_init or _IMPORT_FAILED in log):
        if found := _NO_MODULE.match(last):
            return Cause(code, _missing(found[1], script, revision), trace)
        if not in_init and last.startswith("FileNotFoundError") and last.endswith(f"{script}'"):
            return Cause(
                code,
                f"There is no {script} in the project folder. Upload it, or name the entry script "
                "that is there (is it in a subfolder, or left out by .amlignore?).",
                trace,
            )
        return Cause(code, f"{doing} raised {last or 'an exception'}", trace)
    if found := _CONTRACT.search(log):
        return Cause(
            "UserScriptImportError",
            f"{script} cannot be served: {_told(found[1], script)} See the entry script's contract.",
            _last_trace(log),
        )
    if found := _CONFIGURATION.search(log):
        return Cause(
            "InvalidConfiguration",
            f"The scoring server refused a setting: {found[1].strip()}. Correct the environment "
            "variable or the config.json in the project folder.",
            found[0],
        )
    if "No module named gunicorn" in log or "No module named 'azureml_inference" in log:
        return Cause(
            "EnvironmentBroken",
            f"The environment {revision.environment.hash[:12]} does not hold the scoring server. "
            "Build it again.",
            _last_lines(log),
        )
    if "could not be started:" in log:
        return Cause(
            "EnvironmentBroken",
            f"The environment's Python could not be started from {revision.environment.location}. "
            "Build the environment again.",
            _last_lines(log),
        )
    if found := _WORKER_DIED.search(log):
        doing = f"init() in {script}" if _INIT_CALLED in log else f"importing {script}"
        return Cause(
            "UserScriptInitFailed" if _INIT_CALLED in log else "UserScriptImportError",
            f"The process ended inside {doing}: it {found[1].rstrip('.!')}. A native library that "
            "crashes or a call to os._exit() does this.",
            _last_lines(log),
        )
    return None


def _end_unexplained(log: str, exit_: Exit | None, revision: RevisionSpec) -> Cause:
    return Cause(
        "CrashLoopBackOff",
        f"The scoring server of {revision.service} {_how(exit_)} before it was ready. See its log.",
        _last_lines(log),
    )


def _end_in_use(log: str, exit_: Exit | None, revision: RevisionSpec) -> Cause:
    if any(text in log[-4096:] for text in _SPACE):
        return _disk_full(f"a replica of {revision.service}", _last_lines(log))
    return Cause(
        "CrashLoopBackOff",
        f"The replica {_how(exit_)} while it was serving. It is started again.",
        _last_lines(log),
    )


def _how(exit_: Exit | None) -> str:
    if exit_ is None:
        return "was killed together with its keeper"
    if exit_.signal == 9:
        return "was killed (SIGKILL; perhaps the machine was out of memory)"
    if exit_.signal:
        return f"was ended by signal {exit_.signal}"
    return f"ended with code {exit_.code}"


def _out_of_memory(revision: RevisionSpec, evidence: str) -> Cause:
    limit = revision.resources.memory_gb_limit
    allowed = f"its limit is {limit:g} GiB" if limit else "it has no limit of its own"
    return Cause(
        "PodOutOfMemory",
        f"A replica of {revision.service} ran out of memory ({allowed}). Raise memory_gb and its "
        "limit, or load less.",
        evidence,
    )


def _disk_full(doing: str, evidence: str) -> Cause:
    return Cause(
        "DiskFull", f"{doing}: the disk is full. Free some space; it is tried again.", evidence
    )


def _missing(module: str, script: str, revision: RevisionSpec) -> str:
    top = module.partition(".")[0]
    package = _PACKAGES.get(module) or _PACKAGES.get(top) or top
    return (
        f"{script} imports {module}, which is not installed. Add {package} to the environment "
        f"(hash {revision.environment.hash[:12]}) and deploy again; if {top} is a file of yours, it is "
        "not in the project folder at that place."
    )


def _told(text: str, script: str) -> str:
    """The server's own sentence without the path of the working copy."""
    return re.sub(r"^User script at \S+", script, text.strip())


def _user_trace(log: str) -> str:
    """The traceback of the person's own code: the server's frames around it are left out."""
    at = log.rfind(_BETWEEN)
    if at < 0:
        return ""
    before = log[:at].rstrip()
    # An exception with a cause of its own prints several: all of them belong to it.
    begin = -1
    for mark in (f"Encountered Exception {_TRACE}", f"azmlinfsrv - {_TRACE}"):
        begin = max(begin, before.rfind(mark))
    if begin < 0:
        return ""
    lines = before[before.index(_TRACE, begin) :].split("\n")
    return "\n".join(_without_server(lines)[-_EVIDENCE_LINES:])


def _without_server(lines: list[str]) -> list[str]:
    kept: list[str] = []
    skipping = False
    for line in lines:
        if line.startswith('  File "'):
            skipping = "/azureml_inference_server_http/" in line or '"<frozen importlib' in line
        elif not line.startswith("    "):
            skipping = False
        if not skipping:
            kept.append(line)
    return kept


def _last_trace(log: str) -> str:
    at = log.rfind(_TRACE)
    return log[at:].split("\n\n")[0] if at >= 0 else _last_lines(log)


def _last_lines(log: str) -> str:
    return "\n".join(log.rstrip().split("\n")[-_EVIDENCE_LINES:]) or _NO_EVIDENCE
