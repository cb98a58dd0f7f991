"""Wrappers, programs that start another program: which options stand before the command.

Each program or sub-command has a row, from the manual that is named above it. If a row is wrong,
`find` looks ahead for the server.
"""

from __future__ import annotations

from eplb_launch.entrypoints import SWEEPS
from eplb_launch.launch_options import NAMES, OPTIONS, SUB_COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Row: TypeAlias = dict[str, str]  # by column

# Shells. POSIX sh(1); bash(1), dash(1), zsh(1), ksh(1).
SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "rbash"))

# Programs whose arguments may look like a command, but are none.
_READERS = """
    [ alias apt apt-cache apt-get awk basename cat code cp curl cut declare diff dirname dnf dpkg
    du echo ed egrep emacs export fgrep file find gawk gh git grep hash head help hf
    huggingface-cli info jq kill killall less ln local locate logger ls lsof mail mailx make
    mamba-build man md5sum mkdir more mv nano notify-send nvim pgrep pidof pip pip3 pkill printf
    ps pytest read readlink realpath rg rm rpm rsync scp sed set sha256sum sleep sort stat tail
    tar tee test touch tr trap tree type unset vi vim wall wc wget whatis whereis which yum zgrep
    zip
"""
READERS = frozenset(_READERS.split())

# Options with a value: `-n 5`, `-n5`, `--adjustment 5`, `--adjustment=5`.
VALUED = {
    "values": "a value that is not needed here",
    "sets": "NAME=VALUE (or NAME) for the environment",
    "exports": "the variables of the command: ALL, NONE, NAME or NAME=VALUE, separated by commas",
    "passes": "variables that the command gets: NAMEs, separated by commas",
    "unsets": "a NAME to remove from the environment",
    "chdir": "the working directory of the command",
    "string": "the command, as a shell string",
    "splits": "text that is split into words",
    "program": "the program; the command is its arguments",
    "replaces": "a value that replaces the operands: `runuser -u USER CMD`",
    "requires": "a requirement: `vllm==0.16.0`",
    "params": "a file with options for the server",
    "spreads": "other hosts that run the command, without this environment",
    "hosts": "a list of such hosts, which may include this host",
}
# Options with two values.
PAIRS = {"pairs": "values that are not needed here", "assigns": "NAME and VALUE to set"}
# Options without a value.
BARE = {
    "flags": "no value. In a row with this column, an option that is not listed may have a value",
    "clears": "the environment is cleared",
    "keeps": "the environment is handed on: all of it, or one name (--keep=NAME)",
    "module": "the command is a Python module, not a program",
    "refuses": "no command is started",
}
# Other columns.
FACTS = {
    "operands": "the number of operands before the command",
    "mixed": "options may follow the operands",
    "words": "`-np` is one option, not `-n p`",
    "assignments": "NAME=VALUE may stand before the command",
    "needs": "no command is started without one of these options",
    "stops": "no command is started if one of these words follows",
    "own": "the command gets another environment, not this one",
    "resets": "most variables are dropped, unless the wrapper is configured otherwise",
    "nodes": "the variables that hold the number of hosts",
    "default": "the variable that is read if there is no option of `exports`",
    "unless": "a text in its words that may make it hand the environment on",
    "own_names": "a prefix: the command gets the variable PREFIXNAME as NAME",
    "option": "the option that makes it hand {name} on, or sets it to {value}",
    "user": "the command runs as another user",
    "python": "its Python environment: the `project`'s, the one at `prefix`, or `unknown`",
    "image": "its last operand is a container image",
    "foreign": "its shell does not follow POSIX",
    "package": "the first word of the command may be a requirement: `vllm@0.16.0`",
    "script": "the command is the file of a shell script",
    "joins": "the words of the command are joined to a shell string",
    "appends": "words that are not known are added to the command",
    "remote": "the command runs on another host or in another container",
}

