"""Programs that start another program: what stands between their name and the command.

The table is data, one row a program, each from the manual that is named with it. An option that
no row lists is taken to have no value of its own; `search` looks ahead where that was wrong.
"""

from __future__ import annotations

from eplb_launch.entrypoints import SWEEPS
from eplb_launch.launch_options import NAMES, OPTIONS, SUB_COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class Row(TypedDict, total=False):
        """How a program finds the command among its own words. Options are parted by blanks."""

        values: str  # options with a value: `-n 5`, `-n5`, `--adjustment 5`, `--adjustment=5`
        pairs: str  # options with two values
        flags: str  # where `greedy`: the options without a value
        greedy: bool  # an option that is not listed takes a value, unless that looks like none
        words: bool  # `-np` is one option, not `-n p`
        operands: int  # words before the command that are no options
        replaces: str  # options that stand for the operands: `runuser -u USER CMD`
        mixed: bool  # options may follow the operands
        assignments: bool  # NAME=VALUE before the command go into its environment
        sets: str  # options whose value is NAME=VALUE (or NAME), for the environment
        exports: (
            str  # options whose value lists what the command gets: ALL or NONE, NAME, NAME=VALUE
        )
        assigns: str  # options with two values, NAME and VALUE, for the environment
        passes: str  # options whose value lists the NAMEs that the command gets
        unsets: str  # options whose value is a NAME to take out of the environment
        clears: str  # options that empty the environment
        own: bool  # the command gets an environment that is not ours
        resets: bool  # most of ours is left out, if it is not set up otherwise
        spreads: str  # options with a value that start the command on other hosts, without ours
        hosts: str  # options whose value lists such hosts
        nodes: str  # variables that tell how many hosts there are
        default: str  # the variable that stands for `exports` where there is no such option
        keeps: str  # options that hand ours on all the same: all of it, or by name: --keep=NAME
        unless: str  # what, in a word of its own, may make it hand ours on
        own_names: str  # before a NAME: variables of ours that the command gets as NAME
        option: str  # the option that makes it hand {name} on, or sets it to {value}
        user: bool  # the command runs as another user
        python: str  # its Python environment: of the "project", by "prefix", or nobody "knows"
        image: bool  # its last operand is the image of a container
        chdir: str  # options whose value is the command's working directory
        string: str  # options whose value is a command for a shell
        foreign: bool  # that shell expands otherwise than POSIX has it
        params: str  # options whose value is a file with options for the server
        package: bool  # its first word may be a requirement: `vllm@0.16.0`, `vllm==0.16.0`
        requires: str  # options whose value is one
        joins: bool  # the words of the command are joined and given to a shell
        splits: str  # options whose value is split into words
        module: str  # options after which a Python module stands, not a program
        program: str  # options whose value is the program, the command being its arguments
        needs: str  # options without which the words are no command
        refuses: str  # options with which no command is started
        stops: str  # first words with which none is
        appends: bool  # words that cannot be known are added to the command
        elsewhere: bool  # the command runs on another host or in another container
        subs: dict[str, Row]  # sub-commands, of which one has to follow


# Shells that take a command as a string. POSIX sh(1); bash(1), dash(1), zsh(1), ksh(1).
SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "rbash"))

# Programs whose arguments are no command, though they may look like one.
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

