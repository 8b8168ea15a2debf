# Runs one recipe of the README in mount and process namespaces of its own, where
# /run, /var/log, /usr/local/bin and the user data base are private: what a recipe
# presupposes is made here, what it says is typed as it stands, nothing is left.
#
#     stage.sh RECIPE FOLDER PROGRAMS
#
# FOLDER has the blocks in their order: NN.server, NN.conf, NN.USER.typed; each typed
# block leaves NN.out, what it printed. PROGRAMS is where the two programs are.
set -euo pipefail
recipe=$1 folder=$2 programs=$(realpath "$3")

mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
mount -t tmpfs -o mode=755 tmpfs /usr/local/bin
install -m 0755 "$programs"/secure_socket "$programs"/secure_socketctl /usr/local/bin/
mkdir /run/stage
touch "$folder/log"
cd /
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LC_ALL=C.UTF-8 HOME=/nonexistent
unset XDG_RUNTIME_DIR

fail() { echo "FAILED: $*" >&2; exit 1; }
wait_for() { # a condition, what it is
  for _ in $(seq 300); do eval "$1" && return; sleep 0.1; done
  fail "no $2"
}
# What hangs is no refusal.
typed() { as "$1" timeout 20 bash -c "$2" >"$3" 2>&1 || { [ $? = 124 ] && echo "HANGS" >>"$3"; }; }
as() { setpriv --reuid "$1" --regid "$1" --init-groups -- "${@:2}"; }

# Users and groups of the recipes, beside those of the machine.
cp /etc/passwd /etc/group /run/stage/
number=61000
for user in ann bob shop guest deploy keys backup watch; do
  number=$((number + 1))
  sed -i "/^$user:/d" /run/stage/passwd /run/stage/group
  echo "$user:x:$number:$number::/nonexistent:/bin/bash" >>/run/stage/passwd
  echo "$user:x:$number:" >>/run/stage/group
done
sed -i '/^\(ops\|dba\|jobs\):/d' /run/stage/group
printf '%s\n' ops:x:61101:ann dba:x:61102:ann jobs:x:61103:backup,watch >>/run/stage/group
mount --bind /run/stage/passwd /etc/passwd
mount --bind /run/stage/group /etc/group

given_program() { cp /usr/local/bin/secure_socketctl /usr/local/bin/shop-worker; }
given_group() { :; }
given_redis() {
  install -d -o redis -g redis -m 0755 /run/redis
  as redis redis-server "$folder"/*.conf --daemonize no --save '' --dir /run/redis --logfile /run/redis/log &
  wait_for '[ -S /run/redis/redis.sock ]' "Redis"
}
given_postgres() {
  local bin=(/usr/lib/postgresql/*/bin)
  install -d -o postgres -g postgres -m 0755 /run/postgresql /run/cluster
  as postgres "${bin[-1]}/initdb" -D /run/cluster/data -A peer --no-sync >/dev/null
  as postgres "${bin[-1]}/postgres" -D /run/cluster/data -k /run/postgresql -h '' -F >/run/cluster/log 2>&1 &
  wait_for 'as postgres psql -d postgres -c "create role ann login" >/dev/null 2>&1' "PostgreSQL"
}
# What answers at Docker's socket with the engine's version, as its API does.
given_docker() {
  (umask 077 && exec python3 - /run/docker.sock) <<'PYTHON' &
import http.server, os, socketserver, sys
class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"Version":"24.0.7","ApiVersion":"1.43"}\n' if self.path == "/version" else b"OK\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "local"
    def log_message(self, *_):
        pass
with socketserver.ThreadingUnixStreamServer(sys.argv[1], Engine) as server:
    server.serve_forever()
PYTHON
  wait_for '[ -S /run/docker.sock ]' "engine"
}
given_ssh_agent() {
  install -d -o keys -g keys -m 0700 /run/keys
  as keys ssh-agent -D -a /run/keys/agent.sock >/dev/null &
  wait_for '[ -S /run/keys/agent.sock ]' "agent"
  as keys ssh-keygen -q -t ed25519 -N '' -C deploy -f /run/keys/key
  SSH_AUTH_SOCK=/run/keys/agent.sock as keys ssh-add -q /run/keys/key
}
given_broker() { :; }

"given_$recipe"
background=
for block in "$folder"/[0-9]*; do
  name=$(basename "$block")
  case $name in
    *.server)
      bash -c "$(cat "$block")" >"$folder/log" 2>&1 &
      wait_for 'grep -q " ready: " "$folder/log"' "server: $(cat "$folder/log")"
      ;;
    *.typed)
      user=${name#*.} user=${user%.typed}
      command=$(cat "$block")
      out=${block%%.*}.out
      if [[ $command == *'&' ]]; then
        as "$user" bash -c "exec ${command%&}" >"$out" 2>&1 &
        background=$!
        continue
      fi
      typed "$user" "$command" "$out" || true
      # What was put into the background takes its time to be ready: typed again until
      # that has ended.
      for _ in $(seq 100); do
        [ -n "$background" ] && kill -0 "$background" 2>/dev/null || break
        sleep 0.1
        typed "$user" "$command" "$out" || true
      done
      background=
      ;;
  esac
done