# NAMES: COLUMN OPTIONS; COLUMN OPTIONS. A module that `python -m` runs has -m before its name.
_TABLE = """
# These have no option with a value. nohup(1), setsid(1), valgrind(1), catchsegv(1); of shells and
# containers: skarnet.org/software/s6, openSUSE/catatonit, busybox, toybox; ddtrace.readthedocs.io
builtin|noglob|!|nohup|setsid|with-contenv|catatonit|busybox|toybox|valgrind|catchsegv|ddtrace-run:

# coreutils 9.4, section 1; shell builtins: POSIX, bash(1)
env: values -a --argv0; unsets -u --unset; chdir -C --chdir; splits -S --split-string;
    clears -i - --ignore-environment; assignments
exec: values -a; clears -c
command: refuses -v -V
time: values -f --format -o --output
nice: values -n --adjustment
stdbuf: values -i --input -o --output -e --error
timeout: values -k --kill-after -s --signal; operands 1
chroot: values --groups --userspec; operands 1; remote

# util-linux 2.40, section 1
ionice: values -c --class -n --classdata; refuses -p --pid -P --pgid -u --uid
chrt: values -T --sched-runtime -P --sched-period -D --sched-deadline; operands 1;
    refuses -p --pid -m --max
taskset: operands 1; refuses -p --pid
flock: values -w --wait --timeout -E --conflict-exit-code; string -c --command; operands 1; mixed
prlimit: values -o --output; refuses -p --pid
setpriv: flags --clear-groups --keep-groups --init-groups --nnp -d --dump; clears --reset-env; user
unshare: values -R --root -S --setuid -G --setgid --propagation --setgroups --map-user --map-users
    --map-group --map-groups --monotonic --boottime --owner -l --load-interp; chdir -w --wd
nsenter: values -t --target -S --setuid -G --setgid; remote
runuser|su: values -g --group -G --supp-group -s --shell; passes -w --whitelist-environment;
    option --whitelist-environment={name}; user; string -c --command --session-command;
    replaces -u --user; clears - -l --login; operands 1; mixed
script: values -I --log-in -O --log-out -B --log-io -T --log-timing -m --logging-format -E --echo;
    string -c --command; needs -c --command; operands 1; mixed
choom: values -n --adjust; refuses -p --pid

# sg(1); fish(1), tcsh(1)
sg: string -c; clears -; operands 1; mixed
fish|csh|tcsh: string -c --command; needs -c --command; foreign

# numactl(8); cgexec(1)
numactl: flags -a --all -b --balancing -c -l --localalloc -t --strict --huge --touch -V --verify;
    refuses -H --hardware -s --show
cgexec: values -g

# chpst(8); daemontools; skarnet.org/software/s6; github.com/tianon/gosu, github.com/ncopa/su-exec
chpst: user; values -u -U -b -e -/ -C -n -l -L -m -d -o -p -f -c -r -t
softlimit|s6-softlimit: values -a -c -d -f -l -m -o -p -r -s -t
setuidgid|s6-setuidgid|gosu|su-exec: operands 1; user
envuidgid|envdir|setlock: operands 1
s6-applyuidgid: user; values -u -g -G
s6-envdir: values -c -L -s; operands 1
s6-setlock: values -t; operands 1

# sudo(8) 1.9.15, env_reset; doas(1), doas.conf(5), keepenv; pkexec(1)
sudo: resets; keeps -E --preserve-env; option --preserve-env={name}; user; assignments;
    values -C --close-from -g --group -h --host -p --prompt -R --chroot -r --role -t --type
    -T --command-timeout -u --user -U --other-user; chdir -D --chdir;
    refuses -l --list -v --validate -K --remove-timestamp -e --edit -V --version
doas: resets; user; values -a -C -u
pkexec: resets; values --user

# systemd 255, section 1
systemd-run: flags -P --pipe -t --pty -q --quiet -r --remain-after-exit -G --collect -d --same-dir
    -S --shell --wait --user --system; sets -E --setenv; chdir --working-directory; own;
    keeps --scope; option --setenv={name}
machinectl: option --setenv={name}; user; values -M --machine -H --host -p --property -n --lines
    -o --output
machinectl shell: values --uid; sets -E --setenv; operands 1; resets
systemd-inhibit: values --what --who --why --mode
systemd-cat: values -t --identifier -p --priority --stderr-priority --level-prefix

# bwrap(1), firejail(1)
bwrap: flags --unshare-all --unshare-user --unshare-user-try --unshare-ipc --unshare-pid
    --unshare-net --unshare-uts --unshare-cgroup --unshare-cgroup-try --share-net
    --die-with-parent --new-session --as-pid-1 --disable-userns; assigns --setenv;
    pairs --bind --bind-try --dev-bind --dev-bind-try --ro-bind --ro-bind-try --bind-fd
    --ro-bind-fd --file --bind-data --ro-bind-data --symlink --chmod; unsets --unsetenv;
    clears --clearenv; chdir --chdir
firejail: sets --env; option --env {name}={value}

# Debuggers and profilers: their manuals, section 1; docs.nvidia.com; rocm.docs.amd.com
nsys profile|launch|start: flags -h --help; chdir --cwd
ncu: flags -f --force-overwrite --nvtx --csv --verbose --quiet -h --help
compute-sanitizer: flags --verbose --help
rocprof: values -i -o -d -t --basenames --trace-period --flush-rate; words
rocprofv3: values -i --input -o --output-file -d --output-directory -f --output-format
strace: flags -A -c -C -d -f -F -h -i -k -n -N -q -r -t -T -v -w -x -y -Y -z -Z; sets -E --env
ltrace: values -a -A -D -e -F -l -n -o -p -s -u -w -x
gdb|cuda-gdb: words; flags -q -quiet --quiet -batch --batch -n -nx --nx -nh -nw --args -args;
    needs --args -args
lldb: values -o -O -s -S -k -K -n -p -w
py-spy record: values -o --output -d --duration -r --rate -f --format
perf record|stat|trace: flags -a --all-cpus -A -B -d -g -i -N -q --quiet -R -s -v --verbose

# Python environments: docs.astral.sh/uv, pipx.pypa.io, python-poetry.org, pipenv.pypa.io,
# pdm-project.org, hatch.pypa.io, pixi.sh, docs.conda.io, mamba.readthedocs.io
uv: python project; values --allow-insecure-host --cache-dir --color --config-file --project;
    chdir --directory
uv run: {UV}; requires -w --with; module -m --module
uvx, uv x, uv tool run: {UV}; requires --from -w --with; python unknown; package
pipx: python unknown
pipx run: values --backend -i --index-url --pip-args --python; requires --spec --with; package
poetry|pipenv|rye: python unknown
poetry|pipenv|rye|hatch run:
pdm: python unknown
pdm run: values -p --project
hatch: python unknown; values -e --env -p --project
pixi: python unknown
pixi run: values --manifest-path -e --environment --color
pixi exec: values -s --spec -c --channel -p --platform
conda|mamba|micromamba: python prefix; values -r --root-prefix --rc-file
conda|mamba|micromamba run: values -n --name -p --prefix -r --root-prefix -a --attach;
    sets -e --env; chdir --cwd

# github.com/theskumar/python-dotenv; docs.doppler.com/docs/cli; getsops.io/docs; honcho
dotenv: values -f --file -q --quote
dotenv|honcho run:
doppler: values -p --project -c --config --api-host --config-dir --configuration --scope -t --token
doppler run: flags --debug --json --print-config --silent --fallback-only --fallback-readonly
    --forward-signals --preserve-env; string --command
sops exec-env: values --user; clears --pristine; operands 1; joins
sops exec-file: values --user --filename; operands 1; joins
honcho: values -e --env -f --procfile; chdir -d --app-root

# Instrumentation: opentelemetry-python-contrib; docs.newrelic.com; coverage.readthedocs.io; pdb,
# profile and trace of docs.python.org; github.com/microsoft/debugpy; viztracer; memray
opentelemetry-instrument: flags --version
newrelic-admin run-program|run-python:
coverage run, -m coverage run: module -m --module;
    values --concurrency --context --data-file --include --omit --rcfile --source
-m cProfile: values -o --outfile -s --sort; module -m
-m pdb: values -c; module -m
-m trace: values -f --file -C --coverdir --ignore-module --ignore-dir; module --module
-m debugpy: values --listen --connect --log-to --adapter-access-token; pairs --configure-qt;
    module -m
-m viztracer: values -o --output-file --tracer-entries --log-func-args; module -m --module
-m memray run: values -o --output; module -m

# Launchers of many processes: docs.pytorch.org, torchrun; huggingface.co/docs/accelerate; mpirun(1)
# of Open MPI 4 and 5, which hands only the variables of -x on to other hosts; mpiexec.hydra(1) of
# MPICH, which has -genv; docs.ray.io, ray job submit
torchrun, -m torch.distributed.run|torch.distributed.launch: flags --standalone --run-path
    --use-env; module -m --module
accelerate launch, -m accelerate.commands.launch: flags --multi-gpu --cpu --tpu --quiet -q --debug
    --use-deepspeed --use-fsdp --use-xpu --use-mps-device --ipex; module -m --module
mpirun|mpiexec|orterun: words; sets -x; chdir -wd -wdir --wdir; option -x {name}; remote;
    values -c -n --n -np --np -npersocket --npersocket -pernode-n -map-by --map-by -bind-to
    --bind-to -rank-by --rank-by -rf --rankfile -output-filename --output-filename --output -prefix
    --prefix -path --path -tmpdir -timeout --timeout --runtime-options --display --personality
    -iface -launcher -rmk -genvlist -envlist -cpu-set --cpu-set -stdin --stdin;
    pairs -mca --mca -gmca --gmca --prtemca --pmixmca -genv -env; unless -genv -env;
    spreads -N -npernode --npernode -ppn -f -hostfile --hostfile -machinefile --machinefile;
    hosts -H -host --host -hosts; nodes SLURM_JOB_NUM_NODES SLURM_NNODES
ray job submit: flags --verbose; chdir --working-dir; own; unless NCCL_MAX_CTAS; remote

# srun(1), salloc(1), sbatch(1), Slurm 24.05; --container-*: github.com/NVIDIA/pyxis
srun: {SLURM}; default SLURM_EXPORT_ENV
salloc: {SLURM}
sbatch: {SLURM}; string --wrap; script

# Containers and other hosts: docker(1), podman(1), nerdctl; docs.docker.com/reference/cli. Files of
# --env-file are not read
docker|podman|nerdctl: image; option -e {name}; values --config -c --context -H --host -l
    --log-level --tlscacert --tlscert --tlskey --connection --identity --root --runroot
    --storage-driver --url -n --namespace -a --address --snapshotter
docker|podman|nerdctl run|create|exec: {CONTAINER}
docker|podman|nerdctl container run|create|exec: {CONTAINER}
docker-compose: image; option -e {name}; {COMPOSE}
docker|podman|nerdctl compose: {COMPOSE}
docker-compose run|exec: {CONTAINER}
docker|podman|nerdctl compose run|exec: {CONTAINER}
# kubernetes.io/docs/reference/kubectl
kubectl|oc: option --env={name}={value}; values --as --as-group --as-uid --cache-dir
    --certificate-authority --client-certificate --client-key --cluster --context --kubeconfig
    -n --namespace --request-timeout -s --server --token --user -v --v
kubectl|oc exec|debug|run: flags -i --stdin -t --tty -q --quiet --attach --rm --share-processes
    --arguments-only --same-node --expose --privileged --command --wait --leave-stdin-open;
    sets --env; operands 1; mixed; own; remote
# apptainer.org/docs/user/main/cli
singularity|apptainer: option --env {name}={value}; values -c --config
singularity|apptainer exec|run: flags --nv --rocm --nvccli -c --contain -f --fakeroot -i --ipc -p
    --pid -u --userns -w --writable --writable-tmpfs --compat --underlay --uts --keep-privs;
    sets --env; clears -e --cleanenv -C --containall; own_names SINGULARITYENV_ APPTAINERENV_;
    chdir --pwd --cwd; operands 1; remote
# github.com/NVIDIA/enroot; ssh(1), OpenSSH 9.6
enroot: option -e {name}
enroot start: values -c --conf -m --mount; sets -e --env; operands 1; own; remote
ssh: values -B -b -c -D -E -e -F -I -i -J -L -l -m -O -o -P -p -Q -R -S -W -w; operands 1; mixed;
    joins; own; unless SendEnv SetEnv; remote

# Terminals: tmux(1), whose server has its own environment; screen(1); watch(1)
tmux: option -e {name}={value}; values -c -f -L -S -T
tmux new-session|new|new-window|neww|split-window: values -F -f -n -s -t -x -y; sets -e; chdir -c;
    joins; own
screen: values -c -e -h -p -S -s -T -t; refuses -r -x -ls -list
watch: values -n --interval -q --equexit; joins

# First processes of containers: github.com/krallin/tini, Yelp/dumb-init
tini|tini-static|docker-init: values -p -e
dumb-init: values -r --rewrite

# xargs(1), findutils 4.9; GNU parallel(1), 20240222
xargs: appends; values -a --arg-file -d --delimiter -E -I -L --max-lines -n --max-args -P
    --max-procs -s --max-chars --process-slot-var
parallel: flags --bar --eta -k --keep-order -q --quote -u --ungroup --lb --line-buffer --dry-run -r
    -X -m -v -t --tag --will-cite -0 --null --xargs --pipe --progress; keeps --env; nodes;
    spreads -S --sshlogin --slf --sshloginfile; option --env {name}; joins; appends

# vllm/benchmarks/sweep of 0.11.1 to 0.33: shlex.split(serve_cmd)
vllm bench sweep: {SWEEP}; operands 1
"""
_SHARED = {
    "UV": """
    flags --active --all-extras --all-groups --all-packages --dev --exact --frozen --isolated -n
    --locked --offline --only-dev -q --quiet --refresh --reinstall -s --script -U --upgrade -v
    --verbose --native-tls --managed-python; values --no-extra --no-group --no-binary-package
    --no-build-package --no-build-isolation-package --no-sources-package; chdir --directory""",
    "SLURM": """
    flags -E --preserve-env -H --hold -k -l --label -O --overcommit -Q --quiet -s --oversubscribe -u
    --unbuffered -v --verbose -X -Z --exclusive --contiguous --overlap --exact --pty --test-only
    --use-min-nodes --spread-job --requeue --container-mount-home --container-remap-root
    --container-writable --container-readonly; exports --export; option --export=ALL,{name};
    chdir -D --chdir; remote""",
    "CONTAINER": """
    flags --rm -d --detach -i --interactive -t --tty --init --privileged --read-only -P
    --publish-all -q --quiet --oom-kill-disable --sig-proxy --replace --rmi --service-ports
    --use-aliases --build --remove-orphans -T; sets -e --env; chdir -w --workdir;
    program --entrypoint; operands 1; own; keeps --env-host; unless --env-file; remote""",
    "COMPOSE": """
    values --ansi --env-file -f --file --parallel --profile --progress --project-directory -p
    --project-name""",
    "SWEEP": """
    string --serve-cmd --startup-cmd; needs --serve-cmd --startup-cmd;
    params --serve-params --startup-params; flags --dry-run --resume --show-stdout; mixed""",
}