# This launcher. Its sub-commands start nothing.
LAUNCHERS = NAMES
_LAUNCHER: Row = {
    "values": " ".join(name for name, (takes, _) in OPTIONS.items() if takes),
    "stops": " ".join(SUB_COMMANDS),
}
_CONTAINER_RUN: Row = {  # docker-run(1), podman-run(1), nerdctl command reference
    "values": """
    --add-host --annotation -a --attach --authfile --blkio-weight --cap-add --cap-drop
    --cgroup-parent --cgroupns --cgroups --cidfile --conmon-pidfile --cpu-count --cpu-percent
    --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime -c --cpu-shares --cpus --cpuset-cpus
    --cpuset-mems --decryption-key --detach-keys --device --device-cgroup-rule --device-read-bps
    --dns --dns-option --dns-search --domainname --env-file --expose --gidmap --gpus --group-add
    --group-entry --health-cmd --health-interval --health-retries --health-timeout -h --hostname
    --hooks-dir --image-volume --init-path --ip --ip6 --ipc --isolation -l --label --label-file
    --link --log-driver --log-opt --mac-address -m --memory --memory-reservation --memory-swap
    --memory-swappiness --mount --name --net --network --network-alias --oom-score-adj
    --passwd-entry
    --personality --pid --pidfile --pids-limit --platform --pod --pod-id-file -p --publish --pull
    --requires --restart --rootfs --runtime --sdnotify --seccomp-policy --secret --security-opt
    --shm-size --stop-signal --stop-timeout --storage-opt --subgidname --subuidname --sysctl
    --systemd --timeout --tmpfs --tz --uidmap --ulimit --umask -u --user --userns --uts --variant
    -v --volume --volume-driver --volumes-from""",
    "sets": "-e --env",
    "chdir": "-w --workdir",
    "program": "--entrypoint",
    "operands": 1,
    "own": True,
    "keeps": "--env-host",
    "unless": "--env-file",  # the user's own choice: not looked at
    "elsewhere": True,
}
_CONTAINER_EXEC: Row = {  # docker-exec(1), podman-exec(1)
    "values": "--detach-keys --env-file --preserve-fds -u --user --index",
    "sets": "-e --env",
    "chdir": "-w --workdir",
    "operands": 1,
    "own": True,
    "unless": "--env-file",
    "elsewhere": True,
}
_CONTAINERS: Row = {  # docker(1), podman(1), nerdctl; docker compose: docs.docker.com/reference/cli
    "image": True,
    "option": "-e {name}",
    "values": """
    --config -c --context -H --host -l --log-level --tlscacert --tlscert --tlskey --connection
    --identity --root --runroot --storage-driver --url -n --namespace -a --address --snapshotter""",
    "subs": {
        "run": _CONTAINER_RUN,
        "create": _CONTAINER_RUN,
        "exec": _CONTAINER_EXEC,
        "container": {
            "subs": {"run": _CONTAINER_RUN, "create": _CONTAINER_RUN, "exec": _CONTAINER_EXEC}
        },
        "compose": {
            "values": """
            --ansi --env-file -f --file --parallel --profile --progress --project-directory -p
            --project-name""",
            "subs": {"run": _CONTAINER_RUN, "exec": _CONTAINER_EXEC},
        },
    },
}
_KUBECTL_EXEC: Row = {  # kubernetes.io/docs/reference/kubectl: exec, debug
    "values": """
    -c --container -f --filename --pod-running-timeout --image --target --profile --copy-to
    --as --as-group --cluster --context --kubeconfig -n --namespace --request-timeout -s --server
    --token --user""",
    "sets": "--env",
    "operands": 1,
    "mixed": True,
    "own": True,
    "elsewhere": True,
}
_KUBECTL: Row = {
    "option": "--env={name}={value}",
    "values": """
    --as --as-group --as-uid --cache-dir --certificate-authority --client-certificate --client-key
    --cluster --context --kubeconfig -n --namespace --request-timeout -s --server --token --user
    -v --v""",
    "subs": {
        "exec": _KUBECTL_EXEC,
        "debug": _KUBECTL_EXEC,
        "run": {
            **_KUBECTL_EXEC,
            "values": _KUBECTL_EXEC["values"]
            + " --labels -l --overrides --port --restart -o --output",
        },
    },
}
_APPTAINER_RUN: Row = {  # apptainer.org/docs/user/main/cli/apptainer_exec.html
    "values": """
    --app --apply-cgroups -B --bind --blkio-weight --cpu-shares --cpus --cpuset-cpus --cpuset-mems
    --dns --docker-host --drop-caps --env-file --fusemount -H --home --hostname --memory
    --memory-reservation --memory-swap --mount --network --network-args -o --overlay --pem-path
    --pids-limit -S --scratch --security -W --workdir --add-caps""",
    "sets": "--env",
    "clears": "-e --cleanenv -C --containall",
    "own_names": "SINGULARITYENV_ APPTAINERENV_",
    "chdir": "--pwd --cwd",
    "operands": 1,
    "elsewhere": True,
}
_APPTAINER: Row = {
    "option": "--env {name}={value}",
    "values": "-c --config",
    "subs": {"exec": _APPTAINER_RUN, "run": _APPTAINER_RUN},
}
_CONDA_RUN: Row = {  # conda run --help; mamba and micromamba: mamba.readthedocs.io
    "values": "-n --name -p --prefix -r --root-prefix -a --attach",
    "sets": "-e --env",
    "chdir": "--cwd",
}
_CONDA: Row = {
    "python": "prefix",
    "values": "-r --root-prefix --rc-file",
    "subs": {"run": _CONDA_RUN},
}
_UV_VALUES = """
    --allow-insecure-host --cache-dir --color --config-file --config-setting -C
    --config-settings-package --default-index --env-file --exclude-newer --extra -f --find-links
    --fork-strategy --group --index --index-strategy -i --index-url --extra-index-url
    --keyring-provider --link-mode --no-binary-package --no-build-isolation-package
    --no-build-package --no-extra --no-group --no-sources-package --only-group --package
    --prerelease --project -p --python --python-platform --refresh-package --reinstall-package
    --resolution --torch-backend --upgrade-group -P --upgrade-package -w --with --with-editable
    --with-requirements -b --build-constraints -c --constraints --overrides --from"""
