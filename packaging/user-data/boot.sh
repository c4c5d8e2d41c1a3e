#!/bin/sh
# Installs aot-agent and starts it. Run once by cloud-init, as root; at every boot where there is coreos-cloudinit. Needs
# systemd and one of curl, wget, python3. The AOT_* variables are for trying it elsewhere.
set -u
umask 077
root=${AOT_ROOT-}
systemctl=${AOT_SYSTEMCTL-systemctl}
imds=${AOT_IMDS-http://169.254.169.254}
arch=${AOT_ARCH-$(uname -m)}
masters=@MASTERS@
machine=unknown
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cat > "$work/ca" <<'AOT_END'
@CA@
AOT_END
# Secrets go from file to file: a command line can be read by everybody.
cat > "$work/auth" <<'AOT_END'
Authorization: Bearer @TOKEN@
X-Aot-Route: @ROUTE@
Content-Type: application/json
AOT_END
cat > "$work/aot_fetch.py" <<'AOT_END'
import ssl, sys, urllib.request
method, url, out, headers, body, ca = sys.argv[1:7]
lines = [l.rstrip("\n").split(": ", 1) for l in open(headers)]
data = open(body, "rb").read() if body else None
request = urllib.request.Request(url, data=data, headers=dict(lines), method=method)
handlers = [urllib.request.ProxyHandler({})]
if url.startswith("https:"):
    handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca)))
try:
    with urllib.request.build_opener(*handlers).open(request, timeout=60) as answer, open(out, "wb") as file:
        piece = answer.read(65536)
        while piece:
            file.write(piece)
            piece = answer.read(65536)
except Exception as error:
    sys.exit(str(error))