def _paths(names: str) -> list[str]:
    """Return all names of a row: "a|b run" stands for "a run" and "b run"."""
    if "|" not in names:
        return names.split(", ")
    found = []
    for words in names.split(", "):
        paths = [""]
        for word in words.split(" "):
            paths = [f"{path} {name}" for path in paths for name in word.split("|")]
        found += [path[1:] for path in paths]
    return found


def _read(table: str) -> dict[str, str]:
    rows: dict[str, str] = {}
    for line in table.replace("\n    ", " ").split("\n"):
        if line[:1] not in ("", "#"):
            names, _, columns = line.partition(":")
            for path in _paths(names):
                rows[path] = columns
    return rows


# By program and sub-commands ("docker container run"): the columns, as text.
WRAPPERS = _read(_TABLE)
WRAPPERS.update((f"-m {module}", "{SWEEP}") for module in SWEEPS)
# This launcher. Its sub-commands start nothing.
_OPTIONS = " ".join(name for name, (takes, _) in OPTIONS.items() if takes)
_LAUNCHER = f"values {_OPTIONS}; stops {' '.join(SUB_COMMANDS)}"
WRAPPERS |= {NAMES[0]: _LAUNCHER, f"-m {NAMES[1]}": _LAUNCHER}
# Programs with sub-commands, one of which has to follow.
GROUPS = {path.rpartition(" ")[0] for path in WRAPPERS if " " in path} - {"-m"}
GROUPS |= {path.rpartition(" ")[0] for path in GROUPS if " " in path}
WRAPPERS |= dict.fromkeys(GROUPS - WRAPPERS.keys(), "")
_rows: dict[str, Row] = {}


def row_of(path: str) -> Row:
    """Return the row of a program or sub-command, or an empty one if it has none."""
    if path not in _rows:
        text = WRAPPERS.get(path, "")
        for name, shared in _SHARED.items():
            text = text.replace("{" + name + "}", " ".join(shared.split()))
        columns = (column.strip().partition(" ") for column in text.split(";"))
        _rows[path] = {name: options for name, _, options in columns if name}
    return _rows[path]
