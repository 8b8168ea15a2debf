"""Types into a shell on a terminal of its own, with TAB behind each line, and
tells what a command was then called with: one line of output for each of stdin.

    type.py bash|zsh FOLDER < lines
"""

import os
import pty
import re
import select
import sys
import time

PATIENCE = 20.0

START = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; source {folder}/secure_socket.bash",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "fpath=({folder} $fpath); autoload -U compinit; compinit -u -D; unsetopt zle_bracketed_paste prompt_sp; zle_bracketed_paste=()",
    ),
}
CALLED = "secure_socket() { printf 'GOT''[%s]\\n' \"$*\"; }; secure_socketctl() { secure_socket \"$@\"; }"


class Terminal:
    def __init__(self, command):
        self.seen = ""
        pid, self.fd = pty.fork()
        if pid == 0:
            os.environ.update(TERM="dumb", PS1="> ", HOME="/nonexistent", LC_ALL="C.UTF-8")
            os.execvp(command[0], command)

    def send(self, text):
        os.write(self.fd, text.encode())

    def wait_for(self, pattern):
        end = time.monotonic() + PATIENCE
        while True:
            found = re.search(pattern, self.seen)
            if found:
                self.seen = self.seen[found.end():]
                return found
            if time.monotonic() > end or not self.read(0.2):
                sys.exit(f"no {pattern!r} in {self.seen!r}")

    def read(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


def main():
    shell, folder = sys.argv[1:3]
    command, prepare = START[shell]
    terminal = Terminal(command)
    terminal.wait_for("[>%$#] ")
    # The marks are put together by the shell, so that their echo is not taken for them.
    terminal.send(f"{prepare.format(folder=folder)}; {CALLED}; echo REA''DY\n")
    terminal.wait_for("READY\r?\n")
    for line in sys.stdin.read().splitlines():
        terminal.send(line + "\t\n")
        print(terminal.wait_for(r"GOT\[(.*?)\]").group(1).strip(), flush=True)
    terminal.send("exit\n")


main()