_UV_TOOL: Row = {
    "python": "knows",
    "package": True,
    "values": _UV_VALUES,
    "requires": "--from -w --with",
    "chdir": "--directory",
}
_UV: Row = {  # docs.astral.sh/uv/reference/cli
    "python": "project",
    "values": _UV_VALUES,
    "chdir": "--directory",
    "subs": {
        "run": {
            "values": _UV_VALUES,
            "requires": "-w --with",
            "chdir": "--directory",
            "module": "-m --module",
        },
        "tool": {"subs": {"run": _UV_TOOL}},
        "x": _UV_TOOL,
    },
}
_NSYS_PROFILE: Row = {  # docs.nvidia.com/nsight-systems/UserGuide: nsys profile, nsys launch
    "greedy": True,
    "flags": "-h --help --no-wait",
    "chdir": "--cwd",
}
_TORCHRUN: Row = {  # docs.pytorch.org/docs/stable/elastic/run.html
    "values": """
    --nnodes --nproc-per-node --nproc_per_node --rdzv-backend --rdzv_backend --rdzv-endpoint
    --rdzv_endpoint --rdzv-id --rdzv_id --rdzv-conf --rdzv_conf --max-restarts --max_restarts
    --monitor-interval --monitor_interval --start-method --start_method --role --log-dir
    --log_dir -r --redirects -t --tee --local-ranks-filter --local_ranks_filter --node-rank
    --node_rank --master-addr --master_addr --master-port --master_port --local-addr --local_addr
    --logs-specs --logs_specs --numa-binding --numa_binding --event-log-handler""",
    "module": "-m --module",
}
_ACCELERATE: Row = {  # huggingface.co/docs/accelerate/package_reference/cli: accelerate launch
    "values": """
    --config_file --num_processes --num_machines --machine_rank --main_process_ip
    --main_process_port --mixed_precision --gpu_ids --num_cpu_threads_per_process
    --dynamo_backend --rdzv_backend --rdzv_conf --max_restarts --monitor_interval --role --tee
    --log_dir --deepspeed_config_file --fsdp_config --use_fsdp_config --same_network_config""",
    "module": "-m --module",
}
_SRUN: Row = {  # srun(1), Slurm 24.05; --container-*: github.com/NVIDIA/pyxis
    "values": """
    -A --account --acctg-freq --bb --bbf -b --begin --bcast-exclude --cluster-constraint -M
    --clusters --comment -C --constraint --container --container-id --container-env
    --container-image --container-mounts --container-name --container-save --container-workdir
    --core-spec -S --cores-per-socket --cpu-bind --cpu-freq -c --cpus-per-task --cpus-per-gpu
    --deadline --delay-boot -d --dependency -m --distribution --epilog -e --error -x --exclude
    --export-file --extra -B --extra-node-info --gid --gpu-bind --gpu-freq -G --gpus
    --gpus-per-node --gpus-per-socket --gpus-per-task --gres --gres-flags --het-group --hint
    -i --input --interactive -J --job-name --jobid --kill-on-bad-exit -K --licenses -L
    --mail-type --mail-user --mcs-label --mem --mem-bind --mem-per-cpu --mem-per-gpu --mincpus
    --mpi --multi-prog --network --nice -w --nodelist -F --nodefile -N --nodes -n --ntasks
    --ntasks-per-core --ntasks-per-gpu --ntasks-per-node --ntasks-per-socket --open-mode -o
    --output -p --partition --power --priority --prolog --propagate -q --qos -r --relative
    --reservation --resv-ports --signal --slurmd-debug --sockets-per-node --spread-job --switches
    --task-epilog --task-prolog --thread-spec -T --threads --threads-per-core -t --time --time-min
    --tmp --tres-bind --tres-per-task --uid --wait -W --wckey""",
    "exports": "--export",
    "option": "--export=ALL,{name}",
    "chdir": "-D --chdir",
    "elsewhere": True,
}
_MPIRUN: Row = {  # mpirun(1) of Open MPI 4 and 5; mpiexec.hydra(1) of MPICH
    "words": True,
    "values": """
    -c -n --n -np --np -npersocket --npersocket -pernode-n -map-by --map-by -bind-to --bind-to
    -rank-by --rank-by -rf --rankfile -output-filename --output-filename --output -prefix --prefix
    -path --path -tmpdir -timeout --timeout --runtime-options --display --personality -iface
    -launcher -rmk -genvlist -envlist -cpu-set --cpu-set -stdin --stdin""",
    "pairs": "-mca --mca -gmca --gmca --prtemca --pmixmca -genv -env",
    "sets": "-x",
    # Open MPI hands on to other hosts only what -x names; mpiexec of MPICH has -genv instead.
    "spreads": "-N -npernode --npernode -ppn -f -hostfile --hostfile -machinefile --machinefile",
    "hosts": "-H -host --host -hosts",
    "nodes": "SLURM_JOB_NUM_NODES SLURM_NNODES",
    "unless": "-genv -env",
    "option": "-x {name}",
    "chdir": "-wd -wdir --wdir",
    "elsewhere": True,
}
_TMUX_NEW: Row = {  # tmux(1)
    "values": "-F -f -n -s -t -x -y",
    "sets": "-e",
    "chdir": "-c",
    "joins": True,
    "own": True,
}
_GDB: Row = {  # gdb(1), cuda-gdb
    "words": True,
    "values": """
    -ex -x -iex -ix -eval-command --eval-command -command --command -d -directory --directory
    -symbols -exec -core -p --pid -cd --cd -tty --tty --init-command --init-eval-command""",
    "needs": "--args -args",
}
_COVERAGE: Row = {  # coverage.readthedocs.io/en/latest/cmd.html
    "subs": {
        "run": {
            "values": "--concurrency --context --data-file --include --omit --rcfile --source",
            "module": "-m --module",
        }
    }
}
_RUN: Row = {"subs": {"run": {}}}
_PERF: Row = {  # perf-record(1), perf-stat(1), perf-trace(1)
    "subs": {
        "record": {
            "values": """
            -e --event --filter -p --pid -t --tid -u --uid -r --realtime -c --count -o --output -F
            --freq -m --mmap-pages --call-graph -G --cgroup -C --cpu -D --delay -k --clockid
            -S --snapshot --max-size --user-callchains -j --branch-filter""",
        },
        "stat": {
            "values": """
            -e --event --filter -p --pid -t --tid -C --cpu -r --repeat -I --interval-print -o
            --output -x --field-separator -G --cgroup -D --delay -M --metrics --timeout --post
            --pre --log-fd""",
        },
        "trace": {"values": "-e --event --expr -o --output -p --pid -m --mmap-pages -D --delay"},
    }
}
_OPERAND: Row = {"operands": 1}
# vllm/benchmarks/sweep of 0.11.1 to 0.33: shlex.split(serve_cmd)
_SWEEP: Row = {
    "string": "--serve-cmd --serve_cmd --startup-cmd --startup_cmd",
    "needs": "--serve-cmd --serve_cmd --startup-cmd --startup_cmd",
    "params": "--serve-params --serve_params --startup-params --startup_params",
    "mixed": True,
    "greedy": True,
}
_DOPPLER_VALUES = """
    --api-host --attempts -c --config --config-dir --configuration --fallback --mount --mount-format
    --mount-max-reads --mount-template --name-transformer --only-secrets -p --passphrase --project
    --scope -t --timeout --token"""
