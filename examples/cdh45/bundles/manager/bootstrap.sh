#!/bin/bash
# The manager: takes a folder for its data, and makes what the nodes will ask it for.
set -eu
data=/var/lib/manager
while [ $# -gt 0 ]; do
    case $1 in
        --data) data=$2; shift 2 ;;
        *) echo "unknown argument: $1" >&2; exit 2 ;;
    esac
done
mkdir -p "$data/conf"

# The nodes' names are in the cluster facts; a real manager writes its own configuration from them.
python3 -c '
import json, sys
facts = json.load(open(sys.argv[1]))
for name in sorted(facts):
    if facts[name].get("pool") in ("data", "compute"):
        print(name)
' "$AOT_CLUSTER_FACTS" > "$data/conf/workers"
echo "$(wc -l < "$data/conf/workers") workers"
