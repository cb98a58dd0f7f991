"""Shell strings: what they start is found as the shell itself would have it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

import pytest
from conftest import calls, counted
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eplb_launch.command import find_server
from eplb_launch.model import UNKNOWN, Server

HERE = {"A": "a", "TWO": "x  y", "EMPTY": "", "DP": "8", "HOME": "/home/me"}


def found(script: str, *words: str, shell: str = "bash", **environ: str) -> Server:
    """Return the server in a script, which has to be there."""
    server = find_server([shell, "-c", script, *words], {**HERE, **environ})
    assert server is not None
    return server


def texts(server: Server | None) -> list[str] | None:
    """Return the arguments without their places; None for no server."""
    return None if server is None else [*server.words]


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        # Quotes
        pytest.param("'a b' c", ["a b", "c"], id="single quotes"),
        pytest.param('"a b" c', ["a b", "c"], id="double quotes"),
        pytest.param(r"a\ b \$A \\", ["a b", "$A", "\\"], id="backslash"),
        pytest.param(r'"\$A \" \\ \a"', ['$A " \\ \\a'], id="backslash in double quotes"),
        pytest.param("'a'\"b\"c", ["abc"], id="quotes side by side"),
        pytest.param("'' \"\"", ["", ""], id="empty quotes"),
        pytest.param(r"$'a\tb\x41\u00e9\''", ["a\tbA\u00e9'"], id="ANSI-C quotes"),
        pytest.param('$"a"', ["a"], id="translated quotes"),
        pytest.param("'{\"use_async\": true}'", ['{"use_async": true}'], id="JSON"),
        # Lines
        pytest.param("a \\\n b", ["a", "b"], id="line goes on"),
        pytest.param("a\\\nb", ["ab"], id="line goes on in a word"),
        pytest.param("a # b\n", ["a"], id="comment"),
        pytest.param("a#b", ["a#b"], id="no comment inside a word"),
        pytest.param("a \\ # b\n", ["a", " #", "b"], id="no comment after a backslash"),
        pytest.param("a \\\n  # b\n  --enable-eplb", ["a"], id="comment ends the command"),
        # Redirections
        pytest.param("a > log 2>&1", ["a"], id="redirections"),
        pytest.param("a &> log b", ["a", "b"], id="both redirected"),
        pytest.param("a >&2 <in 2>>log", ["a"], id="more redirections"),
        pytest.param("a <<E b\nx 'y\nE\n", ["a", "b"], id="here-document"),
        pytest.param("a <<-'E'\n\tx\n\tE\n", ["a"], id="indented here-document"),
        pytest.param("a <<< word", ["a"], id="here-string"),
        pytest.param("a 2 > log", ["a", "2"], id="no number of a redirection"),
        pytest.param("a 2>&1 | tee log", ["a"], id="pipeline"),
        pytest.param("a & wait", ["a"], id="background"),
        # Variables
        pytest.param("$A ${A} \"$A\" '$A'", ["a", "a", "a", "$A"], id="variable"),
        pytest.param("$TWO", ["x", "y"], id="split"),
        pytest.param('"$TWO"', ["x  y"], id="not split"),
        pytest.param("-$TWO-", ["-x", "y-"], id="split inside a word"),
        pytest.param('a $EMPTY "$EMPTY"', ["a", ""], id="empty variable"),
        pytest.param("${NO:-d} ${EMPTY:-e} ${EMPTY-f} ${A:-g}", ["d", "e", "a"], id="default"),
        pytest.param('${NO:-"a b" c}', ["a b", "c"], id="default of several words"),
        pytest.param("${NO:-$A}/${NO-${DP}}", ["a/8"], id="default in a default"),
        pytest.param("${NO:=n} $NO", ["n", "n"], id="default assigned"),
        pytest.param("${A:+--x=$A} ${NO:+--y} ${EMPTY+--z}", ["--x=a", "--z"], id="alternative"),
        pytest.param("${#TWO}", ["4"], id="length"),
        pytest.param("a $NO b", ["a", "b"], id="not set"),
        pytest.param("--a $NO b", ["--a", UNKNOWN, "b"], id="not set after an option"),
        pytest.param(
            '--a=$NO "$NO" x$NO', [f"--a={UNKNOWN}", UNKNOWN, f"x{UNKNOWN}"], id="in text"
        ),
        pytest.param("--a=$NO$A", [f"--a={UNKNOWN}a"], id="not set, beside one that is"),
        pytest.param("~/m ~ a~", ["/home/me/m", "/home/me", "a~"], id="tilde"),
        pytest.param("~root/m", [f"{UNKNOWN}/m"], id="tilde of another"),
        # Arithmetic
        pytest.param(
            "$((DP * 2)) $(( (1+2)*-3 )) $((7/2)) $((-7%2))", ["16", "-9", "3", "-1"], id="sum"
        ),
        pytest.param("$((${DP} - $A))", [UNKNOWN], id="no number"),
        pytest.param("$((NO * 8)) $((DP << 1)) $((010))", [UNKNOWN] * 3, id="more than a sum"),
        pytest.param("-dp=$((1/0))", [f"-dp={UNKNOWN}"], id="division by nought"),
        # What only running the script would tell
        pytest.param("--a=$(b c) `d`e", [f"--a={UNKNOWN}", f"{UNKNOWN}e"], id="command"),
        pytest.param('"$(echo ")")" x', [UNKNOWN, "x"], id="parenthesis quoted in a command"),
        pytest.param("${A//a/b} ${A%a}x ${!A}y", [f"{UNKNOWN}x", f"{UNKNOWN}y"], id="substitution"),
        pytest.param("${HOME%/*} ${A%/*} ${NO%/*}x", ["/home", "a", f"{UNKNOWN}x"], id="folder"),
        pytest.param("-p $RANDOM-$$", ["-p", f"{UNKNOWN}-{UNKNOWN}"], id="random"),
        pytest.param("<(x y) b", [UNKNOWN, "b"], id="process"),
        pytest.param("x{a,b}", [], id="braces"),
        pytest.param("{a} a,b", ["{a}", "a,b"], id="no braces"),
    ],
)
def test_words_expand_as_the_shell_expands_them(script: str, arguments: list[str]) -> None:
    server = found(f"vllm serve {script}")
    assert texts(server) == arguments


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        pytest.param("B=1; vllm serve $B", ["1"], id="assignment"),
        pytest.param("B=1 C=$B; vllm serve $C", ["1"], id="one after the other"),
        pytest.param("B=1 vllm serve b$B", [f"b{UNKNOWN}"], id="not yet assigned"),
        pytest.param("B=$TWO; vllm serve $B", ["x", "y"], id="split later"),
        pytest.param("B=1; B+=2; vllm serve $B", ["12"], id="append"),
        pytest.param("unset A; vllm serve b$A", [f"b{UNKNOWN}"], id="unset"),
        pytest.param("export B='x y'; vllm serve \"$B\"", ["x y"], id="export"),
        pytest.param("readonly B=1; declare C=2; vllm serve $B $C", ["1", "2"], id="declare"),
        pytest.param("set -- a 'b c'; vllm serve \"$@\" $#", ["a", "b c", "2"], id="set"),
        pytest.param("set -euo pipefail; vllm serve a", ["a"], id="set options"),
        pytest.param("set -- a b; shift; vllm serve $1 $2", ["b"], id="shift"),
        pytest.param(
            "B=(a 'b c' $TWO); vllm serve \"${B[@]}\"", ["a", "b c", "x", "y"], id="array"
        ),
        pytest.param(
            "B=(a\n # c\n b); B+=(d); vllm serve ${B[*]} ${#B[@]}", ["a", "b", "d", "3"], id="+="
        ),
        pytest.param('B=(serve m); vllm "${B[@]}"', ["m"], id="sub-command in an array"),
        pytest.param(
            'B=(--x "$NO"); vllm serve "${B[@]}"', ["--x", UNKNOWN], id="unknown in an array"
        ),
        pytest.param('vllm serve a ${B[@]+"${B[@]}"}', ["a"], id="array that is not set"),
        pytest.param('eval "vllm serve a $A"', ["a", "a"], id="eval"),
        pytest.param("C='vllm serve m $DP'; eval $C; ", ["m", "8"], id="eval of a variable"),
        pytest.param("C='vllm serve m -dp 8'; $C", ["m", "-dp", "8"], id="command in a variable"),
        pytest.param("f() { vllm serve \"$@\" x; }; f a 'b c'", ["a", "b c", "x"], id="function"),
        pytest.param("function f { B=$1; }; f 8; vllm serve $B", ["8"], id="function assigns"),
        pytest.param("(A=b; cd /x); vllm serve $A", ["a"], id="sub-shell"),
        pytest.param("{ A=b; }; vllm serve $A", ["b"], id="group"),
        pytest.param("true && A=b && vllm serve $A", ["b"], id="and"),
        pytest.param("cd /x && export A=b; vllm serve $A", ["b"], id="after what does not fail"),
        pytest.param("if x; then A=b; vllm serve $A; fi", ["b"], id="inside a branch"),
        pytest.param("if x; then A=b; else vllm serve $A; fi", ["a"], id="the other branch"),
        pytest.param("if [[ $A == a && -n $B ]]; then vllm serve m; fi", ["m"], id="condition"),
        pytest.param("case $A in (x|y) A=1;; *) vllm serve $A;; esac", ["a"], id="case"),
        pytest.param("for i in 1 2; do A=b; vllm serve $A; done", ["b"], id="inside a loop"),
        pytest.param("x | while read l; do :; done; vllm serve $A", ["a"], id="loop in a pipeline"),
        pytest.param(
            "for ((i=0; i<2; i++)); do vllm serve -p=$i; done", [f"-p={UNKNOWN}"], id="for (("
        ),
        pytest.param("cat > f <<'E'\nvllm serve no\nE\nvllm serve m", ["m"], id="here-document"),
        pytest.param("trap 'vllm serve no' EXIT; vllm serve m", ["m"], id="trap"),
        pytest.param("exec > log 2>&1; vllm serve m", ["m"], id="exec of redirections"),
        pytest.param("exec vllm serve m; vllm serve no", ["m"], id="nothing after exec"),
        pytest.param("vllm serve m; exit; vllm serve no", ["m"], id="nothing after exit"),
        pytest.param("if x; then exec vllm serve m; fi; sleep 1", ["m"], id="exec in a branch"),
        pytest.param("exec vllm serve m || vllm serve no", ["m"], id="exec wins"),
        pytest.param("vllm serve no & vllm serve m", ["m"], id="the last one"),
        pytest.param("! time vllm serve m", ["m"], id="reserved words"),
        pytest.param("if x\nthen\n  y &&\n\n  vllm serve m\nfi", ["m"], id="lines"),
        pytest.param("vllm serve m)", ["m"], id="too many parentheses"),
        pytest.param("vllm serve 'm", ["m"], id="quote not closed"),
    ],
)
def test_a_script_is_followed_to_its_server(script: str, arguments: list[str]) -> None:
    server = found(script)
    assert texts(server) == arguments
    assert server.args_known


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        pytest.param(
            "while x; do vllm serve -$A; A=b; done", [f"-{UNKNOWN}"], id="later in the loop"
        ),
        pytest.param(
            "for i in 1; do N=1; while x; do vllm serve -$N; N=2; done; done",
            [f"-{UNKNOWN}"],
            id="loop in a loop",
        ),
        pytest.param("A=$(x); vllm serve -$A", [f"-{UNKNOWN}"], id="command"),
        pytest.param("read A; vllm serve -$A", [f"-{UNKNOWN}"], id="read"),
        pytest.param("printf -v A x; vllm serve -$A", [f"-{UNKNOWN}"], id="printf"),
        pytest.param("((A++)); vllm serve -$A", [f"-{UNKNOWN}"], id="let"),
        pytest.param("source f; vllm serve -$A", [f"-{UNKNOWN}"], id="source"),
        pytest.param(". ./f; vllm serve ${NO:-1}x", [f"{UNKNOWN}x"], id="source, not set"),
        pytest.param("export $(cat .env); vllm serve -$A", [f"-{UNKNOWN}"], id="export of a file"),
        pytest.param('eval "$(x)"; vllm serve -$A', [f"-{UNKNOWN}"], id="eval"),
        pytest.param("declare -i A=1+1; vllm serve -$A", [f"-{UNKNOWN}"], id="declare -i"),
        pytest.param("IFS=,; vllm serve -$TWO", [f"-{UNKNOWN}"], id="IFS"),
    ],
)
def test_a_value_that_a_script_may_have_changed_is_unknown(
    script: str, arguments: list[str]
) -> None:
    assert texts(found(script)) == arguments


ANY_TWO = ["1 1", "1 2", "2 1", "2 2"]


def _twice(question: str, between: str = ":") -> str:
    """Return a script that asks the same twice."""
    first, second = (f"if {question}; then {name}=1; else {name}=2; fi" for name in ("A", "B"))
    return f"{first}; {between}; {second}; vllm serve $A $B"


@pytest.mark.parametrize(
    ("script", "alternatives"),
    [
        # Branches
        pytest.param("if x; then A=b; fi; vllm serve $A", ["a", "b"], id="branch"),
        pytest.param("if x; then A=b; else A=c; fi; vllm serve $A", ["b", "c"], id="branches"),
        pytest.param(
            "if x; then A=b; elif y; then A=c; fi; vllm serve $A", ["a", "b", "c"], id="elif"
        ),
        pytest.param("case x in x) A=b; esac; vllm serve $A", ["a", "b"], id="case"),
        pytest.param(
            "case $X in x) A=b;; *) A=c;; esac; vllm serve $A", ["b", "c"], id="case, any"
        ),
        pytest.param("x && A=b; vllm serve $A", ["a", "b"], id="and"),
        pytest.param("[ -n $A ] || A=b; vllm serve $A", ["a", "b"], id="or"),
        pytest.param("x || A=b && vllm serve $A", ["a", "b"], id="or, and"),
        pytest.param("x && A=b || A=c; vllm serve $A", ["b", "c"], id="and, or"),
        pytest.param("x && { A=b; }; vllm serve $A", ["a", "b"], id="and, group"),
        pytest.param("f() { A=b; }; x && f; vllm serve $A", ["a", "b"], id="function"),
        pytest.param("f() { x && return; A=b; }; f; vllm serve $A", ["a", "b"], id="return"),
        pytest.param("return 0 2>/dev/null; vllm serve m", ["m"], id="return outside a function"),
        pytest.param("f() { return; vllm serve m; }; f", [], id="nothing after a return"),
        # In what the shell expands besides the words of commands
        pytest.param("[[ $(vllm serve m) ]]", ["m"], id="test"),
        pytest.param("echo $(( $(vllm serve m) + 1 ))", ["m"], id="arithmetic"),
        pytest.param("cat <<EOF\n$(vllm serve m)\nEOF", ["m"], id="here-document"),
        pytest.param("cat <<'EOF'\n$(vllm serve m)\nEOF", [], id="quoted here-document"),
        pytest.param("date > $(vllm serve m)", ["m"], id="file of a redirection"),
        pytest.param("[[ '$(vllm serve m)' ]]", [], id="quoted test"),
        pytest.param("x || exit; A=b; vllm serve $A", ["b"], id="exit"),
        pytest.param("if x; then exec y; fi; vllm serve $A", ["a"], id="exec"),
        # What goes together
        pytest.param(
            "if x; then A=1 B=1; else A=2 B=2; fi; vllm serve $A $B", ["1 1", "2 2"], id="two"
        ),
        pytest.param(
            "if x; then A=1; else A=2; fi; C=c$A; vllm serve $A $C", ["1 c1", "2 c2"], id="through"
        ),
        pytest.param(
            "if x; then A=1; else A=2; fi; if y; then B=1; else B=2; fi; vllm serve $A $B",
            ["1 1", "1 2", "2 1", "2 2"],
            id="two branches",
        ),
        # The second `if` asks what the first has asked
        pytest.param(_twice('[ "$X" = 1 ]'), ["1 1", "2 2"], id="the same question"),
        pytest.param(_twice("test -n $X"), ["1 1", "2 2"], id="the same test"),
        pytest.param(
            _twice('[ "$X" = 1 ] && [ "${Y:-2}" -gt 1 ]'), ["1 1", "2 2"], id="the same two"
        ),
        pytest.param(_twice('[ "$X" = 1 ]', "X=2"), ANY_TWO, id="another value"),
        pytest.param(
            "if [ $X ]; then set -- 1; else set -- 2; fi; . file; "
            "if [ $X ]; then B=1; else B=2; fi; vllm serve $1 $B",
            ANY_TWO,
            id="values out of sight",
        ),
        pytest.param(_twice("[ $? -eq 0 ]", "x"), ANY_TWO, id="another status"),
        pytest.param(_twice("[ $RANDOM -lt 9 ]"), ANY_TWO, id="another random number"),
        pytest.param(_twice('[ "$PWD" = /x ]', "cd y"), ANY_TWO, id="another folder"),
        pytest.param(_twice('[ "$1" = 1 ]', "shift"), ANY_TWO, id="another parameter"),
        pytest.param(_twice('[ "$#" = 1 ]', "shift"), ANY_TWO, id="fewer parameters"),
        pytest.param("read X; " + _twice("[ $X ]", "read X"), ANY_TWO, id="read anew"),
        pytest.param("X=$(x); " + _twice("[ $X ]", "X=$(y)"), ANY_TWO, id="another output"),
        pytest.param("X=Y; " + _twice('[ "${!X}" ]', "Y=2"), ANY_TWO, id="by another name"),
        pytest.param(_twice("[ $X ]", "f() { X=5; }; f"), ANY_TWO, id="changed by a function"),
        pytest.param(_twice("[ -e file ]"), ANY_TWO, id="a file may be there later"),
        pytest.param(_twice('[ "$(x)" = 1 ]'), ANY_TWO, id="a command may say another thing"),
        pytest.param(_twice("x"), ANY_TWO, id="a command may end otherwise"),
        pytest.param(
            "if [ $X ]; then A=1; fi; if [ $X ]; then A=b$A; fi; vllm serve $A",
            ["a", "b1"],
            id="what the same question has set",
        ),
        pytest.param(
            "if [ $X = then ]; then A=1; fi; if [ $X = thence ]; then A=b$A; fi; vllm serve $A",
            ["1", "a", "b1", "ba"],
            id="questions that begin alike",
        ),
        pytest.param(
            "if x; then export VLLM_A=1 B=1; else export VLLM_A=2 B=2; fi; vllm serve $VLLM_A $B",
            ["1 1", "2 2"],
            id="exported",
        ),
        pytest.param("if x; then B+=(b); fi; vllm serve m ${B[@]}", ["m", "m b"], id="array"),
        pytest.param("if x; then set -- vllm serve m; fi; exec $@", ["m"], id="the whole command"),
        # Loops
        pytest.param("for i in 1 2; do vllm serve $i; done", ["1", "2"], id="loop"),
        pytest.param("for i in 1 2; do A+=$i; done; vllm serve $A", ["a12"], id="loop, after it"),
        pytest.param("B=(m); for i in 1; do B+=(x); done; vllm serve ${B[@]}", ["m x"], id="turns"),
        pytest.param('for i; do vllm serve "$i"; done', [], id="no parameters"),
        # Other shells than this one
        pytest.param("A=b & vllm serve $A", ["a"], id="background"),
        pytest.param("A=b | x; vllm serve $A", ["a"], id="pipeline"),
        # Too many
        pytest.param(
            "case $X in " + " ".join(f"{i}) A=m{i};;" for i in range(9)) + " esac; vllm serve $A",
            [UNKNOWN],
            id="nine",
        ),
    ],
)
def test_each_alternative_of_a_script_is_a_server(script: str, alternatives: list[str]) -> None:
    server = find_server(["bash", "-c", script], HERE)
    servers = (server, *server.others) if server else ()
    assert sorted(" ".join(texts(one) or ()) for one in servers) == alternatives
    assert all(one.args_known for one in servers)


@pytest.mark.parametrize(
    ("script", "alternatives"),
    [
        pytest.param("f() { C=$A; }; f; A=b; f; vllm serve $C", ["b"], id="variable"),
        pytest.param("f() { C=$A; }; f; f; vllm serve $C", ["a"], id="the same"),
        pytest.param("f() { C=c$1; }; f 1; f 2; vllm serve $C", ["c2"], id="parameter"),
        pytest.param("f() { C+=x; }; C=; f; f; vllm serve $C", ["xx"], id="append"),
        pytest.param("f() { $C; }; f; C='vllm serve m'; f", ["m"], id="command"),
        pytest.param("f() { $1; }; f x; f 'vllm serve m'", ["m"], id="command as a parameter"),
        pytest.param("f() { sh -c '$C serve m'; }; f; export C=vllm; f", ["m"], id="environment"),
        pytest.param("f() { g; }; g() { :; }; f; g() { vllm serve m; }; f", ["m"], id="other"),
        pytest.param("f() { vllm serve $A; }; f; A=b; f", ["a", "b"], id="server"),
        pytest.param("f() { x && A=b; }; f; f; vllm serve $A", ["a", "b"], id="branch"),
        pytest.param("f() { x && exit; A=b; }; f; f; vllm serve $A", ["b"], id="exit"),
        pytest.param(
            "if x; then A=1; else A=2; fi; f() { B=$A; }; f; f; vllm serve $A $B",
            ["1 1", "2 2"],
            id="alternatives",
        ),
        pytest.param(
            "f() { x && A=1; }; A=2; f; B=$A; A=2; f; vllm serve $A $B", ANY_TWO, id="another way"
        ),
    ],
)
def test_a_second_call_of_a_function_has_its_own_effect(
    script: str, alternatives: list[str]
) -> None:
    server = find_server(["bash", "-c", script], HERE)
    servers = (server, *server.others) if server else ()
    assert sorted(" ".join(texts(one) or ()) for one in servers) == alternatives


def test_a_call_that_does_the_same_is_not_followed_again() -> None:
    body = "".join(f"if [ $1 = {n} ]; then local b{n}=$A; fi;" for n in range(50))
    script = f"f() {{ {body} }}; {{}} vllm serve m"
    once, often = (
        calls(find_server, ["bash", "-c", script.replace("{}", "f x;" * times)], HERE)
        for times in (1, 100)
    )
    assert often < 3 * once


def test_a_script_is_parsed_once() -> None:
    script = "if a; then b; fi; " * 500
    first, second = (calls(find_server, ["bash", "-c", script], {}) for _ in range(2))
    assert second < first / 2


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        pytest.param("f() { vllm serve m; }", ["m"], id="a function that nothing calls"),
        pytest.param("f() { vllm serve m $@; }; $1 x", ["m"], id="a function, called somehow"),
        pytest.param("f() { vllm serve $@; }; time f m", ["m"], id="a function, timed"),
        pytest.param("f() { vllm serve m; }; x=$(f)", ["m"], id="a function, for its output"),
        pytest.param("f() { vllm serve m; }; trap f EXIT", ["m"], id="a function, at the end"),
        pytest.param("trap 'vllm serve m' EXIT", ["m"], id="trap"),
        pytest.param("x=$(vllm serve m)", ["m"], id="output"),
        pytest.param("x=${y:-$(vllm serve m)}", ["m"], id="output as a default"),
        pytest.param("C='vllm serve m -n'; start", ["m", "-n"], id="a variable"),
        pytest.param("C=(vllm serve m); start", ["m"], id="an array"),
        pytest.param("set -- x $C; C='vllm serve m'; start", ["m"], id="read before it is set"),
        pytest.param("set -- vllm serve m; . start", ["m"], id="parameters"),
        pytest.param("cat > f <<E\nvllm serve m\nE", ["m"], id="a script that is written"),
        pytest.param("tee f <<E\n[Service]\nExecStart=vllm serve m\nE", ["m"], id="a unit"),
        pytest.param("ssh h bash -s <<E\nvllm serve m\nE", ["m"], id="a script as input"),
    ],
)
def test_a_server_that_something_unseen_may_start_is_found(
    script: str, arguments: list[str]
) -> None:
    assert texts(found(script)) == arguments


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("C='vllm serve m'; echo $C", id="echo of a variable"),
        pytest.param("C='vllm serve m'; pgrep -f \"$C\"", id="pgrep"),
        pytest.param("echo vllm serve m", id="echo"),
        pytest.param("printf '%s' 'vllm serve m'", id="printf"),
        pytest.param("pkill -f 'vllm serve'", id="pkill"),
        pytest.param("logger vllm serve m", id="logger"),
        pytest.param("curl -d 'vllm serve m' h", id="curl"),
        pytest.param("cat <<E\nvllm serve m\nE", id="cat"),
        pytest.param(": <<E\nvllm serve m\nE", id="colon"),
        pytest.param("# vllm serve m", id="comment"),
        pytest.param("cat > f <<E\nvllm is nice\nE", id="no command in the document"),
        pytest.param("C='vllm'; start $C", id="only vllm in a variable"),
        pytest.param("exit; vllm serve m", id="after exit"),
        pytest.param("$KUBECTL apply -f x", id="another unknown command"),
    ],
)
def test_a_command_that_only_shows_the_words_starts_no_server(script: str) -> None:
    assert find_server(["bash", "-c", script], {}) is None


def test_a_server_is_the_same_however_often_its_variable_is_read() -> None:
    server = found('C="vllm serve m"; C="$C -n"; echo $C; eval "$C"')
    assert texts(server) == ["m", "-n"]
    assert not server.others


@pytest.mark.parametrize(
    ("script", "unknown"),
    [
        pytest.param("vllm serve m $NO -p $((N + 1))", ("$NO",), id="variable"),
        pytest.param("A=$NO; B=x$A; vllm serve -p $B", ("$NO",), id="where it is from"),
        pytest.param("A=$(cat x); vllm serve $A", ("$(cat …)",), id="output"),
        pytest.param("A=$(S=secret get x); vllm serve $A", ("$( …)",), id="no secret"),
        pytest.param("vllm serve m -p $A", (), id="known"),
    ],
)
def test_an_unknown_word_is_named(script: str, unknown: tuple[str, ...]) -> None:
    assert found(script).unknown == unknown


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        pytest.param("vllm serve $(x) m", ["m"], id="command"),
        pytest.param("vllm serve m -p $(x)", ["m", "-p", UNKNOWN], id="command after an option"),
        pytest.param("vllm serve m `x`", ["m"], id="backquotes"),
        pytest.param("B=$(x); vllm serve $B", [], id="variable"),
        pytest.param("B=($(x) -y); vllm serve ${B[@]}", ["-y"], id="array"),
        pytest.param('set -- $(x); vllm serve "$@"', [], id="parameters"),
        pytest.param(
            "B=(m); while x; do B+=(x); done; vllm serve ${B[@]}", ["m"], id="array in a loop"
        ),
        pytest.param(
            'A="m -n"; for i in $(x); do A="$A $i"; done; vllm serve $A',
            ["m", "-n", UNKNOWN],
            id="append in a loop",
        ),
        pytest.param(
            "A=$(x); A+=' -n'; vllm serve m $A", ["m", "-n"], id="append to what is not known"
        ),
        pytest.param('eval "vllm serve m $NO"', ["m"], id="eval"),
        pytest.param("vllm serve m | xargs vllm serve", [], id="xargs"),
    ],
)
def test_unknown_arguments_make_a_server_incomplete(script: str, arguments: list[str]) -> None:
    server = found(script)
    assert texts(server) == arguments
    assert not server.args_known


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("$(x) vllm serve m", id="before the program"),
        pytest.param("numactl $(x) vllm serve m", id="before a prefix's command"),
        pytest.param("vllm serve m; foo $(x)", id="of another command"),
        pytest.param('vllm serve m "$(x)"', id="quoted"),
        pytest.param("vllm serve m $((x * 2))", id="sum"),
        pytest.param("vllm serve m $NO", id="not set"),
    ],
)
def test_unknown_words_elsewhere_leave_the_arguments_complete(script: str) -> None:
    assert found(script).args_known


@pytest.mark.parametrize(
    ("script", "environ"),
    [
        pytest.param("B=1 vllm serve m", {"B": "1"}, id="before the command"),
        pytest.param("B=1; vllm serve m", {}, id="not exported"),
        pytest.param("export B=1; vllm serve m", {"B": "1"}, id="exported"),
        pytest.param("B=1; export B; vllm serve m", {"B": "1"}, id="exported later"),
        pytest.param("export B; B=1; vllm serve m", {"B": "1"}, id="exported before"),
        pytest.param("declare -x B=1; vllm serve m", {"B": "1"}, id="declare -x"),
        pytest.param("set -a; B=1; vllm serve m", {"B": "1"}, id="set -a"),
        pytest.param("A=b; vllm serve m", {"A": "b"}, id="was exported"),
        pytest.param("A=b vllm serve m; A=c", {"A": "b"}, id="for one command"),
        pytest.param("unset A; vllm serve m", {"A": None}, id="unset"),
        pytest.param("unset A; A=b; vllm serve m", {"A": None}, id="unset, not exported again"),
        pytest.param("export B=$(x); vllm serve m", {"B": UNKNOWN}, id="unknown"),
        pytest.param("if x; then export B=1; fi; vllm serve m", {"B": UNKNOWN}, id="branch"),
        pytest.param(
            "if x; then unset A; fi; vllm serve m", {"A": UNKNOWN}, id="unset in a branch"
        ),
        pytest.param("(export A=b); vllm serve m", {}, id="sub-shell"),
        pytest.param("env -u A B=1 vllm serve m", {"A": None, "B": "1"}, id="env"),
        pytest.param("A=1 eval 'vllm serve m'", {"A": "1"}, id="eval"),
        pytest.param("f() { vllm serve m; }; B=1 f", {"B": "1"}, id="function"),
        pytest.param("B=1 bash -c 'C=$B exec vllm serve m'", {"B": "1", "C": "1"}, id="shells"),
    ],
)
def test_a_server_gets_the_variables_that_the_script_exports(
    script: str, environ: dict[str, str | None]
) -> None:
    expected = {name: value for name, value in {**HERE, **environ}.items() if value is not None}
    assert dict(found(script).environ) == expected


@pytest.mark.parametrize(
    ("script", "directory"),
    [
        pytest.param("vllm serve m", None, id="none"),
        pytest.param("cd /x && vllm serve m", "/x", id="cd"),
        pytest.param("cd x; cd y; vllm serve m", "x/y", id="relative"),
        pytest.param("cd; vllm serve m", "/home/me", id="home"),
        pytest.param("cd $A/b; vllm serve m", "a/b", id="variable"),
        pytest.param("(cd /x); vllm serve m", None, id="sub-shell"),
        pytest.param("if x; then cd /x; else exit; fi; vllm serve m", "/x", id="branch"),
        pytest.param("while x; do cd y; done; vllm serve m", UNKNOWN, id="loop"),
        pytest.param("cd $(x); vllm serve m", UNKNOWN, id="unknown"),
        pytest.param("cd -; vllm serve m", UNKNOWN, id="back"),
        pytest.param("cd /x; env -C y vllm serve m", "/x/y", id="env -C"),
        pytest.param("cd /x; bash -c 'cd y; vllm serve m'", "/x/y", id="shells"),
    ],
)
def test_cd_changes_the_directory_of_the_server(script: str, directory: str | None) -> None:
    assert found(script).directory == directory


@pytest.mark.parametrize(
    ("words", "sourced"),
    [
        pytest.param(["sh", "-c", ". a; source b/c; vllm serve m"], ("a", "b/c"), id="sourced"),
        pytest.param(["bash", "-lc", "vllm serve m"], ("/etc/profile", "~/.profile"), id="login"),
        pytest.param(["bash", "-c", "vllm serve m"], ("/nccl.sh",), id="BASH_ENV"),
        pytest.param(["sh", "-c", "vllm serve m"], (), id="none"),
    ],
)
def test_files_that_the_shell_sources_are_named(words: list[str], sourced: tuple[str, ...]) -> None:
    server = find_server(words, {"BASH_ENV": "/nccl.sh"})
    assert server is not None
    assert server.reads_first == sourced


def test_activating_an_environment_hides_no_variable() -> None:
    server = found(". /opt/venv/bin/activate && vllm serve -$A", PATH="/bin")
    assert texts(server) == ["-a"]
    assert server.environ == {**HERE, "PATH": UNKNOWN}


@pytest.mark.parametrize(
    ("script", "attribute", "values"),
    [
        pytest.param(
            "if x; then B=; else B=$(y); fi; vllm serve m $B",
            "args_known",
            [False, True],
            id="words",
        ),
        pytest.param(
            "if x; then cd /a; else cd /b; fi; vllm serve m", "directory", ["/a", "/b"], id="cd"
        ),
        pytest.param(
            "if x; then B='ssh h'; else B=nice; fi; $B vllm serve m",
            "remote",
            ["", "ssh"],
            id="wrappers",
        ),
    ],
)
def test_alternatives_with_equal_words_are_several_servers(
    script: str, attribute: str, values: list[object]
) -> None:
    server = found(script)
    assert sorted(getattr(one, attribute) for one in (server, *server.others)) == values


def test_other_servers_of_a_script_are_kept() -> None:
    server = found("B=1 vllm serve a & B=2 vllm serve b & vllm serve b; wait")
    assert texts(server) == ["b"]
    assert [(texts(other), other.environ.get("B")) for other in server.others] == [
        (["a"], "1"),
        (["b"], "2"),
    ]


@pytest.mark.parametrize(
    ("words", "places"),
    [
        pytest.param(["sh", "-c", "vllm serve a b"], [2, 2], id="string"),
        pytest.param(["sh", "-c", 'exec vllm serve "$@"', "sh", "a", "b"], [4, 5], id="parameters"),
        pytest.param(["sh", "-c", 'vllm serve x "$1" -$2', "sh", "a", "b"], [2, 4, 2], id="one"),
        pytest.param(["sh", "-c", 'set -- x "$@"; vllm serve "$@"', "sh", "a"], [2, 4], id="set"),
        pytest.param(["sh", "-c", '"$@"', "sh", "vllm", "serve", "a"], [6], id="command"),
        pytest.param(
            ["sh", "-c", 'sh -c "vllm serve \\"\\$@\\" b" sh "$@"', "sh", "a"], [4, 2], id="shells"
        ),
    ],
)
def test_words_of_a_script_keep_their_index_in_the_command(
    words: list[str], places: list[int]
) -> None:
    server = find_server(words, {})
    assert server is not None
    assert [*server.positions] == places


ARGV = st.lists(st.text(st.characters(exclude_characters="\0"), max_size=8), max_size=6)


@given(ARGV)
@example(["-n", "", "a\nb", "\udc80", "é\u2028 "])
@settings(max_examples=200)
def test_quoted_words_come_back_exactly(words: list[str]) -> None:
    expected = tuple(words)
    for script in (
        f"vllm serve {shlex.join(words)}",
        f"exec env A=1 vllm serve {shlex.join(words)}",
    ):
        for depth in range(3):
            command = script
            for _ in range(depth):
                command = f"sh -c {shlex.quote(command)}"
            server = find_server(["sh", "-c", command], {})
            assert server is not None
            assert server.words == expected
            assert server.args_known


PIECES = st.sampled_from(
    [
        *(" ", "\n", ";", "&", "&&", "||", "|", "(", ")", "{", "}", "[[", "]]", "<", ">", "<<E"),
        *("'", '"', "`", "\\", "$", "${", "$(", "$((", "#", "=", "+=", "A", "A=", "A=(", "~", "\0"),
        *("if ", "then ", "elif ", "else ", "fi ", "for ", "in ", "do ", "done ", "case ", "esac "),
        *("while ", "function ", "f() ", "f ", "eval ", "exec ", "export ", "set -- ", "shift "),
        *("unset ", "cd ", "read ", "source ", "local ", "exit ", "vllm ", "serve ", "m ", "-dp "),
        *('"$@" ', "$A", "${A:-", "${A[@]}", "${#A}", "$'", "sh -c ", "env ", "-", "1", "ssh h "),
        *("-S ", "docker run ", "--entrypoint ", "su -c ", "python3 ", "-m ", "\udc80", "é"),
    ]
)


@given(st.lists(PIECES, max_size=30).map("".join), ARGV)
@settings(max_examples=300)
def test_no_script_raises(script: str, words: list[str]) -> None:
    find_server(["bash", "-c", script, *words], {"A": script})
    find_server(["ssh", "host", script, *words], {})
    find_server(["env", "-S", script, *words], {})


@given(st.text(), ARGV)
@settings(max_examples=200)
def test_no_text_raises(script: str, words: list[str]) -> None:
    find_server(["sh", "-c", script, *words], {})
    find_server([*words, script, *words], {})


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "(",
            "((",
            "$(",
            "$((",
            "${",
            "`",
            '"',
            "'",
            "{ ",
            "if ",
            "for ",
            "case ",
            "while ",
            "f() ",
        ),
        *(
            "a=(",
            '"$("',
            '"${A:-',
            "${A:-",
            "<<a\n",
            "eval ",
            "A=$A$A;",
            "A=xx;A=$A$A;",
            "sh -c x;",
        ),
        *("(A=1);", "if a; then A=1; fi;", "for i in x; do A=1; done;", "A=1 a|b;", "vllm serve;"),
        *('sh -c "$0" ', "sh -c '", "A+=(x);", 'eval "$0";', "f() { f; f; }; f;", "\\", ". x;"),
    ],
)
def test_hostile_scripts_are_bounded_work(piece: str) -> None:
    script = piece * (2**14 // len(piece))
    assert calls(find_server, ["bash", "-c", script, script], {"A": "x"}) < 3_000_000


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("a | " * 30_000, id="pipes"),
        pytest.param("a && " * 25_000, id="and"),
        pytest.param("a & " * 30_000, id="background"),
        pytest.param("(a)" * 40_000, id="sub-shells"),
        pytest.param("A=(" + "x " * 40_000 + "); x ${A[@]} ${A[@]} ${A[@]}; ", id="an array"),
        pytest.param("A=(x x); " + 'A=("${A[@]}" "${A[@]}"); ' * 30, id="arrays"),
        pytest.param("set -- a b; " + 'set -- "$@" "$@"; ' * 40, id="parameters"),
        pytest.param("x $(" * 5_000 + ")" * 5_000 + "; ", id="outputs in outputs"),
        pytest.param('x "$(a)"; ' * 12_000, id="outputs"),
        pytest.param(". x; " * 20_000, id="files"),
        pytest.param("if a; then A=1; else A=2; fi; " * 3_000, id="branches"),
        pytest.param("if a; then b; " + "elif c; then d; " * 5_000 + "fi; ", id="elif"),
        pytest.param("if a; then " * 6_000 + "b" + "; fi" * 6_000 + "; ", id="if in if"),
        pytest.param("case $A in " + "a) A=1;; " * 9_000 + "esac; ", id="case"),
        pytest.param("".join(f"f{i}() {{ :; }}; " for i in range(7_000)), id="functions"),
        pytest.param(
            "".join(f"f{i}() {{ f{i + 1}; f{i + 1}; }}; " for i in range(60)) + "f0; ",
            id="functions in functions",
        ),
        pytest.param("f() { f; f; A=$A$A; }; f; " * 3_000, id="a function in itself"),
        pytest.param(
            "".join(f"for i{k} in a b c d e f g h; do " for k in range(20)) + "a" + "; done" * 20,
            id="for in for",
        ),
        pytest.param("select x in a b; do " * 3_000 + "a" + "; done" * 3_000 + "; ", id="select"),
        pytest.param("while a; do A=$A$B; " * 3_000 + "done; " * 3_000, id="while"),
        pytest.param("".join(f"A{i}=$A{i - 1}x; " for i in range(8_000)), id="variables"),
        pytest.param("x " + "$A " * 30_000 + "; ", id="words that are not known"),
        pytest.param("x <<E\nE\n" * 12_000, id="here-documents"),
        pytest.param("sh -c a; " * 10_000, id="shells"),
        pytest.param("trap a EXIT; " * 9_000, id="trap"),
        pytest.param("eval " * 20_000 + "a; ", id="eval in eval"),
    ],
)
def test_a_plan_is_bounded_work(script: str) -> None:
    found, work = counted(find_server, ["bash", "-c", f"{script}\nvllm serve m --enable-eplb"], {})
    assert found is not None  # and be it unknown, never silent
    assert work < 3_500_000


@pytest.mark.parametrize("number", range(9_000, 13_000, 500))
def test_a_script_that_is_too_much_to_follow_is_never_silent(number: int) -> None:
    script = ": ;" * number + f"sh -c 'vllm serve m\n#{'x' * 40_000}'"
    server = find_server(["bash", "-c", script], {})
    assert server is not None
    assert (server.words, server.args_known) in ((("m",), True), ((), False))


# Scripts from a small grammar, for real shells.
NAMES = st.sampled_from(["A", "B", "C", "TWO", "EMPTY", "NO"])
LITERALS = st.sampled_from(["x", "-p", "--q=", "8", "é", "a=b", "x#y", "{x}", "%", ",", "@", "if"])
QUOTED = st.sampled_from(
    ["'a  b'", '"a  b"', "''", '""', r"\ ", r"\$A", r'"\$A\\\""', "'$A'", '"#"']
)
OPERATORS = st.sampled_from([":-", "-", ":+", "+"])


@st.composite
def pieces(draw: st.DrawFn) -> str:
    """Draw a part of a word."""
    kind = draw(st.integers(0, 9))
    name = draw(NAMES)
    if kind < 3:
        return draw(LITERALS)
    if kind < 5:
        return draw(QUOTED)
    inner = draw(st.sampled_from(["", "y", "y z", "'y z'", '"$A"', "$TWO", "${C:-w}"]))
    expansion = draw(
        st.sampled_from(
            [
                *(f"${name}", f"${{{name}}}", f"${{{name}{draw(OPERATORS)}{inner}}}"),
                *("$((2 * 3 + 1))", "$1", "$2", "$#", f"${{#{name}}}"),
            ]
        )
    )
    quoted = draw(st.booleans()) and "'" not in expansion and '"' not in expansion
    return f'"{expansion}"' if quoted else expansion


WORDS = st.one_of(
    st.lists(pieces(), min_size=1, max_size=3).map("".join),
    st.sampled_from(['"$@"', "$*", '"$*"', "$@", "~/x", "--long=option"]),
)


ARGUMENTS = st.lists(WORDS, max_size=3).map(" ".join)
PLAIN = st.one_of(
    st.builds("{}={}".format, NAMES, st.lists(pieces(), max_size=3).map("".join)),
    st.builds("export {}='{}'".format, NAMES, LITERALS),
    st.builds("{} {}".format, st.sampled_from(["export", "unset"]), NAMES),
    st.builds("set -- {}".format, ARGUMENTS),
    st.builds(": ${{{}:=v w}}".format, NAMES),
    st.sampled_from(["A=1 B=$A", "# comment 'x", "true", "A=1 true"]),
)
CONDITIONS = st.sampled_from(["true", "false", '[ "$A" = a ]'])


def function(body: str, arguments: str) -> str:
    """Return a function and a call of it; none has the name of one that is inside it."""
    return f"f{len(body)}() {{ {body}\n }}\n f{len(body)} {arguments}"


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return compound commands."""
    return st.one_of(
        st.builds("{}\n{}".format, inner, inner),
        st.builds("{} && {}\n".format, CONDITIONS, inner),
        st.builds("{} || {}\n".format, CONDITIONS, inner),
        st.builds("({}\n)".format, inner),
        st.builds("{{ {}\n}}".format, inner),
        st.builds("if {}; then {}\n else {}\n fi".format, CONDITIONS, inner, inner),
        st.builds("for C in 1 2; do {}\n {}\n done".format, inner, inner),
        st.builds("case $A in a) {}\n ;; *) {}\n ;; esac".format, inner, inner),
        st.builds(function, inner, ARGUMENTS),
        st.builds("eval {}".format, inner.map(shlex.quote)),
        st.builds("{} &\nwait".format, inner),
    )


