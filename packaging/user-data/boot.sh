#!/bin/sh
# Installs aot-agent and starts it. Run once by cloud-init, as root. Needs systemd and one of curl, wget, python3.
# The AOT_* variables are for trying it elsewhere.
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
fail() {
  beacon failed "$1"
  exit 1
}
# retry WHAT COMMAND...: for ever, 1 to 30 s apart; the first failure and every tenth are reported.
retry() {
  what=$1 tries=0 delay=1; shift
  while ! "$@"; do
    [ $((tries % 10)) -ne 0 ] || beacon failed "$what: try $((tries + 1)): $(head -n 1 "$work/err" 2>/dev/null)"
    tries=$((tries + 1))
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
retry "machine id" identify
beacon started "$arch"
case $arch in
@SHAS@
*) fail "there is no agent for architecture $arch" ;;
esac
beacon agent-download "$sha"
retry "agent download" fetch
beacon agent-checksum "$sha"
umask 022
mkdir -p "$root/usr/local/bin" "$root/etc/aot" "$root/etc/systemd/system" || fail "cannot make folders"
{ cp "$work/agent" "$root/usr/local/bin/.aot-agent" && chmod 755 "$root/usr/local/bin/.aot-agent" &&
  mv "$root/usr/local/bin/.aot-agent" "$root/usr/local/bin/aot-agent"; } || fail "cannot install the agent"
umask 077
{ cat <<'AOT_END'
@TOML@
AOT_END
  printf 'machine_id = "%s"\n' "$machine"
} > "$root/etc/aot/.agent.toml" || fail "cannot write agent.toml"
mv "$root/etc/aot/.agent.toml" "$root/etc/aot/agent.toml" || fail "cannot write agent.toml"
umask 022
cat > "$root/etc/systemd/system/aot-agent.service" <<'AOT_END'
@UNIT@
AOT_END
# A machine that loses power now must come back with all of this, or with none of it.
sync
beacon config-written ""
"$systemctl" daemon-reload
"$systemctl" enable --now aot-agent.service > "$work/err" 2>&1 || fail "systemctl: $(head -n 1 "$work/err")"
beacon service-started ""