AOT_END
say() { echo "aot: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
# http METHOD URL OUT HEADERS BODY SECONDS
http() {
  if have curl; then
    sed 's/.*/header = "&"/' "$4" > "$work/curlrc"
    set -- "$@" -q -K "$work/curlrc" -fsS --noproxy '*' --cacert "$work/ca" --connect-timeout 5 --max-time "$6"
    [ -z "$5" ] || set -- "$@" --data-binary "@$5"
    method=$1 url=$2 out=$3; shift 6
    curl "$@" -X "$method" -o "$out" "$url"
  elif have wget && wget --version 2>/dev/null | grep -q GNU; then
    sed 's/^/header = /' "$4" > "$work/wgetrc"
    set -- "$@" --config="$work/wgetrc" -nv --no-proxy --ca-certificate="$work/ca" --tries=1 --timeout=30
    [ -z "$5" ] || set -- "$@" --body-file="$5"
    method=$1 url=$2 out=$3; shift 6
    wget "$@" --method="$method" -O "$out" "$url"
  elif have python3; then
    python3 -I "$work/aot_fetch.py" "$1" "$2" "$3" "$4" "$5" "$work/ca"
  else
    say "none of curl, wget, python3 is installed: the agent cannot be fetched"
    return 9
  fi
}
# beacon STEP DETAIL: tells the first master that listens. A lost beacon stops nothing.
beacon() {
  say "$1 $2"
  detail=$(printf %s "$2" | tr -d '\\"' | tr '\000-\037' ' ' | cut -c1-500)
  printf '{"machine_id":"%s","step":"%s","detail":"%s"}' "$machine" "$1" "$detail" > "$work/beacon"
  for m in $masters; do
    http POST "https://$m/v1/boot" /dev/null "$work/auth" "$work/beacon" 10 2>/dev/null && return 0
  done
  return 0
}
why() { head -n 1 "$work/err" 2>/dev/null; }
fail() {
  beacon failed "$1"
  exit 1
}
# retry TRIES WHAT COMMAND...: 1 to 30 s apart; the first failure and every tenth are reported. 0 tries: for ever.
retry() {
  most=$1 what=$2 tries=0 delay=1; shift 2
  while ! "$@"; do
    [ $((tries % 10)) -ne 0 ] || beacon failed "$what: try $((tries + 1)): $(why)"
    tries=$((tries + 1))
    [ "$tries" -ne "$most" ] || return 1
    sleep "$delay"
    delay=$((delay * 2)); [ "$delay" -le 30 ] || delay=30
  done
}
identify() {
  echo 'X-aws-ec2-metadata-token-ttl-seconds: 300' > "$work/ttl"
  http PUT "$imds/latest/api/token" "$work/imds" "$work/ttl" "" 5 2> "$work/err" || return 1
  echo "X-aws-ec2-metadata-token: $(cat "$work/imds")" > "$work/session"
  http GET "$imds/latest/meta-data/instance-id" "$work/id" "$work/session" "" 5 2> "$work/err" || return 1
  id=$(tr -cd 'a-zA-Z0-9-' < "$work/id")
  [ -n "$id" ] || { echo "the metadata service named no instance" > "$work/err"; return 1; }
  machine=$id
}
fetch() {
  for m in $masters; do
    http GET "https://$m/v1/agent/$sha" "$work/agent" "$work/auth" "" 900 2> "$work/err" || continue
    got=$(sha256sum < "$work/agent" | cut -d' ' -f1)
    [ "$got" != "$sha" ] || return 0
    rm -f "$work/agent"
    echo "the agent from $m has SHA-256 $got, not $sha" > "$work/err"
  done
  return 1
}
# place DIR: puts the agent there and tries whether it runs: a folder may be read-only (/usr on Flatcar), or noexec.
place() {
  { mkdir -p "$root$1" && cp "$work/agent" "$root$1/.aot-agent" && chmod 755 "$root$1/.aot-agent" &&
    "$root$1/.aot-agent" version > /dev/null && mv -f "$root$1/.aot-agent" "$root$1/aot-agent"; } 2> "$work/err" && return
  rm -f "$root$1/.aot-agent" 2> /dev/null
  return 1
}
toml="$root/etc/aot/agent.toml"
unit="$root/etc/systemd/system/aot-agent.service"
# About 15 minutes.
retry "${AOT_TRIES-34}" "machine id" identify ||
  fail "gave up: the metadata service does not say which machine this is ($(why)); is HttpEndpoint disabled?"
if grep -qxF "machine_id = \"$machine\"" "$toml" 2> /dev/null; then
  # Set up at an earlier boot: what was upgraded since stays.
  bin=$(sed -n 's/^ExecStart=\([^ ]*\) .*/\1/p' "$unit" 2> /dev/null)
  if [ -n "$bin" ] && "$root$bin" version > /dev/null 2>&1 && "$systemctl" is-enabled -q aot-agent.service &&
    "$systemctl" start aot-agent.service; then
    say "the agent is set up already"
    exit 0
  fi
elif [ -e "$toml" ]; then
  # Of the machine that the image was made of: its agent must not speak for that one.
  "$systemctl" stop aot-agent.service 2> /dev/null
fi
beacon started "$arch"
case $arch in
@SHAS@
*) fail "no agent for architecture $arch" ;;
esac
beacon agent-download "$sha"
retry 0 "agent download" fetch
beacon agent-checksum "$sha"
umask 022
for dir in /usr/local/bin /opt/bin /opt/aot/bin none; do
  [ "$dir" != none ] || fail "cannot install the agent: $first"
  place "$dir" && break
  say "not in $dir: $(why)"
  first=${first-$(why)}
done
mkdir -p "$root/etc/aot" "$root/etc/systemd/system" 2> "$work/err" || fail "cannot make folders: $(why)"
umask 077
{ cat <<'AOT_END'
@TOML@
AOT_END
  printf 'machine_id = "%s"\n' "$machine"
} 2> "$work/err" > "$root/etc/aot/.agent.toml" && mv -f "$root/etc/aot/.agent.toml" "$toml" 2> "$work/err" ||
  fail "cannot write agent.toml: $(why)"
umask 022
sed "s|^ExecStart=[^ ]*|ExecStart=$dir/aot-agent|" 2> "$work/err" > "$unit" <<'AOT_END' || fail "cannot write the unit: $(why)"
@UNIT@
AOT_END
# A machine that loses power now must come back with all of this, or with none of it.
sync
beacon config-written ""
# Restarted, not started: one from the image may run, with the settings of another machine.
{ "$systemctl" daemon-reload && "$systemctl" enable aot-agent.service && "$systemctl" restart aot-agent.service; } \
  > "$work/err" 2>&1 || fail "systemctl: $(why)"
beacon service-started ""