BASH = st.one_of(
    st.builds("R=({})".format, ARGUMENTS),
    st.builds("R+=({})".format, ARGUMENTS),
    st.builds("{}+={}".format, NAMES, QUOTED),
    st.builds("g() {{ local {}={}; {}\n}}; g x".format, NAMES, QUOTED, PLAIN),
    st.builds("declare -x {}={}".format, NAMES, QUOTED),
    st.builds("((C = 5))".format),
    st.builds("[[ $A == a && -n $B ]] && {}".format, PLAIN),
    st.builds("vllm() {{ {}\n}}; unset -f vllm".format, PLAIN),
    st.builds("cat > /dev/null <<-'E'\n{}\n\tE\n".format, PLAIN),
)
STATEMENTS = {
    "sh": st.recursive(PLAIN, nested, max_leaves=4),
    "bash": st.recursive(st.one_of(PLAIN, BASH), nested, max_leaves=4),
}
BASH_WORDS = st.sampled_from(
    ['"${R[@]}"', "${R[*]}", "${#R[@]}", "$'a\\t\\x41'", '${R[@]+"${R[@]}"}']
)


@st.composite
def scripts(draw: st.DrawFn, *, bash: bool) -> str:
    """Draw a script that ends with a server."""
    before = draw(st.lists(STATEMENTS["bash" if bash else "sh"], max_size=4))
    words = draw(st.lists(st.one_of(WORDS, BASH_WORDS) if bash else WORDS, max_size=4))
    blank = draw(st.sampled_from([" ", "  ", " \\\n ", "\t"]))
    assigned = draw(st.sampled_from(["", "A=z ", "exec ", 'B="$A" ', "NO=n exec "]))
    after = draw(st.sampled_from(["", " # comment", " 2>&1", "; true", " </dev/null"]))
    return "\n".join([*before, f"{assigned}vllm serve {blank.join(words)}{after}"])


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a directory with a `vllm` that shows its arguments and a part of its environment."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "vllm"
    shown = " ".join(f'"${{{name}-unset}}"' for name in ("A", "B", "C", "TWO", "EMPTY", "NO"))
    script.write_text(f"#!/bin/sh\nprintf '%s\\0' {shown} \"$@\"\n")
    script.chmod(0o755)
    return str(folder)