_SHELL_OF_ITS_OWN: Row = {"string": "-c --command", "needs": "-c --command", "foreign": True}
_SOFTLIMIT: Row = {"values": "-a -c -d -f -l -m -o -p -r -s -t"}
# They start the command behind their options, none of which has a value. Those of a shell; nohup(1)
# of coreutils 9.4, setsid(1) of util-linux 2.40; of containers (skarnet.org/software/s6,
# openSUSE/catatonit, busybox, toybox); valgrind(1), catchsegv(1), ddtrace.readthedocs.io.
_PLAIN = """
    builtin noglob ! nohup setsid with-contenv catatonit busybox toybox valgrind catchsegv
    ddtrace-run
"""

PREFIXES: dict[str, Row] = {
    **{name: {} for name in _PLAIN.split()},
    # env(1), coreutils 9.4
    "env": {
        "values": "-a --argv0",
        "unsets": "-u --unset",
        "chdir": "-C --chdir",
        "splits": "-S --split-string",
        "clears": "-i - --ignore-environment",
        "assignments": True,
    },
    # Built into the shell: POSIX exec, command, time; bash(1)
    "exec": {"values": "-a", "clears": "-c"},
    "command": {"refuses": "-v -V"},
    # Built into the shell, and time(1)
    "time": {"values": "-f --format -o --output"},
    # nice(1), stdbuf(1), timeout(1), chroot(1): coreutils 9.4
    "nice": {"values": "-n --adjustment"},
    "stdbuf": {"values": "-i --input -o --output -e --error"},
    "timeout": {"values": "-k --kill-after -s --signal", "operands": 1},
    "chroot": {"values": "--groups --userspec", "operands": 1, "elsewhere": True},
    # util-linux 2.40, section 1: ionice, chrt, taskset, flock, prlimit, setpriv, unshare,
    # nsenter, runuser, script, choom
    "ionice": {
        "values": "-c --class -n --classdata -p --pid -P --pgid -u --uid",
        "refuses": "-p --pid -P --pgid -u --uid",
    },
    "chrt": {
        "values": "-T --sched-runtime -P --sched-period -D --sched-deadline",
        "operands": 1,
        "refuses": "-p --pid -m --max",
    },
    "taskset": {"operands": 1, "refuses": "-p --pid"},
    "flock": {
        "values": "-w --wait --timeout -E --conflict-exit-code",
        "operands": 1,
        "mixed": True,
        "string": "-c --command",
    },
    "prlimit": {"values": "-o --output", "refuses": "-p --pid"},
    "setpriv": {
        "values": """
        --ambient-caps --apparmor-profile --bounding-set --egid --euid --groups --inh-caps
        --landlock-access --landlock-rule --pdeathsig --ptracer --regid --reuid --rgid --ruid
        --securebits --selinux-label --seccomp-filter""",
        "clears": "--reset-env",
        "user": True,
    },
    "unshare": {
        "values": """
        -R --root -S --setuid -G --setgid --propagation --setgroups --map-user --map-users
        --map-group --map-groups --monotonic --boottime --owner -l --load-interp""",
        "chdir": "-w --wd",
    },
    "nsenter": {"values": "-t --target -S --setuid -G --setgid", "elsewhere": True},
    "runuser": {
        "values": "-g --group -G --supp-group -s --shell",
        "passes": "-w --whitelist-environment",
        "option": "--whitelist-environment={name}",
        "user": True,
        "string": "-c --command --session-command",
        "operands": 1,
        "replaces": "-u --user",
        "clears": "- -l --login",
        "mixed": True,
    },
    "su": {  # su(1)
        "values": "-g --group -G --supp-group -s --shell",
        "passes": "-w --whitelist-environment",
        "option": "--whitelist-environment={name}",
        "user": True,
        "string": "-c --command --session-command",
        "operands": 1,
        "clears": "- -l --login",
        "mixed": True,
    },
    # sg(1), shadow 4.13
    "sg": {"string": "-c", "operands": 1, "clears": "-", "mixed": True},
    # The manuals of fish and tcsh, section 1
    "fish": _SHELL_OF_ITS_OWN,
    "csh": _SHELL_OF_ITS_OWN,
    "tcsh": _SHELL_OF_ITS_OWN,
    "script": {
        "values": """
        -I --log-in -O --log-out -B --log-io -T --log-timing -m --logging-format -E --echo""",
        "string": "-c --command",
        "operands": 1,
        "needs": "-c --command",
        "mixed": True,
    },
    "choom": {"values": "-n --adjust", "refuses": "-p --pid"},
    # numactl(8) 2.0.16
    "numactl": {
        "values": """
        -i --interleave -w --weighted-interleave -P --preferred-many -p --preferred -m --membind
        -N --cpunodebind -C --physcpubind -M --cpubind -S --shmmode -f --file -I --id -o --offset
        --length --shmid --touch-size""",
        "refuses": "-H --hardware -s --show",
    },
    # chpst(8), runit; softlimit(8), setuidgid(8), envdir(8), envuidgid(8), setlock(8): daemontools
    "chpst": {"user": True, "values": "-u -U -b -e -/ -C -n -l -L -m -d -o -p -f -c -r -t"},
    "softlimit": _SOFTLIMIT,
    "setuidgid": {"operands": 1, "user": True},
    **dict.fromkeys(("envuidgid", "envdir", "setlock"), _OPERAND),
    # skarnet.org/software/s6: s6-setuidgid, s6-envdir, s6-setlock, s6-softlimit
    "s6-setuidgid": {"operands": 1, "user": True},
    "s6-applyuidgid": {"user": True, "values": "-u -g -G"},
    "s6-envdir": {"values": "-c -L -s", "operands": 1},
    "s6-setlock": {"values": "-t", "operands": 1},
    "s6-softlimit": _SOFTLIMIT,
    # github.com/tianon/gosu, github.com/ncopa/su-exec
    "gosu": {"operands": 1, "user": True},
    "su-exec": {"operands": 1, "user": True},
    # sudo(8) 1.9.15, env_reset; doas(1), doas.conf(5), keepenv; pkexec(1)
    "sudo": {
        "resets": True,
        "keeps": "-E --preserve-env",
        "option": "--preserve-env={name}",
        "user": True,
        "values": """
        -C --close-from -g --group -h --host -p --prompt -R --chroot -r --role -T
        --command-timeout -t --type -U --other-user -u --user""",
        "chdir": "-D --chdir",
        "assignments": True,
        "refuses": "-l --list -v --validate -K --remove-timestamp -e --edit -V --version",
    },
    "doas": {"resets": True, "user": True, "values": "-a -C -u"},
    "pkexec": {"resets": True, "values": "--user"},
    # cgexec(1), libcgroup; systemd-run(1), systemd-inhibit(1), systemd-cat(1): systemd 255
    "cgexec": {"values": "-g"},
    "systemd-run": {
        "values": """
        -u --unit -p --property --description --slice --service-type --uid --gid --nice
        --on-active --on-boot --on-startup --on-unit-active --on-unit-inactive --on-calendar
        --timer-property --path-property --socket-property -H --host -M --machine""",
        "sets": "-E --setenv",
        "chdir": "--working-directory",
        "own": True,
        "keeps": "--scope",
        "option": "--setenv={name}",
    },
    "machinectl": {  # machinectl(1)
        "option": "--setenv={name}",
        "user": True,
        "values": "-M --machine -H --host --uid -p --property -n --lines -o --output",
        "subs": {
            "shell": {"values": "--uid", "sets": "-E --setenv", "operands": 1, "resets": True}
        },
    },
    "systemd-inhibit": {"values": "--what --who --why --mode"},
    "systemd-cat": {"values": "-t --identifier -p --priority --stderr-priority --level-prefix"},
    # The manuals of bubblewrap and firejail, section 1
    "bwrap": {
        "assigns": "--setenv",
        "values": """
        --args --argv0 --userns --userns2 --pidns --uid --gid --hostname --remount-ro --mount-label
        --exec-label --file-label --proc --dev --tmpfs --mqueue --dir --seccomp --add-seccomp-fd
        --block-fd --userns-block-fd --info-fd --json-status-fd --lock-file --sync-fd --cap-add
        --cap-drop --perms --size --overlay-src --tmp-overlay --ro-overlay""",
        "pairs": """
        --bind --bind-try --dev-bind --dev-bind-try --ro-bind --ro-bind-try --bind-fd
        --ro-bind-fd --file --bind-data --ro-bind-data --symlink --chmod""",
        "unsets": "--unsetenv",
        "clears": "--clearenv",
        "chdir": "--chdir",
    },
    "firejail": {"sets": "--env", "option": "--env {name}={value}"},
    # nvidia: nsys, ncu, compute-sanitizer, cuda-gdb
    "nsys": {"subs": {"profile": _NSYS_PROFILE, "launch": _NSYS_PROFILE, "start": _NSYS_PROFILE}},
    "ncu": {
        "greedy": True,
        "flags": "-f --force-overwrite --nvtx --csv --verbose --quiet -h --help",
    },
    "compute-sanitizer": {"greedy": True, "flags": "--verbose --help"},
    "cuda-gdb": _GDB,
    # rocm.docs.amd.com: rocprof, rocprofv3
    "rocprof": {"values": "-i -o -d -t --basenames --trace-period --flush-rate", "words": True},
    "rocprofv3": {"values": "-i --input -o --output-file -d --output-directory -f --output-format"},
    # Section 1: strace, ltrace, gdb, lldb; github.com/benfred/py-spy
    "strace": {
        "values": """
        -a --columns -b --detach-on -D -e --expr --trace -I --interruptible -o --output -O
        --summary-syscall-overhead -p --attach -P --trace-path -s --string-limit -S
        --summary-sort-by -u --user -U --summary-columns -X --const-print-style""",
        "sets": "-E --env",
    },
    "ltrace": {"values": "-a -A -D -e -F -l -n -o -p -s -u -w -x"},
    "gdb": _GDB,
    "lldb": {"values": "-o -O -s -S -k -K -n -p -w"},
    "py-spy": {"subs": {"record": {"values": "-o --output -d --duration -r --rate -f --format"}}},
    "perf": _PERF,
    # Python environments
    "uv": _UV,
    "uvx": _UV_TOOL,
    "pipx": {  # pipx.pypa.io/stable/docs
        "python": "knows",
        "subs": {
            "run": {
                "package": True,
                "values": "--backend -i --index-url --pip-args --python --with",
                "requires": "--spec --with",
            }
        },
    },
    "poetry": {**_RUN, "python": "knows"},  # python-poetry.org/docs/cli
    "pipenv": {**_RUN, "python": "knows"},  # pipenv.pypa.io/en/latest/commands.html
    "pdm": {
        "python": "knows",
        "subs": {"run": {"values": "-p --project"}},
    },  # pdm-project.org/en/latest/reference/cli
    "hatch": {
        "python": "knows",
        "values": "-e --env -p --project",
        "subs": {"run": {}},
    },  # hatch.pypa.io cli
    "rye": {**_RUN, "python": "knows"},
    "pixi": {
        "python": "knows",  # pixi.sh/latest/reference/cli
        "subs": {
            "run": {"values": "--manifest-path -e --environment --color"},
            "exec": {"values": "-s --spec -c --channel -p --platform"},
        },
    },
    "conda": _CONDA,
    "mamba": _CONDA,
    "micromamba": _CONDA,
    "dotenv": {
        "values": "-f --file -q --quote",
        "subs": {"run": {}},
    },  # github.com/theskumar/python-dotenv
    "doppler": {  # docs.doppler.com/docs/cli
        "values": _DOPPLER_VALUES,
        "subs": {"run": {"values": _DOPPLER_VALUES, "string": "--command"}},
    },
    "sops": {  # getsops.io/docs
        "subs": {
            "exec-env": {
                "values": "--user",
                "clears": "--pristine",
                "operands": 1,
                "joins": True,
            },
            "exec-file": {"values": "--user --filename", "operands": 1, "joins": True},
        }
    },
    "honcho": {"values": "-e --env -f --procfile", "chdir": "-d --app-root", "subs": {"run": {}}},
    # Instrumentation
    "opentelemetry-instrument": {  # opentelemetry-python-contrib
        "values": """
        --traces_exporter --metrics_exporter --logs_exporter --service_name
        --exporter_otlp_endpoint --exporter_otlp_protocol --id_generator --resource_attributes"""
    },
    "newrelic-admin": {"subs": {"run-program": {}, "run-python": {}}},  # docs.newrelic.com
    "coverage": _COVERAGE,
    # Launchers of many processes
    "torchrun": _TORCHRUN,
    "accelerate": {"subs": {"launch": _ACCELERATE}},
    "srun": {**_SRUN, "default": "SLURM_EXPORT_ENV"},
    "salloc": _SRUN,  # salloc(1)
    "sbatch": {**_SRUN, "string": "--wrap", "needs": "--wrap"},  # sbatch(1)
    "mpirun": _MPIRUN,
    "mpiexec": _MPIRUN,
    "orterun": _MPIRUN,
    "ray": {  # docs.ray.io/en/latest/cluster/running-applications/job-submission/cli.html
        "subs": {
            "job": {
                "subs": {
                    "submit": {
                        "values": """
                        --address --submission-id --runtime-env --runtime-env-json --metadata-json
                        --entrypoint-num-cpus --entrypoint-num-gpus --entrypoint-memory
                        --entrypoint-resources --headers --verify --log-style --log-color""",
                        "chdir": "--working-dir",
                        "own": True,
                        "unless": "NCCL_MAX_CTAS",
                        "elsewhere": True,
                    }
                }
            }
        }
    },
    # Containers and other hosts
    "docker": _CONTAINERS,
    "podman": _CONTAINERS,
    "nerdctl": _CONTAINERS,
    "docker-compose": {**_CONTAINERS["subs"]["compose"], "image": True, "option": "-e {name}"},
    "kubectl": _KUBECTL,
    "oc": _KUBECTL,
    "singularity": _APPTAINER,
    "apptainer": _APPTAINER,
    "enroot": {
        "option": "-e {name}",  # github.com/NVIDIA/enroot doc/cmd/start.md
        "subs": {
            "start": {
                "values": "-c --conf -m --mount",
                "sets": "-e --env",
                "operands": 1,
                "own": True,
                "elsewhere": True,
            }
        },
    },
    "ssh": {  # ssh(1), OpenSSH 9.6
        "values": "-B -b -c -D -E -e -F -I -i -J -L -l -m -O -o -P -p -Q -R -S -W -w",
        "operands": 1,
        "mixed": True,
        "joins": True,
        "own": True,
        "unless": "SendEnv SetEnv",
        "elsewhere": True,
    },
    # Terminals: tmux(1), whose server has an environment of its own; screen(1); watch(1)
    "tmux": {
        "option": "-e {name}={value}",
        "values": "-c -f -L -S -T",
        "subs": {
            "new-session": _TMUX_NEW,
            "new": _TMUX_NEW,
            "new-window": _TMUX_NEW,
            "neww": _TMUX_NEW,
            "split-window": _TMUX_NEW,
        },
    },
    "screen": {"values": "-c -e -h -p -S -s -T -t", "refuses": "-r -x -ls -list"},
    "watch": {"values": "-n --interval -q --equexit", "joins": True},
    # First processes of containers: github.com/krallin/tini, Yelp/dumb-init
    **{name: {"values": "-p -e"} for name in ("tini", "tini-static", "docker-init")},
    "dumb-init": {"values": "-r --rewrite"},
    # xargs(1), findutils 4.9
    "xargs": {
        "values": """
        -a --arg-file -d --delimiter -E -I -L --max-lines -n --max-args -P --max-procs -s
        --max-chars --process-slot-var""",
        "appends": True,
    },
    LAUNCHERS[0]: _LAUNCHER,
    # GNU parallel(1), 20240222
    "parallel": {
        "values": """
        -a --arg-file -C --colsep -d --delimiter --delay -E -I --replace -j --jobs -P --max-procs
        --joblog --halt -L --max-lines --load -n --max-args -N --memfree --nice --results --retries
        -s --max-chars --shellquote --tagstring --termseq --timeout --tmpdir --tempdir --wd
        --workdir""",
        "spreads": "-S --sshlogin --slf --sshloginfile",
        "keeps": "--env",
        "nodes": "",
        "option": "--env {name}",
        "joins": True,
        "appends": True,
    },
    # `vllm bench sweep`
    "vllm": {"subs": {"bench": {"subs": {"sweep": {**_SWEEP, "operands": 1}}}}},
}
# Modules that are such programs, run with `python -m`.
MODULE_PREFIXES: dict[str, Row] = {
    "torch.distributed.run": _TORCHRUN,
    "torch.distributed.launch": _TORCHRUN,
    "accelerate.commands.launch": _ACCELERATE,
    "coverage": _COVERAGE,
    "cProfile": {"values": "-o --outfile -s --sort", "module": "-m"},  # docs.python.org profile
    "pdb": {"values": "-c", "module": "-m"},  # docs.python.org pdb
    "trace": {
        "values": "-f --file -C --coverdir --ignore-module --ignore-dir",
        "module": "--module",
    },
    "debugpy": {  # github.com/microsoft/debugpy
        "values": "--listen --connect --log-to --adapter-access-token",
        "pairs": "--configure-qt",
        "module": "-m",
    },
    "viztracer": {
        "values": "-o --output_file --tracer_entries --log_func_args",
        "module": "-m --module",
    },
    "memray": {"subs": {"run": {"values": "-o --output", "module": "-m"}}},
    **dict.fromkeys(SWEEPS, _SWEEP),
    LAUNCHERS[1]: _LAUNCHER,
}
