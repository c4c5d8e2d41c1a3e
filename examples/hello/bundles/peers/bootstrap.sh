#!/bin/bash
# Stage 1: lists the peers, by name and address, from the cluster facts.
set -eu

# With jq or python3 this is one line; without them the names are found by their shape.
if command -v jq > /dev/null; then
    jq -r 'to_entries[] | "\(.key)\t\(.value.ip_address)"' "$AOT_CLUSTER_FACTS" > peers.txt
elif command -v python3 > /dev/null; then
    python3 -c '
import json, sys
for name, facts in json.load(open(sys.argv[1])).items():
    print(name, facts["ip_address"], sep="\t")
' "$AOT_CLUSTER_FACTS" > peers.txt
else
    grep -o '"name": *"[^"]*"' "$AOT_CLUSTER_FACTS" | cut -d'"' -f4 > peers.txt
fi

echo "$AOT_INSTANCE sees $(wc -l < peers.txt) instances:"
cat peers.txt

# It has to be among them itself.
grep -qw "$AOT_INSTANCE" peers.txt