def covers(server: Server, real: list[str]) -> bool:
    """Whether what a stand-in was started with is what is said of a server."""
    ours = [*server.entry.split()[1:], *server.words]
    if server.args_known and not any(UNKNOWN in text for text in ours) and ours != real[6:]:
        return False
    said = [server.environ.get(name, "unset") for name in ("A", "B", "C", "TWO", "EMPTY", "NO")]
    return all(text == value or UNKNOWN in text for text, value in zip(said, real, strict=False))


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox"])
def test_real_shells_start_what_we_find(shell: str, stand_in: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    start = ["busybox", "sh"] if shell == "busybox" else [shell]

    @given(
        scripts(bash=shell == "bash"), st.lists(st.sampled_from(["p", "q r", "", "-s"]), max_size=3)
    )
    @settings(
        max_examples=100,
    )
    def agrees(script: str, words: list[str]) -> None:
        command = [*start, "-c", script, "zero", *words]
        environ = {**HERE, "PATH": f"{stand_in}{os.pathsep}/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        ran = subprocess.run(command, env=environ, capture_output=True, check=False, timeout=300)
        real = os.fsdecode(ran.stdout).split("\0")[:-1]
        if not real:  # the script ended before
            return
        server = find_server(command, environ)
        assert server is not None
        assert any(covers(one, real) for one in (server, *server.others))

    agrees()
